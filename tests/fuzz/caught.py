"""The exceptions that a program caught, and whether each of them belongs to its catcher alone."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import Any

_handled: ContextVar[frozenset[int]] = ContextVar("_handled", default=frozenset())
_tokens = count()


class Handled(Exception):
    """What is being handled while something else is awaited."""


@contextmanager
def token_of_handler() -> Iterator[Handled]:
    """An exception to handle, known as one that this task handles."""
    token = next(_tokens)
    reset = _handled.set(_handled.get() | {token})
    try:
        yield Handled(token)
    finally:
        _handled.reset(reset)


def is_own_end(error: BaseException) -> bool:
    """Whether the exception ends the task that sees it, and nobody may keep it."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or bool(task.cancelling())
    return isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit)


@dataclass
class _Caught:
    error: BaseException
    note: str
    frame: FrameType | None
    handled: frozenset[int] | None
    where: str


class CaughtErrors:
    """All that one run caught."""

    def __init__(self) -> None:
        self._caught: list[_Caught] = []

    def keep(
        self, error: BaseException, where: str, frame: FrameType | None, *, is_direct: bool = False
    ) -> None:
        """Keep an exception, marked with a note of its catcher.

        Args:
            error: The exception.
            where: The place in the program, for people.
            frame: The frame that awaited, if it was raised there and not handed over as a result.
            is_direct: Whether it came out of a model call or a pure one, which run in tasks of the
                session: no handler of any awaiter is then part of its context. The body of a plain
                operator runs in its first awaiter's task, and has its handlers as context.
        """
        note = f"caught by {len(self._caught)}"
        handled = _handled.get() if is_direct else None
        error.add_note(note)
        self._caught.append(_Caught(error, note, frame, handled, where))

    @property
    def kinds(self) -> list[str]:
        """What was caught, and where."""
        return [f"{type(c.error).__name__} at {c.where}" for c in self._caught]

    def problems(self) -> Iterator[str]:
        """What several catchers share that each should have for himself."""
        catching = {id(caught.frame) for caught in self._caught if caught.frame is not None}
        seen: dict[int, _Caught] = {}
        for caught in self._caught:
            error = caught.error
            what = f"{type(error).__name__} caught at {caught.where}"
            if id(error) in seen:
                yield f"own exception: {what} is the object caught at {seen[id(error)].where}"
                continue
            seen[id(error)] = caught
            notes = [note for note in error.__notes__ if note.startswith("caught by ")]
            if notes != [caught.note]:
                yield f"own exception: {what} has the notes of others: {notes}"
            yield from _problems_of_traceback(caught, what, catching)
            if caught.handled is not None:
                foreign = {e.args[0] for e in _contexts(error)} - caught.handled
                if foreign:
                    yield f"own exception: {what} has another's handled exception as context"

    def clear(self) -> None:
        """Let go of the frames."""
        self._caught.clear()


def _problems_of_traceback(caught: _Caught, what: str, catching: set[int]) -> Iterator[str]:
    if caught.frame is None:
        return
    frames = [id(frame) for frame, _ in traceback.walk_tb(caught.error.__traceback__)]
    if id(caught.frame) not in frames:
        yield f"own traceback: {what} has lost the frame that awaited it"
    elif len(catching & set(frames)) > 1:
        yield f"own traceback: {what} has the frames of other awaiters"


def _contexts(error: BaseException | None) -> Iterator[Handled]:
    seen: list[Any] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__context__
        if isinstance(error, Handled):
            yield error
