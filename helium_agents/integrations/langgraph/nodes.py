"""Nodes of graphs as calls of operators: what is asked in them has a name and a position.

The name is that of the node, after those of the nodes whose graphs it is in; the arguments are the
step, which `Send` it came from, and, outside of a batch, the thread. What is random in a run (ids
of tasks and runs) is no part of it: a resumed run finds the draws of each node again.

LangGraph tells callback handlers when a node begins, in the context in which the node runs. So in
a planned graph a handler enters a frame then, as the body of an operator has one. That the node
ends is told in another context, so nobody leaves its frame. What comes next there begins in the
frame around it, and the context ends with the run of the graph.

Of a graph that is not planned only what asks a model is seen here: there each question of a node
has a call of its own (`asked_in_node`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from helium_agents.graph.body import Body
from helium_agents.graph.node import OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.graph.task_waits import Task
from helium_agents.graph.trace import Frame, entered_frame, root_frame, set_frame
from helium_agents.graph.waits import body_task
from helium_agents.runtime.calls import Calls


class GraphNode(OperatorNode):
    """A node of a graph while it runs, as a call of an operator that has that name.

    Args:
        frame: The frame in which the graph runs.
        calls: Those of its session.
        metadata: LangChain's of what runs in the node.
    """

    __slots__ = ("calls", "namespace")

    def __init__(self, frame: Frame, calls: Calls, metadata: Mapping[str, Any]) -> None:
        namespace = metadata["langgraph_checkpoint_ns"]  # such as outer:<uuid>|inner:<uuid>
        name = ".".join(each.partition(":")[0] for each in namespace.split("|"))
        super().__init__(frame, _body(name), (), _position(metadata, frame))
        self.calls = calls
        self.namespace = namespace
        self.is_running, self.awaiter = True, frame
        is_here = asyncio._get_running_loop() is calls.loop
        self.task = asyncio.current_task() if is_here else task_around(frame)

    @staticmethod
    def begun(frame: Frame, metadata: Mapping[str, Any]) -> GraphNode | None:
        """The node that metadata names, from now on; `None` outside of any, and if it is around.

        Args:
            frame: Where.
            metadata: LangChain's.
        """
        calls = frame.runner
        if "langgraph_checkpoint_ns" not in metadata or not isinstance(calls, Calls):
            return None
        around = next((each for each in frame.callers() if isinstance(each, GraphNode)), None)
        if around is not None and around.namespace == metadata["langgraph_checkpoint_ns"]:
            return None
        if not calls.tasks.is_open:
            return None
        node = GraphNode(frame, calls, metadata)
        node._on_loop(calls.on_created)
        return node

    @property
    def inside(self) -> Frame:
        """A frame for what is done in it."""
        return self.body_frame(0, self.frame.item, None)

    def end(self) -> None:
        """It has ended, in whatever way."""
        self.settle(Value(None))
        self._on_loop(self.calls.on_ended)

    def _on_loop(self, do: Callable[[OperatorNode], None]) -> None:
        """Do it on the session's event loop, before what the node asks there later."""
        loop = self.calls.loop
        if asyncio._get_running_loop() is loop:
            do(self)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(do, self)


class NodeFrames(BaseCallbackHandler):
    """Enters a frame when a node begins."""

    run_inline = True  # in the node's context
    raise_error = True
    ignore_llm = ignore_chat_model = ignore_agent = ignore_retriever = True
    ignore_retry = ignore_custom_event = True

    def __init__(self) -> None:
        self._lock = threading.Lock()  # sync graphs run their nodes in threads
        self._open: dict[UUID, GraphNode] = {}

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        """Something begins in a run of LangChain: a node, it may be."""
        frame = entered_frame()
        if frame is None or metadata is None or name != metadata.get("langgraph_node", ...):
            return
        while isinstance(frame.node, GraphNode) and not frame.node.is_running:
            frame = frame.node.frame
        with self._lock:
            node = GraphNode.begun(frame, metadata)
        if node is not None:  # otherwise it is something in the node that has its name
            self._open[run_id] = node
            set_frame(node.inside)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """Something has ended."""
        node = self._open.pop(run_id, None)
        if node is not None:
            node.end()

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Something has failed, or was interrupted."""
        self.on_chain_end(None, run_id=run_id)


def name_nodes() -> None:
    """Let the nodes of graphs that run in this context be calls of operators."""
    _handler.set(NodeFrames())


@contextmanager
def named_nodes() -> Iterator[None]:
    """The same for a block, after which the frame is what it was."""
    frame, token = entered_frame(), _handler.set(NodeFrames())
    try:
        yield
    finally:
        _handler.reset(token)
        set_frame(frame)


@contextmanager
def asked_in_node(metadata: Mapping[str, Any]) -> Iterator[Frame]:
    """The frame for a question of a node, which lasts as long as the block; the caller's outside.

    Args:
        metadata: LangChain's, of the call of the model.
    """
    frame = entered_frame() or root_frame()
    node = GraphNode.begun(frame, metadata)
    if node is None:
        yield frame
        return
    try:
        yield node.inside
    finally:
        node.end()


def task_around(frame: Frame) -> Task | None:
    """The task that runs the body around a frame: what a thread of it waits for, it waits for."""
    tasks = (body_task(caller) for caller in frame.callers())
    return next((task for task in tasks if task is not None), None)


def _position(metadata: Mapping[str, Any], frame: Frame) -> dict[str, Any]:
    position = {"step": metadata["langgraph_step"]}
    kind, number, *_ = metadata["langgraph_path"]
    if kind == "__pregel_push":
        position["send"] = number if isinstance(number, int) else metadata["langgraph_path"][2]
    if frame.item is None and "thread_id" in metadata:
        position["thread"] = metadata["thread_id"]
    return position


@cache
def _body(name: str) -> Body:
    """The operator that stands for a node; LangGraph runs the node itself."""
    body = Body(_run_by_langgraph, name, is_pure=False)
    body.identity = f"langgraph:{name}"
    return body


async def _run_by_langgraph() -> None:
    raise AssertionError("LangGraph runs its nodes")


_handler: ContextVar[NodeFrames | None] = ContextVar("helium_agents.nodes", default=None)
register_configure_hook(_handler, inheritable=True)
