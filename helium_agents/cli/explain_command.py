"""`helium explain`: the plan that a workflow makes, as one tree that shows what the rules saved."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from helium_agents.cli.options import (
    FILE,
    POSITIVE,
    debug_option,
    examples,
    json_option,
    workflow_argument,
)
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.cli.loading import Workflow
    from helium_agents.cli.trace import Traced

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
    )
)
@workflow_argument
@click.option("--input", "input_path", type=FILE, help="Rows; without it one is made up.")
@click.option(
    "--limit", type=POSITIVE, metavar="N", default=1, show_default=True, help="How many rows."
)
@json_option
@debug_option
def explain(target: str, input_path: Path | None, limit: int, as_json: bool) -> None:
    """Show the plan of a workflow, and what the rules make of it.

    The workflow runs on placeholder answers: its own code runs, but no model. Real answers may
    lead to other branches.
    """
    from helium_agents.cli.execute import stdout_for_report
    from helium_agents.cli.loading import load_workflow
    from helium_agents.cli.report import count, echo_failures

    with stdout_for_report():
        workflow = load_workflow(target)
        if input_path is None:
            traced, num_rows = _trace([_example(workflow)], workflow, shows_progress=False), 1
            _check_example(traced, workflow)
        else:
            rows = _read(workflow, input_path, limit)
            traced, num_rows = _trace(rows, workflow, shows_progress=not as_json), len(rows)
    if as_json:
        click.echo(json.dumps(_as_dict(target, traced, num_rows)))
        return
    source = "made up" if input_path is None else f"from {input_path}"
    click.echo(f"{target} on {count(num_rows, 'row')} {source}")
    click.echo("Answers are placeholders, so branches may differ from a real run.")
    click.echo(f"\n{traced.optimized}\n{_legend(traced.optimized)}", nl=False)
    echo_failures(traced)
    if traced.failures and input_path is None:
        click.echo(f"The row is made up too: {_give_rows(workflow)}.", err=True)


def _trace(rows: list[Any], workflow: Workflow, *, shows_progress: bool) -> Traced:
    from helium_agents.cli.trace import trace
    from helium_agents.telemetry.progress import Progress

    with ExitStack() as stack:
        shown = [Progress(workflow.name, sys.stderr)] if shows_progress else []
        return trace(workflow, rows, [stack.enter_context(progress) for progress in shown])


def _as_dict(target: str, traced: Traced, num_rows: int) -> dict[str, Any]:
    return {
        "workflow": target,
        "rows": num_rows,
        "calls": traced.num_calls,
        "distinct_calls": traced.num_computed,
        "logical": traced.logical.splitlines(),
        "optimized": traced.optimized.splitlines(),
        "failed_rows": {str(index): text for index, text in traced.failures.items()},
    }


def _legend(tree: str) -> str:
    """What the marks mean that are in the tree."""
    from helium_agents.cli.report import table

    lines = [(example, meaning) for mark, example, meaning in _LEGEND if mark in tree]
    return f"\n{table(lines)}\n" if lines else ""


def _read(workflow: Workflow, path: Path, limit: int) -> list[Any]:
    from helium_agents.cli.rows import Rows

    return list(islice(Rows(path, workflow, limit), limit))


# --- a row that is made up -----------------------------------------------------------------------


def _example(workflow: Workflow) -> Any:
    """A row that fits the workflow's parameter.

    Raises:
        InputError: None can be made up.
    """
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    from helium_agents.engines.schema_example import example_json

    if not workflow.is_annotated:
        raise InputError(
            f"no row can be made up for {workflow.name}, whose parameter `{workflow.parameter}` "
            "has no annotation: give rows with --input"
        )
    try:
        schema = json.dumps(workflow.row_type.json_schema())
        return workflow.row_type.validate_json(example_json(schema, workflow.target))
    except (PydanticUserError, ValidationError, KeyError, ValueError) as error:
        raise InputError(
            f"no row can be made up for `{workflow.parameter}` of {workflow.name}: "
            f"{_give_rows(workflow)}"
        ) from error


def _check_example(traced: Traced, workflow: Workflow) -> None:
    """Refuse a plan without model calls, where the row that was made up is to blame.

    Raises:
        InputError: The workflow failed on the row before it asked anything.
    """
    if traced.failures and not traced.num_calls:
        (failure,) = traced.failures.values()
        raise InputError(
            f"no row can be made up for `{workflow.parameter}` that makes sense to "
            f"{workflow.name}: {_give_rows(workflow)}\n"
            f"  On a row that was made up it failed before it asked anything: {failure}"
        )


def _give_rows(workflow: Workflow) -> str:
    """What to do about rows, with a file of them if there is one beside the workflow."""
    from helium_agents.cli.failure import relative
    from helium_agents.cli.rows import Rows

    folder = workflow.file.parent
    for path in [*sorted(folder.glob("*.jsonl")), *sorted(folder.glob("data/*.jsonl"))]:
        try:
            has_rows = len(Rows(path, workflow, limit=1)) > 0
        except InputError:  # rows of something else
            continue
        if has_rows:
            return f"give real ones with --input {relative(str(path))}"
    return "give real ones with --input"
