"""How much a policy's order costs over the best order, in the Helium paper's cost model.

    python -m benchmarks.scheduling --time-limit-s 120 --json schedule.json

No engine runs: `model.py` says what is counted, `workflows.py` what is ordered, `policies.py` by
whom, and `optimum.py` how the best order is found. Costs of policies and proved optima depend on
the seed alone; where the solver proved nothing, the best order and the bound depend on time too.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.scheduling.compare import NUM_RANDOM_ORDERS, Comparison, compare
from benchmarks.scheduling.instance import Instance
from benchmarks.scheduling.workflows import instances


def main(arguments: Sequence[str] | None = None) -> None:
    """Order all instances and print Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--time-limit-s", type=float, default=120.0, help="for each optimum")
    parser.add_argument("--seed", type=int, default=0, help="of lengths, random order and solver")
    parser.add_argument("--json", type=Path, help="write instances, orders and costs there too")
    options = parser.parse_args(arguments)
    drawn = instances(options.seed)
    print_instances(drawn)
    print()
    comparisons = [
        compare(each, time_limit_s=options.time_limit_s, seed=options.seed) for each in drawn
    ]
    print_comparisons(comparisons)
    if options.json:
        report = {"seed": options.seed, "instances": [as_json(each) for each in comparisons]}
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


def print_instances(drawn: Iterable[Instance]) -> None:
    """What is ordered, one line each."""
    _print_row("instance", "agents", "batch", "calls", "prompt tokens", "distinct", "output tokens")
    _print_row(*["---"] * 7)
    for each in drawn:
        _print_row(
            each.name,
            each.num_agents,
            each.batch,
            len(each.calls),
            f"{each.prompt_tokens:,}",
            f"{each.tree_tokens:,}",
            f"{sum(call.output_tokens for call in each.calls):,}",
        )


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """The best makespan of each instance, and how far from it each policy is."""
    policies = list(comparisons[0].gaps)
    print(f"Makespans in token steps; random is the mean of {NUM_RANDOM_ORDERS:,} orders.\n")
    _print_row("instance", "best", "bound", "best over bound", "solver s", *policies)
    _print_row(*["---"] * (5 + len(policies)))
    for each in comparisons:
        best = each.optimum
        _print_row(
            each.instance.name,
            f"{best.schedule.makespan_steps:.1f}",
            f"{best.bound / each.instance.kv_capacity_tokens:.1f}",
            "optimal" if best.is_proved else f"at most {_percent(each.gap_to_bound)}",
            f"{best.wall_s:.1f}",
            *(_percent(gap) for gap in each.gaps.values()),
        )
    for name, over in (("mean", statistics.mean), ("worst", max)):
        gaps = (over([each.gaps[policy] for each in comparisons]) for policy in policies)
        _print_row(f"**{name}**", "", "", "", "", *(_percent(gap) for gap in gaps))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that is needed to check a comparison elsewhere. Times are in token·steps."""
    best = comparison.optimum
    return {
        "instance": asdict(comparison.instance),
        "best_order": best.schedule.order,
        "best_starts": best.schedule.starts,
        "best_makespan": best.schedule.makespan,
        "lower_bound": best.bound,
        "is_proved": best.is_proved,
        "wall_s": best.wall_s,
        "makespans": comparison.makespans,
        "gaps": comparison.gaps,
    }


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"


def _print_row(*cells: object) -> None:
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


if __name__ == "__main__":
    main()
