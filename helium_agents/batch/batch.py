"""A batch: a workflow over a file of rows, its results written as lines of an output.

An unfinished run is resumed: its lines stay, and its log has the answers of its draws. A finished
output is gone on with where it has not all that is asked for, rows beyond a limit or answers for
rows that failed: its lines are then taken over by a run of their own, which replaces it at the end
and can itself be stopped and resumed. Other work is refused.

Messages name options as Python has them; the command line translates them.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Any, Literal, Unpack

from helium_agents.batch.lines import Lines, to_json
from helium_agents.batch.output import MadeOf, Output, file_digest
from helium_agents.batch.rows import Rows
from helium_agents.batch.workflow import Workflow
from helium_agents.engines.default import EngineLike, engines_by_name
from helium_agents.engines.replicas import Replicas
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import InputError, ItemError, SessionError, TraceError
from helium_agents.memo.run_log import RunLog, differences
from helium_agents.runtime.options import SessionOptions, all_options, trace_of
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import Observer
from helium_agents.telemetry.summary import Summary

OnError = Literal["raise", "collect"]

_FINISHED, _RETRIES = "finished", "retries"  # notes of a run that goes on from a finished output


class Batch:
    """A workflow over a file of rows: checked when it is made, and run once.

    Args:
        workflow: An operator or async function of one row. Rows become what its parameter is
            annotated with: a pydantic model, a dataclass, JSON types.
        input: A file with one JSON value a line.
        output: The file to make, with one result a line. Until all are there they are in
            `OUTPUT.part`, and what a resumed run needs besides in `OUTPUT.run`.
        engine: As for `Session`.
        limit: Take only so many rows.
        on_error: "raise" the first failure; or "collect": write failures as lines too.
        ordered: Write in the order of the rows; otherwise as they finish, with the row's index.
        overwrite: Replace an earlier output, finished or not.
        resume: Go on with a run that was stopped or killed, or with a finished output under a
            larger limit; where nothing is there, begin.
        retry_failed: With `resume`: compute those rows of a finished output again that failed.
        warn: Called with what the user should know though the run goes on.
        options: What `SessionOptions` lists: `memo=`, `token_budget=`, ... Without a memo, too, a
            resumed run computes nothing twice. A trace is replaced or gone on with as the output
            is.

    Attributes:
        workflow: What it runs, with what is known of it.
        rows: What it runs on.
        output: Where the lines go.
        options: Those of its session, defaults included.
        overwrite: As given, like `resume`.
        num_failed: Rows that failed, an earlier part of the run included.
        num_answered: Rows that have been answered and written since.
        first_failure: The error of the first that failed since.
        session: Where it runs; `None` before it begins.

    Raises:
        InputError: One of these is at fault; nothing was written.
        SessionError: One of the session's options is.
        TraceError: The trace is there already, and nothing says to replace it or to go on with it.
    """

    def __init__(
        self,
        workflow: Workflow | Callable[[Any], Awaitable[Any]],
        input: str | Path,
        output: str | Path,
        *,
        engine: EngineLike | Mapping[str, EngineLike] | None = None,
        limit: int | None = None,
        on_error: OnError = "raise",
        ordered: bool = True,
        overwrite: bool = False,
        resume: bool = False,
        retry_failed: bool = False,
        warn: Callable[[str], object] = warnings.warn,
        **options: Unpack[SessionOptions],
    ) -> None:
        self.options = all_options(options)
        trace = trace_of(self.options)
        if trace is not None:
            trace = self.options["trace"] = replace(trace, overwrite=overwrite, resume=resume)
        memo_mode = self.options["memo_mode"]
        if self.options["memo"] is None and memo_mode in ("refresh", "replay-only"):
            raise InputError(f'memo_mode="{memo_mode}" needs memo=DIR')
        input, output = Path(input), Path(output)
        if input.exists() and output.exists() and input.samefile(output):
            raise InputError("input= and output= are the same file: choose another output=")
        if overwrite and resume:
            raise InputError("overwrite=True starts over and resume=True goes on: give one of them")
        if retry_failed and not resume:
            raise InputError("retry_failed=True goes on with an output: give resume=True too")
        if trace is not None:
            if Path(trace.path).absolute() == output.absolute():
                raise InputError("trace= and output= are the same file: choose another trace=")
            trace.check()
        self.output = Output(output, overwrite=overwrite, resume=resume)
        self.workflow = workflow if isinstance(workflow, Workflow) else Workflow.of(workflow)
        self.rows = Rows(input, self.workflow, limit)
        self._lines = Lines(len(self.rows), is_ordered=ordered)
        self.num_failed = 0
        self.num_answered = 0
        self.first_failure: ItemError | None = None
        self.session: Session | None = None
        self._engines = engines_by_name(engine)
        self.overwrite = overwrite
        self.resume = resume
        self._collects = on_error == "collect"
        self._is_ordered = ordered
        self._retry_failed = retry_failed
        self._warn = warn
        self._in_part: range | set[int] = range(0)
        self._kept: set[int] = set()

    @property
    def summary(self) -> Summary:
        """What was asked, computed and saved."""
        return Summary() if self.session is None else self.session.summary

    @property
    def is_remembered(self) -> bool:
        """Whether a row that was answered, but not written, is not computed again when resumed."""
        return self.options["memo_mode"] in ("read-write", "replay-only")

    def waiting(self) -> str:
        """Which calls wait for what, and for how long, as a tree for a person."""
        return "nothing has begun" if self.session is None else self.session.waiting()

    @property
    def is_finished(self) -> bool:
        """Whether a finished output leaves nothing to do.

        Raises:
            InputError: It is of other work, or has more than is asked for.
        """
        has_rows = self._finished is not None and self._finished.num_rows == len(self.rows)
        return has_rows and not self._retries

    async def run(self, observers: Sequence[Observer] = ()) -> None:
        """Run it to its end, from wherever it stands.

        Whatever stops it is raised, a cancellation included; the lines so far stay, to be resumed.

        Args:
            observers: Called with every event of the session.

        Raises:
            InputError: What is there is of other work, or the output cannot be written.
            TraceError: The trace to append to is of another run, or another run is writing it.
            MemoError: The run to resume was of other work, or a store fails.
            SessionError: It has run before.
            ItemError: A row failed, and failures are not collected.
            TokenBudgetExceeded: The next call might exceed the budget.
        """
        if self.session is not None:
            raise SessionError(
                "a batch runs once: make a new Batch(...), with resume=True to go on"
            )
        if self.is_finished:
            assert self._finished is not None
            self.num_failed = self._finished.num_failed
            RunLog.discard(self.output.run_path)
            return
        self._check_trace()
        with self.output, self._open_log() as run_log:
            self._take_up(run_log)
            options = self.options
            if options["memo"] is None:  # the run's own log serves as one: a kill loses nothing
                options = {**options, "memo": run_log.store}
            is_done = False
            try:
                self.session = Session(
                    {name: Replicas(engines) for name, engines in self._engines.items()},
                    observers=observers,
                    run_log=run_log,
                    **options,
                )
                await self._compute(self.session)
                made_of = MadeOf(
                    run_id=run_log.run_id,
                    about=self._about,
                    source=self.workflow.source_version,
                    num_rows=len(self.rows),
                    num_failed=self.num_failed,
                )
                self.output.finish(made_of)
                is_done = True
            finally:
                if is_done or (self.output.num_lines == 0 and run_log.is_empty):
                    run_log.remove()  # also where nothing is worth going on with

    async def _compute(self, session: Session) -> None:
        done = {*self._in_part, *self._kept} if self._kept else self._in_part
        kept = (line for item, _, line in self._finished_lines() if item in self._kept)
        self._write_kept(kept)
        async with session:
            results = session.map(
                self._answer(),
                self.rows,
                ordered=self._is_ordered,
                on_error="collect",  # for the failed row's index
                done=done,
            )
            async with aclosing(results.indexed()) as indexed:
                async for index, value in indexed:
                    if isinstance(value, ItemError) and not self._collects:
                        raise value
                    self.output.write(self._lines.of(index, value))
                    if isinstance(value, ItemError):
                        self.num_failed += 1
                        self.first_failure = self.first_failure or value
                    else:
                        self.num_answered += 1
                    self._write_kept(kept)

    def _write_kept(self, kept: Iterator[bytes]) -> None:
        """Take over lines of the finished output: those that come next, or all in any order."""
        while self._kept and (not self._is_ordered or self.output.num_lines in self._kept):
            line = next(kept, None)
            if line is None:
                return
            self.output.write(line.decode().removesuffix("\n"))

    def _answer(self) -> Callable[[Any], Awaitable[str]]:
        """The workflow, its result as JSON text; having none is a failure of the row."""
        fn, name = self.workflow.fn, self.workflow.name

        async def answer(row: Any) -> str:
            return to_json(await fn(row), name)

        update_wrapper(answer, fn)  # its profile is that of the workflow
        answer.__name__ = name  # by which the session tells what it waits for
        return answer

    # --- what is there ---------------------------------------------------------------------------

    @cached_property
    def _about(self) -> dict[str, str]:
        """What identifies the work, all of which must be the same where a run is resumed."""
        about = {
            "workflow": f"{self.workflow.fn.__module__}:{self.workflow.name}",
            "input": file_digest(self.rows.path),
            "order of lines": "that of the rows" if self._is_ordered else "as finished",
        }
        for name, (engine, *_) in self._engines.items():  # a replica is as good as another
            model = "model" if len(self._engines) == 1 else f"model {name!r}"
            parts = WholeEngine(engine).identity_parts()
            about[model] = engine.identity()
            about |= {f"{model}'s {part}": value for part, value in parts.items()}  # for people
        return about

    @cached_property
    def _finished(self) -> MadeOf | None:
        """What a finished output was made of, if there is one to go on with."""
        about = self._about  # before anything is replaced: there may be no such model
        if not self.output.is_finished:
            return None
        finished = MadeOf.read(self.output.target)
        path, num_rows = self.output.path, len(self.rows)
        found = differences(finished.about, about)
        # failures are computed again because their cause was corrected, maybe in the source
        retries = self._retry_failed and finished.num_failed
        if not retries and finished.source != self.workflow.source_version:
            found.append("its workflow's source has changed")
        if found:
            raise InputError(
                f"{path} is of other work than is asked for: {'; '.join(found)}. Ask for the "
                "same, choose another output=, or give overwrite=True in place of resume=True to "
                "make it anew"
            )
        if finished.num_rows > num_rows:
            raise InputError(
                f"{path} has {finished.num_rows:,} rows, more than the {num_rows:,} that are asked "
                "for: raise limit=, or choose another output="
            )
        return finished

    def _check_trace(self) -> None:
        """Note in the trace what it is of, and see that the one to append to is of the same.

        Raises:
            TraceError: It is of another run.
        """
        trace = trace_of(self.options)
        if trace is None:
            return
        self.options["trace"] = replace(trace, work=self._about)
        began_with = trace.began_with() if trace.resume else None
        if began_with is None:
            return
        changed = differences(began_with, self._about) if began_with else ["it is of no batch"]
        if changed:
            raise TraceError(
                f"the trace {trace.path} is of another run: {'; '.join(changed)}. Choose another "
                "trace=, or remove it"
            )

    @property
    def _retries(self) -> bool:
        """Whether failed rows of a finished output are computed again."""
        return self._retry_failed and self._finished is not None and self._finished.num_failed > 0

    def _open_log(self) -> RunLog:
        """The log of the run that begins or is resumed; the output must be open.

        Raises:
            MemoError: The run to resume was of other work.
            InputError: There are lines to go on with, but no log.
        """
        path, source, finished = self.output.run_path, self.workflow.source_version, self._finished
        notes, run_id = {"source": source}, None
        if finished is not None:
            notes = {"source": finished.source, _FINISHED: finished.digest}
            notes[_RETRIES] = "failed rows" if self._retries else ""
            run_id = finished.run_id
        if finished is not None or not self.resume:
            RunLog.discard(path)
        elif self.output.has_lines and not RunLog.is_in(path):
            raise InputError(
                f"{self.output.part} cannot be resumed, since {path} is gone: add overwrite=True "
                "(and leave out resume=True) to start over"
            )
        log = RunLog(path, self._about, notes, run_id=run_id)
        if log.notes.get("source") != source:
            self._warn("the workflow's source has changed since the run began; rows done stay")
        return log

    def _take_up(self, run_log: RunLog) -> None:
        """Go on with the lines of an unfinished run, and of the output before it.

        Raises:
            InputError: They are not what the run began with, or not what is asked for.
        """
        output, notes = self.output, run_log.notes
        if run_log.is_resumed:
            items: set[int] = set()
            for item, has_failed, _ in self._lines.read(output.read_lines(), output.part):
                self.num_failed += has_failed
                if not self._is_ordered:
                    items.add(item)
            self._in_part = range(output.num_lines) if self._is_ordered else items
        if _FINISHED not in notes:
            return
        if run_log.is_resumed:  # by its content: the note of the next one may be there already
            target = output.target
            if not target.exists() or file_digest(target) != notes[_FINISHED]:
                raise InputError(
                    f"the run in {output.run_path} goes on from {output.path}, which has changed "
                    "since: put it back, or give overwrite=True in place of resume=True to start "
                    "over"
                )
        for item, has_failed, _ in self._finished_lines():
            if not (has_failed and notes[_RETRIES]):
                self.num_failed += has_failed
                self._kept.add(item)

    def _finished_lines(self) -> Iterator[tuple[int, bool, bytes]]:
        """The parsed lines of the finished output that are not in the part already."""
        with self.output.target.open("rb") as lines:
            for line in self._lines.read(lines, self.output.path):
                if line[0] not in self._in_part:
                    yield line
