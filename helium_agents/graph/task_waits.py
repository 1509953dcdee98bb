"""Which task waits for which, as far as the objects of asyncio tell it.

asyncio keeps no list of who waits for a task. But whoever does has left a callback on it: the
waiting task's own wake-up, or one of `asyncio.gather`, `wait`, `wait_for`, `shield`, `as_completed`
and the task groups of asyncio and anyio, which wakes a future that a task waits for in turn. Any
other callback proves nothing. Nor does a wait that something else may end as well: the first that
is completed, a member of a group that fails or cancels it, the time-out of `asyncio.wait`. It does
so if all of those who could are known to be stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

Future = asyncio.Future[Any]
Task = asyncio.Task[Any]
Stuck = Collection[Task] | None
"""Tasks that cannot go on before the one that is asked about does; `None` stands for all."""

AWAITED_BY: WeakKeyDictionary[Task, Callable[[Stuck], Task | None]] = WeakKeyDictionary()
"""Tasks that helium_agents started on behalf of others: who can go on only after each, if anybody.

What is asked must not keep the task alive.
"""


def must_wait(waiting: Task, awaited: Task, stuck: Stuck) -> bool:
    """Whether a task can go on only after another; a task goes on after itself."""
    return any(task is waiting for task in _only_after([awaited], stuck))


def all_that_wait(awaited: Iterable[Task], stuck: Stuck) -> set[Task]:
    """Some tasks, and all that can go on only after one of them."""
    return set(_only_after(awaited, stuck))


def _only_after(awaited: Iterable[Task], stuck: Stuck) -> Iterator[Task]:
    seen: set[int] = set()
    stack: list[Future] = [*awaited]
    while stack:
        future = stack.pop()
        if id(future) in seen:
            continue
        seen.add(id(future))
        if isinstance(future, asyncio.Task):
            yield future
        if not future.done():
            stack.extend(_woken_by(future, stuck))


def _woken_by(future: Future, stuck: Stuck) -> Iterator[Future]:
    """The tasks that wait for a future, and the futures that are done only once it is."""
    find = AWAITED_BY.get(future) if isinstance(future, asyncio.Task) else None
    task = None if find is None else find(stuck)
    if task is not None:
        yield task
    for callback, _ in getattr(future, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        if not isinstance(owner, asyncio.Task):
            yield from filter(asyncio.isfuture, _futures_of(callback, future, stuck))
        elif getattr(owner, "_fut_waiter", None) is future:
            yield owner


def _futures_of(callback: Any, future: Future, stuck: Stuck) -> list[Any]:
    """What a callback of a future makes done, where nothing else could."""
    if isinstance(callback, partial):  # of `wait_for`
        return list(callback.args) if _is_known(callback.func) else []
    if not _is_known(callback):
        return []
    group = getattr(callback, "__self__", None)
    cells = _cells(callback)
    if group is None and "self" in cells:  # anyio's; asyncio's has a method
        group = cells["self"]
    if group is not None:
        others = getattr(group, "_tasks", ())
        return [getattr(group, "_on_completed_fut", None)] if _all(others, future, stuck) else []
    if "waiter" in cells:
        return [cells["waiter"]] if _is_all_of_wait(callback, cells, future, stuck) else []
    if "todo" in cells:  # `as_completed`
        getters = getattr(cells.get("done"), "_getters", ())
        return list(getters) if _all(cells["todo"], future, stuck) else []
    if "children" in cells and not cells.get("return_exceptions"):  # `gather`
        return [cells.get("outer")] if _all(cells["children"], future, stuck) else []
    return [cells.get("outer")]  # `shield`, and `gather` that takes failures for results


def _all(members: Iterable[Any], but: Future, stuck: Stuck) -> bool:
    """Whether all members of a group but one are done, or stuck."""
    return stuck is None or all(each is but or each.done() or each in stuck for each in members)


def _is_all_of_wait(callback: Any, cells: dict[str, Any], future: Future, stuck: Stuck) -> bool:
    """Whether `asyncio.wait` waits for one more, or for none but the stuck."""
    if cells.get("timeout_handle") is not None:
        return False
    if stuck is None or cells.get("return_when") == asyncio.ALL_COMPLETED:
        return True
    known = [task for task in stuck if task is not future and not task.done()]
    num_stuck = sum(any(each is callback for each, _ in task._callbacks or ()) for task in known)
    return bool(cells.get("counter") == num_stuck + 1)


def _is_known(callback: Any) -> bool:
    module = getattr(callback, "__module__", None) or ""
    return module.startswith(("asyncio.", "anyio."))


def _cells(callback: Any) -> dict[str, Any]:
    """The variables that a closure takes from around it."""
    function = getattr(callback, "__func__", callback)
    found: dict[str, Any] = {}
    code = getattr(function, "__code__", None)
    names = () if code is None else code.co_freevars
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found
