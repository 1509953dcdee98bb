"""`python -m benchmarks.simulate`: systems on vLLM's own scheduler in virtual time, without noise.

What a run of hours would show is computed in seconds: steps, batches, prefilled tokens, and the
time that they take at a step's modelled cost. `--check FILE` sets the counts beside measured ones.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.case import Case, check, make_batch, make_case
from benchmarks.harness.digest import Vocabulary
from benchmarks.harness.model import SHAPES, model_directory
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import BLOCK_TOKENS, KV_TOKENS, EngineSettings
from benchmarks.harness.system import System
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.engine import ChatMessage, Choice, Completion, OnDelta, Request
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.scheduler import Limits
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost

_COSTS = {"small": "cpu-small", "medium": "cpu-medium", "qwen3-8b": "h100-8b"}


class DigestEngine(SimulatedEngine):
    """A simulated engine that answers as the benchmarks' engines do."""

    def __init__(self, settings: EngineSettings, cost: StepCost, oracle: Oracle) -> None:
        limits = Limits(
            settings.kv_tokens,
            BLOCK_TOKENS,
            settings.max_requests,
            max_model_tokens=settings.max_model_tokens,
        )
        super().__init__(cost, limits, self._answer_of, name=settings.shape.name)
        self._oracle = oracle
        self._vocabulary = Vocabulary.read(model_directory(settings.shape))
        self._rendered: dict[tuple[ChatMessage, ...], list[int]] = {}

    def _answer_of(self, request: Request) -> Sequence[int]:
        prompt = list(request.prompt_token_ids)
        return self._vocabulary.answer(prompt, request.sampling.max_tokens)

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """Token ids of the conversation, once for all systems."""
        key = tuple(messages)
        if key not in self._rendered:
            self._rendered[key] = self._oracle.prompt(messages)
        return self._rendered[key]

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """Answer with the text of the digest."""
        completion = await super().complete(request, on_delta)
        (choice,) = completion.choices
        text = self._oracle.text(choice.token_ids)
        return completion._replace(choices=(Choice(text, choice.token_ids, "stop"),))


@dataclass(frozen=True)
class Simulated:
    """A system's run.

    Args:
        seconds: Of virtual time.
        steps: That the engine made.
        mean_batch: Requests in a step, on average.
        prefill_tokens: Prompt tokens that were computed.
        row_times_s: How long each row took from its arrival on.
    """

    seconds: float
    steps: int
    mean_batch: float
    prefill_tokens: int
    row_times_s: Sequence[float] = ()


async def simulate(system: System, case: Case, bed: Testbed, engine: DigestEngine) -> Simulated:
    """Run a system on a case, on an empty prefix cache, and check its results."""
    await system.prepare(case.batch, bed)
    await engine.reset_prefix_cache()
    log = bed.begin(server=False)
    results = await system.run(case.batch, bed)
    seconds = log.now()
    check(system.name, results, case)
    counts = engine.counts
    mean_batch = counts.requests / max(1, counts.steps)
    row_times_s = log.row_times_s(case.batch.arrivals_s, len(case.batch.rows))
    return Simulated(seconds, counts.steps, mean_batch, counts.prefill_tokens, row_times_s)


def main() -> None:
    """Simulate, and print a table."""
    options = _parser().parse_args()
    run_in_virtual_time(_main(options))


async def _main(options: argparse.Namespace) -> None:
    shape = SHAPES[options.model]
    cost = STEP_COSTS[options.cost or _COSTS[options.model]]
    oracle = Oracle(shape)
    settings = EngineSettings(options.setting, options.scale, shape)
    engine = DigestEngine(settings, cost, oracle)
    measured = _measured(options.check) if options.check else {}
    every, known = systems(), workloads()
    print(f"{options.model} at {options.scale:g}, {options.setting}, virtual seconds")
    async with Testbed(settings, engine) as bed:
        await engine.start()
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
                found = await simulate(every[system_name], case, bed, engine)
                first_s = first_s or found.seconds
                beside = measured.get((name, options.setting, options.variant, system_name))
                print(
                    f"{name:14} {system_name:18} {found.seconds:8.2f} s "
                    f"x{first_s / found.seconds:5.2f}  steps {found.steps:5}  batch "
                    f"{found.mean_batch:5.1f}  prefill {found.prefill_tokens:7}"
                    + ("" if beside is None else _beside(beside)),
                    flush=True,
                )


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
    parser.add_argument("--check", type=Path, metavar="FILE", help="results that were measured")
    return parser


if __name__ == "__main__":
    main()
