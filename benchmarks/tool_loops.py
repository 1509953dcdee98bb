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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from helium_agents import Session, llm, operator, user
from helium_agents.engines.engine import ChatMessage
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.engines.simulated.scheduler import Limits
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen, Schedule
from helium_agents.optimizer.step_cost import STEP_COSTS

BLOCK_TOKENS = 32
_LONG_TOOL_S, _LONG_SHARE = 10.0, 0.05


@dataclass(frozen=True)
class Turn:
    """One turn of a session.

    Args:
        output_tokens: Of the answer.
        result_tokens: Of what the tool gives back.
        tool_s: How long the tool takes.
    """

    output_tokens: int
    result_tokens: int
    tool_s: float


@dataclass(frozen=True)
class AgentSession:
    """One agent's work; sizes in tokens.

    Args:
        number: Counts from 0.
        system_tokens: Shared by all sessions.
        task_tokens: Its own first prompt.
        turns: In order; after the last there is no tool.
        arrival_s: When it is submitted.
    """

    number: int
    system_tokens: int
    task_tokens: int
    turns: tuple[Turn, ...]
    arrival_s: float = 0.0

    @property
    def own_tokens(self) -> int:
        """All that it computes itself."""
        grown = sum(turn.output_tokens + turn.result_tokens for turn in self.turns)
        return self.task_tokens + grown


