"""Runs a batch in front of a person: progress while it runs, and what its end means.

Every ending has an exit code, so that scripts can tell them apart, and says what became of the rows
that were finished.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from helium_agents.batch import Batch
from helium_agents.batch.rows import place_of_row
from helium_agents.cli.failure import cause_of, explain_failure, user_place
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.options import echo_error, echo_warning, in_shell, is_debug
from helium_agents.cli.report import count
from helium_agents.cli.signals import Stopped, run_until_stopped
from helium_agents.engines.openai import OpenAIServer
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import InputError, TokenBudgetExceeded, in_words
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
        seconds: How long the run took.
        exit_code: For the shell.
        message: What to tell a person on stderr; empty where all went well.
    """

    status: Status
    seconds: float
    exit_code: int
    message: str

    def end(self) -> NoReturn:
        """Tell the person and the shell."""
        if self.status in ("interrupted", "already finished"):  # which is no error
            click.echo(self.message, err=True)
        elif self.message:
            echo_error(self.message)
        sys.exit(self.exit_code)


def engine_of(
    *,
    model: str | None = None,
    server: str | None = None,
    weights: str | None = None,
    tokenizer: str | None = None,
    dtype: str = "auto",
    max_model_tokens: int | None = None,
    kv_tokens: int | None = None,
) -> VLLM | OpenAIServer:
    """The engine that options of the command line ask for.

    Raises:
        InputError: They do not go together.
        EngineStartError: One of them is at fault.
    """
    of_server = {"--weights": weights, "--tokenizer": tokenizer}
    of_vllm = {
        "--dtype": None if dtype == "auto" else dtype,
        "--max-model-tokens": max_model_tokens,
        "--kv-tokens": kv_tokens,
    }
    for name, value in (of_server if server is None else of_vllm).items():
        if value is not None:
            goes_with = "a --server" if server is None else "an engine on this machine"
            raise InputError(f"{name} goes with {goes_with}: leave it out")
    if server is None:
        return VLLM(model, dtype=dtype, max_model_tokens=max_model_tokens, kv_tokens=kv_tokens)
    if model is None:
        raise InputError(f"--server {server} may have several models: name one with --model")
    return OpenAIServer(server, model, weights=weights, tokenizer=tokenizer)


def new_batch(
    target: str,
    input_path: Path,
    output_path: Path,
    *,
    engine: VLLM | OpenAIServer,
    **options: Any,
) -> Batch:
    """The batch that options of the command line ask for.

    Raises:
        InputError: One of them, the workflow or the rows are at fault.
    """
    return Batch(
        load_workflow(target),
        input_path,
        output_path,
        engine=engine,
        warn=lambda message: echo_warning(in_shell(message)),
        **options,
    )


def execute(batch: Batch, *, shows_progress: bool, has_resume: bool = True) -> Ending:
    """Run a batch to its end, whatever that is.

    Args:
        batch: What to run.
        shows_progress: Whether to show on stderr how far it is.
        has_resume: Whether `--resume` goes on with it; otherwise the command as it is does.

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
    seconds = time.perf_counter() - start_s
    run_again = "Run it again"
    if has_resume:
        retry = " --retry-failed" if failure is None else ""
        in_place = " in place of --overwrite" if batch.overwrite else ""
        run_again = f"{run_again} with --resume{retry}{in_place}"
    if failure is not None:
        status, exit_code, message = _what_stopped(failure, batch)
        remains = _remains(batch)
        if remains or batch.summary.num_computed:
            lost = ": nothing is lost" if batch.is_remembered else ""
            message += f"\n{remains}{run_again} to go on{lost}."
        return Ending(status, seconds, exit_code, message)
    status = "finished" if batch.session is not None else "already finished"
    was = "" if batch.session is not None else f"{batch.output.path} was finished already: "
    if batch.num_failed:
        message = f"{was}{_some_failed(batch)}\n{run_again} to compute only them."
        return Ending(status, seconds, EXIT_SOME_FAILED, message)
    untraced = "" if batch.options["trace"] is None else ", and no trace is written"
    return Ending(status, seconds, 0, was and f"{was}nothing is left to do{untraced}")


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


def _what_stopped(failure: BaseException, batch: Batch) -> tuple[Status, int, str]:
    """Status, exit code and message of a run that did not finish."""
    if isinstance(failure, Stopped):
        return "interrupted", failure.exit_code, "stopped"
    if isinstance(failure, TokenBudgetExceeded):
        return "over budget", EXIT_OVER_BUDGET, f"stopped by the token budget: {failure}"
    if is_debug():
        traceback.print_exception(cause_of(failure))
    return "failed", EXIT_FAILED, explain_failure(failure, batch.workflow, batch.rows)


def _remains(batch: Batch) -> str:
    """What became of the rows that were finished, as a sentence; empty where there are none."""
    num_lines, num_rows, summary = batch.output.num_lines, len(batch.rows), batch.summary
    # where lines are in the order of the rows, one that is not finished holds back later ones
    num_more = summary.num_items - summary.num_failed_items - batch.num_answered
    are = "is" if num_more == 1 else "are"
    parts = [f"{num_lines:,} of {num_rows:,} rows are in {batch.output.part}"] * (num_lines > 0)
    if batch.is_remembered and num_more > 0:
        of_all = "more" if num_lines else f"of {num_rows:,} rows"
        parts.append(f"{num_more:,} {of_all} {are} remembered")
    return f"{', '.join(parts)}. " if parts else ""


def _some_failed(batch: Batch) -> str:
    first = batch.first_failure
    text = f"{batch.num_failed:,} of {count(len(batch.rows), 'row')} failed"
    text += '; their lines have an "error".'
    if first is None:  # they failed before the run was resumed
        return text
    cause = cause_of(first)
    place = user_place(cause, batch.workflow)
    where = f"\n  at {place}" if place else ""
    row = place_of_row(batch.rows.path, first.index)
    return f"{text} The first is {row}: {in_words(cause)}{where}"
