"""A simulated run, traced and simulated again, takes as long as it did; other settings differ."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from helium_agents import Session, gather, llm, operator, prompt, user
from helium_agents.capacity.exact import simulate_exactly
from helium_agents.capacity.machine import Change, machines_of
from helium_agents.capacity.outcome import Outcome, measured
from helium_agents.capacity.replayed import Replay
from helium_agents.engines.engine import Capacity
from helium_agents.engines.simulated.tokens import TokenEngine, token_text
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.errors import TraceError
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen, Schedule
from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.trace import TracedRun, read_trace

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM schedules")

Row = Callable[[int], Awaitable[Any]]
COST = STEP_COSTS["cpu-medium"]


def words(rng: random.Random, number: int) -> str:
    return token_text(rng.randrange(1000, 60_000) for _ in range(number))


SYSTEM = words(random.Random(99), 96)


@operator
async def agent(number: int) -> str:
    """Turns with a tool's pause between them."""
    rng = random.Random(number)
    history = f"{SYSTEM} {words(rng, 64)}"
    for _ in range(rng.randrange(2, 6)):
        answer = await llm(user(history), max_tokens=rng.randrange(4, 12))
        await asyncio.sleep(rng.random())
        history = f"{history} {answer.text} {words(rng, 48)}"
    return history


@operator
async def debate(number: int) -> str:
    """Two who answer one another, all of it declared at once."""
    rng = random.Random(number)
    question = f"{SYSTEM} {words(rng, 200)}"
    said = [llm(user(f"{question} {side}"), max_tokens=10) for side in (1, 2)]
    for side in (3, 4):
        both = prompt(f"{question} {{a}} {{b}} {side}", a=said[0], b=said[1])
        said = [llm(user(both), max_tokens=10), said[0]]
    last: str = (await said[0]).text
    return last


@operator
async def panel(number: int) -> list[str]:
    """Experts side by side, each of two calls, and a judge; every second row asks the same."""
    rng = random.Random(number // 2)
    question = words(rng, 150)

    @operator
    async def expert(side: int) -> str:
        first = await llm(user(f"{question} {side}"), max_tokens=6 + 3 * side)
        return (await llm(user(f"{question} {first.text} {side}"), max_tokens=5)).text

    views = await gather(*(expert(side) for side in range(3)))
    return [(await llm(user(f"{question} {' '.join(views)}"), max_tokens=4)).text]


def traced(
    path: Path,
    row: Row,
    num_rows: int,
    *,
    kv_tokens: int = 2048,
    schedule: Schedule | None = None,
) -> tuple[TracedRun, float, int]:
    """A run on a simulated engine, its trace, how long it took, and what it prefilled."""

    async def run() -> tuple[float, int]:
        engine = TokenEngine(COST, Capacity(kv_tokens, 32, max_requests=16))
        await engine.start()
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        async with Session(engine, trace=path, schedule=schedule or EverythingOpen()) as session:
            assert len([each async for each in session.map(row, range(num_rows))]) == num_rows
            return loop.time() - start_s, engine.counts.prefill_tokens

    seconds, prefill_tokens = run_in_virtual_time(run())
    return read_trace(path), seconds, prefill_tokens


def simulated(run: TracedRun, schedule: Schedule, **change: Any) -> Outcome:
    return simulate_exactly(Replay(run), machines_of(run, Change(**change)), schedule)


@pytest.mark.parametrize("row", [agent, debate, panel])
def test_the_same_settings_take_as_long(tmp_path: Path, row: Row) -> None:
    run, seconds, prefill_tokens = traced(tmp_path / "t", row, 24)
    outcome, again = measured(run), simulated(run, EverythingOpen())
    assert outcome.seconds == pytest.approx(seconds, rel=0.01)
    assert again.seconds == pytest.approx(seconds, rel=0.02)
    assert again.prefill_tokens == pytest.approx(prefill_tokens, rel=0.03)
    assert again.mean_s == pytest.approx(outcome.mean_s, rel=0.02)


def test_another_order_takes_as_long_as_it_would(tmp_path: Path) -> None:
    run, everything_s, _ = traced(tmp_path / "all", agent, 24)
    _, few_s, _ = traced(tmp_path / "few", agent, 24, schedule=FewOpen(6))
    assert few_s < 0.95 * everything_s or few_s > 1.05 * everything_s
    assert simulated(run, FewOpen(6)).seconds == pytest.approx(few_s, rel=0.03)


def test_more_memory_takes_as_long_as_it_would(tmp_path: Path) -> None:
    run, small_s, _ = traced(tmp_path / "small", agent, 24)
    _, large_s, _ = traced(tmp_path / "large", agent, 24, kv_tokens=8192)
    assert large_s < 0.9 * small_s
    assert simulated(run, EverythingOpen(), kv_factor=4.0).seconds == pytest.approx(
        large_s, rel=0.03
    )


def test_the_planner_chooses_as_it_did(tmp_path: Path) -> None:
    """Declared calls are known to the planner of the simulation too."""
    run, seconds, _ = traced(tmp_path / "t", debate, 24, schedule=Adaptive())
    (choice,) = run.choices[-1:]
    assert choice["policy"] != "everything open" and choice["gain"] > 1.05
    assert simulated(run, Adaptive()).seconds == pytest.approx(seconds, rel=0.03)
    assert simulated(run, EverythingOpen()).seconds > 1.05 * seconds


def test_two_engines_and_a_faster_one(tmp_path: Path) -> None:
    run, seconds, _ = traced(tmp_path / "t", agent, 24)
    assert simulated(run, EverythingOpen(), num_engines=2).seconds < 0.8 * seconds
    assert simulated(run, EverythingOpen(), cost=STEP_COSTS["h100-8b"]).seconds < 0.5 * seconds


def test_models_of_long_contexts_are_simulated(tmp_path: Path) -> None:
    run, seconds, _ = traced(tmp_path / "t", agent, 4)
    (model,) = run.engines
    capacity = {**(run.engines[model].capacity or {}), "max_model_tokens": 131_072}
    run.engines[model] = replace(run.engines[model], capacity=capacity)
    assert simulated(run, EverythingOpen()).seconds == pytest.approx(seconds, rel=0.05)


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    run, *_ = traced(tmp_path / "t", agent, 4)
    with pytest.raises(TraceError, match="does not fit"):
        simulated(run, EverythingOpen(), kv_tokens=64)


def test_a_huge_cache_is_simulated_as_one_that_holds_all_calls(tmp_path: Path) -> None:
    run, _, _ = traced(tmp_path / "t", debate, 12)
    fitting = simulated(run, EverythingOpen(), kv_tokens=Replay(run).most_kv_tokens(32))
    assert simulated(run, EverythingOpen(), kv_tokens=10**20) == fitting
    assert fitting.seconds < simulated(run, EverythingOpen()).seconds


def test_a_run_whose_rows_pause_says_so(tmp_path: Path) -> None:
    run, _, _ = traced(tmp_path / "t", agent, 24, schedule=Adaptive())
    assert run.choices and not run.choices[-1]["compared"]
    assert run.choices[-1]["why_not_compared"] == "rows pause"
