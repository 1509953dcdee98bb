"""`helium run`: a workflow over a file of rows."""

from __future__ import annotations

import json
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any

import click

from helium_agents.batch import Batch
from helium_agents.cli.dry_run import dry_run as check_and_rehearse
from helium_agents.cli.execute import Ending, engine_of, execute, new_batch, stdout_for_report
from helium_agents.cli.options import (
    DIRECTORY,
    FILE,
    POSITIVE,
    debug_option,
    engine_options,
    examples,
    json_option,
    workflow_argument,
)
from helium_agents.cli.report import MEANINGLESS, count, savings
from helium_agents.engines.model_source import RANDOM
from helium_agents.runtime.answers import MEMO_MODES
from helium_agents.trace import TraceFile

_EXAMPLES = examples(
    "helium run flow.py:answer --input rows.jsonl --output answers.jsonl --dry-run",
    "helium run flow.py:answer --input rows.jsonl --output answers.jsonl --memo memo",
    "helium run flow.py:answer --input rows.jsonl --output answers.jsonl --limit 10 \\",
    "    --model Qwen/Qwen3-8B",
)
_EXIT_CODES = examples(
    "0  done                  3    done, but rows failed (--on-error collect)",
    "1  error                 4    stopped by the token budget",
    "2  wrong usage           130  interrupted",
    heading="Exit codes",
)


@click.command(epilog=_EXAMPLES + _EXIT_CODES)
@workflow_argument
@click.option("--input", "input_path", type=FILE, required=True, help="Rows: a JSON value a line.")
@click.option("--output", "output_path", type=FILE, required=True, help="Results: a line a row.")
@engine_options
@click.option("--memo", type=DIRECTORY, help="Directory that remembers answers across runs.")
@click.option(
    "--memo-mode",
    type=click.Choice(MEMO_MODES),
    default="read-write",
    show_default=True,
    help="refresh: compute anew and replace; replay-only: compute nothing, an unknown call "
    "fails; off: remember nothing, not even within the run.",
)
@click.option("--limit", type=POSITIVE, metavar="N", help="Only the first N rows.")
@click.option(
    "--token-budget",
    type=POSITIVE,
    metavar="N",
    help="Stop before more than N prompt and output tokens are computed.",
)
@click.option(
    "--max-open",
    type=POSITIVE,
    metavar="N",
    help="Most rows whose calls are on the engine at once; by default all. Fewer share the KV "
    "cache better where the prefixes of all do not fit into it.",
)
@click.option(
    "--speculate",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="Compute calls inside pure operators early, while an earlier answer is only guessed.",
)
@click.option(
    "--trace",
    type=FILE,
    help="Keep what happens in this file, for `helium simulate` and `helium explain --analyze`.",
)
@click.option(
    "--trace-content",
    type=click.Choice(["on", "off"]),
    help="Whether the trace has the texts of prompts and answers. [default: on]",
)
@click.option(
    "--otlp",
    metavar="URL",
    help="Send spans and metrics to this OpenTelemetry collector, e.g. http://localhost:4318. "
    "[default: as OTEL_EXPORTER_OTLP_ENDPOINT says]",
)
@click.option(
    "--on-error",
    type=click.Choice(["raise", "collect"]),
    default="raise",
    show_default=True,
    help="raise: stop at the first row that fails; collect: its line has the error.",
)
@click.option(
    "--unordered",
    is_flag=True,
    help='Write rows as they finish, as {"item": index from 0, "value": result}.',
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier output, finished or not.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run that was stopped or killed, or with a finished output under a larger "
    "--limit. What the output was made of must be the same.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="With --resume: compute those rows of a finished output again that failed.",
)
@click.option("--dry-run", is_flag=True, help="Check everything and trace 3 rows; run no model.")
@json_option
@click.option("--quiet", is_flag=True, help="Print errors only.")
@debug_option
def run(
    target: str,
    input_path: Path,
    output_path: Path,
    unordered: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    trace: Path | None,
    trace_content: str | None,
    **options: Any,
) -> None:
    """Run a workflow over the rows of a file.

    Each line of the input is a JSON value; it becomes what the workflow's parameter is annotated
    with (a pydantic model, a dataclass, JSON types). What the workflow returns becomes a line of
    the output, in the order of the rows. Lines are collected in OUTPUT.part, which is renamed when
    all are there; until then OUTPUT.run holds what --resume needs besides. What a finished output
    was made of is noted in the hidden file .OUTPUT.made_of.json, by which --resume refuses other
    work. Ctrl-Backslash prints what waits for what while the run goes on.
    """
    if trace is not None:
        options["trace"] = TraceFile(trace, content=trace_content != "off")
    elif trace_content is not None:
        raise click.UsageError("--trace-content says what a trace keeps: add --trace FILE")
    engine_settings = {name: options.pop(name) for name in signature(engine_of).parameters}
    with stdout_for_report() if as_json or dry_run else nullcontext():
        engine = engine_of(**engine_settings)
        batch = new_batch(
            target, input_path, output_path, engine=engine, ordered=not unordered, **options
        )
    asked = {
        "workflow": target,
        "input": str(input_path),
        "rows": len(batch.rows),
        "model": engine_settings["model"] or "embedded",
        "server": engine_settings["server"],
        "memo": None if options["memo"] is None else str(options["memo"]),
    }
    if dry_run:
        check_and_rehearse(batch, engine, asked, as_json=as_json, quiet=quiet)
        return
    with stdout_for_report() if as_json else nullcontext():
        ending = execute(batch, shows_progress=not (as_json or quiet))
    if as_json:
        click.echo(json.dumps(asked | _as_dict(batch, ending)))
    elif not quiet and ending.status == "finished":
        rows = count(len(batch.rows), "row")
        click.echo(f"{batch.workflow.name}: {rows} -> {output_path}")
        has_memo = options["memo"] is not None
        click.echo(savings(batch.summary, has_memo=has_memo, seconds=ending.seconds))
        if asked["model"] == RANDOM and asked["server"] is None and batch.summary.num_calls:
            click.echo(MEANINGLESS)
    ending.end()


def _as_dict(batch: Batch, ending: Ending) -> dict[str, Any]:
    """How it ended and what it took, under stable names."""
    output = batch.output
    is_whole = ending.status in ("finished", "already finished")
    written = output.path if is_whole else output.part
    return {
        "status": ending.status,
        "output": str(written) if is_whole or output.num_lines else None,
        "rows_written": len(batch.rows) if is_whole else output.num_lines,
        "seconds": round(ending.seconds, 3),
        **batch.summary.as_dict(),
        "message": ending.message or None,
    }
