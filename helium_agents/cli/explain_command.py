"""`helium explain`: the plan that a workflow makes, as one tree that shows what the rules saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from helium_agents.batch.rows import Rows
from helium_agents.batch.workflow import Workflow
from helium_agents.cli.execute import stdout_for_report
from helium_agents.cli.explain_plan import explain_plan
from helium_agents.cli.explain_trace import analyze as analyze_trace
from helium_agents.cli.explain_trace import explain_choice
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.options import (
    FILE,
    POSITIVE,
    debug_option,
    examples,
    json_option,
)
from helium_agents.cli.rehearse import rehearse
from helium_agents.cli.report import count, table
from helium_agents.engines.schema_example import example_json
from helium_agents.errors import InputError
from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.trace.read import is_trace

_GIVE_ROWS = "give real ones with --input"

_LEGEND = (
    (" of #", "of #2", "needs the answer of call 2, which stands as {#2} in the prompt"),
    (" = #", "= #2", "asks the same as call 2: computed once, for both"),
    (" = start of #", "= start of #2", "the same with fewer tokens: cut from the answer of call 2"),
    (" key=", "key=", "the beginning of what its answer is kept under in a memo"),
)
"""Mark in the tree, example, meaning."""


@click.command(
    epilog=examples(
        "helium explain flow.py:answer",
        "helium explain flow.py:answer --input rows.jsonl --limit 2",
        "helium explain flow.py:answer --input rows.jsonl --plan --kv-tokens 65536",
        "helium explain run.trace --plan",
        "helium explain run.trace --analyze",
    )
)
@click.argument("target", metavar="FILE:WORKFLOW|TRACE")
@click.option("--input", "input_path", type=FILE, help="Rows; without it one is made up.")
@click.option(
    "--limit", type=POSITIVE, metavar="N", help="How many rows. [default: 1; with --plan 128]"
)
@click.option("--analyze", is_flag=True, help="Of a trace: what the run did, by operator.")
@click.option(
    "--plan", is_flag=True, help="Which rows would be open at once, or were in a trace, and why."
)
@click.option(
    "--kv-tokens", type=POSITIVE, metavar="N", help="With --plan: what the KV cache would hold."
)
@click.option(
    "--model-cost", metavar="NAME_OR_FILE",
    help=f"With --plan: what a step takes: {', '.join(STEP_COSTS)}, or a JSON file.",
)  # fmt: skip
@json_option
@debug_option
def explain(
    target: str,
    input_path: Path | None,
    limit: int | None,
    analyze: bool,
    plan: bool,
    kv_tokens: int | None,
    model_cost: str | None,
    as_json: bool,
) -> None:
    """Show the plan of a workflow, and what the rules make of it.

    The workflow runs on placeholder answers: its own code runs, but no model. Real answers may
    lead to other branches. Of a trace, which `helium run --trace` makes, show what its run did
    (--analyze) or what was chosen for it (--plan).
    """
    if analyze and plan:
        raise click.UsageError("--analyze and --plan are two reports: ask for one of them")
    if not plan and (kv_tokens or model_cost):
        raise click.UsageError("--kv-tokens and --model-cost go with --plan of a workflow")
    if not (analyze or plan) and is_trace(target):
        raise click.UsageError(f"{target} is a trace: add --analyze or --plan")
    if analyze or (plan and (Path(target).is_file() or ":" not in target)):
        if input_path or limit or kv_tokens or model_cost:
            raise click.UsageError("a trace has its rows and its engine: leave out other options")
        (analyze_trace if analyze else explain_choice)(Path(target), as_json=as_json)
    elif plan:
        if input_path is None or kv_tokens is None:
            raise click.UsageError("--plan of a workflow needs --input ROWS and --kv-tokens N")
        explain_plan(
            target, input_path, limit or 128, kv_tokens, model_cost or "h100-8b", as_json=as_json
        )
    else:
        _explain(target, input_path, limit or 1, as_json=as_json)


def _explain(target: str, input_path: Path | None, limit: int, *, as_json: bool) -> None:
    with stdout_for_report():
        workflow = load_workflow(target)
        if input_path is None:
            rehearsal = rehearse(workflow, [_example(workflow)])
            if rehearsal.failures and not rehearsal.num_calls:
                why = rehearsal.failures[0]
                raise _no_example(
                    workflow, f"\n  On one that was made up it failed before any call: {why}"
                )
        else:
            rows = list(Rows(input_path, workflow, limit))
            rehearsal = rehearse(workflow, rows, shows_progress=not as_json)
    num_rows = len(rehearsal.calls_by_row)
    if as_json:
        report = {
            "workflow": target,
            "rows": num_rows,
            "logical": rehearsal.logical.splitlines(),
            "optimized": rehearsal.optimized.splitlines(),
            **rehearsal.as_dict(),
        }
        click.echo(json.dumps(report))
        return
    source = "made up" if input_path is None else f"from {input_path}"
    click.echo(f"{target} on {count(num_rows, 'row')} {source}")
    click.echo("Answers are placeholders, so branches may differ from a real run.")
    click.echo(f"\n{rehearsal.optimized}\n{_legend(rehearsal.optimized)}", nl=False)
    rehearsal.echo_failures()
    if rehearsal.failures and input_path is None:
        click.echo(f"The row is made up too: {_GIVE_ROWS}.", err=True)


def _legend(tree: str) -> str:
    """What the marks mean that are in the tree."""
    lines = [(example, meaning) for mark, example, meaning in _LEGEND if mark in tree]
    return f"\n{table(lines)}\n" if lines else ""


def _example(workflow: Workflow) -> Any:
    """A row that fits the workflow's parameter.

    Raises:
        InputError: None can be made up.
    """
    if workflow.row_type is None:
        raise InputError(
            f"no row can be made up for {workflow.name}, whose parameter `{workflow.parameter}` "
            f"has no annotation: {_GIVE_ROWS}"
        )
    try:
        schema = json.dumps(workflow.row_type.json_schema())
        return workflow.row_type.validate_json(example_json(schema, workflow.name))
    except (PydanticUserError, ValidationError, KeyError, ValueError) as error:
        raise _no_example(workflow) from error


def _no_example(workflow: Workflow, why: str = "") -> InputError:
    return InputError(
        f"no row can be made up for `{workflow.parameter}` of {workflow.name}: {_GIVE_ROWS}{why}"
    )
