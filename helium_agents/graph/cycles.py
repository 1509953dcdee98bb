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
from collections import deque
from collections.abc import Callable
from time import perf_counter
from weakref import WeakKeyDictionary, ref

from helium_agents.errors import RefMisuse
from helium_agents.graph.llm_node import describe
from helium_agents.graph.node import Node
from helium_agents.graph.task_waits import Stuck, Task, all_that_wait
from helium_agents.graph.trace import Frame
from helium_agents.graph.waits import EndableWait, Wait, asked_of, waits_for

_SURELY_CHECKED_DEPTH = 16
_MOST_AT_ONCE = 200
"""So many waits are looked at before another begins; where there are more, all a little later."""

_FIRST_LOOK_S, _RAREST_LOOK_S = 0.02, 1.0
_LONGEST_LOOK_S, _SHARE_OF_TIME = 0.01, 0.05
"""Looking again takes about so long at a time, and at most this share of the time."""


def check_cycle(wait: EndableWait, awaited: Node) -> None:
    """Refuse a wait that closes a cycle; one that may do so is ended once it is certain.

    Raises:
        RefMisuse: What is awaited waits for the one who would wait for it.
    """
    if wait.node is None:
        return
    above = _Above(wait.node, lambda _: True, awaited, most=_MOST_AT_ONCE)
    if above.has_all and not above.chain:
        return
    if above.has_all:
        chain = _certain_cycle(wait, awaited)
        if chain:
            raise cycle_error(chain)
    _watch().add(wait)


class _Above:
    """The calls that wait for a call, those that wait for these, and so on.

    Args:
        node: The lowest.
        counts: Whether a wait is to be followed.
        until: Where to stop.
        most: After how many waits to stop.

    Attributes:
        chain: The calls from `until` down to the lowest; empty if it is not among them.
        has_all: Whether none is missing.
    """

    def __init__(
        self,
        node: Node,
        counts: Callable[[Wait], bool],
        until: Node | None = None,
        most: int | None = None,
    ) -> None:
        self.chain: list[Node] = []
        self.has_all = True
        lowest = asked_of(node)
        self._below: dict[Node, Node | None] = {lowest: None}
        stack, num_waits = [lowest], 0
        while stack:
            current = stack.pop()
            if current is until:
                self.chain = self._down_from(current)
                return
            for wait in waits_for(current):
                num_waits += 1
                if num_waits == most:
                    self.has_all = False
                    return
                above = None if wait.node is None else asked_of(wait.node)
                if above is not None and above not in self._below and counts(wait):
                    self._below[above] = current
                    stack.append(above)

    def _down_from(self, node: Node) -> list[Node]:
        chain: list[Node] = []
        link: Node | None = node
        while link is not None:
            chain.append(link)
            link = self._below[link]
        return chain

    @property
    def waiting_tasks(self) -> set[Task]:
        """The tasks that wait for one of the calls."""
        waits = [wait for node in self._below for wait in waits_for(node)]
        return {wait.task for wait in waits if wait.task is not None}


def _certain_cycle(wait: Wait, awaited: Node) -> list[Node]:
    """The calls from `awaited` down to the one who waits, if each cannot go on without the next.

    Of the members of a group one may end the wait for another, unless it is stuck itself. So at
    first all are taken to be stuck, then only those that wait for one of the calls found so, until
    nothing changes.
    """
    node = wait.node
    stuck: set[Task] | None = None
    while node is not None and wait.is_certain(stuck):

        def counts(each: Wait, stuck: Stuck = stuck) -> bool:
            return each.is_certain(stuck)

        chain = _Above(node, counts, awaited).chain
        if not chain:
            break
        waiting = _Above(node, counts).waiting_tasks | ({wait.task} if wait.task else set())
        still = all_that_wait(waiting, stuck)
        if still == stuck:
            return chain
        stuck = still
    return []


def _may_be_cycle(wait: Wait, awaited: Node) -> bool:
    return wait.node is not None and bool(_Above(wait.node, lambda _: True, awaited).chain)


class _Watch:
    """The waits of an event loop that may be part of a cycle, looked at again and again.

    It refers to no wait, and so to nothing of a loop that was left with waits in it.
    """

    def __init__(self) -> None:
        self._waits: deque[ref[EndableWait]] = deque()
        self._next_s = self._least_s = _FIRST_LOOK_S
        self._num_timers = 0  # the last one counts

    def add(self, wait: EndableWait) -> None:
        """Look at a wait that begins now."""
        is_idle = not self._waits
        self._waits.append(ref(wait))
        if is_idle or self._next_s > self._least_s:
            self._next_s = self._least_s
            self._set_timer()

    def _set_timer(self) -> None:
        self._num_timers += 1
        asyncio.get_running_loop().call_later(self._next_s, self._look, self._num_timers)

    def _look(self, timer: int) -> None:
        if timer != self._num_timers:
            return
        start_s = perf_counter()
        for _ in range(len(self._waits)):
            known = self._waits.popleft()
            wait = known()
            if wait is None or wait.is_over:
                continue
            if chain := _certain_cycle(wait, wait.awaited):
                wait.fail(cycle_error(chain))
            elif not wait.is_certain(None) or _may_be_cycle(wait, wait.awaited):
                self._waits.append(known)
            if perf_counter() - start_s > _LONGEST_LOOK_S:
                break
        self._least_s = max(_FIRST_LOOK_S, (perf_counter() - start_s) / _SHARE_OF_TIME)
        if self._waits:
            self._next_s = max(self._least_s, min(2 * self._next_s, _RAREST_LOOK_S))
            self._set_timer()


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


def _watch() -> _Watch:
    return _watches.setdefault(asyncio.get_running_loop(), _Watch())


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
            if _certain_cycle(wait, asked_of(caller)):
                raise cycle_error([caller, *reversed(between)])
        between.append(caller)
