"""`python -m benchmarks.ablation`: what each mechanism brings, in the exact simulator.

Each line is ours without one of them: its time ÷ that of ours with all, by workload. Above 1 the
mechanism pays. One that pays nowhere is named at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.case import make_batch, make_case
from benchmarks.harness.groups import OURS
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.presets import DEFAULT_WORKLOADS
from benchmarks.harness.settings import KV_TOKENS, EngineSettings
from benchmarks.harness.simulated import COSTS, simulated_bed
from benchmarks.harness.tables import table
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS

LEAST_GAIN = 1.005
"""Smaller differences are of the order of events, and nobody's merit."""

Times = Mapping[str, Mapping[str, float]]
"""Virtual seconds by workload and system."""


def ablations() -> list[str]:
    """The systems that are ours without one part."""
    return [name for name in systems() if name.startswith(f"{OURS}-without-")]


async def measure(names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Simulate ours, with all and without each part."""
    shape = SHAPES[options.model]
    settings = EngineSettings(options.setting, options.scale, shape)
    oracle = Oracle(shape)
    every, times = systems(), dict[str, dict[str, float]]()
    async with simulated_bed(settings, STEP_COSTS[COSTS[options.model]], oracle) as bed:
        for name in names:
            workload = workloads()[name]
            inputs = Inputs(settings.num_items(workload.num_items), options.data)
            case = make_case(await make_batch(workload, inputs), "published", oracle)
            times[name] = {}
            for system in (OURS, *ablations()):
                times[name][system] = (await bed.run(every[system], case)).seconds
            print(f"{name} done", file=sys.stderr, flush=True)
    return times


def report(times: Times) -> str:
    """The table, and which mechanisms pay nowhere."""
    names = list(next(iter(times.values())))[1:]
    ratios = {name: [seconds[name] / seconds[OURS] for seconds in times.values()] for name in names}
    rows = [
        [name.removeprefix(f"{OURS}-without-"), *(f"{ratio:.2f}" for ratio in ratios[name])]
        for name in names
    ]
    rows.append(["ours, s", *(f"{seconds[OURS]:.1f}" for seconds in times.values())])
    useless = [
        name.removeprefix(f"{OURS}-without-") for name in names if max(ratios[name]) < LEAST_GAIN
    ]
    sentence = f"Pays nowhere here: {', '.join(useless)}." if useless else "Each pays somewhere."
    return f"{table(['without', *times], rows)}\n\n{sentence}\n"


def main() -> None:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--workload", metavar="NAMES", help="comma-separated; all by default")
    parser.add_argument("--model", choices=list(COSTS), default="medium")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--setting", choices=list(KV_TOKENS), default="pressure")
    parser.add_argument("--data", type=Path, help="directory with mmlu.jsonl and tatqa.jsonl")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times")
    options = parser.parse_args()
    names = options.workload.split(",") if options.workload else [*DEFAULT_WORKLOADS, "tools"]
    times = run_in_virtual_time(measure(names, options))
    if options.json is not None:
        options.json.write_text(json.dumps(times, indent=1) + "\n")
    print(report(times))


if __name__ == "__main__":
    main()
