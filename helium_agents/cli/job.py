"""A job: what `helium run` was asked for, and the batch, engine and session that this makes."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from helium_agents.cli.batch import Batch, OnError
from helium_agents.cli.execute import Advice, Ending, execute
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.options import echo_warning
from helium_agents.cli.output import Output
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
            "input": _file_digest(self.input_path),
            "order of lines": "as finished" if self.unordered else "that of the rows",
        }

    def run_log(self, about: Mapping[str, str]) -> RunLog:
        """The log of the run that begins or is resumed, open; the output must be open.

        Raises:
            MemoError: The run to resume was of other work.
            InputError: There are lines to go on with, but no log.
        """
        path = self.batch.output.run_path
        if not self.resume:
            RunLog.discard(path)
        elif not RunLog.is_in(path):
            self.batch.output.check_is_empty()
        source = _source_version(self.batch.workflow.fn)
        log = RunLog(path, about, {"source": source})
        if log.notes.get("source") != source:
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
        if batch.output.is_finished:
            RunLog.discard(batch.output.run_path)
            message = f"{batch.output.path} was finished already: nothing is left to do"
            return Result(self, Ending("already finished", message=message), Summary(), 0.0)
        start_s = time.perf_counter()
        engine = self.engine()
        about = self.about(engine)  # before anything is replaced: there may be no such model
        with ExitStack() as stack:
            stack.enter_context(batch.output)
            run_log = stack.enter_context(self.run_log(about))
            if run_log.is_resumed:
                batch.take_up()
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
        return Advice(run_again or f"Run it again with --resume{place}", is_remembered)

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


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _source_version(fn: Any) -> str:
    """The version of a workflow's source; empty where it has none."""
    try:
        return function_version(getattr(fn, "__wrapped__", fn)).hex()
    except VersionError:
        return ""


def _is_same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
