"""A job: what `helium run` was asked for, and the batch, engine and session that this makes."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from helium_agents.cli.batch import Batch, OnError
from helium_agents.cli.execute import EXIT_SOME_FAILED, Advice, Ending, execute
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.made_of import file_digest
from helium_agents.cli.output import Output
from helium_agents.cli.resuming import Resuming
from helium_agents.cli.rows import Rows
from helium_agents.engines.engine import Engine, PartedIdentity
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import InputError
from helium_agents.memo.lmdb_tables import DATA_FILE
from helium_agents.memo.run_log import RunLog
from helium_agents.runtime.answers import MemoMode
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
    max_open: int | None = None
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
        parts = engine.identity_parts() if isinstance(engine, PartedIdentity) else {}
        return {
            "workflow": f"{workflow.fn.__module__}:{workflow.name}",
            "model": engine.identity(),
            **{f"model's {name}": value for name, value in parts.items()},  # to say what differs
            "input": file_digest(self.input_path),
            "order of lines": "as finished" if self.unordered else "that of the rows",
        }

    def resuming(self, about: dict[str, str]) -> Resuming:
        """What is there already.

        Args:
            about: See `about`.

        Raises:
            InputError: A finished output is of other work, or has more than is asked for.
        """
        return Resuming(self.batch, about, resume=self.resume, retry_failed=self.retry_failed)

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
            max_open=self.max_open,
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
        resuming = self.resuming(about)
        if resuming.has_all:
            RunLog.discard(batch.output.run_path)
            return Result(self, _already_finished(resuming), Summary(), 0.0)
        with ExitStack() as stack:
            stack.enter_context(batch.output)
            run_log = stack.enter_context(resuming.run_log())
            resuming.take_up(run_log)
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
                finish=lambda: batch.output.finish(resuming.made_of(run_log)),
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
        num_rows = len(job.batch.rows)
        return {
            "status": self.ending.status,
            "workflow": job.target,
            "input": str(job.input_path),
            "output": str(written) if is_whole or output.num_lines else None,
            "rows": num_rows,
            "rows_written": num_rows if is_whole else output.num_lines,
            "model": job.model or "embedded",
            "memo": None if job.memo is None else str(job.memo),
            "seconds": round(self.seconds, 3),
            **self.summary.as_dict(),
            "message": self.ending.message,
        }


def _already_finished(resuming: Resuming) -> Ending:
    if resuming.num_failed:
        message = f"{resuming.described}: add --retry-failed to compute them again"
        return Ending("already finished", EXIT_SOME_FAILED, message)
    return Ending("already finished", message=f"{resuming.described}: nothing is left to do")


def _is_same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
