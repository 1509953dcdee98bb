"""`helium explain --plan` of a workflow: which rows would be open at once, and why."""

from __future__ import annotations

import json
from pathlib import Path

import click

from helium_agents.batch.rows import Rows
from helium_agents.cli.execute import stdout_for_report
from helium_agents.cli.explain_trace import compared
from helium_agents.cli.loading import load_workflow
from helium_agents.cli.options import echo_warning
from helium_agents.cli.rehearse import rehearse
from helium_agents.cli.report import count
from helium_agents.cli.step_costs import step_cost
from helium_agents.graph.plan_node import PlanNode
from helium_agents.optimizer.choose_policy import choose_policy
from helium_agents.optimizer.forecast import forecast
from helium_agents.optimizer.simulate import SimulatedRoom

_MAX_REQUESTS, _BLOCK_TOKENS = 256, 16
"""What vLLM has by default."""


def explain_plan(
    target: str, input_path: Path, limit: int, kv_tokens: int, model_cost: str, *, as_json: bool
) -> None:
    """Print what a session would choose for the rows of a workflow, and what it would compare.

    The workflow runs on placeholder answers. Lengths are guesses, as they are for a session whose
    engine has answered nothing yet: of text by its characters, of answers by `max_tokens`.

    Raises:
        InputError: The workflow or its rows are at fault.
    """
    cost = step_cost(model_cost)
    with stdout_for_report():
        workflow = load_workflow(target)
        rows = list(Rows(input_path, workflow, limit))
        rehearsal = rehearse(workflow, rows, shows_progress=not as_json)
    room = SimulatedRoom(kv_tokens, _MAX_REQUESTS, cost, _BLOCK_TOKENS)
    expected = forecast(rehearsal.plan, _most_tokens)
    choice = choose_policy(expected, room)
    calls = (call for row in expected.rows for call in row)
    most_tokens = max((call.prompt_tokens + call.output_tokens for call in calls), default=0)
    if most_tokens > kv_tokens:
        echo_warning(
            f"a call of about {most_tokens:,} tokens, its answer by max_tokens included, does not "
            f"fit into a KV cache of {kv_tokens:,}: an engine of that size may refuse it"
        )
    others = [(str(each.policy), each.seconds, each.gain) for each in choice.compared]
    if as_json:
        report = {
            "workflow": target,
            "rows": len(rows),
            "policy": str(choice.policy),
            "gain": choice.gain,
            "predicted_s": choice.predicted_s,
            "compared": others,
            "why_not_compared": choice.why_not_compared,
        }
        click.echo(json.dumps(report))
        return
    click.echo(
        f"{target} on {count(len(rows), 'row')} of {input_path}, a KV cache of {kv_tokens:,} "
        f"tokens, and steps of {model_cost}\n"
    )
    click.echo(compared(str(choice.policy), choice.gain, others, choice.why_not_compared))
    rehearsal.echo_failures()


def _most_tokens(node: PlanNode) -> int:
    return node.max_tokens or 1
