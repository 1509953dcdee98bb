"""What an engine's scheduler has counted, in a small file that it shares with the harness.

A mapped file costs the engine a few stores a step and no message, can be read at
any moment without asking, and is the same for an engine in this process and for an HTTP server.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from struct import Struct

VARIABLE = "BENCHMARKS_ENGINE_COUNTS"
"""Names the file in the environment of the engine's processes."""


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """Counts since an engine's start, or between two moments.

    Args:
        steps: Steps in which at least one token was scheduled.
        requests: Requests of those steps, each as often as it was in one.
        prefill_tokens: Tokens scheduled to prefill, those included that a preemption made the
            engine compute again: then the prompt and the answer so far.
        decode_tokens: All other scheduled tokens.
        preemptions: How often a request lost its place and its KV blocks.
    """

    steps: int = 0
    requests: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    preemptions: int = 0

    def __add__(self, other: EngineCounts) -> EngineCounts:
        return EngineCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: EngineCounts) -> EngineCounts:
        return EngineCounts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def mean_batch(self) -> float:
        """Requests per step; 0 without steps."""
        return self.requests / self.steps if self.steps else 0.0


_LAYOUT = Struct(f"{len(fields(EngineCounts))}Q")


class CountsFile:
    """Where the engine's scheduler leaves its counts.

    Args:
        path: Of a file that is not there before the scheduler makes it, in a directory that is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> EngineCounts | None:
        """What was counted since the engine's start; `None` where no scheduler counts.

        An answer reaches its client after the step that it came from was counted, so what is
        read when all answers are there lacks nothing of them.
        """
        try:
            return EngineCounts(*_LAYOUT.unpack(self._path.read_bytes()))
        except FileNotFoundError:
            return None

    @contextmanager
    def named_in_environment(self) -> Iterator[None]:
        """A block in which processes are started that are to find the file."""
        os.environ[VARIABLE] = str(self._path)
        try:
            yield
        finally:
            del os.environ[VARIABLE]


class CountsWriter:
    """The scheduler's side of a `CountsFile`.

    Args:
        path: Of the file, which this makes.

    Raises:
        FileExistsError: Another scheduler counts there; both at once would count wrongly.
    """

    def __init__(self, path: str | Path) -> None:
        with open(path, "x+b") as file:
            file.write(bytes(_LAYOUT.size))
            file.flush()
            self._shared = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._counts = EngineCounts()

    def add(self, counts: EngineCounts) -> None:
        """Count more."""
        self._counts += counts
        _LAYOUT.pack_into(self._shared, 0, *astuple(self._counts))
