"""Cycles of calls that await one another, found when the last of them would begin to wait.

Who awaits whom is followed upwards: from the call that is about to wait, to those who wait for it,
and so on. If what it is about to wait for is among them, nobody would ever come first.

A call waits for what its body awaits, and the body runs in one task. What another task awaits that
was started in the body (by `gather`, a worker, something that goes on by itself) the call waits for
only if its own task waits for that task. Where asyncio tells that it does, the cycle is refused at
once; where it does not, the wait goes on, and is looked at again as long as it lasts.
"""

from __future__ import annotations

import asyncio
from functools import partial
from weakref import ref

from helium_agents.errors import RefMisuse
from helium_agents.graph.naming import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.task_waits import STUCK, Task, must_wait
from helium_agents.graph.trace import Frame

_SURELY_CHECKED_DEPTH = 16
_FIRST_LOOK_S, _RAREST_LOOK_S = 0.02, 1.0


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

    @property
    def is_certain(self) -> bool:
        """Whether that call cannot go on before the awaited one has ended."""
        node = self.node
        task = None if node is None else body_task(node)
        return task is not None and self.task is not None and must_wait(task, self.task)


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


def waits_for(node: Node) -> list[Wait]:
    """Those who wait for a call, whoever computes it."""
    waits: list[Wait] = [*inline_waits(node)]
    if node.flight is not None:
        waits += node.flight.waiters
    return waits


def inline_waits(node: Node) -> list[Wait]:
    """Those who wait for a plain operator that runs."""
    if not isinstance(node, OperatorNode):
        return []
    first = [] if node.awaiter is None else [Wait(node.awaiter, node.task)]
    return [*first, *(node.waiters or ())]


def check_cycle(wait: EndableWait, awaited: Node) -> None:
    """Refuse a wait that closes a cycle; one that may do so is ended once it is certain.

    Args:
        wait: Which is about to begin.
        awaited: What it is for.

    Raises:
        RefMisuse: What is awaited waits for the one who would wait for it.
    """
    if _find_cycle(wait, awaited, only_certain=False) is None:
        return
    certain = _find_cycle(wait, awaited, only_certain=True)
    if certain is not None:
        raise cycle_error(certain)
    if wait.task is not None:
        STUCK[wait.task] = partial(_goes_on, ref(wait))
    asyncio.get_running_loop().call_later(_FIRST_LOOK_S, _look_again, wait, _FIRST_LOOK_S)


def _goes_on(wait: ref[EndableWait]) -> bool:
    found = wait()
    return found is not None and not found.is_over


def _look_again(wait: EndableWait, seconds: float) -> None:
    if wait.is_over:
        return
    certain = _find_cycle(wait, wait.awaited, only_certain=True)
    if certain is not None:
        wait.fail(cycle_error(certain))
    elif _find_cycle(wait, wait.awaited, only_certain=False) is not None:
        seconds = min(2 * seconds, _RAREST_LOOK_S)
        asyncio.get_running_loop().call_later(seconds, _look_again, wait, seconds)
    elif wait.task is not None:
        STUCK.pop(wait.task, None)


def _find_cycle(wait: Wait, awaited: Node, *, only_certain: bool) -> list[Node] | None:
    """The chain from `awaited` down to the one who waits, if the former waits for the latter."""
    if wait.node is None or (only_certain and not wait.is_certain):
        return None
    waiting = asked_of(wait.node)
    below: dict[Node, Node | None] = {waiting: None}
    stack = [waiting]
    while stack:
        current = stack.pop()
        if current is awaited:
            chain = []
            link: Node | None = current
            while link is not None:
                chain.append(link)
                link = below[link]
            return chain
        for above in waits_for(current):
            node = None if above.node is None else asked_of(above.node)
            if node is None or node in below or (only_certain and not above.is_certain):
                continue
            below[node] = current
            stack.append(node)
    return None


def cycle_error(nodes: list[Node]) -> RefMisuse:
    """The error of a cycle, whoever closes it.

    Args:
        nodes: The members; each awaits the next one, and the last the first.
    """
    names = [describe(node) for node in nodes]
    if len(names) == 1:
        return RefMisuse(
            f"{names[0]} awaits its own result, or that of a call of itself with the same "
            "arguments, which would never come"
        )
    first = min(range(len(names)), key=lambda index: names[index:] + names[:index])
    chain = " awaits ".join([*names[first:], *names[:first], names[first]])
    return RefMisuse(f"{chain}: none of them can come first, so their results would never come")


def check_not_inside_itself(node: Node, frame: Frame | None) -> None:
    """Refuse a pure call that is awaited inside an equal one, where calls are not shared.

    With sharing it would join the flight it is part of, and that is found as any cycle is. Without,
    it would begin anew for ever. To look at all callers at each level would take quadratic time;
    looking at the depths that are powers of two finds every endless descent.

    Raises:
        RefMisuse: The call is inside an equal one.
    """
    if frame is None or node.key is None:
        return
    depth = frame.depth
    if depth > _SURELY_CHECKED_DEPTH and depth & (depth - 1):
        return
    between: list[Node] = []
    for caller in frame.callers():
        if caller.key == node.key and caller.outcome is None:
            wait = Wait(frame, asyncio.current_task())
            if _find_cycle(wait, asked_of(caller), only_certain=True) is not None:
                raise cycle_error([caller, *reversed(between)])
        between.append(caller)
