"""What an engine tells of its steps reaches the observers once, whatever the engine's life."""

from __future__ import annotations

from pathlib import Path

import pytest

from helium_agents import Session, llm, user
from helium_agents.engines.engine import Capacity
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.optimizer.step_window import StepWindow
from helium_agents.telemetry.events import EngineStepped, Event
from helium_agents.trace import TraceFile, read_trace


def simulated() -> SimulatedEngine:
    pytest.importorskip("vllm")
    return SimulatedEngine(STEP_COSTS["cpu-medium"], Capacity(4096, 16, max_model_tokens=1024))


async def ask(numbers: range) -> None:
    for number in numbers:
        await llm(user(f"{number} " * 300), max_tokens=100)


def test_a_session_tells_what_was_computed_for_it_and_no_more() -> None:
    engine = simulated()
    told: list[list[EngineStepped]] = []

    async def run() -> None:
        await engine.start()
        for first in (0, 10):
            found: list[EngineStepped] = []
            told.append(found)

            def keep(event: Event, found: list[EngineStepped] = found) -> None:
                if isinstance(event, EngineStepped):
                    found.append(event)

            async with Session(engine, observers=[keep]) as session:
                await session.run(ask, range(first, first + 3))

    run_in_virtual_time(run())
    for events in told:
        assert len(events) > 2, "now and then, not only in the end"
        windows = [StepWindow(*window) for event in events for window in event.windows]
        assert sum(window.decode_tokens for window in windows) == 3 * 99
        assert windows == sorted(windows)


def test_a_trace_has_them_in_the_time_of_the_run_resumed_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "run.trace"

    async def run() -> None:
        for resume in (False, True):
            trace = TraceFile(path, resume=resume)
            async with Session(simulated(), trace=trace) as session:
                await session.run(ask, range(3))

    run_in_virtual_time(run())
    run_ = read_trace(path)
    ((key, windows),) = run_.steps.items()
    assert key == ("simulated", "simulated")
    assert sum(window.decode_tokens for window in windows) == 2 * 3 * 99
    assert windows == sorted(windows)
    for call in run_.computed:
        assert call.sent_s is not None and call.begun_s is not None
        assert call.first_token_s is not None
        assert call.sent_s <= call.begun_s < call.first_token_s < call.end_s
    first, last = run_.computed[0], run_.computed[-1]
    assert first.begun_s == pytest.approx(windows[0].begin_s, abs=1e-3)
    assert windows[-1].end_s == pytest.approx(last.end_s, abs=0.01)


async def test_an_engine_that_tells_nothing_is_asked_nothing() -> None:
    events: list[Event] = []
    async with Session(ScriptedEngine(), observers=[events.append]) as session:
        await session.run(ask, range(2))
    assert not any(isinstance(event, EngineStepped) for event in events)
