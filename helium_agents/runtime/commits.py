"""Commits of a session's stores: one is under way at a time, and the next serves all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from helium_agents.memo.store import Store


class Commits:
    """Makes durable what was put.

    Attributes:
        dirty: The stores into which something was put since they were committed.
    """

    def __init__(self) -> None:
        self.dirty: list[Store] = []
        self._waiting: list[Callable[[BaseException | None], None]] = []
        self._is_committing = False

    async def wait(self) -> None:
        """Wait until everything put so far is durable.

        Raises:
            MemoError: It cannot be made durable.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_result(None) if error is None else done.set_exception(error)

        self.when_done(settle)
        await done

    def when_done(self, callback: Callable[[BaseException | None], None]) -> None:
        """Call back, with the error if there is one, once everything put so far is durable.

        One commit is under way at a time, and the next serves all who have asked meanwhile.
        """
        if not self.dirty and not self._is_committing:
            callback(None)
            return
        self._waiting.append(callback)
        if not self._is_committing:
            self._commit()

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        stores, self.dirty = self.dirty, []
        commits = [_commit(store) for store in stores]
        if all(map(_has_committed, commits)):  # in memory: nothing to wait for
            for callback in waiting:
                callback(None)
            return
        self._is_committing = True

        def done(all_commits: asyncio.Future[Any]) -> None:
            self._is_committing = False
            error = all_commits.exception()
            for callback in waiting:
                callback(error)
            if self._waiting:
                self._commit()

        asyncio.gather(*map(asyncio.wrap_future, commits)).add_done_callback(done)


def _commit(store: Store) -> Future[None]:
    try:
        return store.commit()
    except BaseException as error:  # whoever waits for the commit raises it
        failed: Future[None] = Future()
        failed.set_exception(error)
        return failed


def _has_committed(commit: Future[None]) -> bool:
    return commit.done() and not commit.cancelled() and commit.exception() is None
