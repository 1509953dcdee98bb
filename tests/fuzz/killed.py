"""Random programs over a file of rows, in processes that are killed and resumed.

A run that speculates and is killed now and then ends with the lines and the memo of one that nobody
disturbed, and that did not speculate. After each kill the lines that were there are as they were,
and the memo has nothing that the other has not: no answer that was computed early and asked by
nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import select
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helium_agents import LmdbStore
from helium_agents.batch import Batch
from helium_agents.optimizer.rules import RULES
from helium_agents.runtime.record import AnswerRecord, ValueRecord, read_record
from tests.fuzz.api import Library
from tests.fuzz.interpret import new_world, run_program
from tests.fuzz.model import Model, Odd, begin_draws_at
from tests.fuzz.program import Block, Case
from tests.fuzz.records import in_full, shown, up_to_draws
from tests.fuzz.run import LAVISH, MortalEngine, Result, in_loop, stacks

NUM_ROWS = 6
_MOST_S = 10.0
_DRAWS_OF_A_LIFE = 100_000

_ANSWER_S = 0.003
"""What an answer takes at least: in that time others are asked early."""

Memo = dict[bytes, Any]
"""What is kept, by key."""


@dataclass
class Life:
    """What one process did.

    Args:
        problems: What is wrong with it by itself; each begins with a kind and a colon.
        moments: How many there were, by kind.
        is_killed: Whether it was killed.
        num_early: Calls that were computed before they were asked for, or for nothing.
    """

    problems: list[str] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)
    is_killed: bool = False
    num_early: int = 0


def lived(case: Case, *, is_countable: bool) -> tuple[list[str], int]:
    """What is wrong with a case, and how many calls were computed early.

    Args:
        case: The case.
        is_countable: Whether what is asked is determined, so that all of the memo can be compared.
    """
    with tempfile.TemporaryDirectory() as directory:
        whole, killed = _Run(case, Path(directory, "whole")), _Run(case, Path(directory, "killed"))
        known = whole.live(None, is_guessing=False)
        if known.problems:
            return [f"off {problem}" for problem in known.problems], 0
        problems = list(_of_lives(case, known, whole, killed, is_countable=is_countable))
        return problems, killed.num_early


def _of_lives(
    case: Case, known: Life, whole: _Run, killed: _Run, *, is_countable: bool
) -> Iterator[str]:
    lines, memo = killed.lines(), killed.memo()
    for kill in (*case.config.kills, None):
        moment = None if kill is None else (kill[0], 1 + int(kill[1] * known.moments[kill[0]]))
        life = killed.live(moment, is_guessing=True)
        yield from life.problems
        if life.problems:
            return
        if killed.lines()[: len(lines)] != lines:
            yield "killed: lines that were there have changed"
        lines, before, memo = killed.lines(), memo, killed.memo()
        yield from _of_memo(before, memo, whole.memo(), life, is_countable=is_countable)
        if not life.is_killed:
            break
    if killed.rows() != whole.rows():
        yield f"killed: other lines:\n      expected {whole.rows()}\n      found    {killed.rows()}"
    if is_countable and killed.memo().keys() != whole.memo().keys():
        yield f"memo: {len(whole.memo().keys() - killed.memo().keys())} answers are missing"


def _of_memo(
    before: Memo, now: Memo, whole: Memo, life: Life, *, is_countable: bool
) -> Iterator[str]:
    if not all(_says_as_much(now.get(key), kept) for key, kept in before.items()):
        yield "memo: an answer that was there has changed, or is gone"
    for key in whole.keys() & now.keys():
        # Who was killed may have asked for the beginning of it, and not yet for the whole.
        is_same = whole[key] == now[key]
        if not (is_same or (life.is_killed and _says_as_much(whole[key], now[key]))):
            yield f"memo: another answer under the same key: {whole[key]}, {now[key]}"
    if is_countable and now.keys() - whole.keys():
        yield f"memo: answers that nobody asked for: {[now[k] for k in now.keys() - whole.keys()]}"


def _says_as_much(record: Any, earlier: Any) -> bool:
    """Whether a record is an earlier one under its key, or a longer answer that begins with it."""
    if record == earlier or not isinstance(record, AnswerRecord):
        return bool(record == earlier)
    if not isinstance(earlier, AnswerRecord) or record.max_tokens < earlier.max_tokens:
        return False
    return [each.token_ids[: earlier.max_tokens] for each in record.answer.choices] == [
        each.token_ids for each in earlier.answer.choices
    ]


class _Run:
    """A run in a folder of its own.

    Args:
        case: What is run.
        folder: Where; made here.
    """

    def __init__(self, case: Case, folder: Path) -> None:
        folder.mkdir()
        self.num_early = 0
        self._case = case
        self._num_lives = 0
        self._input, self._output = folder / "rows.jsonl", folder / "out.jsonl"
        self._memo = folder / "memo"
        rng = random.Random(case.seed)
        self._is_ordered = rng.random() < 0.7
        texts = [f"r{rng.randrange(4)}" for _ in range(NUM_ROWS)]  # some come again
        self._input.write_text("".join(f"{json.dumps(text)}\n" for text in texts))

    def live(self, kill: tuple[str, int] | None, *, is_guessing: bool) -> Life:
        """Go on in a process of its own, to the end or until the moment of that kind and number."""
        self._num_lives += 1
        reading, writing = os.pipe()
        child = os.fork()  # no loop runs here, and no thread but such as Python knows nothing of
        if not child:
            try:
                life = self._live(_Moments(kill), is_guessing=is_guessing)
            except BaseException:
                life = Life([f"died: {traceback.format_exc()}"])
            with os.fdopen(writing, "wb") as file:
                pickle.dump(life, file)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            if not select.select([file], [], [], 3 * _MOST_S)[0]:
                os.kill(child, signal.SIGKILL)
            data = file.read()
        _, status = os.waitpid(child, 0)
        if data:
            life = pickle.loads(data)
            self.num_early += life.num_early
            return life
        if kill is not None and os.WIFSIGNALED(status):
            return Life(is_killed=True)
        return Life([f"died: the process ended with {status} and said nothing"])

    def _live(self, moments: _Moments, *, is_guessing: bool) -> Life:
        """What the process does."""
        config = self._case.config
        begin_draws_at(self._num_lives * _DRAWS_OF_A_LIFE)
        engine = _Engine(Model(self._case.seed + self._num_lives, _ANSWER_S), moments)
        engine.dies_at = config.dies_at if is_guessing else None
        batch = Batch(
            _answer_row,
            self._input,
            self._output,
            engine=engine,
            on_error="collect",
            ordered=self._is_ordered,
            resume=self._num_lives > 1,
            memo=_Memo(self._memo, moments),
            rules=[rule for rule in RULES if rule.__name__ in config.rules],
            speculate=LAVISH if is_guessing else "off",
        )
        result = Result()
        guesses = config.guesses if is_guessing else None
        work = _main(batch, self._case.program, guesses, engine, moments, result)
        in_loop(asyncio.new_event_loop(), work, result, _MOST_S)
        num_early = batch.summary.num_early + batch.summary.num_given_up
        return Life(result.problems, moments.counts, num_early=num_early)

    # --- what is there ---------------------------------------------------------------------------

    def lines(self) -> list[bytes]:
        """The whole lines of the output so far."""
        part = self._output.with_name(f"{self._output.name}.part")
        path = self._output if self._output.exists() else part
        data = path.read_bytes() if path.exists() else b""
        return data[: data.rfind(b"\n") + 1].splitlines()

    def rows(self) -> list[str]:
        """The lines, up to the names of draws, and to their order where that says nothing."""
        rows = [up_to_draws(line.decode()) for line in self.lines()]
        return rows if self._is_ordered else sorted(rows)

    def memo(self) -> Memo:
        """What is kept, apart from when and for whom."""
        if not self._memo.exists():
            return {}
        with closing(LmdbStore(self._memo, read_only=True)) as store:
            found = [store.find(entry.key) for entry in store.entries()]
            assert all(found), "a damaged entry"
            return {entry.key: _kept(entry.value) for entry in found if entry}


def _kept(data: bytes) -> Any:
    """What a record says, but for the run that made it, and how many calls that took."""
    match read_record(data):
        case AnswerRecord() as record:
            return replace(record, run=0)
        case ValueRecord() as record:
            return record.value
        case record:
            return record


# --- in the process -------------------------------------------------------------------------------


class _Moments:
    """Counts what happens, and ends the process at a certain moment.

    Args:
        kill: The kind of that moment, and the number of those before it, itself included.
    """

    def __init__(self, kill: tuple[str, int] | None) -> None:
        self.counts: Counter[str] = Counter()
        self._kill = kill

    def count(self, kind: str) -> None:
        self.counts[kind] += 1
        if self._kill == (kind, self.counts[kind]):
            os.kill(os.getpid(), signal.SIGKILL)


class _Engine(MortalEngine):
    """Counts what it is asked."""

    def __init__(self, model: Model, moments: _Moments) -> None:
        super().__init__(model)
        self._moments = moments

    async def complete(self, request: Any, on_delta: Any = None) -> Any:
        self._moments.count("request")
        return await super().complete(request, on_delta)


class _Memo(LmdbStore):
    """Counts what is put into it."""

    def __init__(self, path: Path, moments: _Moments) -> None:
        super().__init__(path)
        self._moments = moments

    def put(self, *args: Any, **options: Any) -> None:
        self._moments.count("write")
        super().put(*args, **options)


_now: ContextVar[tuple[Batch, Block, str | None]] = ContextVar("_now")


async def _answer_row(row: str) -> str:
    batch, program, guesses = _now.get()
    assert batch.session is not None
    try:
        record = await run_program(Library(batch.session, guesses), program, row)
    except Odd as error:  # which would end the run, whatever the other rows have come to
        record = shown(error)
    return repr(in_full(record))


async def _main(
    batch: Batch,
    program: Block,
    guesses: str | None,
    engine: _Engine,
    moments: _Moments,
    result: Result,
) -> None:
    world, not_ours = new_world(), asyncio.all_tasks()
    _now.set((batch, program, guesses))
    await batch.run([lambda _: moments.count("event")])
    world.caught.clear()
    for _ in range(5):
        await asyncio.sleep(0)
    if asyncio.all_tasks() - not_ours:
        result.problems.append(f"leak: tasks are left{stacks(asyncio.get_running_loop())}")
    if engine.num_open or engine.is_started:
        result.problems.append(f"leak: {engine.num_open} requests are open, or the engine is")
