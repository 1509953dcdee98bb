"""Plain programs on vLLM's scheduler in virtual time: first run, second run, wrong profile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from helium_agents import Session, gather, llm, operator, user
from helium_agents.cli.report import savings
from helium_agents.engines.engine import Capacity, ChatMessage, Completion, OnDelta, Request
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.memo.memory import MemoryStore
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import EverythingOpen, Schedule
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.runtime.learning.profiles import decode_profile, encode_profile
from helium_agents.telemetry.events import Event, ProfileMisfit, ScheduleChosen

COST = StepCost(0.01, 0.0005, 0.0, 0.0005, 0.0)
KV_TOKENS = 16_384


class TokenEngine(SimulatedEngine):
    """Messages are numbers: tokens, separated by spaces."""

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        return [int(word) for message in messages for word in message.content.split()]


class Shape(NamedTuple):
    """A row's number and the sizes of what it asks."""

    number: int
    prompt_tokens: int = 800
    answer_tokens: int = 16
    num_rounds: int = 2
    tool_s: float = 0.0
    num_agents: int = 3


@operator
async def debate(row: Shape) -> str:
    """Agents, who in each round go on with what they were told before."""
    rng = random.Random(row.number)
    prompts = [_words(rng, row.prompt_tokens) for _ in range(row.num_agents)]
    for _ in range(row.num_rounds):
        await gather(*(llm(user(each), max_tokens=row.answer_tokens) for each in prompts))
        await asyncio.sleep(row.tool_s)
        prompts = [f"{each} {'7 ' * row.answer_tokens}{_words(rng, 20)}" for each in prompts]
    return "done"


def _words(rng: random.Random, num_tokens: int) -> str:
    return " ".join(str(rng.randrange(100, 60_000)) for _ in range(num_tokens))


class Ran(NamedTuple):
    """What came of a run: virtual seconds, prompt tokens computed, and what was said."""

    seconds: float
    prefill_tokens: int
    events: list[Event]
    session: Session

    @property
    def sources(self) -> list[str]:
        return [event.source for event in self.events if isinstance(event, ScheduleChosen)]

    @property
    def misfits(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, ProfileMisfit)]


def run(rows: Sequence[Shape], profiles: MemoryStore, schedule: Schedule | None = None) -> Ran:
    """A run that knows what is in a store of profiles, and adds to it; nothing else is known."""

    async def main() -> Ran:
        events: list[Event] = []
        engine = TokenEngine(COST, Capacity(KV_TOKENS, 16, max_model_tokens=4096))
        memo = MemoryStore()
        for key, profile in profiles.profiles().items():
            memo.put_profile(key, profile)
        async with Session(
            engine, memo=memo, schedule=schedule, observers=[events.append]
        ) as session:
            async for _ in session.map(debate, rows):
                pass
            seconds = asyncio.get_running_loop().time()
        for key, profile in memo.profiles().items():
            profiles.put_profile(key, profile)
        return Ran(seconds, engine.counts.prefill_tokens, events, session)

    return run_in_virtual_time(main())


def rows_of(shape: Shape, num_rows: int = 24) -> list[Shape]:
    return [shape._replace(number=number) for number in range(num_rows)]


USUAL = rows_of(Shape(0))
AGENT = Shape(0, prompt_tokens=600, num_rounds=8, tool_s=1.0, num_agents=1)


def test_the_second_run_is_planned_from_its_first_row_on() -> None:
    profiles = MemoryStore()
    everything = run(USUAL, MemoryStore(), EverythingOpen())
    first = run(USUAL, profiles)
    second = run([each._replace(number=each.number + 100) for each in USUAL], profiles)
    assert first.seconds <= 1.01 * everything.seconds
    assert second.seconds < 0.9 * everything.seconds
    assert second.prefill_tokens < 0.7 * everything.prefill_tokens
    assert set(second.sources) == {"profile"}
    assert second.misfits == []
    summary = second.session.summary
    assert summary.predicted_s == pytest.approx(second.seconds, rel=0.25)
    assert "from what rows asked before" in savings(summary, has_memo=True, seconds=1.0)


