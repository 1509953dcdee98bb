"""`python -m benchmarks.simulate`: systems on vLLM's own scheduler in virtual time, without noise.

What a run of hours would show is computed in seconds: steps, batches, prefilled tokens, and the
time that they take at a step's modelled cost. `--check FILE` sets the counts beside measured ones.
Beside a run that was planned by a profile stands what the plan said of its time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.harness.best_simulated import best_simulated
from benchmarks.harness.case import Case, make_batch, make_case
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import KV_TOKENS, EngineSettings
from benchmarks.harness.simulated import COSTS, Bed, simulated_bed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS


def main() -> None:
    """Simulate, and print a table."""
    options = _parser().parse_args()
    run_in_virtual_time(_main(options))


async def _main(options: argparse.Namespace) -> None:
    shape = SHAPES[options.model]
    cost = STEP_COSTS[options.cost or COSTS[options.model]]
    oracle = Oracle(shape)
    settings = EngineSettings(options.setting, options.scale, shape)
    measured = _measured(options.check) if options.check else {}
    every, known = systems(), workloads()
    print(f"{options.model} at {options.scale:g}, {options.setting}, virtual seconds")
    async with simulated_bed(settings, cost, oracle) as bed:
        for name in options.workload.split(",") if options.workload else known:
            workload = known[name]
            inputs = Inputs(
                num_items=settings.num_items(workload.num_items),
                data=options.data,
                is_distinct=options.variant == "distinct" and workload.has_duplicates,
            )
            case = make_case(await make_batch(workload, inputs), options.variant, oracle)
            first_s: float | None = None
            for system_name in options.systems.split(","):
                found = await bed.run(every[system_name], case)
                first_s = first_s or found.seconds
                predicted_s = getattr(every[system_name], "predicted_s", None)
                beside = measured.get((name, options.setting, options.variant, system_name))
                print(
                    f"{name:14} {system_name:18} {found.seconds:8.2f} s "
                    f"x{first_s / found.seconds:5.2f}  steps {found.steps:5}  batch "
                    f"{found.mean_batch:5.1f}  prefill {found.prefill_tokens:7}"
                    + ("" if predicted_s is None else _planned(predicted_s / found.seconds))
                    + ("" if beside is None else _beside(beside)),
                    flush=True,
                )
            if options.best:
                await _print_best(case, bed, first_s)


async def _print_best(case: Case, bed: Bed, first_s: float | None) -> None:
    name, seconds = await best_simulated(case, bed)
    gain = "" if first_s is None else f" x{first_s / seconds:5.2f}"
    print(
        f"{case.batch.workload.name:14} {'best schedule':18} {seconds:8.2f} s{gain}  {name}",
        flush=True,
    )


def _planned(share: float) -> str:
    return f"   predicted ÷ time {share:.2f}"


def _beside(record: dict[str, Any]) -> str:
    return (
        f"   measured {record['median_s']:.2f} s, steps {record['steps']}, "
        f"prefill {record['scheduled_prefill_tokens']}"
    )


def _measured(path: Path) -> dict[tuple[str, str, str, str], dict[str, Any]]:
    records = json.loads(path.read_text())
    records = records["records"] if isinstance(records, dict) else records
    return {(r["workload"], r["setting"], r["variant"], r["system"]): r for r in records}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--workload", metavar="NAMES", help="comma-separated; all by default")
    parser.add_argument("--systems", default="raw,ours", metavar="NAMES")
    parser.add_argument("--model", choices=list(SHAPES), default="medium")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--setting", choices=list(KV_TOKENS), default="pressure")
    parser.add_argument("--variant", choices=["published", "distinct"], default="published")
    parser.add_argument("--cost", choices=list(STEP_COSTS), help="by default that of the model")
    parser.add_argument("--data", type=Path, help="directory with mmlu.jsonl and tatqa.jsonl")
    parser.add_argument("--best", action="store_true", help="search for the best schedule, too")
    parser.add_argument("--check", type=Path, metavar="FILE", help="results that were measured")
    return parser


if __name__ == "__main__":
    main()