def make_sessions(
    num_sessions: int, scale: int, tool_s: float, seed: int, jobs_per_s: float | None = None
) -> list[AgentSession]:
    """Sessions whose sizes are divided by `scale`, with a median tool time."""
    rng, arrivals = random.Random(seed), random.Random(seed + 7)

    def size(low: int, high: int) -> int:
        return max(1, rng.randint(low, high) // scale)

    def turn() -> Turn:
        is_long = rng.random() < _LONG_SHARE
        seconds = _LONG_TOOL_S if is_long else tool_s * math.exp(rng.gauss(0, 1))
        return Turn(size(40, 80), size(100, 400), seconds)

    sessions, arrival_s = [], 0.0
    for number in range(num_sessions):
        if jobs_per_s is not None:
            arrival_s += arrivals.expovariate(jobs_per_s)
        turns = tuple(turn() for _ in range(rng.randint(10, 20)))
        sessions.append(AgentSession(number, 1536 // scale, size(300, 1000), turns, arrival_s))
    return sessions


class _TokenEngine(SimulatedEngine):
    """A simulated engine whose messages are numbers: tokens, separated by spaces."""

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        return [int(word) for message in messages for word in message.content.split()]


@operator
async def agent(session: AgentSession) -> float:
    """Works on its task, turn by turn; gives when it was done."""
    loop = asyncio.get_running_loop()
    rng = random.Random(session.number)
    history = [str(token) for token in range(1, session.system_tokens + 1)]
    history += _words(rng, session.task_tokens)
    for number, turn in enumerate(session.turns):
        await llm(user(" ".join(history)), max_tokens=turn.output_tokens)
        if number + 1 < len(session.turns):
            await asyncio.sleep(turn.tool_s)
            history += ["7"] * turn.output_tokens + _words(rng, turn.result_tokens)
    return loop.time() - session.arrival_s


def _words(rng: random.Random, num_tokens: int) -> list[str]:
    return [str(rng.randrange(10_000, 60_000)) for _ in range(num_tokens)]


@dataclass(frozen=True)
class Outcome:
    """What came of a run: virtual seconds, and prompt tokens that were computed."""

    makespan_s: float
    mean_s: float
    p95_s: float
    prefill_tokens: int
    steps: int


async def run(
    sessions: Sequence[AgentSession], engine: SimulatedEngine, schedule: Schedule
) -> Outcome:
    """All sessions in one session of ours."""
    await engine.start()
    await engine.reset_prefix_cache()
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def work(session: AgentSession) -> float:
        await asyncio.sleep(session.arrival_s)
        began_s = loop.time()
        await agent(session)
        return loop.time() - began_s

    async with Session(engine, schedule=schedule) as ours:
        took = sorted([seconds async for seconds in ours.map(work, sessions)])
    counts = engine.counts
    makespan_s = loop.time() - start_s
    p95_s = took[min(len(took) - 1, int(0.95 * len(took)))]
    return Outcome(makespan_s, mean(took), p95_s, counts.prefill_tokens, counts.steps)


@dataclass(frozen=True)
class Cell:
    """Sessions, and the engine that they run on.

    Args:
        cost: Name of a step's cost.
        kv_share: KV cache as a share of what all sessions compute.
        tool_s: Median tool time.
        num_sessions: How many.
        jobs_per_s: Arrivals a second; `None`: all at once.
    """

    cost: str
    kv_share: float
    tool_s: float
    num_sessions: int
    jobs_per_s: float | None = None

    def sessions(self, seed: int) -> list[AgentSession]:
        """The sessions of a seed."""
        scale = 1 if self.cost.startswith("h100") else 4
        return make_sessions(self.num_sessions, scale, self.tool_s, seed, self.jobs_per_s)

    def engine(self, sessions: Sequence[AgentSession]) -> SimulatedEngine:
        """The engine for some sessions."""
        total = sum(each.own_tokens for each in sessions) + sessions[0].system_tokens
        largest = max(each.own_tokens + each.system_tokens for each in sessions)
        kv_tokens = max(int(total * self.kv_share), int(largest * 1.1) + 256)
        limits = Limits(
            kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS,
            BLOCK_TOKENS,
            256 if self.cost.startswith("h100") else 64,
        )
        return _TokenEngine(STEP_COSTS[self.cost], limits)


def schedules(names: Sequence[str], num_sessions: int) -> dict[str, Schedule]:
    """Schedules by name: `raw` (everything open), `park`, `best-limit` candidates as `limit-N`."""
    found: dict[str, Schedule] = {}
    for name in names:
        if name == "limits":
            for share in (0.1, 0.15, 0.2, 0.25, 0.33, 0.4, 0.5, 0.67, 0.8):
                limit = max(1, round(num_sessions * share))
                found[f"limit-{limit}"] = FewOpen(limit)
        else:
            found[name] = _SCHEDULES[name]()
    return found


_SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "raw": EverythingOpen,
    "park": Park,
    "auto": Adaptive,
}


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tool_loops", description=__doc__)
    parser.add_argument("--cost", choices=list(STEP_COSTS), default="cpu-medium")
    parser.add_argument("--kv-share", type=float, default=1 / 3)
    parser.add_argument("--tool-s", type=float, default=2.0, help="median tool time")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--jobs-per-s", type=float, help="open arrivals; all at once by default")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--systems", default="raw,park", help="raw, park, limits")
    options = parser.parse_args()
    cell = Cell(
        options.cost, options.kv_share, options.tool_s, options.sessions, options.jobs_per_s
    )
    for seed in range(1, options.seeds + 1):
        sessions = cell.sessions(seed)
        first: Outcome | None = None
        for name, schedule in schedules(options.systems.split(","), len(sessions)).items():
            work: Awaitable[Outcome] = run(sessions, cell.engine(sessions), schedule)
            found = run_in_virtual_time(_awaited(work))
            first = first or found
            print(
                f"seed {seed} {name:10} makespan {found.makespan_s:7.1f} s "
                f"x{first.makespan_s / found.makespan_s:5.2f}  mean {found.mean_s:6.1f} s "
                f"x{first.mean_s / found.mean_s:5.2f}  p95 {found.p95_s:6.1f} s "
                f"x{first.p95_s / found.p95_s:5.2f}  prefill {found.prefill_tokens:8} "
                f"steps {found.steps:6}",
                flush=True,
            )


async def _awaited(work: Awaitable[Outcome]) -> Outcome:
    return await work


if __name__ == "__main__":
    main()
