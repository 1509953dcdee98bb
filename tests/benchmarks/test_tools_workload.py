"""Agent sessions that wait for tools: recorded as graphs, run by systems, timed row by row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from benchmarks import tool_loops
from benchmarks.harness.calls import call_graph
from benchmarks.harness.case import Case, make_batch, make_case
from benchmarks.harness.model import SHAPES
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.simulated import Simulated, simulated_bed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.systems.attained_service import LeastAttainedService
from benchmarks.systems.lease import Lease
from benchmarks.workloads import tools, workloads
from helium_agents import llm, user
from helium_agents.engines.engine import Capacity, Request
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.schedule import ItemUse, Turn
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost

SHAPE = SHAPES["small"]
SETTINGS = EngineSettings("pressure", 0.25, SHAPE)


def make(oracle: Oracle, name: str = "tools", num_items: int = 12) -> Case:
    batch = asyncio.run(make_batch(workloads()[name], Inputs(num_items)))
    return make_case(batch, "published", oracle)


@pytest.fixture(scope="module")
def oracle(cache_home: object) -> Oracle:
    return Oracle(SHAPE)


@pytest.fixture(scope="module")
def case(oracle: Oracle) -> Case:
    return make(oracle)


def simulated(name: str, case: Case, oracle: Oracle, cost: str = "cpu-small") -> Simulated:
    """A system's run in virtual time, at a step's cost."""

    async def main() -> Simulated:
        async with simulated_bed(SETTINGS, STEP_COSTS[cost], oracle) as bed:
            return await bed.run(systems()[name], case)

    return run_in_virtual_time(main())


# --- the graph of a session ------------------------------------------------------------------


def test_a_session_is_a_chain_with_pauses(case: Case) -> None:
    row = case.batch.rows[0]
    graph = case.batch.graphs[0]
    assert 10 <= len(graph.calls) <= 20
    assert graph.calls[0].pause_s == 0
    for index, (call, turn) in enumerate(zip(graph.calls[1:], row.turns, strict=False), start=1):
        assert call.pause_s == turn.tool_s > 0
        assert call.inputs == tuple(range(index))  # the whole history, each answer once
        before = graph.calls[index - 1]
        assert call.messages[: len(before.messages)] == before.messages
    assert graph.outputs == tuple(range(len(graph.calls)))


async def test_what_a_later_call_waits_for_must_show_in_its_prompt() -> None:
    async def forgetful(row: str) -> Sequence[str]:
        first = await llm(user(row), max_tokens=4)
        second = await llm(user("something else"), max_tokens=4)
        return [first.text, second.text]

    with pytest.raises(ValueError, match="whose answer is not in its prompt"):
        await call_graph(forgetful, "a question")


def test_the_simulator_of_tool_loops_has_the_same_sessions() -> None:
    cell = tool_loops.named_cell("cpu-medium", 1 / 3, tools.TOOL_S, 3)
    drawn = tools._rows(Inputs(3, tool_scale=1.0))
    for session, row in zip(cell.sessions(1), drawn, strict=True):
        assert [turn.tool_s for turn in session.turns] == [turn.tool_s for turn in row.turns]


# --- systems on it ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["raw", "ours", "attained-service", "lease"])
def test_systems_wait_for_the_tools_and_answer_rightly(
    name: str, case: Case, oracle: Oracle
) -> None:
    found = simulated(name, case, oracle)
    waits = [sum(call.pause_s for call in graph.calls) for graph in case.batch.graphs]
    assert len(found.row_times_s) == len(waits)
    assert all(took > wait for took, wait in zip(found.row_times_s, waits, strict=True))
    assert found.seconds == pytest.approx(max(found.row_times_s), rel=0.01)


@pytest.mark.parametrize("name", ["raw", "ours"])
def test_rows_that_arrive_late_are_timed_from_their_arrival(name: str, oracle: Oracle) -> None:
    case = make(oracle, "tools-open", 8)
    case = replace(case, batch=replace(case.batch, arrivals_s=[9.0 * n for n in range(8)]))
    found = simulated(name, case, oracle)
    assert found.seconds > 63  # the last arrives then
    assert max(found.row_times_s) < 40


def test_ablations_of_what_agents_win_by(oracle: Oracle) -> None:
    """Sessions that lose their cache, and dear prompts: without a mechanism more is computed."""
    case = make(oracle, "tools", 24)
    names = ("ours", "ours-without-hints", "ours-without-ended-hints", "ours-without-park")
    found = {name: simulated(name, case, oracle, "cpu-medium") for name in names}
    prefilled = {name: each.prefill_tokens for name, each in found.items()}
    assert found["ours"].seconds < 0.7 * found["ours-without-park"].seconds
    assert prefilled["ours"] < 0.97 * prefilled["ours-without-hints"]
    assert prefilled["ours"] < 0.97 * prefilled["ours-without-ended-hints"]
    assert prefilled["ours"] < 0.7 * prefilled["ours-without-park"]


# --- the rivals' schedules -------------------------------------------------------------------


def asked(item: int, num_tokens: int, max_tokens: int = 10) -> Request:
    return Request(f"{item}", (), range(num_tokens), Sampling(max_tokens=max_tokens), item=item)


ROOM = Capacity(1000, 32, 4096, 8)


@dataclass
class SomeQueue:
    """What a schedule sees."""

    ready: list[Request]
    running: list[Request] = field(default_factory=list)
    items: dict[int, ItemUse] = field(default_factory=dict)
    now_s: float = 0.0
    room: Capacity = ROOM
    shared_tokens: int = 0
    growth_tokens: float = 0.0
    turns: Sequence[Turn] = ()
    usual_turn: Turn | None = None
    cost: StepCost | None = None
    is_stalled: bool = False
    open_items: Sequence[int] = ()

    def prefill_seconds(self, num_tokens: float, start: float) -> float:
        return 0.001 * num_tokens


def test_the_least_served_session_goes_first() -> None:
    schedule = LeastAttainedService()
    first, second = asked(0, 500), asked(1, 40)
    assert schedule.choose(SomeQueue([first])) is first
    assert schedule.choose(SomeQueue([second])) is second
    again, other = asked(0, 520), asked(1, 60)
    assert schedule.choose(SomeQueue([again, other])) is other
    assert other.priority > 0
    assert schedule.choose(SomeQueue([again])) is again
    assert again.priority > other.priority  # the engine preempts it first


def test_a_lease_lasts_as_long_as_computing_again_would_take() -> None:
    schedule, running = Lease(), asked(9, 300)
    items = {9: ItemUse(310, 10), 1: ItemUse(500, 10, paused_s=10.0)}
    newcomer = asked(2, 400)
    queue = SomeQueue([newcomer], [running], items, now_s=10.4)
    assert schedule.choose(queue) is None  # 310 + 500 are held, and it needs 410
    assert schedule.look_again_s(queue) == pytest.approx(10.5)
    assert schedule.choose(replace(queue, ready=[asked(1, 520)])) is not None  # its own cache
    assert schedule.choose(replace(queue, now_s=10.5)) is newcomer
    assert schedule.choose(replace(queue, running=[])) is newcomer  # or nothing would ever run
