"""The harness catches systems that do something else than the workflow, and impossible times."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from benchmarks.harness.case import Bounds, Case, WrongResult, make_batch, make_case
from benchmarks.harness.digest import Vocabulary
from benchmarks.harness.measure import (
    BoundBeaten,
    Plan,
    SystemFailed,
    measure,
    measure_case,
    with_bounds,
)
from benchmarks.harness.model import SHAPES, model_directory
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.system import Batch, GraphSystem, Results, System, run_graph
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads
from helium_agents.engines.engine import Capacity, ChatMessage, Choice, Completion, Delta, Request

SHAPE = SHAPES["small"]
SETTINGS = EngineSettings("fits", 0.25, SHAPE)
IN_PROCESS = [system for system in systems().values() if not system.uses_server]


@cache
def oracle() -> Oracle:
    return Oracle(SHAPE)


class DigestEngine:
    """Answers as the benchmarks' engines do, at once; an `Engine`."""

    name = "digest"
    capacity: Capacity | None = None
    is_started = True
    follows_schemas = True

    def __init__(self) -> None:
        self._oracle = oracle()
        self._vocabulary = Vocabulary.read(model_directory(SHAPE))

    def identity(self) -> str:
        return "digest"

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def reset_prefix_cache(self) -> None: ...

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        return self._oracle.prompt(messages)

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        await asyncio.sleep(0)
        max_tokens = request.sampling.max_tokens
        token_ids = self._vocabulary.answer(request.prompt_token_ids, max_tokens)
        has_ended = token_ids[-1] == self._vocabulary.end_id
        text = self._oracle.text(token_ids)
        return Completion((Choice(text, tuple(token_ids), "stop" if has_ended else "length"),))

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        return choice if len(choice.token_ids) <= max_tokens else None


@pytest.fixture(scope="module")
def digest_engine(cache_home: Path) -> DigestEngine:
    return DigestEngine()


@pytest.fixture
async def bed(digest_engine: DigestEngine) -> AsyncIterator[Testbed]:
    async with Testbed(SETTINGS, digest_engine) as bed:
        yield bed


async def make(name: str, num_items: int = 3) -> Case:
    batch = await make_batch(workloads()[name], Inputs(num_items))
    return make_case(batch, "published", oracle())


@pytest.mark.parametrize("system", IN_PROCESS, ids=lambda system: system.name)
@pytest.mark.parametrize("name", ["mapred-mmlu", "debate"])
async def test_every_system_gives_the_plain_programs_results(
    system: System, name: str, bed: Testbed
) -> None:
    case = await make(name, 2)
    run = await measure(system, case, bed)
    num_distinct = len({tuple(call.prompt_token_ids) for call in case.known.calls})
    if system.name == "ours":
        assert len(run.requests) <= num_distinct
    if system.name in ("raw", "opwise", "lspf", "querywise", "ours-without-sharing"):
        assert len(run.requests) == case.batch.num_calls


async def test_what_the_next_system_sends_to_prepare_itself_is_in_no_run(bed: Testbed) -> None:
    case = await make("debate", 2)
    run = await measure(systems()["raw"], case, bed)
    await measure(systems()["langgraph-planned-again"], case, bed)
    assert len(run.requests) == case.batch.num_calls


