"""What the runtime itself costs, beside what users know, in one run.

    make overhead

Every figure is the median of several repetitions, in microseconds. Nothing here computes anything:
bodies return at once and the engine is scripted, so what is left is what each system adds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, TypedDict

from helium_agents import Session, gather, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.graph.llm_node import question_digest
from helium_agents.graph.sampling import Sampling
from helium_agents.telemetry.events import Event, Planned
from helium_agents.trace import TraceFile

GOALS_US = {
    "plain operator call": 5,
    "fingerprint of a 2,000-token prompt": 10,
    "memo hit, in memory": 60,
    "memo hit, LMDB": 60,
    "planning, per node of 1,000": 20,
}

Measure = Callable[[], Awaitable[float]]


async def bare(x: str) -> str:
    """What everything is compared with."""
    return x


@operator
async def plain(x: str) -> str:
    """The cheapest operator."""
    return x


@operator
async def ask(x: str) -> str:
    """One model call."""
    return (await llm(user(x))).text


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15)
    asyncio.run(measure_all(parser.parse_args().repeat))


async def measure_all(num_repeats: int) -> None:
    """Measure in turns, so that a slow moment of the machine meets everybody."""
    engine = ScriptedEngine(lambda request: "ok", keep_requests=False)
    with tempfile.TemporaryDirectory() as memo:
        async with Session(engine) as session:
            measures = _measures(session, memo) | _peers()
            figures: dict[str, list[float]] = {name: [] for name in measures}
            for _ in range(num_repeats):
                for name, measure in measures.items():
                    figures[name].append(await measure())
    print("| | µs | goal |\n|---|---|---|")
    for name, values in figures.items():
        goal = GOALS_US.get(name)
        print(f"| {name} | {statistics.median(values):.1f} | {f'< {goal}' if goal else ''} |")


def _measures(session: Session, memo: str) -> dict[str, Measure]:
    text = "The quick brown fox jumps over it. " * 250  # about 2,000 tokens
    rows = iter(range(10**9))
    planned: list[Planned] = []

    async def each(call: Callable[[str], Awaitable[Any]], count: int) -> float:
        start_s = time.perf_counter()
        for _ in range(count):
            await call("x")
        return (time.perf_counter() - start_s) / count * 1e6

    async def fingerprint() -> float:
        messages, sampling = (("user", (text,)),), Sampling()
        start_s = time.perf_counter()
        for _ in range(1000):
            question_digest(b"model", messages, sampling, None)
        return (time.perf_counter() - start_s) / 1000 * 1e6

    async def hit() -> float:
        await llm(user("x"))
        return await each(lambda x: llm(user(x)), 500)

    async def hit_on_disk() -> float:
        async with Session(ScriptedEngine(lambda request: "ok"), memo=memo):
            await llm(user("x"))
            return await hit()

    async def plain_observed() -> float:
        async with _observed(planned):
            return await each(plain, 5000)

    async def planning() -> float:
        planned.clear()
        async with _observed(planned):
            await gather(*(llm(user(f"{next(rows)}")) for _ in range(1000)))
        return sum(event.seconds for event in planned) / 1000 * 1e6

    async def through_map(session: Session) -> float:
        start_s = time.perf_counter()
        async for _ in session.map(ask, (f"{next(rows)}" for _ in range(2000))):
            pass
        return (time.perf_counter() - start_s) / 2000 * 1e6

    async def traced() -> float:
        trace = TraceFile(f"{memo}/run.trace", overwrite=True)
        engine = ScriptedEngine(lambda request: "ok", keep_requests=False)
        start_s = time.perf_counter()
        async with Session(engine, trace=trace) as session:
            await through_map(session)
        return (time.perf_counter() - start_s) / 2000 * 1e6  # until all of it is written

    return {
        "bare await": lambda: each(bare, 5000),
        "plain operator call": lambda: each(plain, 5000),
        "the same where somebody observes": plain_observed,
        "fingerprint of a 2,000-token prompt": fingerprint,
        "memo hit, in memory": hit,
        "memo hit, LMDB": hit_on_disk,
        "planning, per node of 1,000": planning,
        "a row through map with one scripted model call": lambda: through_map(session),
        "the same with a trace": traced,
    }


def _observed(planned: list[Planned]) -> Session:
    """A session that says to a list what it has planned."""

    def observe(event: Event) -> None:
        if isinstance(event, Planned):
            planned.append(event)

    return Session(ScriptedEngine(lambda request: "ok"), observers=[observe])


class _State(TypedDict):
    x: str


def _peers() -> dict[str, Measure]:
    """Measures of what is installed; `requirements/bench.txt` brings all."""
    peers: dict[str, Measure] = {}
    if find_spec("langgraph"):
        peers["LangGraph node (of a chain of 10)"] = _langgraph()
    if find_spec("dask"):
        peers["Dask task (of 100, synchronous scheduler)"] = _dask()
    return peers


def _langgraph() -> Measure:
    from langgraph.graph import END, START, StateGraph

    async def node(state: _State) -> _State:
        return state

    builder: Any = StateGraph(_State)
    names = [START, *(f"node {number}" for number in range(10)), END]
    for name in names[1:-1]:
        builder.add_node(name, node)
    for before, after in pairwise(names):
        builder.add_edge(before, after)
    graph = builder.compile()

    async def measure() -> float:
        start_s = time.perf_counter()
        for _ in range(5):
            await graph.ainvoke({"x": "x"})
        return (time.perf_counter() - start_s) / 50 * 1e6

    return measure


def _dask() -> Measure:
    import dask

    @dask.delayed  # type: ignore[untyped-decorator]
    def task(x: str) -> str:
        return x

    async def measure() -> float:
        start_s = time.perf_counter()
        dask.compute(*(task(f"{number}") for number in range(100)), scheduler="synchronous")
        return (time.perf_counter() - start_s) / 100 * 1e6

    return measure


if __name__ == "__main__":
    main()
