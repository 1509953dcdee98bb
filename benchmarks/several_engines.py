"""`python -m benchmarks.several_engines`: replicas in virtual time, with and without a planner.

Each engine has the KV cache and, on average, the rows that one has at the given scale. The plain
program sends all as it comes, merges nothing, and is routed by prefix and load as ours is.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.case import Case, check, make_batch, make_case
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.simulated import COSTS, DigestEngine
from benchmarks.harness.workload import Inputs
from benchmarks.workloads import workloads
from helium_agents import Session
from helium_agents.engines.replicas import Replicas
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.schedule import EverythingOpen
from helium_agents.optimizer.step_cost import STEP_COSTS


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.several_engines", description=__doc__
    )
    parser.add_argument("--workload", metavar="NAMES", help="comma-separated; all by default")
    parser.add_argument("--model", choices=list(SHAPES), default="medium")
    parser.add_argument("--scale", type=float, default=0.5, help="of each engine")
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--data", type=Path, help="directory with mmlu.jsonl and tatqa.jsonl")
    run_in_virtual_time(_main(parser.parse_args()))


async def _main(options: argparse.Namespace) -> None:
    shape = SHAPES[options.model]
    oracle = Oracle(shape)
    all_rows = EngineSettings("pressure", options.scale * options.engines, shape)
    each = EngineSettings("pressure", options.scale, shape)
    cost = STEP_COSTS[COSTS[options.model]]
    engines = [DigestEngine(each, cost, oracle) for _ in range(options.engines)]
    known = workloads()
    for engine in engines:
        await engine.start()
    for name in options.workload.split(",") if options.workload else known:
        num_items = all_rows.num_items(known[name].num_items)
        inputs = Inputs(num_items=num_items, data=options.data)
        case = make_case(await make_batch(known[name], inputs), "published", oracle)
        plain_s = await run(case, engines, is_plain=True)
        ours_s = await run(case, engines, is_plain=False)
        tokens = [engine.counts.prefill_tokens for engine in engines]
        print(
            f"{name:14} plain {plain_s:8.2f} s  ours {ours_s:8.2f} s  x{plain_s / ours_s:5.2f}  "
            f"ours prefills {tokens}",
            flush=True,
        )


async def run(case: Case, engines: Sequence[DigestEngine], *, is_plain: bool) -> float:
    """Virtual seconds that a case takes on replicas with empty caches."""
    for engine in engines:
        await engine.reset_prefix_cache()
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    replicas = Replicas(engines)
    session = Session(replicas)
    if is_plain:
        session = Session(replicas, rules=(), share=False, schedule=EverythingOpen())
    async with session:
        rows = session.map(case.batch.workload.workflow, case.batch.rows)
        results = [list(texts) async for texts in rows]
    seconds = loop.time() - start_s
    check("plain" if is_plain else "ours", results, case)
    return seconds


if __name__ == "__main__":
    main()
