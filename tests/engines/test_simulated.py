"""The simulated engine: virtual time, and what vLLM's scheduler makes of requests."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import replace
from typing import Any

import pytest

from helium_agents import Session, gather, llm, operator, prompt, user
from helium_agents.cli.report import savings
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.errors import RequestError
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import EverythingOpen, Schedule
from helium_agents.optimizer.step_cost import STEP_COSTS, Step, StepCost

COST = StepCost(0.01, 0.001, 0.0, 0.0001, 0.0, request_s=0.0, reply_s=0.0)


def engine(kv_tokens: int = 4096, cost: StepCost = COST) -> SimulatedEngine:
    return SimulatedEngine(cost, Capacity(kv_tokens, 16, max_model_tokens=2048))


def words(start: int, num: int) -> str:
    return " ".join(f"w{number}" for number in range(start, start + num))


class TestVirtualTime:
    def test_sleeping_takes_no_time_and_keeps_its_order(self) -> None:
        async def main() -> list[float]:
            loop = asyncio.get_running_loop()
            seen: list[float] = []

            async def sleep(seconds: float) -> None:
                await asyncio.sleep(seconds)
                seen.append(loop.time())

            await asyncio.gather(sleep(3600), sleep(60), sleep(7200))
            return seen

        start_s = time.monotonic()
        assert run_in_virtual_time(main()) == pytest.approx([60, 3600, 7200])
        assert time.monotonic() - start_s < 600

    def test_threads_are_waited_for(self) -> None:
        async def main() -> int:
            return await asyncio.to_thread(lambda: 7)

        assert run_in_virtual_time(main()) == 7


class TestStepCost:
    def test_is_a_line(self) -> None:
        cost = StepCost(1, 2, 3, 4, 5)
        assert cost.seconds(Step(10, 100, 1000, 10_000)) == 1 + 20 + 300 + 4000 + 50_000
        assert cost.prefill_seconds(10, start=5) == 4 * 10 + 5 * 10 * 10

    def test_is_kept_as_json(self) -> None:
        cost = STEP_COSTS["h100-8b"]
        assert StepCost.from_dict(cost.as_dict()) == cost
        with pytest.raises(RequestError, match="lacks decode_s, context_s"):
            StepCost.from_dict({"step_s": 1})
        with pytest.raises(RequestError, match="no 'steps', only step_s"):
            StepCost.from_dict({**cost.as_dict(), "steps": 1})
        with pytest.raises(RequestError, match="is an object with step_s"):
            StepCost.from_dict([1])  # type: ignore[arg-type]
        for wrong in (-1, 1e9, float("nan")):
            with pytest.raises(RequestError, match=r"decode_s=.* from 0 to 1,000"):
                StepCost(1, wrong, 0, 0, 0)


@pytest.mark.slow
class TestEngine:
    def test_a_prefix_is_computed_once_and_a_run_is_the_same_each_time(self) -> None:
        async def main() -> tuple[float, int, list[int]]:
            simulated = engine()
            async with Session(simulated) as session:
                text = words(0, 200)
                await llm(user(text), max_tokens=8)
                replies = await gather(*(llm(user(f"{text} {n}"), max_tokens=8) for n in "abc"))
                assert session.summary.num_computed == 4
                lengths = [len(reply.choices[0].token_ids) for reply in replies]
                loop = asyncio.get_running_loop()
                return loop.time(), simulated.counts.prefill_tokens, lengths

        first = run_in_virtual_time(main())
        _, prefill_tokens, lengths = first
        assert lengths == [8, 8, 8]
        assert 200 < prefill_tokens < 300, "three times the end of a prompt, once its beginning"
        assert run_in_virtual_time(main()) == first
        assert "VLLM_LOGGING_LEVEL" not in os.environ, "that it is set has a meaning"

    def test_steps_take_what_they_cost(self) -> None:
        async def main() -> float:
            simulated = engine()
            async with Session(simulated):
                await llm(user(words(0, 99)), max_tokens=3)
                loop = asyncio.get_running_loop()
                return loop.time() - simulated.counts.steps * 0.01

        # 100 prompt tokens at 0.1 ms, then two decodes at 1 ms
        assert run_in_virtual_time(main()) == pytest.approx(100 * 0.0001 + 2 * 0.001)

    def test_what_does_not_fit_is_refused_and_what_is_cancelled_is_gone(self) -> None:
        async def main() -> None:
            simulated = engine(kv_tokens=256)
            async with Session(simulated):
                with pytest.raises(RequestError, match="does not fit into the 256 tokens"):
                    await llm(user(words(0, 300)))
                task = asyncio.ensure_future(llm(user("a"), max_tokens=200))
                await asyncio.sleep(0.05)
                task.cancel()
                await asyncio.sleep(0.05)
                assert (await llm(user("b"), max_tokens=200)).finish_reason == "length"

        run_in_virtual_time(main())

    def test_a_scheduler_that_fails_is_an_engine_that_dies(self) -> None:
        async def main() -> None:
            simulated = engine()
            await simulated.start()

            def broken() -> None:
                raise KeyError("no such request")

            simulated._scheduler.begin_step = broken  # type: ignore[union-attr, method-assign]
            async with Session(simulated):
                with pytest.warns(RuntimeWarning, match="scheduler failed: KeyError"):
                    reply = await llm(user("a"), max_tokens=4, timeout=60)
                assert reply.finish_reason == "length", "it was started again"

        run_in_virtual_time(main())

    @pytest.mark.parametrize("seed", [1, 2])
    def test_park_computes_less_again_where_agents_wait_for_tools(self, seed: int) -> None:
        @operator
        async def agent(number: int) -> None:
            text = words(0, 50) + " " + words(1000 * (seed + number), 100)
            for turn in range(6):
                await llm(user(text), max_tokens=8)
                await asyncio.sleep(0.2 + (number * 7 + turn * seed) % 5 / 10)
                text += " " + words(100_000 * seed + 1000 * number + 100 * turn, 60)

        def ran(schedule: Schedule | None, prefill_s: float) -> tuple[int, float]:
            """Prompt tokens that were computed, and seconds."""

            async def main() -> tuple[int, float]:
                simulated = engine(kv_tokens=2048, cost=replace(COST, prefill_s=prefill_s))
                async with Session(simulated, schedule=schedule) as session:
                    async for _ in session.map(agent, range(12)):
                        pass
                    seconds = asyncio.get_running_loop().time()
                return simulated.counts.prefill_tokens, seconds

            return run_in_virtual_time(main())

        everything, everything_s = ran(EverythingOpen(), prefill_s=0.001)
        for schedule in (Park(), None):  # the default finds out by itself
            computed, seconds = ran(schedule, prefill_s=0.001)
            assert computed < 0.8 * everything
            assert seconds < 0.9 * everything_s
        # where prompts cost little, agents that wait for their turn lose more
        assert ran(None, prefill_s=0.0001)[1] < 1.03 * ran(EverythingOpen(), prefill_s=0.0001)[1]

    def test_what_an_ended_session_left_goes_first(self) -> None:
        """Three prompts fill the cache; the second has ended, so that a fourth evicts that one."""

        def ask(name: str, start: int, **hints: Any) -> Request:
            session = {"helium_session": name, **hints}
            prompt = list(range(start, start + 128))
            return Request(name, (), prompt, Sampling(max_tokens=1), hints=session)

        async def cached_tokens(**hints: Any) -> list[int]:
            simulated = engine(kv_tokens=3 * 128 + 32)
            await simulated.start()
            for number, name in enumerate("abc"):
                await simulated.complete(ask(name, 1000 * number))
            await simulated.complete(ask("d", 9000, **hints))
            again = [await simulated.complete(ask(f"{n}2", 1000 * n)) for n in (0, 2)]
            return [completion.cached_tokens for completion in again]

        assert run_in_virtual_time(cached_tokens())[0] <= 32, "what was used longest ago"
        found = run_in_virtual_time(cached_tokens(helium_ended=["b"], helium_kept_tokens=[0]))
        assert min(found) >= 112
        found = run_in_virtual_time(cached_tokens(helium_ended=["b"], helium_kept_tokens=[128]))
        assert found[0] <= 32, "others share all of it"
        assert run_in_virtual_time(cached_tokens(helium_ended=["nobody"]))[0] <= 32

    def test_fewer_declared_rows_are_open_where_that_is_predicted_to_be_faster(self) -> None:
        @operator
        async def debate(row: int) -> list[str]:
            openings = [f"{words(1000 * (3 * row + agent), 800)}" for agent in range(3)]
            firsts = [llm(user(text), max_tokens=16) for text in openings]
            lasts = [
                llm(user(prompt(text + " they said {it}", it=firsts[agent - 1])), max_tokens=16)
                for agent, text in enumerate(openings)
            ]
            return [(await last).text for last in lasts]

        async def run(
            schedule: Schedule | None,
        ) -> tuple[list[list[str]], float, int, Session, str]:
            cost = StepCost(0.01, 0.0005, 0.0, 0.0005, 0.0)
            simulated = SimulatedEngine(cost, Capacity(16_384, 16, max_model_tokens=4096))
            async with Session(simulated, schedule=schedule) as session:
                found = [each async for each in session.map(debate, range(24))]
                seconds = asyncio.get_running_loop().time()
                waiting = session.waiting()
                return found, seconds, simulated.counts.prefill_tokens, session, waiting

        found, seconds, prefill_tokens, open_, _ = run_in_virtual_time(run(EverythingOpen()))
        planned, planned_s, planned_tokens, session, waiting = run_in_virtual_time(run(None))
        assert planned == found
        assert planned_tokens < 0.7 * prefill_tokens
        assert planned_s < 0.9 * seconds
        assert "times as fast as everything open (predicted time and gain: " in waiting
        assert open_.summary.policy == ""
        assert " open" in session.summary.policy
        assert session.summary.predicted_gain > 1.05
        assert ", predicted to be " in savings(session.summary, has_memo=False, seconds=1.0)


class TestHints:
    @pytest.mark.parametrize(
        "said",
        [
            {"helium_session": ["a"], "helium_ended": "b"},
            {"helium_ended": 7, "helium_kept_tokens": 7},
            {"helium_ended": [["b"], None], "helium_kept_tokens": ["x", 0]},
            {"helium_used_tokens": "many"},
            {"helium_used_tokens": float("nan"), "helium_kept_tokens": {}},
        ],
    )
    def test_what_is_no_hint_counts_as_not_said(self, said: dict[str, Any]) -> None:
        """A server's scheduler must not fail by what anybody may send it."""

        async def cached_tokens(hints: dict[str, Any] | None) -> list[int]:
            simulated = engine(kv_tokens=3 * 128 + 32)
            await simulated.start()
            found = []
            for start in (0, 1000, 2000, 3000, 1000, 0):
                prompt = list(range(start, start + 128))
                request = Request(f"r{len(found)}", (), prompt, Sampling(max_tokens=1), hints=hints)
                found.append((await simulated.complete(request)).cached_tokens)
            return found

        expected = run_in_virtual_time(cached_tokens(None))
        assert run_in_virtual_time(cached_tokens(said)) == expected and any(expected)

    def test_whatever_is_hinted_all_are_answered_where_little_fits(self) -> None:
        """Prompts that share beginnings, of which few fit, with hints that are often wrong."""

        async def run(seed: int, engine: SimulatedEngine) -> None:
            rng = random.Random(seed)

            async def ask(number: int) -> None:
                await asyncio.sleep(rng.random())
                shared, own = rng.randrange(1, 200), rng.randrange(1, 100)
                request = Request(
                    f"{seed}-{number}", (), [1 + rng.randrange(2)] * shared + [number + 5] * own,
                    Sampling(max_tokens=rng.randrange(1, 40)),
                )  # fmt: skip
                hints: dict[str, Any] = {}
                if rng.random() < 0.5:
                    hints["helium_session"] = str(rng.randrange(8))
                if rng.random() < 0.5:
                    hints["helium_used_tokens"] = rng.choice([0, shared, shared + own, 10_000])
                if rng.random() < 0.3:
                    hints["helium_ended"] = [str(rng.randrange(9)), str(rng.randrange(9))]
                    hints["helium_kept_tokens"] = [rng.choice([0, 64, 10_000])]
                request.hints = hints
                task = asyncio.ensure_future(engine.complete(request))
                if rng.random() < 0.1:
                    await asyncio.sleep(rng.random() * 0.1)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    return
                answer = await task
                assert len(answer.choices[0].token_ids) == request.max_tokens

            async with asyncio.timeout(3600):
                await asyncio.gather(*(ask(number) for number in range(80)))
            await engine.reset_prefix_cache()

        async def main() -> None:
            small = SimulatedEngine(COST, Capacity(512, 16, max_requests=8, max_model_tokens=512))
            await small.start()
            for seed in range(12):
                await run(seed, small)

        run_in_virtual_time(main())
