"""Who waits for a call: whoever awaits it in some task, or needs it for another call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from helium_agents.errors import RefMisuse
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.task_waits import Stuck, Task, must_wait
from helium_agents.graph.trace import Frame


class Wait:
    """One who waits for a call.

    Args:
        frame: Where the call is awaited.
        task: The task that awaits it.
    """

    __slots__ = ("frame", "task")

    def __init__(self, frame: Frame | None, task: Task | None) -> None:
        self.frame = frame
        self.task = task

    @property
    def node(self) -> Node | None:
        """The call in whose body it is awaited, if any."""
        return None if self.frame is None else self.frame.node

    def is_certain(self, stuck: Stuck) -> bool:
        """Whether that call cannot go on before the awaited one has ended.

        Args:
            stuck: Tasks of which it is known already that they cannot go on before that.
        """
        node = self.node
        task = None if node is None else body_task(node)
        return task is not None and self.task is not None and must_wait(task, self.task, stuck)


class EndableWait(Wait):
    """A wait that may turn out to be part of a cycle after it has begun."""

    __slots__ = ("__weakref__",)

    @property
    def awaited(self) -> Node:
        """The call that it waits for."""
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether it waits no longer."""
        raise NotImplementedError

    def fail(self, error: RefMisuse) -> None:
        """End it."""
        raise NotImplementedError


class InlineWait(EndableWait):
    """A wait for a plain operator that runs in the task of another awaiter.

    Args:
        node: The operator's call.
        frame: Where it is awaited.
    """

    __slots__ = ("_node", "woken")

    def __init__(self, node: OperatorNode, frame: Frame | None) -> None:
        super().__init__(frame, asyncio.current_task())
        self._node = node
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def awaited(self) -> Node:
        """The call that it waits for."""
        return self._node

    @property
    def is_over(self) -> bool:
        """Whether it waits no longer."""
        return self.woken.done()

    def wake(self) -> None:
        """The operator has ended."""
        if not self.woken.done():
            self.woken.set_result(None)

    def fail(self, error: RefMisuse) -> None:
        """End it."""
        self.woken.set_exception(error)


def body_task(node: Node) -> Task | None:
    """The task that runs a call's body."""
    if isinstance(node, OperatorNode) and not node.is_planned:
        return node.task
    task: Task | None = None if node.flight is None else node.flight.task
    return task


def asked_of(node: Node) -> Node:
    """The call that asks for this one and its equals."""
    if node.flight is None:
        return node
    asked: Node = node.flight.node
    return asked


def waits_for(node: Node) -> Iterator[Wait]:
    """Those who wait for a call, whoever computes it."""
    yield from inline_waits(node)
    if node.flight is not None:
        yield from node.flight.waiters


def inline_waits(node: Node) -> Iterator[Wait]:
    """Those who wait for a plain operator that runs."""
    if isinstance(node, OperatorNode):
        if node.awaiter is not None:
            yield Wait(node.awaiter, node.task)
        yield from node.waiters or ()
