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
from helium_agents.cli.execute import Ending, execute
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.output import Output
from helium_agents.cli.rows import Rows
from helium_agents.engines.engine import Engine
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import InputError
from helium_agents.memo.lmdb_tables import DATA_FILE
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

    @cached_property
    def batch(self) -> Batch:
        """The workflow, the rows and the output, all checked; nothing is written yet.

        Raises:
            InputError: One of them is at fault.
        """
        self._check_memo()
        if _is_same_file(self.input_path, self.output_path):
            raise InputError("--input and --output are the same file: choose another --output")
        output = Output(self.output_path, overwrite=self.overwrite)
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

    def session(self, observers: tuple[Observer, ...] = ()) -> Session:
        """A session as the job wants it, not open yet."""
        return Session(
            self.engine(),
            memo=self.memo,
            memo_mode=self.memo_mode,
            token_budget=self.token_budget,
            observers=observers,
        )

    def run(self, *, shows_progress: bool = True, shows_traceback: bool = False) -> Result:
        """Run it, with progress on stderr if wanted.

        Raises:
            HeliumError: It cannot begin. Once it has, how it ends is in the result.
        """
        batch = self.batch
        start_s = time.perf_counter()
        with ExitStack() as stack:
            observers: tuple[Observer, ...] = ()
            on_stop = None
            if shows_progress:
                from helium_agents.telemetry.progress import Progress

                progress = stack.enter_context(Progress(batch.workflow.name, sys.stderr))
                observers, on_stop = (progress,), progress.stopping
            session = self.session(observers)
            ending = execute(
                batch,
                session,
                advice=self._advice(),
                on_stop=on_stop,
                shows_traceback=shows_traceback,
            )
        return Result(self, ending, session.summary, time.perf_counter() - start_s)

    def _advice(self) -> str:
        """How to go on with what a run that was stopped has computed."""
        if self.memo is None:
            return "With --memo DIR a rerun would compute nothing twice."
        if self.memo_mode in ("replay-only", "off"):
            return ""
        mode = "--memo-mode read-write and " if self.memo_mode == "refresh" else ""
        return (
            f"Run it again with {mode}--overwrite to finish: what the memo {self.memo} has is not "
            "computed again."
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
        has_failed_early = self.ending.status != "finished" and not output.num_lines
        written = output.path if self.ending.status == "finished" else output.part
        return {
            "status": self.ending.status,
            "workflow": job.target,
            "input": str(job.input_path),
            "output": None if has_failed_early else str(written),
            "rows": len(job.batch.rows),
            "rows_written": output.num_lines,
            "model": job.model or "embedded",
            "memo": None if job.memo is None else str(job.memo),
            "seconds": round(self.seconds, 3),
            **self.summary.as_dict(),
            "message": self.ending.message,
        }


def _is_same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
