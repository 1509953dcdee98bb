"""What was expected of operators stands beside what came."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from helium_agents import Session, llm, operator, prompt, user
from helium_agents.cli.explain_trace import expected_table
from helium_agents.diagnose.analyze import by_operator
from helium_agents.diagnose.expectations import expectations
from helium_agents.engines.engine import Capacity
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.expected import ExpectedSite
from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.trace import TracedRun, read_trace
from tests.trace.made import call, made_run


def run_of_two_rows() -> TracedRun:
    return made_run(
        call(2, 0, 4, body=1, prompt=[1] * 40, cached_tokens=10, output=[1] * 6),
        call(3, 0, 4, body=1, source="merged", leader=2),
        call(12, 0, 2, body=11, item=1, prompt=[2] * 60, output=[1] * 8),
        bodies=[(1, "flow:make.<locals>.agent", 0), (11, "flow:make.<locals>.agent", 0)],
    )


def test_expected_and_actual_stand_side_by_side() -> None:
    run = run_of_two_rows()
    assert expectations(run, by_operator(run)) == []
    early = ExpectedSite("make.<locals>.agent", 2, 6, 4, 200, 100, 50, 8.0)
    late = ExpectedSite("make.<locals>.agent", 1, 1, 1, 999, 999)
    run.choices = [{"expected": [asdict(early)]}, {"expected": [asdict(late)]}, {}]
    (found,) = expectations(run, by_operator(run))
    assert found.operator == "make.agent"
    assert asdict(found.expected) == {
        "calls_per_row": 3, "prompt_tokens": 50, "cached_share": 0.25, "output_tokens": 25,
        "engine_s": 2.0,
    }  # fmt: skip
    assert asdict(found.actual) == {
        "calls_per_row": 1.5, "prompt_tokens": 50, "cached_share": 0.1, "output_tokens": 7,
        "engine_s": 3.0,
    }  # fmt: skip


def test_what_was_not_simulated_or_not_asked() -> None:
    run = run_of_two_rows()
    never = asdict(ExpectedSite("never", 2, 2, 2, 20, 20))
    plain = asdict(ExpectedSite("main", 2, 2, 2, 20, 20))
    run.choices = [{"expected": [never, plain]}]
    assert expectations(run, by_operator(run)) == []
    run = made_run(call(1, 0, 1, prompt=[1] * 50))  # of a plain function: nobody knows its name
    run.choices = [{"expected": [plain]}]
    (found,) = expectations(run, by_operator(run))
    assert found.operator == "main"
    assert found.expected.cached_share is None and found.expected.engine_s is None
    assert found.actual.prompt_tokens == 50


async def debate(row: int) -> list[str]:
    texts = [f"agent {agent} of row {row} " * 60 for agent in range(3)]
    firsts = [llm(user(text), max_tokens=16) for text in texts]
    both = zip(texts, firsts, strict=True)
    lasts = [llm(user(prompt(text + "{it}", it=first)), max_tokens=16) for text, first in both]
    return [(await last).text for last in lasts]


class Costed(ScriptedEngine):
    """Says what a step takes, and holds six rows."""

    cost = STEP_COSTS["cpu-medium"]

    def __init__(self) -> None:
        room = Capacity(kv_tokens=6144, block_tokens=16, max_model_tokens=2048, max_requests=64)
        super().__init__(lambda request: "yes", capacity=room, latency_s=0.02)


def test_a_run_keeps_what_was_expected(tmp_path: Path) -> None:
    async def traced() -> None:
        async with Session(Costed(), trace=tmp_path / "t") as session:
            assert len([each async for each in session.map(operator(debate), range(40))]) == 40

    run_in_virtual_time(traced())
    run = read_trace(tmp_path / "t")
    (found,) = expectations(run, by_operator(run))
    assert found.operator == "debate" and found.expected.calls_per_row == 6
    assert found.actual.calls_per_row == 6
    assert found.expected.prompt_tokens == pytest.approx(found.actual.prompt_tokens, rel=0.3)
    assert found.expected.cached_share is not None and found.expected.cached_share > 0.2
    assert found.expected.output_tokens == 16 and found.actual.output_tokens == 1
    assert found.expected.engine_s is not None
    lines = expected_table([found]).splitlines()
    assert " ".join(lines[0].split()).startswith("expected → actual calls a row prompt cached")
    assert lines[1].startswith("debate") and "6 → 6" in lines[1] and "16 → 1" in lines[1]