def test_a_first_run_of_many_rows_learns_on_its_way() -> None:
    rows = rows_of(Shape(0), 120)
    everything = run(rows, MemoryStore(), EverythingOpen())
    first = run(rows, MemoryStore())
    assert first.seconds <= 1.01 * everything.seconds
    assert "profile" in first.sources


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (Shape(0, answer_tokens=48), "answers of debate have 48 tokens instead of 16"),
        (Shape(0, answer_tokens=5), "answers of debate have 5 tokens instead of 16"),
        (Shape(0, num_rounds=8), "debate was called"),
        (Shape(0, prompt_tokens=300), "prompts of debate have 300 tokens instead of 800"),
        (Shape(0, prompt_tokens=1600), "prompts of debate have 1600 tokens instead of 800"),
    ],
)
def test_a_wrong_profile_is_named_and_costs_next_to_nothing(shape: Shape, reason: str) -> None:
    profiles = MemoryStore()
    run(USUAL, profiles)
    rows = rows_of(shape)
    everything = run(rows, MemoryStore(), EverythingOpen())
    found = run(rows, profiles)
    assert len(found.misfits) == 1
    assert reason in found.misfits[0]
    assert found.seconds <= 1.03 * everything.seconds
    said = savings(found.session.summary, has_memo=True, seconds=1.0)
    assert f"profile   did not fit: {found.misfits[0]}" in said


def test_after_a_misfit_the_newer_rows_are_believed() -> None:
    profiles = MemoryStore()
    run(USUAL, profiles)
    changed = rows_of(Shape(0, answer_tokens=48))
    run(changed, profiles)
    assert run(changed, profiles).misfits == []


def test_agents_that_are_known_to_pause_are_parked_at_once() -> None:
    rows = rows_of(AGENT, 40)
    profiles = MemoryStore()
    everything = run(rows, MemoryStore(), EverythingOpen())
    first = run(rows, profiles)
    second = run([each._replace(number=each.number + 100) for each in rows], profiles)
    (data,) = profiles.profiles().values()
    profile = decode_profile(data)
    assert profile is not None and profile.pause_share > 0.05
    assert first.prefill_tokens < 0.7 * everything.prefill_tokens, "before anything is lost"
    assert second.prefill_tokens <= first.prefill_tokens
    assert second.seconds <= first.seconds


def test_whatever_the_planner_looks_at_agents_without_a_place_wait() -> None:
    """It looks at the rows again now and then, and what is open goes on meanwhile."""
    rows = rows_of(AGENT._replace(prompt_tokens=300, answer_tokens=60, num_rounds=12), 40)
    parked = run(rows, MemoryStore(), Park())
    assert run(rows, MemoryStore()).prefill_tokens <= 1.1 * parked.prefill_tokens


def test_agents_that_pause_no_more_are_not_parked_for_long() -> None:
    rows = rows_of(AGENT, 40)
    profiles = MemoryStore()
    run(rows, profiles)
    ((key, data),) = profiles.profiles().items()
    profile = decode_profile(data)
    assert profile is not None
    profiles.put_profile(key, encode_profile(replace(profile, pause_s=100 * profile.service_s)))
    quick = [each._replace(tool_s=0.0) for each in rows]
    everything = run(quick, MemoryStore(), EverythingOpen())
    assert run(quick, profiles).seconds <= 1.03 * everything.seconds


@operator
async def revise(number: int) -> str:
    """A draft, a verdict that nobody reads on, and a revision that goes on from the draft."""
    rng = random.Random(number)
    draft, verdict = _words(rng, 800), _words(rng, 600)
    await llm(user(draft), max_tokens=16)
    await llm(user(verdict), max_tokens=16)
    return (await llm(user(f"{draft} {'7 ' * 16}{_words(rng, 30)}"), max_tokens=16)).text


class HintedEngine(TokenEngine):
    """Keeps how many tokens of prompts of each length were said to be of use."""

    def __init__(self) -> None:
        super().__init__(COST, Capacity(KV_TOKENS, 16, max_model_tokens=4096))
        self.used_tokens: set[tuple[int, int | None]] = set()

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        used_tokens = (request.hints or {}).get("helium_used_tokens")
        self.used_tokens.add((len(request.prompt_token_ids), used_tokens))
        return await super().complete(request, on_delta)


def test_an_engine_is_told_what_is_of_no_use_in_rows_that_declare_nothing() -> None:
    profiles = MemoryStore()

    async def said(start: int) -> set[tuple[int, int | None]]:
        engine, memo = HintedEngine(), MemoryStore()
        for key, profile in profiles.profiles().items():
            memo.put_profile(key, profile)
        async with Session(engine, memo=memo) as session:
            async for _ in session.map(revise, range(start, start + 24)):
                pass
        for key, profile in memo.profiles().items():
            profiles.put_profile(key, profile)
        return engine.used_tokens

    assert run_in_virtual_time(said(0)) >= {(800, None), (600, None), (846, None)}
    later = run_in_virtual_time(said(100))
    assert later == {(800, None), (600, 0), (846, 0)}, "a revision goes on from the draft"
