"""Cycles of calls that await one another, found when the last of them would begin to wait.

Who awaits whom is followed upwards: from the call that is about to wait, to those who wait for it,
and so on. If what it is about to wait for is among them, nobody would ever come first. A task that
a call's body starts counts as the call itself: whether it will be awaited cannot be known.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from helium_agents.errors import RefMisuse
from helium_agents.graph.naming import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.trace import Frame

T = TypeVar("T", bound=Hashable)

_SURELY_CHECKED_DEPTH = 16


def find_cycle(waiting: T, awaited: T, waiters_of: Callable[[T], Iterable[T]]) -> list[T] | None:
    """The chain from `awaited` down to `waiting`, if the former waits for the latter already.

    Args:
        waiting: Who is about to wait.
        awaited: For what.
        waiters_of: Who waits for something.
    """
    below: dict[T, T | None] = {waiting: None}
    stack = [waiting]
    while stack:
        current = stack.pop()
        if current == awaited:
            chain = []
            link: T | None = current
            while link is not None:
                chain.append(link)
                link = below[link]
            return chain
        for waiter in waiters_of(current):
            if waiter not in below:
                below[waiter] = current
                stack.append(waiter)
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


def inline_waiters(node: Node) -> list[Frame]:
    """The frames in which somebody waits for a plain operator that runs."""
    frames = [] if node.awaiter is None else [node.awaiter]
    if isinstance(node, OperatorNode) and node.waiters:
        frames += [frame for _, frame in node.waiters]
    return frames


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
        if caller.key == node.key:
            raise cycle_error([caller, *reversed(between)])
        between.append(caller)
