"""Runs a batch in front of a person: progress while it runs, and what its end means.

Every ending has an exit code, so that scripts can tell them apart, and says what became of the rows
that were finished.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from helium_agents.batch import Batch
from helium_agents.cli.failure import explain_failure, may_pass, user_place
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.options import echo_error, echo_warning, in_shell, is_debug
from helium_agents.cli.report import count
from helium_agents.cli.signals import Stopped, run_until_stopped
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import ItemError, TokenBudgetExceeded, in_words
from helium_agents.telemetry.progress import Progress

Status = Literal["finished", "already finished", "failed", "over budget", "interrupted"]

EXIT_FAILED = 1
EXIT_SOME_FAILED = 3
EXIT_OVER_BUDGET = 4


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Args:
        status: In a word.
        exit_code: For the shell.
        message: What to tell a person on stderr; `None` where all went well.
        seconds: How long the run took.
    """

    status: Status
    exit_code: int = 0
    message: str | None = None
    seconds: float = 0.0

    def end(self) -> NoReturn:
        """Tell the person and the shell."""
        if self.status in ("interrupted", "already finished"):  # which is no error
            click.echo(self.message, err=True)
        elif self.message is not None:
            echo_error(self.message)
        sys.exit(self.exit_code)


def new_batch(
    target: str,
    input_path: Path,
    output_path: Path,
    *,
    model: str | None = None,
    dtype: str = "auto",
    max_model_tokens: int | None = None,
    kv_tokens: int | None = None,
    **options: Any,
) -> Batch:
    """The batch that options of the command line ask for.

    Raises:
        InputError: One of them, the workflow or the rows are at fault.
    """
    engine = VLLM(model, dtype=dtype, max_model_tokens=max_model_tokens, kv_tokens=kv_tokens)
    return Batch(
        load_workflow(target),
        input_path,
        output_path,
        engine=engine,
        warn=lambda message: echo_warning(in_shell(message)),
        **options,
    )


def execute(batch: Batch, *, shows_progress: bool, run_again: str = "") -> Ending:
    """Run a batch to its end, whatever that is.

    Args:
        batch: What to run.
        shows_progress: Whether to show on stderr how far it is.
        run_again: What a person does to go on; by default, to give `--resume`.

    Raises:
        HeliumError: It cannot begin.
    """
    start_s = time.perf_counter()
    progress = Progress(batch.workflow.name, sys.stderr)
    failure: BaseException | None = None
    with progress if shows_progress else nullcontext():
        try:
            work = batch.run([progress] if shows_progress else [])
            run_until_stopped(work, progress.stopping, waiting=batch.waiting)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a workflow may call sys.exit() or pytest.skip()
            if batch.session is None:  # it could not begin
                raise
            failure = error
    end = partial(Ending, seconds=time.perf_counter() - start_s)
    if failure is not None:
        return _stopped(failure, batch, run_again or _run_again(batch), end)
    if batch.session is None:
        return _already_finished(batch, end)
    if batch.num_failed:
        return end("finished", EXIT_SOME_FAILED, _some_failed(batch))
    return end("finished")


@contextmanager
def stdout_for_report() -> Iterator[None]:
    """Send what workflows, libraries and their processes print on stdout to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _stopped(
    failure: BaseException, batch: Batch, run_again: str, end: Callable[..., Ending]
) -> Ending:
    """The end of a run that did not finish, and how to go on."""
    status: Status = "failed"
    exit_code, is_fault = EXIT_FAILED, False
    if isinstance(failure, Stopped):
        status, exit_code, message = "interrupted", failure.exit_code, "stopped"
    elif isinstance(failure, TokenBudgetExceeded):
        status, exit_code = "over budget", EXIT_OVER_BUDGET
        message = f"stopped by the token budget: {failure}"
    else:
        is_fault = not may_pass(failure)
        message = explain_failure(failure, batch.workflow, batch.rows)
        if is_debug():
            shown = failure.__cause__ if isinstance(failure, ItemError) else failure
            traceback.print_exception(shown)
    remains = _remains(batch)
    if remains or batch.summary.num_computed:
        if is_fault:
            run_again = run_again[0].lower() + run_again[1:]
            again = f"Correct what is at fault, then {run_again} to go on: what is done stays."
        else:
            lost = ": nothing is lost" if batch.is_remembered else ""
            again = f"{run_again} to go on{lost}."
        message = "\n".join([message, " ".join([*remains, again])])
    return end(status, exit_code, message)


def _remains(batch: Batch) -> list[str]:
    """What became of the rows that were finished."""
    num_lines, num_rows, summary = batch.output.num_lines, len(batch.rows), batch.summary
    # where lines are in the order of the rows, one that is not finished holds back later ones
    num_more = summary.num_items - summary.num_failed_items - batch.num_answered
    written = f"{num_lines:,} of {num_rows:,} rows are in {batch.output.part}"
    if not batch.is_remembered or num_more <= 0:
        return [f"{written}."] if num_lines else []
    are = "is" if num_more == 1 else "are"
    if not num_lines:
        return [f"{num_more:,} of {num_rows:,} rows {are} remembered."]
    return [f"{written}, {num_more:,} more {are} remembered."]


def _already_finished(batch: Batch, end: Callable[..., Ending]) -> Ending:
    text = f"{batch.output.path} was finished already"
    if not batch.num_failed:
        return end("already finished", message=f"{text}: nothing is left to do")
    failed = f"{batch.num_failed:,} of {count(len(batch.rows), 'row')} failed"
    message = f"{text}, but {failed}: add --retry-failed to compute them again"
    return end("already finished", EXIT_SOME_FAILED, message)


def _some_failed(batch: Batch) -> str:
    num_failed, num_rows, first = batch.num_failed, len(batch.rows), batch.first_failure
    text = f'{num_failed:,} of {num_rows:,} rows failed; their lines have an "error".'
    if first is not None and first.__cause__ is not None:  # else they failed before it was resumed
        place = user_place(first.__cause__, batch.workflow)
        where = f"\n  at {place}" if place else ""
        error = in_words(first.__cause__)
        text += f" The first is {batch.rows.place(first.index)}: {error}{where}"
    return f"{text}\n{_run_again(batch, ' --retry-failed')} to compute only them."


def _run_again(batch: Batch, options: str = "") -> str:
    in_place = " in place of --overwrite" if batch.overwrite else ""
    return f"Run it again with --resume{options}{in_place}"
