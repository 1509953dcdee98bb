"""A batch: a workflow over a file of rows, its results written as lines of an output.

Messages name options as Python has them; the command line translates them.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import update_wrapper
from pathlib import Path
from typing import Any, Literal, Unpack

from helium_agents.batch.lines import Lines, to_json
from helium_agents.batch.output import MadeOf, Output
from helium_agents.batch.resume import Earlier
from helium_agents.batch.rows import Rows
from helium_agents.batch.workflow import Workflow
from helium_agents.engines.default import EngineLike, engines_by_name
from helium_agents.engines.replicas import Replicas
from helium_agents.errors import InputError, ItemError, SessionError, TraceError
from helium_agents.memo.run_log import RunLog, differences
from helium_agents.runtime.options import SessionOptions, all_options, trace_of
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import Observer
from helium_agents.telemetry.summary import Summary

OnError = Literal["raise", "collect"]


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
        if overwrite and resume:
            raise InputError("overwrite=True starts over and resume=True goes on: give one of them")
        if retry_failed and not resume:
            raise InputError("retry_failed=True goes on with an output: give resume=True too")
        input, output = Path(input), Path(output)
        self.options = all_options(options)
        trace = trace_of(self.options)
        if trace is not None:
            self.options["trace"] = replace(trace, overwrite=overwrite, resume=resume)
        _check_files(input, output, self.options)
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
        self._earlier = Earlier(
            self.workflow,
            self.rows,
            self.output,
            self._lines,
            self._engines,
            is_ordered=ordered,
            resume=resume,
            retry_failed=retry_failed,
            warn=warn,
        )

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
        finished = self._earlier.finished
        has_rows = finished is not None and finished.num_rows == len(self.rows)
        return has_rows and not self._earlier.retries

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
        earlier = self._earlier
        if self.is_finished:
            assert earlier.finished is not None
            self.num_failed = earlier.finished.num_failed
            RunLog.discard(self.output.run_path)
            return
        self._check_trace()
        with self.output, earlier.open_log() as run_log:
            earlier.take_up(run_log)
            self.num_failed = earlier.num_failed
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
                    about=earlier.about,
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
        earlier = self._earlier
        done = {*earlier.in_part, *earlier.kept} if earlier.kept else earlier.in_part
        kept = (line for item, _, line in earlier.finished_lines() if item in earlier.kept)
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
        rows = self._earlier.kept
        while rows and (not self._is_ordered or self.output.num_lines in rows):
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

    def _check_trace(self) -> None:
        """Note in the trace what it is of, and see that the one to append to is of the same.

        Raises:
            TraceError: It is of another run.
        """
        trace = trace_of(self.options)
        if trace is None:
            return
        self.options["trace"] = replace(trace, work=self._earlier.about)
        began_with = trace.began_with() if trace.resume else None
        if began_with is None:
            return
        changed = (
            differences(began_with, self._earlier.about) if began_with else ["it is of no batch"]
        )
        if changed:
            raise TraceError(
                f"the trace {trace.path} is of another run: {'; '.join(changed)}. Choose another "
                "trace=, or remove it"
            )


def _check_files(input: Path, output: Path, options: SessionOptions) -> None:
    memo_mode, trace = options["memo_mode"], trace_of(options)
    if options["memo"] is None and memo_mode in ("refresh", "replay-only"):
        raise InputError(f'memo_mode="{memo_mode}" needs memo=DIR')
    if input.exists() and output.exists() and input.samefile(output):
        raise InputError("input= and output= are the same file: choose another output=")
    if trace is not None:
        if Path(trace.path).absolute() == output.absolute():
            raise InputError("trace= and output= are the same file: choose another trace=")
        trace.check()
