"""`helium trace`: a traced run for other programs."""

from __future__ import annotations

import gzip
import json
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from helium_agents.cli.options import FILE, debug_option, examples
from helium_agents.cli.private_file import private_file
from helium_agents.cli.report import count
from helium_agents.diagnose.chrome_trace import chrome_trace_events
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
    with private_file(output, overwrite=overwrite, made_of=[trace]) as file:
        num_events = _write(run, file, is_packed=output.suffix == ".gz")
    click.echo(
        f"{output}: {count(num_events, 'event')} of {count(len(run.calls), 'call')}; open it at "
        "https://ui.perfetto.dev"
    )


def _write(run: TracedRun, file: BinaryIO, *, is_packed: bool) -> int:
    """Write the events; how many."""
    number = 0
    with gzip.open(file, "wb") if is_packed else nullcontext(file) as text:
        for event in chrome_trace_events(run):
            text.write(b",\n" if number else b'{"displayTimeUnit":"ms","traceEvents":[\n')
            text.write(json.dumps(event, separators=(",", ":")).encode("ascii"))
            number += 1
        text.write(b"\n]}\n")
    return number