class Altered(GraphSystem):
    """Plain asyncio that changes what it asks, what it hears, or the order of what it returns."""

    def __init__(
        self,
        ask: Callable[[Sequence[ChatMessage]], Sequence[ChatMessage]] = lambda messages: messages,
        hear: Callable[[str], str] = lambda text: text,
        order: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> None:
        super().__init__("altered")
        self._ask, self._hear, self._order = ask, hear, order

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        async def complete(messages: Sequence[ChatMessage], max_tokens: int) -> str:
            return self._hear(await bed.engine.ask(self._ask(messages), max_tokens))

        graphs = self._order(batch).graphs
        return [await run_graph(graph, complete) for graph in graphs]


def without_a_sentence(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    *others, last = messages
    sentences = last.content.split(". ")
    return [*others, ChatMessage(last.role, ". ".join(sentences[:1] + sentences[2:]))]


WRONG = {
    "drops a sentence of a prompt": Altered(ask=without_a_sentence),
    "changes an answer": Altered(hear=lambda text: text.replace(" a", " the", 1) + "."),
    "is given shuffled rows": Altered(
        order=lambda batch: replace(batch, graphs=[*batch.graphs[1:], batch.graphs[0]])
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_system_is_caught(what: str, bed: Testbed) -> None:
    case = await make("debate")
    with pytest.raises(WrongResult, match="altered is wrong on row"):
        await measure(WRONG[what], case, bed)


async def test_a_system_that_changes_nothing_is_not(bed: Testbed) -> None:
    assert (await measure(Altered(), await make("debate"), bed)).seconds > 0


async def test_who_loses_rows_is_caught(bed: Testbed) -> None:
    lossy = Altered(order=lambda batch: replace(batch, graphs=batch.graphs[1:]))
    with pytest.raises(WrongResult, match="2 results for 3 rows"):
        await measure(lossy, await make("debate"), bed)


NO_BOUNDS = Bounds(0.0, 0.0, 0.0)


class Hanging(GraphSystem):
    """Never done."""

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        return await asyncio.Future()


async def test_a_run_that_hangs_fails(bed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.harness.measure._LONGEST_RUN_S", 0.05)
    with pytest.raises(SystemFailed, match=r"hanging failed on debate: TimeoutError$"):
        await measure(Hanging("hanging"), await make("debate"), bed)


async def test_a_run_that_beats_the_physical_bound_fails(bed: Testbed) -> None:
    plan = Plan([systems()["raw"]], 2)
    records = await measure_case(await make("debate"), NO_BOUNDS, plan, bed, print)
    better = with_bounds(records, Bounds(1e-6, 2e-6, 3e-6))
    assert [record.physical_s for record in better] == [1e-6]
    with pytest.raises(BoundBeaten, match=r"raw took .* below the physical bound of 1000"):
        with_bounds(records, Bounds(1000.0, 1000.0, 1000.0))


async def test_what_the_hypervisor_took_is_said(
    bed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen_s = itertools.count(step=10.0)  # more each time than the machine has
    monkeypatch.setattr("benchmarks.harness.measure._stolen_s", lambda: next(stolen_s))
    lines: list[str] = []
    plan = Plan([systems()["raw"]], 2)
    (record,) = await measure_case(await make("debate"), NO_BOUNDS, plan, bed, lines.append)
    expected = [10 / (seconds * (os.cpu_count() or 1)) for seconds in record.times_s]
    assert record.stolen_shares == pytest.approx(expected)
    assert all("of the CPU time stolen" in line for line in lines)


@pytest.mark.parametrize(("stolen", "kept"), [([9, 0, 0], 1), ([9, 5, 7], 1), ([0, 0, 0], 0)])
async def test_a_disturbed_run_is_made_again_and_the_least_disturbed_kept(
    stolen: list[float], kept: int, bed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals = itertools.accumulate(each for taken in stolen for each in (0.0, taken))
    monkeypatch.setattr("benchmarks.harness.measure._stolen_s", lambda: float(next(totals)))
    lines: list[str] = []
    plan = Plan([systems()["raw"]], 1)
    (record,) = await measure_case(await make("debate"), NO_BOUNDS, plan, bed, lines.append)
    assert len(lines) == (1 if stolen[0] == 0 else 2 if stolen[1] == 0 else 3)
    (seconds,), (share,) = record.times_s, record.stolen_shares
    assert share == pytest.approx(stolen[kept] / (seconds * (os.cpu_count() or 1)))
    assert f"raw {seconds:.2f} s" in lines[kept]


async def test_records_of_a_case(bed: Testbed) -> None:
    case = await make("mapred-mmlu")
    names = ("ours", "raw", "raw-tuned", "querywise")
    plan = Plan([systems()[name] for name in names], 3, {"querywise": 1})
    lines: list[str] = []
    records = {
        record.system: record
        for record in await measure_case(case, NO_BOUNDS, plan, bed, lines.append)
    }
    assert list(records) == list(names)
    assert [len(records[name].times_s) for name in names] == [3, 3, 3, 1]
    assert records["ours"].ratio == 1.0
    assert records["raw-tuned"].note.startswith("raw-tuned (")
    raw, ours = records["raw"], records["ours"]
    assert raw.num_sent == raw.num_calls == case.batch.num_calls
    assert raw.sent_tokens == raw.prompt_tokens == ours.prompt_tokens
    assert ours.num_sent == 8 * 3  # 7 of the 15 calls of a row are there twice
    assert ours.never_sent_tokens > 0.3 * ours.prompt_tokens
    assert any("sweep" in line for line in lines)
    assert raw.steps is raw.mean_batch is raw.preemptions is None  # this engine does not count


async def test_a_sweep_that_finds_no_limit_shows_the_runs_of_raw(bed: Testbed) -> None:
    case = await make("debate", 1)  # of which no fewer rows can be open
    lines: list[str] = []

    async def times(*names: str) -> list[tuple[float, ...]]:
        plan = Plan([systems()[name] for name in names], 2)
        records = await measure_case(case, NO_BOUNDS, plan, bed, lines.append)
        return [tuple(record.times_s) for record in records]

    tuned, raw = await times("raw-tuned", "raw")
    assert tuned == raw
    assert not any("round 1: raw-tuned" in line for line in lines)
    (alone,) = await times("raw-tuned")  # is measured itself
    assert len(alone) == 2


async def test_the_first_day_fills_only_what_remembers(bed: Testbed) -> None:
    case = await make("trading", 1)
    assert 0 < len(case.needed) < len(case.known.calls)
    for _ in range(2):  # the second run finds the memo as the first day left it, too
        ours = await measure(systems()["ours"], case, bed)
        assert len(ours.requests) == len({tuple(call.prompt_token_ids) for call in case.needed})
    forgetful = await measure(systems()["ours-without-memo"], case, bed)
    assert len(forgetful.requests) == len({tuple(c.prompt_token_ids) for c in case.known.calls})


async def test_rows_that_wait_for_tools_are_timed_and_who_cannot_wait_is_left_out(
    bed: Testbed,
) -> None:
    batch = await make_batch(workloads()["tools"], Inputs(3, tool_scale=1e-4))
    case = make_case(batch, "published", oracle())
    plan = Plan([systems()[name] for name in ("raw", "ours", "lspf")], 2)
    lines: list[str] = []
    raw, ours = await measure_case(case, NO_BOUNDS, plan, bed, lines.append)
    assert "tools: without lspf, which runs no rows that wait" in lines
    assert ours.row_ratio == 1.0
    assert raw.row_ratio is not None and raw.row_ratio > 0
    for record in (raw, ours):
        assert record.row_mean_s is not None and record.row_p95_s is not None
        assert 0 < record.row_mean_s <= record.row_p95_s
