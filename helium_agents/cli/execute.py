"""Runs a batch in front of a person: progress while it runs, and what its end means.

Every ending has an exit code, so that scripts can tell them apart, and says what became of the rows
that were finished.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Literal, NoReturn

import click

from helium_agents.cli.batch import Batch
from helium_agents.cli.failure import explain_failure, user_place
from helium_agents.cli.options import echo_error
from helium_agents.cli.signals import Stopped, run_until_stopped
from helium_agents.errors import TokenBudgetExceeded
from helium_agents.runtime.session import Session

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
    """

    status: Status
    exit_code: int = 0
    message: str | None = None


def execute(
    batch: Batch,
    session: Session,
    *,
    advice: str = "",
    on_stop: Callable[[], None] | None = None,
    shows_traceback: bool = False,
) -> Ending:
    """Run a batch to its end, whatever that is.

    Args:
        batch: What to run; its output is open.
        session: Where; not open yet.
        advice: How to go on with what a run that was stopped has computed.
        on_stop: Called when the user asks to stop.
        shows_traceback: Whether to print the traceback of an error that ends the run.
    """
    status: Status
    try:
        run_until_stopped(
            batch.run(session),
            on_stop,
            waiting=lambda: session.waiting(),  # type: ignore[attr-defined]
        )
    except Stopped as stopped:
        status, exit_code, message = "interrupted", stopped.exit_code, "stopped"
    except TokenBudgetExceeded as error:
        status, exit_code = "over budget", EXIT_OVER_BUDGET
        message = f"stopped by the token budget: {error}"
    except Exception as error:
        if shows_traceback:
            traceback.print_exc()
        status, exit_code = "failed", EXIT_FAILED
        message = explain_failure(error, batch.workflow)
    else:
        if batch.num_failed:
            return Ending("finished", EXIT_SOME_FAILED, _some_failed(batch))
        return Ending("finished")
    remains = [_remains(batch)] if batch.output.num_lines else []
    if advice and (remains or session.summary.num_computed):
        remains.append(advice)
    return Ending(status, exit_code, "\n".join([message, " ".join(remains)]).rstrip())


def end(ending: Ending) -> NoReturn:
    """Tell the person and the shell how a run ended."""
    if ending.status in ("interrupted", "already finished"):  # which is no error
        click.echo(ending.message, err=True)
    elif ending.message is not None:
        echo_error(ending.message)
    sys.exit(ending.exit_code)


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


def _remains(batch: Batch) -> str:
    output, num_rows = batch.output, len(batch.rows)
    return f"{output.num_lines:,} of {num_rows:,} rows are in {output.part}."


def _some_failed(batch: Batch) -> str:
    num_failed, num_rows, first = batch.num_failed, len(batch.rows), batch.first_failure
    failed = f'{num_failed:,} of {num_rows:,} rows failed; their lines have an "error".'
    if first is None:  # they failed before the run was resumed
        return failed
    assert first.__cause__ is not None
    place = user_place(first.__cause__, batch.workflow)
    where = f"\n  at {place}" if place else ""
    return f"{failed} The first: {first}{where}"
