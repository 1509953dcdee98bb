"""Nodes of a planned graph as calls of operators: what is asked in them has a name and a position.

LangGraph tells callback handlers when a node begins, in the context in which the node runs. So the
handler here enters a frame then, as the body of an operator has one. Its name is that of the node,
after those of the nodes whose graphs it is in; its arguments are the step, which `Send` it came
from, and, outside of a batch, the thread. What is random in a run (ids of tasks and runs) is no
part of it: a resumed run finds the draws of each node again.

That a node ends is told in another context, so nobody leaves its frame. What comes next there
begins in the frame around it, and the context ends with the run of the graph.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from helium_agents.graph.node import Body, OperatorNode
from helium_agents.graph.outcome import Value
from helium_agents.graph.trace import Frame, entered_frame, set_frame
from helium_agents.runtime.calls import Calls


class GraphNode(OperatorNode):
    """A node of a graph while it runs, as a call of an operator that has that name.

    Args:
        frame: The frame in which the graph runs.
        namespace: LangGraph's name of the run, e.g. ``outer:<uuid>|inner:<uuid>``.
        position: Where in the graph's run it is.
    """

    __slots__ = ("namespace",)

    def __init__(self, frame: Frame, namespace: str, position: dict[str, Any]) -> None:
        name = ".".join(each.partition(":")[0] for each in namespace.split("|"))
        super().__init__(frame, _body(name), (), position)
        self.namespace = namespace
        self.is_running, self.awaiter = True, frame


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
        namespace = metadata["langgraph_checkpoint_ns"]
        around = next((each for each in frame.callers() if isinstance(each, GraphNode)), None)
        calls = frame.runner
        if not isinstance(calls, Calls) or not calls.is_open:
            return
        if around is not None and around.namespace == namespace:
            return  # something in the node that has its name
        with self._lock:
            node = GraphNode(frame, namespace, _position(metadata, frame))
        self._open[run_id] = node
        _on_loop(calls, calls.on_created, node)
        set_frame(node.body_frame(0, frame.item, None))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        """Something has ended."""
        node = self._open.pop(run_id, None)
        if node is not None:
            node.settle(Value(None))
            calls = node.frame.runner
            assert isinstance(calls, Calls)
            _on_loop(calls, calls.on_ended, node)

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


def _position(metadata: dict[str, Any], frame: Frame) -> dict[str, Any]:
    position = {"step": metadata["langgraph_step"]}
    kind, number, *_ = metadata["langgraph_path"]
    if kind == "__pregel_push":
        position["send"] = number if isinstance(number, int) else metadata["langgraph_path"][2]
    if frame.item is None and "thread_id" in metadata:
        position["thread"] = metadata["thread_id"]
    return position


def _on_loop(calls: Calls, do: Callable[[OperatorNode], None], node: OperatorNode) -> None:
    """Do it on the session's event loop, before what the node asks there later."""
    if asyncio._get_running_loop() is calls.loop:
        do(node)
    elif not calls.loop.is_closed():
        calls.loop.call_soon_threadsafe(do, node)


@cache
def _body(name: str) -> Body:
    """The operator that stands for a node; LangGraph runs the node itself."""
    body = Body(
        _run_by_langgraph, name, is_pure=False, explicit_version=None, retries=0, retry_on=(),
        timeout_s=None,
    )  # fmt: skip
    body.identity = f"langgraph:{name}"
    return body


async def _run_by_langgraph() -> None:
    raise AssertionError("LangGraph runs its nodes")


_handler: ContextVar[NodeFrames | None] = ContextVar("helium_agents.nodes", default=None)
register_configure_hook(_handler, inheritable=True)
