"""`helium simulate`: how long a traced run would take on other engines, or in another order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import click

from helium_agents.capacity.machine import Change
from helium_agents.capacity.outcome import Outcome
from helium_agents.capacity.what_if import SCHEDULES, Alternative, Answer, Simulator, ask
from helium_agents.cli.execute import stdout_for_report
from helium_agents.cli.options import (
    FILE,
    POSITIVE,
    debug_option,
    echo_warning,
    examples,
    json_option,
)
from helium_agents.cli.report import columns, count
from helium_agents.cli.step_costs import step_cost
from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.telemetry.progress import duration
from helium_agents.trace import read_trace

_MOST_ENGINES = 1_000
"""Each takes time of its own, whether it has work or not."""

_MANY_CALLS = 2_000
"""So many take a few seconds, each time that they are simulated."""


class _KvTokens(click.ParamType[Change]):
    """Tokens, or a factor."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Change):
            return value
        number, is_factor = str(value).replace("_", ""), str(value).endswith("x")
        try:
            change = Change(kv_factor=float(number[:-1])) if is_factor else Change(int(number))
        except ValueError:
            self.fail(f"{value!r} is neither tokens, as 65536, nor a factor, as 2x", param, ctx)
        tokens = 1 if change.kv_tokens is None else change.kv_tokens
        if not 0 < change.kv_factor < float("inf") or tokens < 1:
            self.fail(f"{value!r} must be more than 0", param, ctx)
        return change


@click.command(
    epilog=examples(
        "helium simulate run.trace",
        "helium simulate run.trace --kv-tokens 2x --engines 2 --max-open 8 --max-open 16",
        "helium simulate run.trace --model-cost h100-8b --kv-tokens 200000",
    )
)
@click.argument("trace", type=FILE)
@click.option(
    "--kv-tokens", "kv", type=_KvTokens(), multiple=True, metavar="N_OR_FACTOR",
    help="Tokens of KV cache of each engine, or a factor of what the run had, as 2x.",
)  # fmt: skip
@click.option(
    "--engines", type=click.IntRange(1, _MOST_ENGINES), multiple=True, metavar="N",
    help="So many equal engines.",
)  # fmt: skip
@click.option(
    "--model-cost", "costs", multiple=True, metavar="NAME_OR_FILE",
    help=f"What a step takes: {', '.join(STEP_COSTS)}, or a JSON file. [default: as measured]",
)  # fmt: skip
@click.option(
    "--max-open", type=POSITIVE, multiple=True, metavar="N", help="Most rows on the engine at once."
)
@click.option(
    "--schedule", "schedules", type=click.Choice([*SCHEDULES]), multiple=True,
    help="Which request goes next; `adaptive` is the default of a session.",
)  # fmt: skip
@click.option(
    "--exact/--coarse", "is_exact", default=None,
    help="By vLLM's own scheduler, or one event a call. [default: exact, where vLLM allows it]",
)  # fmt: skip
@json_option
@debug_option
def simulate(
    trace: Path,
    kv: tuple[Change, ...],
    engines: tuple[int, ...],
    costs: tuple[str, ...],
    max_open: tuple[int, ...],
    schedules: tuple[str, ...],
    is_exact: bool | None,
    as_json: bool,
) -> None:
    """Say how long a traced run would take on other engines, or in another order.

    TRACE is what `helium run --trace` or `Session(trace=)` made. Each option is an alternative by
    itself, compared with the run as it was; options may be repeated. Where several kinds are given,
    once each, they are also simulated together.
    """
    run = read_trace(trace)
    simulator: Simulator | None = None
    if is_exact is not None:
        simulator = "exact" if is_exact else "coarse"
    kinds = [
        [Alternative(f"--kv-tokens {_shown(each)}", each) for each in kv],
        [Alternative(f"--engines {each}", Change(num_engines=each)) for each in engines],
        [Alternative(f"--model-cost {each}", Change(cost=step_cost(each))) for each in costs],
        [
            *(Alternative(f"--max-open {each}", schedule=each) for each in max_open),
            *(Alternative(f"--schedule {each}", schedule=each) for each in schedules),
        ],
    ]
    alternatives = [*chain(*kinds), *_together(kinds)]
    if len(run.computed) > _MANY_CALLS and not as_json:
        simulated = count(len(alternatives) + 1, "run")
        click.echo(f"simulating {simulated} of {len(run.computed):,} calls each ...", err=True)
    with stdout_for_report():
        answer = ask(run, alternatives, simulator)
    if as_json:
        click.echo(json.dumps({"trace": str(trace), **_as_dict(answer)}))
        return
    rows, calls = count(len(run.items), "row"), count(len(run.computed), "computed call")
    how = "vLLM's scheduler in virtual time" if answer.simulator == "exact" else "one event a call"
    click.echo(f"{trace}: {rows}, {calls}; simulated by {how}\n")
    click.echo(_as_text(answer))
    if answer.note:
        echo_warning(answer.note)
    for found in answer.found:
        if found.outcome is None:
            echo_warning(f"{found.alternative.name}: {found.why_not}")


def _together(kinds: Sequence[Sequence[Alternative]]) -> Iterator[Alternative]:
    """All alternatives at once, where that can have one meaning."""
    given = [each for each in kinds if each]
    if len(given) < 2 or any(len(each) > 1 for each in given):
        return
    together = Alternative("all of these")
    for (each,) in given:
        schedule = together.schedule if each.schedule is None else each.schedule
        together = Alternative(together.name, together.change | each.change, schedule)
    yield together


def _shown(kv: Change) -> str:
    return f"{kv.kv_factor:g}x" if kv.kv_tokens is None else str(kv.kv_tokens)


def _as_dict(answer: Answer) -> dict[str, Any]:
    return {
        "simulator": answer.simulator,
        "measured": asdict(answer.measured),
        "simulated": asdict(answer.same),
        "alternatives": [
            {
                "name": found.alternative.name,
                "outcome": None if found.outcome is None else asdict(found.outcome),
                "ratio": _ratio(answer, found.outcome),
                "why_not": found.why_not or None,
            }
            for found in answer.found
        ],
        "note": answer.note or None,
    }


def _ratio(answer: Answer, outcome: Outcome | None) -> float | None:
    if outcome is None or not outcome.seconds:
        return None
    return round(answer.same.seconds / outcome.seconds, 3)


def _as_text(answer: Answer) -> str:
    """A table; the ratio is how many times as fast an alternative is."""
    heads = ["", "time", "times as fast", "mean row", "p95 row", "prefilled", "steps"]
    lines = [heads, ["as it was", *_cells(answer.measured, None)]]
    lines.append(["simulated as it was", *_cells(answer.same, None)])
    for found in answer.found:
        cells = _cells(found.outcome, _ratio(answer, found.outcome)) if found.outcome else ["-"]
        lines.append([found.alternative.name, *cells])
    return columns(lines)


def _cells(outcome: Outcome, ratio: float | None) -> list[str]:
    return [
        duration(outcome.seconds),
        "" if ratio is None else f"{ratio:.2f}",
        "" if outcome.mean_s is None else duration(outcome.mean_s),
        "" if outcome.p95_s is None else duration(outcome.p95_s),
        "" if outcome.prefill_tokens is None else f"{outcome.prefill_tokens:,}",
        "" if outcome.steps is None else f"{outcome.steps:,}",
    ]
