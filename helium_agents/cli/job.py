"""A job: what `helium run` was asked for, and the batch, engine and session that this makes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from helium_agents.cli.batch import Batch, OnError
from helium_agents.cli.execute import EXIT_SOME_FAILED, Advice, Ending, execute
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.made_of import MadeOf, file_digest
from helium_agents.cli.options import echo_warning
from helium_agents.cli.output import Output
from helium_agents.cli.report import count
from helium_agents.cli.rows import Rows
from helium_agents.engines.engine import Engine
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import InputError, VersionError
from helium_agents.graph.version import function_version
from helium_agents.memo.lmdb_tables import DATA_FILE
from helium_agents.memo.run_log import RunLog
from helium_agents.runtime.recall import MemoMode
from helium_agents.runtime.session import Session
from helium_agents.telemetry.events import Observer
from helium_agents.telemetry.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Job:
    """A workflow, a file of rows, an output, and how to go about it.

    The fields are the options of `helium run`.
    """

    target: str
    input_path: Path
    output_path: Path
    model: str | None = None
    dtype: str = "auto"
    max_model_tokens: int | None = None
    kv_tokens: int | None = None
    memo: Path | None = None
    memo_mode: MemoMode = "read-write"
    limit: int | None = None
    token_budget: int | None = None
    on_error: OnError = "raise"
    unordered: bool = False
    overwrite: bool = False
    resume: bool = False
    retry_failed: bool = False

    @cached_property
    def batch(self) -> Batch:
        """The workflow, the rows and the output, all checked; nothing is written yet.

        Raises:
            InputError: One of them is at fault.
        """
        self._check_memo()
        if _is_same_file(self.input_path, self.output_path):
            raise InputError("--input and --output are the same file: choose another --output")
        if self.overwrite and self.resume:
            raise InputError("--overwrite starts over and --resume goes on: give one of them")
        if self.retry_failed and not self.resume:
            raise InputError("--retry-failed goes on with an output: give --resume too")
        output = Output(self.output_path, overwrite=self.overwrite, resume=self.resume)
        workflow = load_workflow(self.target)
        rows = Rows(self.input_path, workflow, self.limit)
        return Batch(workflow, rows, output, on_error=self.on_error, is_ordered=not self.unordered)

    @property
    def has_memo(self) -> bool:
        """Whether there is a memo already."""
        return self.memo is not None and (self.memo / DATA_FILE).is_file()

    def engine(self) -> Engine:
        """The engine; nothing is loaded yet."""
        return VLLM(
            self.model,
            dtype=self.dtype,
            max_model_tokens=self.max_model_tokens,
            kv_tokens=self.kv_tokens,
        )

    def about(self, engine: Engine) -> dict[str, str]:
        """What identifies the work, all of which must be the same where a run is resumed."""
        workflow = self.batch.workflow
        return {
            "workflow": f"{workflow.fn.__module__}:{workflow.name}",
            "model": engine.identity(),
            "input": file_digest(self.input_path),
            "order of lines": "as finished" if self.unordered else "that of the rows",
        }

    def finished(self, about: Mapping[str, str]) -> MadeOf | None:
        """What the output was made of, where it is finished and there is none to go on with.

        Raises:
            InputError: It is of other work, or has not what is asked for.
        """
        output, num_rows = self.batch.output, len(self.batch.rows)
        if not output.is_finished:
            return None
        made_of = output.made_of()
        retries = (
            self.retry_failed and made_of.num_failed > 0
        )  # maybe since the fault was corrected
        made_of.check_same(output.path, about, None if retries else self._source)
        if made_of.num_rows > num_rows:
            raise InputError(
                f"{output.path} has {made_of.num_rows:,} rows, more than the {num_rows:,} that are "
                "asked for: raise --limit, or choose another --output"
            )
        if made_of.num_failed and self.on_error == "raise" and not retries:
            raise InputError(
                f"{_failed_rows(made_of, output)}: add --retry-failed to compute them again, or "
                "--on-error collect to leave them as they are"
            )
        return made_of

    def run_log(self, about: Mapping[str, str], finished: MadeOf | None) -> RunLog:
        """The log of the run that begins or is resumed, open; the output must be open.

        Args:
            about: What identifies the work.
            finished: What the output was made of, where the run goes on from a finished one.

        Raises:
            MemoError: The run to resume was of other work.
            InputError: There are lines to go on with, but no log.
        """
        output = self.batch.output
        if not self.resume or finished is not None:
            RunLog.discard(output.run_path)
        elif not RunLog.is_in(output.run_path):
            output.check_is_empty()
        notes = {"source": self._source}
        if finished is not None:
            notes |= {"source": finished.source, "finished": finished.digest}
            notes["retries"] = "failed rows" if self.retry_failed else ""
        run_id = None if finished is None else finished.run_id
        log = RunLog(output.run_path, about, notes, run_id=run_id)
        if log.notes.get("source") != self._source:
            echo_warning("the workflow's source has changed since the run began; rows done stay")
        return log

    def session(
        self, engine: Engine, run_log: RunLog, observers: tuple[Observer, ...] = ()
    ) -> Session:
        """A session as the job wants it, not open yet."""
        # without a memo the run's own log serves as one, so that a killed run loses nothing
        return Session(
            engine,
            memo=self.memo or run_log.store,
            memo_mode=self.memo_mode,
            token_budget=self.token_budget,
            observers=observers,
            run_log=run_log,
        )

    def run(
        self,
        *,
        shows_progress: bool = True,
        shows_traceback: bool = False,
        run_again: str | None = None,
    ) -> Result:
        """Run it, with progress on stderr if wanted.

        Args:
            shows_progress: Whether to show how far it is.
            shows_traceback: Whether to print the traceback of an error that ends it.
            run_again: What a person does to go on where it was stopped; by default, `--resume`.

        Raises:
            HeliumError: It cannot begin. Once it has, how it ends is in the result.
        """
        batch = self.batch
        start_s = time.perf_counter()
        engine = self.engine()
        about = self.about(engine)  # before anything is replaced: there may be no such model
        finished = self.finished(about)
        if finished is not None and self._has_all(finished):
            RunLog.discard(batch.output.run_path)
            return Result(self, _already_finished(finished, batch.output), Summary(), 0.0)
        with ExitStack() as stack:
            stack.enter_context(batch.output)
            run_log = stack.enter_context(self.run_log(about, finished))
            self._take_up(run_log)
            observers: tuple[Observer, ...] = ()
            on_stop = None
            if shows_progress:
                from helium_agents.telemetry.progress import Progress

                name, num_done = batch.workflow.name, len(batch.done)
                progress = Progress(name, sys.stderr, num_done=num_done)
                stack.enter_context(progress)
                observers, on_stop = (progress,), progress.stopping
            session = self.session(engine, run_log, observers)
            ending = execute(
                batch,
                session,
                finish=lambda: batch.output.finish(self._made_of(run_log, about)),
                advice=self._advice(run_again),
                on_stop=on_stop,
                shows_traceback=shows_traceback,
            )
            if ending.status == "finished" or self._has_nothing(run_log):
                run_log.remove()
        return Result(self, ending, session.summary, time.perf_counter() - start_s)

    def _has_nothing(self, run_log: RunLog) -> bool:
        """Whether a run that was stopped has left nothing that is worth going on with."""
        return self.batch.output.num_lines == 0 and run_log.is_empty

    @cached_property
    def _source(self) -> str:
        """The version of the workflow's source; empty where it has none."""
        fn: Any = self.batch.workflow.fn
        try:
            return function_version(getattr(fn, "__wrapped__", fn)).hex()
        except VersionError:
            return ""

    def _has_all(self, finished: MadeOf) -> bool:
        """Whether a finished output leaves nothing to do."""
        retries = self.retry_failed and finished.num_failed
        return finished.num_rows == len(self.batch.rows) and not retries

    def _made_of(self, run_log: RunLog, about: dict[str, str]) -> MadeOf:
        return MadeOf(
            run_id=run_log.run_id,
            about=about,
            source=self._source,
            num_rows=len(self.batch.rows),
            num_failed=self.batch.num_failed,
        )

    def _take_up(self, run_log: RunLog) -> None:
        """Go on with what is there: lines of the unfinished run, and of the output before it.

        Raises:
            InputError: It is not what the run began with, or not what is asked for.
        """
        batch, output, notes = self.batch, self.batch.output, run_log.notes
        if run_log.is_resumed:
            batch.take_up()
        if batch.num_failed and self.on_error == "raise":
            raise InputError(
                f"{count(batch.num_failed, 'row')} in {output.part} failed: add --on-error collect "
                "to go on all the same; once it is finished, --retry-failed computes them again"
            )
        if batch.num_failed and self.retry_failed:
            echo_warning(
                "rows that failed in the unfinished run stay so for now: once it is finished, "
                "--retry-failed computes them again"
            )
        if "finished" in notes:
            if run_log.is_resumed and output.finished_digest() != notes["finished"]:
                raise InputError(
                    f"the run in {output.run_path} goes on from {output.path}, which has changed "
                    "since: put it back, or give --overwrite to start over"
                )
            batch.keep_finished(retries=bool(notes["retries"]))

    def _advice(self, run_again: str | None) -> Advice:
        """How to go on with what a run that was stopped has computed."""
        place = " in place of --overwrite" if self.overwrite else ""
        is_remembered = self.memo_mode in ("read-write", "replay-only")
        return Advice(
            run_again or f"Run it again with --resume{place}",
            f"Run it again with --resume --retry-failed{place} to compute only them.",
            is_remembered,
        )

    def _check_memo(self) -> None:
        if self.memo_mode in ("refresh", "replay-only") and self.memo is None:
            raise InputError(f"--memo-mode {self.memo_mode} needs --memo DIR")
        if self.memo_mode == "replay-only" and not self.has_memo:
            raise InputError(
                f"there is no memo in {self.memo}: check the path, or run once with --memo-mode "
                "read-write to make it"
            )


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended and what it took.

    Args:
        job: Which one.
        ending: How it ended.
        summary: What was asked, computed and saved.
        seconds: How long it took.
    """

    job: Job
    ending: Ending
    summary: Summary
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Everything under stable names, for JSON."""
        job, output = self.job, self.job.batch.output
        is_whole = self.ending.status in ("finished", "already finished")
        written = output.path if is_whole else output.part
        return {
            "status": self.ending.status,
            "workflow": job.target,
            "input": str(job.input_path),
            "output": str(written) if is_whole or output.num_lines else None,
            "rows": len(job.batch.rows),
            "rows_written": output.num_lines,
            "model": job.model or "embedded",
            "memo": None if job.memo is None else str(job.memo),
            "seconds": round(self.seconds, 3),
            **self.summary.as_dict(),
            "message": self.ending.message,
        }


def _already_finished(finished: MadeOf, output: Output) -> Ending:
    if finished.num_failed:
        message = f"{_failed_rows(finished, output)}: --retry-failed computes them again"
        return Ending("already finished", EXIT_SOME_FAILED, message)
    message = f"{output.path} was finished already: nothing is left to do"
    return Ending("already finished", message=message)


def _failed_rows(finished: MadeOf, output: Output) -> str:
    failed = f"{finished.num_failed:,} of {count(finished.num_rows, 'row')} failed"
    return f"{output.path} was finished already, but {failed}"


def _is_same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
