"""Which task waits for which, as far as the objects of asyncio tell it.

asyncio keeps no list of who waits for a task. But whoever does has left a callback on it: the
waiting task's own wake-up, or one of `asyncio.gather`, `wait`, `wait_for`, `shield`, `as_completed`
and the task groups of asyncio and anyio, which wakes a future that a task waits for in turn. Any
other callback proves nothing. Nor does a wait that another task may end as well: the first that is
completed, or the members of an anyio group, each of which may cancel the group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

Future = asyncio.Future[Any]
Task = asyncio.Task[Any]

AWAITED_BY: WeakKeyDictionary[Task, Callable[[], Task | None]] = WeakKeyDictionary()
"""Tasks that helium_agents started on behalf of others: who waits for each now, if anybody.

What is asked must not keep the task alive, and neither must what tells whether one is stuck.
"""

STUCK: WeakKeyDictionary[Task, Callable[[], bool]] = WeakKeyDictionary()
"""Tasks that wait for what is perhaps a cycle, and whether they still do."""


def must_wait(waiting: Task, awaited: Task) -> bool:
    """Whether a task is certain to go on only after another; a task goes on after itself."""
    seen: set[int] = set()
    stack: list[Future] = [awaited]
    while stack:
        future = stack.pop()
        if future is waiting:
            return True
        if id(future) not in seen and not future.done():
            seen.add(id(future))
            stack.extend(_woken_by(future))
    return False


def _woken_by(future: Future) -> Iterator[Future]:
    """The tasks that wait for a future, and the futures that are done once it is."""
    find = AWAITED_BY.get(future) if isinstance(future, asyncio.Task) else None
    task = None if find is None else find()
    if task is not None:
        yield task
    for callback, _ in getattr(future, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        if not isinstance(owner, asyncio.Task):
            yield from filter(asyncio.isfuture, _futures_of(callback, future))
        elif getattr(owner, "_fut_waiter", None) is future:
            yield owner


def _futures_of(callback: Any, future: Future) -> list[Any]:
    """What a callback of a future makes done, where nothing else could."""
    if isinstance(callback, partial):  # of `wait_for`
        return list(callback.args) if _is_known(callback.func) else []
    if not _is_known(callback):
        return []
    function = getattr(callback, "__func__", callback)
    group = getattr(callback, "__self__", None)
    if group is not None:  # a TaskGroup of asyncio
        return [getattr(group, "_on_completed_fut", None)]
    cells = _cells(function)
    if "waiter" in cells:  # `wait`
        is_any = cells.get("return_when") == asyncio.FIRST_COMPLETED
        return [] if is_any and cells.get("counter") != 1 else [cells["waiter"]]
    if "todo" in cells:  # `as_completed`
        getters = getattr(cells.get("done"), "_getters", ())
        return list(getters) if len(cells["todo"]) == 1 else []
    if "self" in cells:  # a TaskGroup of anyio
        others = [task for task in getattr(cells["self"], "_tasks", ()) if task is not future]
        is_stuck = all(task in STUCK and STUCK[task]() for task in others)
        return [getattr(cells["self"], "_on_completed_fut", None)] if is_stuck else []
    return [cells.get("outer")]  # `gather`, `shield`


def _is_known(callback: Any) -> bool:
    module = getattr(callback, "__module__", None) or ""
    return module.startswith(("asyncio.", "anyio."))


def _cells(function: Any) -> dict[str, Any]:
    """The variables that a closure takes from around it."""
    found: dict[str, Any] = {}
    code = getattr(function, "__code__", None)
    names = () if code is None else code.co_freevars
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found
