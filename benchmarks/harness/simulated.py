"""Systems on vLLM's own scheduler without a model, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.harness.case import Case, check
from benchmarks.harness.digest import Vocabulary
from benchmarks.harness.model import model_directory
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import BLOCK_TOKENS, EngineSettings
from benchmarks.harness.system import System
from benchmarks.harness.testbed import Testbed
from helium_agents.engines.engine import Capacity, ChatMessage, Choice, Completion, OnDelta, Request
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.optimizer.step_cost import StepCost

COSTS = {"small": "cpu-small", "medium": "cpu-medium", "qwen3-8b": "h100-8b"}
"""By model, the step cost that stands for it (`helium_agents.optimizer.step_cost.STEP_COSTS`)."""


class DigestEngine(SimulatedEngine):
    """A simulated engine that answers as the benchmarks' engines do."""

    def __init__(self, settings: EngineSettings, cost: StepCost, oracle: Oracle) -> None:
        limits = Capacity(
            settings.kv_tokens,
            BLOCK_TOKENS,
            max_requests=settings.max_requests,
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


@dataclass(frozen=True)
class Bed:
    """A simulated engine and what systems need around it."""

    bed: Testbed
    engine: DigestEngine

    async def run(self, system: System, case: Case) -> Simulated:
        """Simulate a system on a case."""
        return await simulate(system, case, self.bed, self.engine)


@asynccontextmanager
async def simulated_bed(
    settings: EngineSettings, cost: StepCost, oracle: Oracle
) -> AsyncIterator[Bed]:
    """A started engine of some settings, for a block in virtual time."""
    engine = DigestEngine(settings, cost, oracle)
    async with Testbed(settings, engine) as bed:
        await engine.start()
        yield Bed(bed, engine)
