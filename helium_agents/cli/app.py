"""The command group: what `helium` is, and how every command of it fails."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from helium_agents.cli.cache_command import cache
from helium_agents.cli.demo_command import demo
from helium_agents.cli.examples_command import examples_command
from helium_agents.cli.explain_command import explain
from helium_agents.cli.loading import OURS
from helium_agents.cli.options import echo_error, examples, in_shell, is_debug
from helium_agents.cli.run_command import run
from helium_agents.cli.signals import Stopped
from helium_agents.cli.simulate_command import simulate
from helium_agents.cli.trace_command import trace
from helium_agents.cli.view_command import view
from helium_agents.errors import HeliumError, InputError, TraceError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class _HeliumGroup(click.Group):
    """Turns errors that are meant for people into one short message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # see no-color.org
            ctx.color = False
        try:
            with _own_warnings_in_words():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(INTERRUPTED)
        except Stopped as stopped:
            click.echo("stopped", err=True)
            ctx.exit(stopped.exit_code)
        except HeliumError as error:
            if is_debug():
                traceback.print_exc()
            else:
                is_ours = isinstance(error, InputError | TraceError)
                echo_error(in_shell(str(error)) if is_ours else str(error))
            ctx.exit(1)


@contextmanager
def _own_warnings_in_words() -> Iterator[None]:
    """A block in which warnings of this package say what is the matter, and not where."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if filename.startswith(OURS):
                # not by click.echo, which finds its way around the progress bar's stderr
                print(f"warning: {message}", file=file or sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


@click.group(
    name="helium",
    cls=_HeliumGroup,
    epilog=examples(
        "helium demo",
        "helium examples my_agents",
        "helium run flow.py:answer --input rows.jsonl --output answers.jsonl --memo memo",
        "helium run flow.py:answer --input rows.jsonl --output answers.jsonl --dry-run",
        "helium explain flow.py:answer --input rows.jsonl",
        "helium cache stats --memo memo",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="helium_agents", prog_name="helium")
def main() -> None:
    """Run multi-agent LLM workflows so that nothing is computed twice.

    A workflow is an async Python function of one row; its calls of agents and models become a
    plan that is merged, remembered and scheduled as a whole.
    """


for command in (demo, examples_command, run, explain, view, simulate, trace, cache):
    main.add_command(command)
