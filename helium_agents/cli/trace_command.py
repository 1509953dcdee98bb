"""`helium trace`: a traced run for other programs."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import ExitStack
from pathlib import Path

import click

from helium_agents.cli.options import FILE, debug_option, examples
from helium_agents.cli.report import count
from helium_agents.diagnose.chrome_trace import chrome_trace_events
from helium_agents.errors import InputError
from helium_agents.trace import TracedRun, read_trace


@click.group(epilog=examples("helium trace export run.trace --perfetto run.json.gz"))
def trace() -> None:
    """Turn a trace, which `helium run --trace` makes, into what other programs open."""


@trace.command(epilog=examples("helium trace export run.trace --perfetto run.json.gz"))
@click.argument("trace", type=FILE)
@click.option(
    "--perfetto", "output", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT",
    required=True, help="Write Chrome trace JSON for ui.perfetto.dev; compressed if named *.gz.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@debug_option
def export(trace: Path, output: Path, overwrite: bool) -> None:
    """Write a time line of a traced run that the Perfetto viewer opens.

    It shows requests by slot of their engine, with queue, prefill and decode; batch size, KV cache
    and prefix hits over time; and each row with its operators, calls and tools. Prompts and answers
    are in it as far as the trace has them.
    """
    run = read_trace(trace)
    num_events = _write(run, output, overwrite=overwrite)
    click.echo(
        f"{output}: {count(num_events, 'event')} of {count(len(run.calls), 'call')}; open it at "
        "https://ui.perfetto.dev"
    )


def _write(run: TracedRun, output: Path, *, overwrite: bool) -> int:
    """Write the events; how many.

    Raises:
        InputError: The file is there already, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL)
    number = 0
    try:
        with ExitStack() as files:
            # prompts are in clear in it: for its owner alone
            file = files.enter_context(open(os.open(output, flags, 0o600), "wb"))
            text = files.enter_context(gzip.open(file, "wb")) if output.suffix == ".gz" else file
            for event in chrome_trace_events(run):
                text.write(b",\n" if number else b'{"displayTimeUnit":"ms","traceEvents":[\n')
                text.write(json.dumps(event, separators=(",", ":")).encode("ascii"))
                number += 1
            text.write(b"\n]}\n")
    except FileExistsError as error:
        raise InputError(
            f"{output} is there already: name another file, or give --overwrite"
        ) from error
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from error
    return number
