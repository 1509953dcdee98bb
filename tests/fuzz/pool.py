"""Processes that work on items one by one; one that hangs or dies costs its item only."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any


@dataclass
class Crash:
    """What is known of an item whose process died or did not answer: where it was."""

    text: str


class _Worker:
    def __init__(self, work: Callable[[Any], Any], directory: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.stack = Path(directory, f"stack-{time.monotonic_ns()}")
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, work, str(self.stack)), daemon=True
        )
        self.process.start()
        theirs.close()
        self.item: Any = None
        self.due_s = 0.0

    def give(self, item: Any, most_s: float) -> None:
        self.item, self.due_s = item, time.monotonic() + most_s
        self.connection.send((item, most_s))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def last_words(self) -> str:
        return self.stack.read_text() if self.stack.exists() else "it died without a word"


def work_off(
    work: Callable[[Any], Any], items: Iterable[Any], num_jobs: int, most_s: float
) -> Iterator[tuple[Any, Any]]:
    """Pairs of an item and its result, or `Crash`, as they come.

    Args:
        work: A function of a module.
        items: What it is called with.
        num_jobs: Processes at once.
        most_s: Seconds that one item may take.
    """
    os.environ["PYTHONHASHSEED"] = "0"  # inherited: sets of strings have one order then
    left = iter(items)
    with tempfile.TemporaryDirectory() as directory:
        workers: list[_Worker] = []
        try:
            for item in _first(left, num_jobs):
                workers.append(_Worker(work, directory))
                workers[-1].give(item, most_s)
            while workers:
                for worker in _ready(workers):
                    result = _result_of(worker)
                    item = worker.item
                    if isinstance(result, Crash):
                        worker.end()
                        workers.remove(worker)
                        worker = None
                    following = next(left, None)
                    if following is not None:
                        if worker is None:
                            worker = _Worker(work, directory)
                            workers.append(worker)
                        worker.give(following, most_s)
                    elif worker is not None:
                        worker.end()
                        workers.remove(worker)
                    yield item, result
        finally:
            for worker in workers:
                worker.end()


def _first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _, item in zip(range(count), items, strict=False):
        yield item


def _ready(workers: list[_Worker]) -> list[_Worker]:
    """Those that have answered, died, or are late."""
    while True:
        answered = wait([worker.connection for worker in workers], timeout=0.5)
        now_s = time.monotonic()
        ready = [w for w in workers if w.connection in answered or now_s > w.due_s + 2]
        if ready:
            return ready


def _result_of(worker: _Worker) -> Any:
    if worker.connection.poll():
        try:
            return worker.connection.recv()
        except (EOFError, ConnectionError):
            return Crash(f"the process died: {worker.last_words()}")
    return Crash(f"no answer in time: {worker.last_words()}")


def _serve(connection: Connection, work: Callable[[Any], Any], stack: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us ends us
    with Path(stack).open("w") as file:
        faulthandler.enable(file)
        while True:
            try:
                item, most_s = connection.recv()
            except EOFError:
                return
            faulthandler.dump_traceback_later(most_s, file=file)
            result = work(item)
            faulthandler.cancel_dump_traceback_later()
            connection.send(result)
