"""`python -m benchmarks.tool_loops`: agent sessions that call tools, in virtual time.

Sessions of 10 to 20 turns with a shared system prompt: each turn's prompt is the last one with the
answer and a tool's result after it. Tools take a lognormal time (sigma 1), one in twenty of them
ten seconds. All systems see the same sessions on vLLM's own scheduler, so that what differs is what
they send when.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.harness.statistics import percentile
from benchmarks.systems.attained_service import LeastAttainedService
from benchmarks.systems.lease import Lease
from benchmarks.workloads.agent_sessions import AgentSession, make_arrivals, make_sessions
from benchmarks.workloads.tools import AgentRow, ToolTurn, agent
from helium_agents import Session
from helium_agents.engines.engine import Capacity
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.tokens import TokenEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen, Schedule
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost

BLOCK_TOKENS = 32
_LIMIT_SHARES = (0.1, 0.15, 0.2, 0.25, 0.33, 0.4, 0.5, 0.67, 0.8)


def _row(session: AgentSession) -> AgentRow:
    """A session whose texts are numbers."""
    rng = random.Random(session.number)

    def text(num_tokens: int) -> str:
        return " ".join(str(rng.randrange(10_000, 60_000)) for _ in range(num_tokens))

    task = text(session.task_tokens)
    turns = (
        ToolTurn(turn.output_tokens, turn.tool_s, text(turn.result_tokens))
        for turn in session.turns
    )
    instructions = " ".join(map(str, range(1, session.system_tokens + 1)))
    return AgentRow(instructions, task, tuple(turns))


@dataclass(frozen=True)
class Outcome:
    """What came of a run: virtual seconds, and prompt tokens that were computed."""

    makespan_s: float
    mean_s: float
    p95_s: float
    prefill_tokens: int
    steps: int


async def run(
    rows: Sequence[AgentRow],
    arrivals_s: Sequence[float],
    engine: SimulatedEngine,
    schedule: Schedule,
) -> Outcome:
    """All rows in one session of ours."""
    await engine.start()
    loop = asyncio.get_running_loop()

    async def work(numbered: tuple[int, AgentRow]) -> float:
        number, row = numbered
        await asyncio.sleep(arrivals_s[number])
        began_s = loop.time()
        await agent(row)
        return loop.time() - began_s

    start_s = loop.time()
    async with Session(engine, schedule=schedule) as ours:
        took = [seconds async for seconds in ours.map(work, enumerate(rows))]
    counts = engine.counts
    makespan_s = loop.time() - start_s
    return Outcome(
        makespan_s, mean(took), percentile(took, 95), counts.prefill_tokens, counts.steps
    )


@dataclass(frozen=True)
class Cell:
    """Sessions, and the engine that they run on.

    Args:
        cost: Of a step.
        kv_share: KV cache as a share of what all sessions compute.
        tool_s: Median tool time.
        num_sessions: How many.
        jobs_per_s: Arrivals a second; `None`: all at once.
        is_large: Whether sizes are a GPU's, and not a quarter of them.
    """

    cost: StepCost
    kv_share: float
    tool_s: float
    num_sessions: int
    jobs_per_s: float | None = None
    is_large: bool = False

    def sessions(self, seed: int) -> list[AgentSession]:
        """The sessions of a seed."""
        return make_sessions(self.num_sessions, 1 if self.is_large else 4, self.tool_s, seed)

    def arrivals_s(self, seed: int) -> Sequence[float]:
        """When they arrive."""
        if self.jobs_per_s is None:
            return [0.0] * self.num_sessions
        return make_arrivals(self.num_sessions, self.jobs_per_s, seed)

    def engine(self, sessions: Sequence[AgentSession]) -> SimulatedEngine:
        """The engine for some sessions."""
        total = sum(each.own_tokens for each in sessions) + sessions[0].system_tokens
        largest = max(each.own_tokens + each.system_tokens for each in sessions)
        kv_tokens = max(int(total * self.kv_share), int(largest * 1.1) + 256)
        limits = Capacity(
            kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS,
            BLOCK_TOKENS,
            max_requests=256 if self.is_large else 64,
        )
        return TokenEngine(self.cost, limits)


def schedules(names: Sequence[str], num_sessions: int) -> dict[str, Schedule]:
    """Schedules by name: `raw` (everything open), `park`, `best-limit` candidates as `limit-N`."""
    found: dict[str, Schedule] = {}
    for name in names:
        if name == "limits":
            for share in _LIMIT_SHARES:
                limit = max(1, round(num_sessions * share))
                found[f"limit-{limit}"] = FewOpen(limit)
        else:
            found[name] = _SCHEDULES[name]()
    return found


_SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "raw": EverythingOpen,
    "park": Park,
    "auto": Adaptive,
    "attained-service": LeastAttainedService,
    "lease": Lease,
}


def named_cell(
    name: str,
    kv_share: float,
    tool_s: float,
    num_sessions: int,
    jobs_per_s: float | None = None,
) -> Cell:
    """A cell at a cost that has a name, with the sizes that go with it."""
    is_large = name.startswith("h100")
    return Cell(STEP_COSTS[name], kv_share, tool_s, num_sessions, jobs_per_s, is_large)


def random_cost(rng: random.Random) -> StepCost:
    """What a step of one of many engines takes: prompts cheap or dear beside steps."""
    return StepCost(
        step_s=_between(rng, 3e-3, 20e-3),
        decode_s=_between(rng, 0.02e-3, 0.6e-3),
        context_s=0.0,
        prefill_s=_between(rng, 20e-6, 1e-3),
        position_s=0.0,
        request_s=0.5e-3,
        reply_s=1e-3,
    )


def _between(rng: random.Random, low: float, high: float) -> float:
    return low * math.exp(rng.random() * math.log(high / low))


def random_cell(number: int) -> Cell:
    """One of many engines and tools: prompts cheap or dear, a small KV cache or one for half."""
    rng = random.Random(number)
    cost = random_cost(rng)
    kv_share, tool_s = rng.uniform(0.15, 0.6), _between(rng, 0.1, 2.0)
    return Cell(cost, kv_share, tool_s, rng.choice((16, 30, 48)))


GOAL_CELLS = {
    f"{cost}-{tool_s:g}": named_cell(cost, 1 / 3, tool_s, 128 if cost.startswith("h100") else 40)
    for cost, tool_s in (
        *(("cpu-medium", 2.0), ("cpu-medium", 0.5), ("cpu-medium", 10.0)),
        *(("h100-8b", 2.0), ("h100-8b", 0.5)),
    )
}
"""Those of which the goals speak, by cost and median tool time."""


def gain(cell: Cell, seed: int) -> dict[str, float]:
    """By how much the default schedule is faster than everything open."""
    sessions = cell.sessions(seed)
    rows, arrivals_s = [_row(session) for session in sessions], cell.arrivals_s(seed)
    raw, ours = (
        run_in_virtual_time(run(rows, arrivals_s, cell.engine(sessions), schedule))
        for schedule in (EverythingOpen(), Adaptive())
    )
    return {
        "makespan": raw.makespan_s / ours.makespan_s,
        "mean": raw.mean_s / ours.mean_s,
        "p95": raw.p95_s / ours.p95_s,
    }


def gains(cell: Cell, num_seeds: int) -> list[dict[str, float]]:
    """The gain of each seed."""
    return [gain(cell, seed) for seed in range(1, num_seeds + 1)]


def _print_random(num_cells: int) -> None:
    for number in range(num_cells):
        cell, cost = random_cell(number), random_cell(number).cost
        found = gain(cell, number)
        print(
            f"{number:4} step {cost.step_s * 1e3:4.1f} ms, prompt token "
            f"{cost.prefill_s * 1e6:4.0f} us, KV {cell.kv_share:.2f}, tools {cell.tool_s:4.2f} s, "
            f"{cell.num_sessions} sessions  "
            + "  ".join(f"{name} x{value:.2f}" for name, value in found.items()),
            flush=True,
        )


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tool_loops", description=__doc__)
    parser.add_argument("--cost", choices=list(STEP_COSTS), default="cpu-medium")
    parser.add_argument("--kv-share", type=float, default=1 / 3)
    parser.add_argument("--tool-s", type=float, default=2.0, help="median tool time")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--jobs-per-s", type=float, help="open arrivals; all at once by default")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--systems", default="raw,auto", help=", ".join((*_SCHEDULES, "limits")))
    parser.add_argument(
        "--random", type=int, metavar="N", help="the default's gain in N cells drawn at random"
    )
    options = parser.parse_args()
    if options.random:
        _print_random(options.random)
        return
    cell = named_cell(
        options.cost, options.kv_share, options.tool_s, options.sessions, options.jobs_per_s
    )
    for seed in range(1, options.seeds + 1):
        sessions = cell.sessions(seed)
        rows = [_row(session) for session in sessions]
        first: Outcome | None = None
        for name, schedule in schedules(options.systems.split(","), len(sessions)).items():
            found = run_in_virtual_time(
                run(rows, cell.arrivals_s(seed), cell.engine(sessions), schedule)
            )
            first = first or found
            print(
                f"seed {seed} {name:16} makespan {found.makespan_s:7.1f} s "
                f"x{first.makespan_s / found.makespan_s:5.2f}  mean {found.mean_s:6.1f} s "
                f"x{first.mean_s / found.mean_s:5.2f}  p95 {found.p95_s:6.1f} s "
                f"x{first.p95_s / found.p95_s:5.2f}  prefill {found.prefill_tokens:8} "
                f"steps {found.steps:6}",
                flush=True,
            )


if __name__ == "__main__":
    main()
