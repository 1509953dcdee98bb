"""One `helium run` that is killed and resumed until it is finished, and what must hold meanwhile.

After each kill, and at the end:

- lines of the output that were there stay as they are;
- the stores are sound, and no stored answer has changed or is gone;
- no question was asked whose answer was stored, be it a deterministic call or a draw;
- no process of the run, its engine's included, is left (how long that took is in the tally).

At the end the output has the bytes of an uninterrupted run's (in any order of lines where it is
unordered), but for what unseeded draws differ by, and every draw that was stored is in it. The
scripted engine never gives a draw twice, so that can be told.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.family import Family
from benchmarks.victim import without_chance
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.lmdb.tables import DATA_FILE
from helium_agents.memo.run_log import RunLog
from helium_agents.runtime.record import AnswerRecord, read_record

_REPOSITORY = Path(__file__).parents[1]
ORPHANS_S = 5.0
_KILLED = -9


@dataclass
class Tally:
    """What was counted, over several runs.

    Args:
        num_runs: Runs that were finished.
        num_kills: How often one of them was killed.
        num_early: Kills before there was anything to resume.
        num_late: Kills after the output had its name.
        num_distinct: Distinct calls of uninterrupted runs.
        num_requests: Requests to engines.
        num_lost: Requests whose answers were not stored when the kill came.
        num_draws_kept: Draws that were stored at a kill, and are in the output.
        most_orphan_s: The longest that a process outlived the run that started it, of those that
            ended by themselves.
        num_orphaned: After how many kills a process was still there 5 seconds later.
    """

    num_runs: int = 0
    num_kills: int = 0
    num_early: int = 0
    num_late: int = 0
    num_distinct: int = 0
    num_requests: int = 0
    num_lost: int = 0
    num_draws_kept: int = 0
    most_orphan_s: float = 0.0
    num_orphaned: int = 0

    def __str__(self) -> str:
        return (
            f"{self.num_kills} kills of {self.num_runs} runs ({self.num_early} before anything was "
            f"there to resume, {self.num_late} after the output had its name)\n"
            f"{self.num_requests} requests, at most {self.num_distinct} distinct calls + "
            f"{self.num_lost} not stored when a kill came\n"
            f"{self.num_draws_kept} stored draws kept their answers\n"
            f"after {self.num_orphaned} kills a process was left {ORPHANS_S:.0f} s later, "
            f"otherwise for {self.most_orphan_s:.1f} s at most"
        )


@dataclass(frozen=True)
class Expected:
    """What an uninterrupted run did.

    Args:
        output: Its output.
        seconds: How long it took once it was ready.
        requests: How often it asked each question.
    """

    output: bytes
    seconds: float
    requests: Counter[str]


class KilledRun:
    """A run in a folder of its own.

    Args:
        kind: Its engine: "scripted" or "real".
        arguments: Of `helium run`, without output and memo.
        folder: Where it writes; made here.
        tally: Counts what happens.
        expected: What it must come to; `None` for the run that tells.
        has_memo: Whether it is given `--memo`; otherwise its log remembers everything.
    """

    def __init__(
        self,
        kind: str,
        arguments: Sequence[str],
        folder: Path,
        tally: Tally,
        expected: Expected | None = None,
        *,
        has_memo: bool = True,
    ) -> None:
        folder.mkdir()
        self.output = folder / "out.jsonl"
        self._part = folder / "out.jsonl.part"
        self._log = folder / "out.jsonl.run"
        self._memo = folder / "memo"
        self._notes = folder / "notes"
        self._stderr = folder / "stderr"
        self._command = [sys.executable, "-m", "benchmarks.victim", kind, str(self._notes), "run"]
        self._command += [*arguments, "--output", str(self.output), "--quiet"]
        self._command += ["--memo", str(self._memo)] if has_memo else []
        self._is_scripted = kind == "scripted"
        self._is_ordered = "--unordered" not in arguments
        self._tally = tally
        self._expected = expected
        self._lines = b""
        self._stored: dict[Path, dict[bytes, bytes]] = {self._log: {}, self._memo: {}}
        self._num_notes = 0

    def uninterrupted(self) -> Expected:
        """Run it to its end."""
        self.live(None, resumes=False)
        return Expected(self._lines, self._seconds, self._asked)

    def live(self, seconds: float | None, *, resumes: bool = True) -> bool:
        """Go on until the end, or a kill so many seconds after it is ready; whether it ended.

        Raises:
            AssertionError: Something is not as it must be.
        """
        mark = f"KILL_RUNS={os.urandom(8).hex()}"
        with (
            self._stderr.open("wb") as stderr,
            subprocess.Popen(
                [*self._command, *(["--resume"] if resumes else [])],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **dict([mark.split("=")])},
                cwd=_REPOSITORY,
            ) as process,
        ):
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", self._said()
            start_s = time.monotonic()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGSTOP)  # or it might start others while we look
            self._seconds = time.monotonic() - start_s
            family = Family(process.pid, mark)
            process.kill()  # if it has not ended
        self._await_orphans(family)
        self._check_requests()
        is_done = process.returncode == 0
        assert is_done or process.returncode == _KILLED, self._said()
        if is_done:
            self._check_end()
        else:
            self._check_kill()
        return is_done

    def _said(self) -> str:
        return self._stderr.read_text(errors="replace")[-4000:]

    # --- after each life -----------------------------------------------------------------------

    def _await_orphans(self, family: Family) -> None:
        """Wait for the end of all processes of this life; after 5 seconds, count and end them."""
        start_s = time.monotonic()
        while family.alive():
            outlived_s = time.monotonic() - start_s
            if outlived_s > ORPHANS_S:
                self._tally.num_orphaned += 1
                print(
                    f"{ORPHANS_S:.0f} s after the kill there was left:", *family.kill(), sep="\n  "
                )
                return
            self._tally.most_orphan_s = max(self._tally.most_orphan_s, outlived_s)
            time.sleep(0.05)

    def _check_requests(self) -> None:
        """Count what was asked in this life, and check that no answer to it was stored before."""
        notes = self._notes.read_text().splitlines()[self._num_notes :]
        self._num_notes += len(notes)
        self._asked = Counter(notes)
        self._tally.num_requests += len(notes)
        if self._expected is None:
            return
        answered = Counter(map(_question, self._answers())) if self._is_scripted else Counter()
        for question, number in self._asked.items():
            # a question that contains a draw is in no other run, and asked once
            needed = self._expected.requests.get(question, 1)
            assert number <= needed - answered[question], f"asked again: {question}"

    def _check_kill(self) -> None:
        tally, has_name = self._tally, self.output.exists()
        tally.num_kills += 1
        tally.num_late += has_name
        tally.num_early += not (has_name or RunLog.is_in(self._log))
        num_before = len(self._answers())
        self._check_lines()
        for path in self._stored:
            if path is self._memo or not has_name:  # the log may go when the output is there
                self._check_store(path)
        if not has_name:  # nothing is asked again then
            tally.num_lost += self._asked.total() - (len(self._answers()) - num_before)

    def _check_lines(self) -> None:
        path = self.output if self.output.exists() else self._part
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        assert whole.startswith(self._lines), "a line that was there has changed"
        self._lines = whole

    def _check_store(self, path: Path) -> None:
        is_there = (path / DATA_FILE).exists() and (path is self._memo or RunLog.is_in(path))
        stored: dict[bytes, bytes] = {}
        if is_there:
            store = LmdbStore(path, read_only=True)
            problems = store.verify().problems
            found = (store.find(entry.key) for entry in store.entries())
            stored = {entry.key: entry.value for entry in found if entry}
            store.close()
            assert not problems, problems
        assert stored.items() >= self._stored[path].items(), f"an answer in {path} is not kept"
        self._stored[path] = stored

    def _check_end(self) -> None:
        self._check_lines()
        assert not self._part.exists()
        assert not self._log.exists()
        expected, tally = self._expected, self._tally
        if expected is None:
            return
        tally.num_runs += 1
        tally.num_distinct += expected.requests.total()
        assert tally.num_requests <= tally.num_distinct + tally.num_lost, str(tally)
        assert self._comparable(self._lines) == self._comparable(expected.output)
        drawn = {text for text in self._answers() if ":" in text and self._is_scripted}
        for text in drawn:
            assert text.encode() in self._lines, f"drawn again: {text}"
        tally.num_draws_kept += len(drawn)

    def _comparable(self, output: bytes) -> list[str]:
        lines = output.decode().splitlines(keepends=True)
        if self._is_scripted:
            lines = list(map(without_chance, lines))
        return lines if self._is_ordered else sorted(lines)

    def _answers(self) -> list[str]:
        """The model's answers that were stored at the last kill; of several choices the first."""
        values = (value for stored in self._stored.values() for value in stored.values())
        records = map(read_record, values)
        return [
            record.answer.choices[0].text for record in records if isinstance(record, AnswerRecord)
        ]


def _question(answer: str) -> str:
    """Who asked for a scripted answer."""
    found = re.search("<([0-9a-f]+)", answer)
    assert found is not None, f"not of the script: {answer}"
    return found[1]
