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
from helium_agents.cli.failure import explain_failure, explain_item, may_pass, user_place
from helium_agents.cli.options import echo_error
from helium_agents.cli.signals import Stopped, run_until_stopped
from helium_agents.errors import ItemError, TokenBudgetExceeded, in_words
from helium_agents.runtime.session import Session
from helium_agents.telemetry.summary import Summary

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


@dataclass(frozen=True, slots=True)
class Advice:
    """How to go on with a run that did not finish.

    Args:
        run_again: What to do, as the beginning of a sentence.
        retry: How to compute the rows anew that failed, in a sentence.
        is_remembered: Whether a row that was answered is not computed again then.
    """

    run_again: str
    retry: str
    is_remembered: bool

    def after_stop(self) -> str:
        """Where nothing has to be changed."""
        return f"{self.run_again} to go on{': nothing is lost' if self.is_remembered else ''}."

    def after_fault(self) -> str:
        """Where the same would come again."""
        run_again = self.run_again[0].lower() + self.run_again[1:]
        return f"Correct what is at fault, then {run_again} to go on: what is done stays."


def execute(
    batch: Batch,
    session: Session,
    *,
    finish: Callable[[], None],
    advice: Advice | None = None,
    on_stop: Callable[[], None] | None = None,
    shows_traceback: bool = False,
) -> Ending:
    """Run a batch to its end, whatever that is.

    Args:
        batch: What to run; its output is open.
        session: Where; not open yet.
        finish: Gives the output its name, once all lines are there.
        advice: How to go on with what a run that was stopped has computed; `None` where there is
            no way.
        on_stop: Called when the user asks to stop.
        shows_traceback: Whether to print the traceback of an error that ends the run.
    """
    status: Status
    is_fault = False
    try:
        run_until_stopped(
            _run(batch, session, finish),
            on_stop,
            waiting=lambda: session.waiting(),
        )
    except Stopped as stopped:
        status, exit_code, message = "interrupted", stopped.exit_code, "stopped"
    except TokenBudgetExceeded as error:
        status, exit_code = "over budget", EXIT_OVER_BUDGET
        message = f"stopped by the token budget: {error}"
    except ItemError as error:
        assert error.__cause__ is not None
        if shows_traceback:
            traceback.print_exception(error.__cause__)
        status, exit_code, is_fault = "failed", EXIT_FAILED, not may_pass(error.__cause__)
        message = explain_item(error, batch.rows, batch.workflow)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a workflow may call sys.exit() or pytest.skip()
        if shows_traceback:
            traceback.print_exc()
        status, exit_code, is_fault = "failed", EXIT_FAILED, not may_pass(error)
        message = explain_failure(error, batch.workflow)
    else:
        if batch.num_failed:
            retry = "" if advice is None else f"\n{advice.retry}"
            return Ending("finished", EXIT_SOME_FAILED, f"{_some_failed(batch)}{retry}")
        return Ending("finished")
    remains = _remains(batch, session.summary, advice)
    if advice is not None and (remains or session.summary.num_computed):
        remains.append(advice.after_fault() if is_fault else advice.after_stop())
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


async def _run(batch: Batch, session: Session, finish: Callable[[], None]) -> None:
    await batch.run(session)
    finish()


def _remains(batch: Batch, summary: Summary, advice: Advice | None) -> list[str]:
    """What became of the rows that were finished."""
    num_lines, num_rows = batch.output.num_lines, len(batch.rows)
    # where lines are in the order of the rows, one that is not finished holds back later ones
    num_more = summary.num_items - summary.num_failed_items - batch.num_answered
    if advice is None or not advice.is_remembered or num_more <= 0:
        return [f"{num_lines:,} of {num_rows:,} rows are in {batch.output.part}."] * (num_lines > 0)
    are = "is" if num_more == 1 else "are"
    if not num_lines:
        return [f"{num_more:,} of {num_rows:,} rows {are} remembered."]
    written = f"{num_lines:,} of {num_rows:,} rows are in {batch.output.part}"
    return [f"{written}, {num_more:,} more {are} remembered."]


def _some_failed(batch: Batch) -> str:
    num_failed, num_rows, first = batch.num_failed, len(batch.rows), batch.first_failure
    failed = f'{num_failed:,} of {num_rows:,} rows failed; their lines have an "error".'
    if first is None:  # they failed before the run was resumed
        return failed
    assert first.__cause__ is not None
    place = user_place(first.__cause__, batch.workflow)
    where = f"\n  at {place}" if place else ""
    error = in_words(first.__cause__)
    return f"{failed} The first is {batch.rows.place(first.index)}: {error}{where}"
