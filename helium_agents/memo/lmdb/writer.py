"""Group commit: one thread takes what has been put and writes it in one transaction.

Callers add to the *pending* group and go on; the thread takes the whole group when it is due (it
is then the *writing* group) and settles it when its transaction has committed. An LMDB commit
costs a disk flush whatever its size, so a few milliseconds of company are worth waiting for, and
a few more for as long as company comes in numbers (`_COMPANY` records in each of them).

How a group is written is the business of one function that does so or raises. The first error is
final. What could not be written fails its futures, and every later put raises; a writer that went
on after a full disk would leave holes that nobody was told of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, TypeVar

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb.tables import DELETED, Records, Update

_T = TypeVar("_T")

_MAX_PENDING_BYTES: Final = 64 * 2**20
_PUT_WINDOW_S: Final = 0.05
_COMMIT_WINDOW_S: Final = 0.005
_COMPANY: Final = 16


@dataclass(slots=True)
class Group:
    """What one transaction writes.

    Args:
        records: The last records put for each key, or `DELETED`.
        jobs: Functions of the open transaction, run after the records; each with its future.
        waiters: Futures of `commit()`.
        num_bytes: Bytes in `records`.
        due_s: When to write it, on the monotonic clock.
        latest_s: When to write it although company is still coming.
    """

    records: dict[bytes, Records] = field(default_factory=dict)
    jobs: list[tuple[Callable[[Update], Any], Future[Any]]] = field(default_factory=list)
    waiters: list[Future[None]] = field(default_factory=list)
    num_bytes: int = 0
    due_s: float = inf
    latest_s: float = inf

    def __bool__(self) -> bool:
        return bool(self.records or self.jobs)


class Writer:
    """The writer thread and the queue in front of it.

    The queue is bounded: once 64 MiB are pending, `put` blocks until the thread has taken them, so
    a store holds at most twice that (pending and being written) and one value more. The wait is
    one flush of the disk, and no caller could do anything wiser with a refusal.

    Args:
        name: The thread's name.
        write: Writes a group in one transaction and returns the results of its jobs, in order.
            Also called with an empty group, after `flush`.
        explain: Makes the error that callers see.
        release: Called by the thread when it ends, as the last it does.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Group], list[Any]],
        explain: Callable[[BaseException], MemoError],
        release: Callable[[], None],
    ) -> None:
        self._write = write
        self._explain = explain
        self._release = release
        # Reentrant, since the garbage collector may call `close` on the thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._pending = Group()
        self._writing = Group()
        self._is_closing = False
        self._failure: MemoError | None = None
        self._is_failure_told = False
        # A daemon, so that a program that forgot to close the store still ends.
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def lookup(self, key: bytes) -> Records | None:
        """The records put for a key and not yet committed, `DELETED`, or `None`.

        Takes no lock. Records move from pending to writing to disk, and are always in the next
        place before they leave the last, so looking in that order cannot miss them.
        """
        return self._pending.records.get(key) or self._writing.records.get(key)

    def put(self, key: bytes, records: Records) -> None:
        """Add records to the pending group; blocks while the group is full."""
        with self._changed:
            is_own = threading.current_thread() is self._thread  # in the callback of a future
            while self._is_full() and not (is_own or self._is_closing):
                self._changed.wait()
            self._check()
            group = self._pending
            earlier = group.records.get(key, DELETED)
            group.num_bytes += sum(map(len, records)) - sum(map(len, earlier))
            group.records[key] = records
            self._schedule(0 if self._is_full() else _PUT_WINDOW_S)

    def commit(self) -> Future[None]:
        """A future for everything put so far."""
        future: Future[None] = Future()
        with self._changed:
            if self._failure is not None:
                self._is_failure_told = True
                future.set_exception(self._failure)
            elif self._pending:
                self._pending.waiters.append(future)
                self._schedule(_COMMIT_WINDOW_S)
            elif self._writing:
                self._writing.waiters.append(future)
            else:
                future.set_result(None)
        return future

    def run(self, job: Callable[[Update], _T]) -> _T:
        """Run a function in the writer's transaction, after all that was put; wait for it."""
        return self.run_later(job).result()

    def run_later(self, job: Callable[[Update], _T]) -> Future[_T]:
        """As `run`, but without waiting."""
        future: Future[_T] = Future()
        with self._changed:
            self._check()
            self._pending.jobs.append((job, future))
            self._schedule(0)
        return future

    def flush(self) -> None:
        """Have `write` called soon, with whatever is pending, be it nothing."""
        with self._changed:
            if self._failure is None:
                self._schedule(0)

    def close(self, wait_s: float | None = None) -> None:
        """Write what is pending and end the thread.

        Args:
            wait_s: How long to wait for that; `None` for as long as it takes.

        Raises:
            MemoError: If something could not be written and nobody was told yet.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(wait_s)
        if self._failure is not None and not self._is_failure_told:
            self._is_failure_told = True
            raise self._failure

    def _is_full(self) -> bool:
        return self._pending.num_bytes >= _MAX_PENDING_BYTES

    def _check(self) -> None:
        if self._failure is not None:
            self._is_failure_told = True
            # A new object each time: one that is raised again grows its traceback.
            raise MemoError(*self._failure.args) from self._failure
        if self._is_closing:
            raise MemoError("the memo store is closed")

    def _schedule(self, within_s: float) -> None:
        """Make the pending group due; the lock is held."""
        now_s, group = time.monotonic(), self._pending
        if now_s + within_s < group.due_s:
            if group.due_s == inf:
                group.latest_s = now_s + _PUT_WINDOW_S
            group.due_s = now_s + within_s
            self._changed.notify_all()

    def _loop(self) -> None:
        try:
            while self._take():
                self._settle(self._write(self._writing))
        except BaseException as error:
            self._fail(error)
        self._release()

    def _take(self) -> bool:
        """Wait until the pending group is due and make it the writing one; false at the end."""
        with self._changed:
            num_before = 0
            while not self._is_closing:
                group, now_s = self._pending, time.monotonic()
                if group.due_s <= now_s:
                    is_coming = len(group.records) - num_before >= _COMPANY
                    if not is_coming or now_s >= group.latest_s or group.jobs or self._is_full():
                        break
                    num_before = len(group.records)
                    group.due_s = min(now_s + _COMMIT_WINDOW_S, group.latest_s)
                self._changed.wait(None if group.due_s == inf else group.due_s - now_s)
            if self._pending.due_s == inf:
                return False
            # In this order: `lookup` reads without the lock.
            self._writing = self._pending
            self._pending = Group()
            self._changed.notify_all()
            return True

    def _settle(self, results: list[Any]) -> None:
        with self._changed:
            group, self._writing = self._writing, Group()
        for waiter in group.waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)
        for (_, future), result in zip(group.jobs, results, strict=True):
            if future.set_running_or_notify_cancel():
                future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        """Tell those who wait; then stay until the end, since what was written can be read."""
        with self._changed:
            self._failure = failure = self._explain(error)
            futures: list[Future[Any]] = []
            for group in (self._writing, self._pending):
                futures += [*group.waiters, *(future for _, future in group.jobs)]
            self._writing, self._pending = Group(), Group()
            self._is_failure_told = bool(futures)
            self._changed.notify_all()
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(failure)
        with self._changed:
            while not self._is_closing:
                self._changed.wait()
