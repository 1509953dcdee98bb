"""The gap to an oracle: none where all guesses are right, all of it where they are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from helium_agents import Budget, Session, ToolCall, llm, operator, run_tools, user
from helium_agents.diagnose.guesses import OracleGap, oracle_gap
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.engines.simulated.virtual_time import VirtualTimeLoop
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.trace import read_trace
from tests.trace.made import call, made_run

LAVISH = Budget(max_extra_tokens=1e9, least_probability=0.0)
NUM_STEPS, NUM_ROWS, CALL_S, TOOL_S = 4, 3, 1.0, 0.5


class _Loop(VirtualTimeLoop):
    """Every turn takes a nanosecond: of what happens at the same time, one thing comes first."""

    def _run_once(self) -> None:
        self._jumping.now_s += 1e-9
        super()._run_once()  # type: ignore[misc]


def reply(text: str) -> str:
    return f"re {text}"


def right(messages: Any) -> str:
    return reply(messages[-1].content)


def wrong(_: Any) -> str:
    return "wrong"


def mixed(messages: Any) -> Any:
    return right(messages) if "row 1" in messages[-1].content else wrong(messages)


@operator(pure=True, version="1")
async def lookup(text: str) -> str:
    await asyncio.sleep(TOOL_S)
    return f"<{text}>"


def chain(predict: Any) -> Callable[[str], Any]:
    """Questions one after another, with a tool between them."""

    @operator(pure=True, version="1")
    async def steps(row: str) -> str:
        text = row
        for _ in range(NUM_STEPS):
            text = (await llm(user(text), predict=predict)).text
            text = await lookup(text)
        return text

    return steps


async def script(request: Request) -> Any:
    await asyncio.sleep(CALL_S)
    if request.json_schema is not None:
        return '"good"'
    return reply(request.messages[-1].content)


def traced(
    fn: Callable[[str], Any],
    path: Path,
    speculate: Any = LAVISH,
    answer: Any = script,
    cost: StepCost | None = None,
) -> tuple[OracleGap | None, float]:
    """What is told of a run over rows, and how long they took together."""

    async def main() -> float:
        engine = ScriptedEngine(answer)
        engine.cost = cost
        clock = asyncio.get_running_loop().time

        async def row(text: str) -> float:
            start_s = clock()
            await fn(text)
            return clock() - start_s

        async with Session(engine, trace=path, speculate=speculate) as session:
            return sum([each async for each in session.map(row, rows)])

    rows = [f"row {number}" for number in range(NUM_ROWS)]
    with asyncio.Runner(loop_factory=_Loop) as runner:
        took_s = runner.run(main())
    return oracle_gap(read_trace(path)), took_s


def close(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-3)


WITHOUT_S = NUM_ROWS * NUM_STEPS * (CALL_S + TOOL_S)


def test_an_oracle_leaves_no_gap(tmp_path: Path) -> None:
    gap, took_s = traced(chain(right), tmp_path / "trace")
    _, without_s = traced(chain(right), tmp_path / "off", speculate="off")
    assert gap is not None and without_s == close(WITHOUT_S)
    assert gap.without_s == close(without_s), "as a run without speculation was measured"
    assert gap.taken_s == close(took_s), "as it was measured itself"
    assert gap.right_s == close(took_s) and gap.num_rows == NUM_ROWS
    assert gap.won_s == close(gap.possible_s) and gap.won_s > WITHOUT_S / 3


def test_wrong_guesses_win_nothing_of_what_right_ones_could(tmp_path: Path) -> None:
    gap, took_s = traced(chain(wrong), tmp_path / "trace")
    _, oracle_s = traced(chain(right), tmp_path / "oracle")
    assert gap is not None
    assert (gap.taken_s, gap.right_s) == (close(took_s), close(oracle_s))
    assert gap.won_s == close(0) and gap.possible_s == close(WITHOUT_S - oracle_s)
    (site,) = gap.sites
    assert (site.operator, site.num_calls) == ("chain.steps", NUM_ROWS * NUM_STEPS)
    assert (site.num_right, site.num_wrong) == (0, site.num_calls)
    assert site.sources == {"predict": site.num_calls}
    assert site.begins.startswith("row ")


def test_some_right_guesses_win_their_part(tmp_path: Path) -> None:
    gap, took_s = traced(chain(mixed), tmp_path / "trace")
    assert gap is not None and gap.taken_s == close(took_s)
    assert gap.won_s == close(gap.possible_s / NUM_ROWS)
    assert (gap.sites[0].num_right, gap.sites[0].num_wrong) == (NUM_STEPS, 2 * NUM_STEPS)


def test_what_nobody_guesses_is_told_and_no_oracle_guesses_it(tmp_path: Path) -> None:
    gap, took_s = traced(chain(None), tmp_path / "trace")
    assert gap is not None and gap.taken_s == gap.right_s == close(took_s)
    assert gap.possible_s == 0 and gap.sites[0].reasons == {"nobody": NUM_ROWS * NUM_STEPS}


def test_where_nothing_was_speculated_nothing_is_told(tmp_path: Path) -> None:
    assert traced(chain(right), tmp_path / "trace", speculate="off")[0] is None


def test_reasons_why_nothing_was_guessed(tmp_path: Path) -> None:
    @operator(pure=True, version="1")
    async def steps(row: str) -> str:
        verdict = await llm(user(f"judge {row}"), schema=Literal["good", "bad"])
        said = await llm(user(f"{verdict.parsed} {row}"), predict=lambda _: None)
        own = await llm(user(f"own {said.text}"), share=False, predict=right)
        unlikely = await llm(user(f"unlikely {own.text}"), predict=lambda _: [("no", 0.01)])
        return unlikely.text

    budget = Budget(max_extra_tokens=1e9)
    gap, _ = traced(steps, tmp_path / "trace", budget)
    assert gap is not None
    reasons = {site.begins.split()[0]: set(site.reasons) for site in gap.sites}
    assert reasons["judge"] == {"nothing seen"} and "not said" in set().union(*reasons.values())
    told = set().union(*reasons.values())
    assert told == {"nothing seen", "not said", "improbable", "not shared"}
    cautious, _ = traced(steps, tmp_path / "auto", "auto")
    assert cautious is not None
    assert set().union(*(site.reasons for site in cautious.sites)) == {"no cost", "not shared"}


def test_no_oracle_goes_past_a_tool_that_is_no_pure_operator(tmp_path: Path) -> None:
    async def plain(what: str) -> str:
        """Do it."""
        await asyncio.sleep(TOOL_S)
        return what

    asks = ToolCall("plain", {"what": "x"})

    async def calls_tools(request: Request) -> Any:
        await asyncio.sleep(CALL_S)
        is_first = request.messages[-1].role == "user"
        return ScriptedReply(tool_calls=[asks]) if is_first else "done"

    @operator(pure=True, version="1")
    async def steps(row: str) -> str:
        first = await llm(user(row), tools=[plain], predict=lambda _: asks)
        messages = await run_tools(first, [plain])
        return (await llm(user(row), *messages, predict=lambda _: "done")).text

    gap, took_s = traced(steps, tmp_path / "trace", answer=calls_tools)
    assert gap is not None and gap.right_s == close(took_s) and gap.possible_s == close(0)


def test_calls_that_run_beside_others_are_slower(tmp_path: Path) -> None:
    guess = {"call": 0, "site": "s", "source": "", "probability": 0.0, "is_right": None}
    calls = [
        call(10 + number, number * 1.0, number + 1.0, body=1, output=[1] * 50)
        for number in range(NUM_STEPS)
    ]
    run = made_run(*calls, bodies=[(1, "f:steps", 0)])
    run.guessed = {each.number: {**guess, "why": "off"} for each in calls}
    gap = oracle_gap(run)
    assert gap is not None
    assert gap.without_s == gap.taken_s == close(NUM_STEPS)
    assert 1.05 < gap.right_s < 1.5, "all at once, each somewhat slower than alone"
