"""Resuming: a run that stopped anywhere goes on as if it had not, unseeded samples included.

What an uninterrupted run would have given is known by replaying: all rows again under the same
log, with every draw answered from it. That must ask the engine for no draw at all, and give what
the two parts of the run gave together.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gate import ticks, until
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from xxhash import xxh3_64_hexdigest

from helium_agents import Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import ItemError, MemoError, RequestError, SessionError
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.run_log import RunLog

pytestmark = pytest.mark.usefixtures("quiet_loop")

Workflow = Callable[[Any], Awaitable[Any]]
Results = dict[int, Any]


class Model:
    """A script: unseeded samples are numbered for ever, all else depends on the conversation.

    Args:
        timing: Seeds the latencies.
        fails_at: The number of the request that fails, once.
    """

    def __init__(self, timing: int = 0, fails_at: int | None = None) -> None:
        self.num_requests = 0
        self.num_draws = 0
        self.prompts: Counter[str] = Counter()
        self.fails_at = fails_at
        self.random = random.Random(timing)

    async def __call__(self, request: Request) -> str:
        number, self.num_requests = self.num_requests, self.num_requests + 1
        for _ in range(self.random.randrange(12)):
            await asyncio.sleep(0)
        if number == self.fails_at:
            raise RequestError("this request fails, once")
        text = request.messages[-1].content
        self.prompts[text] += 1
        if request.sampling.is_deterministic:
            return f"echo-{xxh3_64_hexdigest(text.encode())[:6]}"
        self.num_draws += 1
        return f"draw-{self.num_draws}."


# --- a workflow with every kind of draw -----------------------------------------------------------


@operator(pure=True)
async def fact(row: str) -> str:
    return (await llm(user(f"a fact about {row}"))).text


@operator
async def remark(text: str) -> str:
    """Draws, in an operator that may be given a Ref."""
    reply = await llm(user(f"remark on {text}"), temperature=1)
    again = await llm(user(prompt("and again: {it}", it=reply)), temperature=1)
    return f"{reply} {again}"


@operator
async def view(row: str, number: int) -> list[str]:
    """Equal calls in sibling operators: only their paths tell them apart."""
    first = llm(user(f"think of {row}"), temperature=1)
    second = llm(user(f"think of {row}"), temperature=1)
    return [str(number), *(reply.text for reply in await gather(first, second))]


@operator
async def study(row: str) -> list[Any]:
    known = fact(row)
    samples = llm(user(f"guess {row}"), temperature=0.7, n=2)
    views = await gather(*(view(row, number) for number in (1, 2)), view(row, 1))
    by_plain = llm(user(prompt("use {it}", it=remark.defer(known))), temperature=1)
    merged = llm(user(prompt("merge {a} with {b}", a=known, b=by_plain)), temperature=1)
    remarks = await gather(remark.defer(known), remark("same"), remark("same"))
    own = llm(user(f"on its own: {row}"), temperature=1)
    verdict = llm(user(prompt("judge {it}", it=own)))
    texts = [reply.text for reply in await gather(by_plain, merged, verdict, own)]
    return [[choice.text for choice in (await samples).choices], views, texts, list(remarks)]


ROWS = ["a", "b", "a", "a", "c"]
"""With repetitions: the occurrence tells their draws apart."""

DRAWS_OF_ROW = 19


# --- parts of runs -----------------------------------------------------------------------------


async def part(
    log: RunLog,
    model: Model,
    workflow: Workflow = study,
    rows: Sequence[Any] = ROWS,
    *,
    done: Collection[int] = (),
    results: Results | None = None,
    memo: Any = None,
    **options: Any,
) -> Results:
    """Run what is left, noting each result in `results` when it is there."""
    results = {} if results is None else results
    engine = ScriptedEngine(model)
    async with Session(engine, memo=memo or log.store, run_log=log) as session:
        async for index, value in session.map(workflow, rows, done=done, **options).indexed():
            assert index not in results
            results[index] = value
    return results


async def replay(log: RunLog, workflow: Workflow = study, rows: Sequence[Any] = ROWS) -> Results:
    """What an uninterrupted run with the same draws gives; its greedy calls are computed anew."""
    model = Model(timing=99)
    results = await part(log, model, workflow, rows, memo=MemoryStore())
    assert model.num_draws == 0, "a draw that has an answer was asked again"
    return results


def answers(log: RunLog) -> dict[bytes, bytes]:
    found = (log.store.find(entry.key) for entry in log.store.entries())
    return {entry.key: entry.value for entry in found if entry}


def num_draws(stored: dict[bytes, bytes]) -> int:
    """How many of the model's draws are among stored answers."""
    return len({draw for value in stored.values() for draw in re.findall(rb"draw-\d+\.", value)})


@pytest.fixture
def new_log(tmp_path: Path) -> Iterator[Callable[[], RunLog]]:
    """Makes logs of new runs."""
    logs: list[RunLog] = []

    def make() -> RunLog:
        logs.append(RunLog(tmp_path / f"{len(logs)}.run"))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


def reopened(log: RunLog) -> RunLog:
    log.close()
    return RunLog(log.path)


NewLog = Callable[[], RunLog]


# --- stopped anywhere ----------------------------------------------------------------------------


async def stop_and_resume(
    log: RunLog, model: Model, workflow: Workflow = study, *, memo: Any = None, **options: Any
) -> bool:
    """A run that stops where the model fails, and the rest of it; whether the model failed."""
    before: Results = {}
    with suppress(RequestError):
        await part(log, model, workflow, results=before, memo=memo, **options)
    stored, prompts = answers(log), model.prompts.copy()
    num_lost = model.num_draws - num_draws(stored)
    has_failed = len(before) < len(ROWS)
    with reopened(log) as log:
        rest = await part(log, model, workflow, done=before, memo=memo, **options)
        assert before | rest == await replay(log, workflow)
        assert answers(log).items() >= stored.items(), "an answer has changed"
    assert model.num_draws == DRAWS_OF_ROW * len(ROWS) + num_lost
    greedy = {text for text in prompts if text.startswith(("a fact", "judge"))}
    assert [text for text in greedy if model.prompts[text] > 1] == []
    return has_failed


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_run_that_stops_at_any_request_goes_on_as_if_it_had_not(
    new_log: NewLog, ordered: bool
) -> None:
    for number in range(2 * ordered, 10**6, 5):
        model = Model(timing=number, fails_at=number)
        if not await stop_and_resume(new_log(), model, ordered=ordered):
            break
    assert number > 50


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("read_ahead", [1, 2, 1024])
async def test_a_run_that_stops_at_any_row(new_log: NewLog, ordered: bool, read_ahead: int) -> None:
    has_failed = False

    async def fragile(row: tuple[int, str]) -> list[Any]:
        nonlocal has_failed
        index, text = row
        if index == unlucky and not has_failed:
            has_failed = True
            raise ValueError("this row fails, once")
        return await study(text)

    rows = list(enumerate(ROWS))
    for unlucky in range(len(rows)):
        log, model, has_failed = new_log(), Model(timing=unlucky), False
        options: dict[str, Any] = {"ordered": ordered, "read_ahead": read_ahead}
        before: Results = {}
        with pytest.raises(ValueError, match="once"):
            await part(log, model, fragile, rows, results=before, **options)
        assert unlucky not in before
        if ordered:
            assert list(before) == list(range(unlucky))
        results = before | await part(log, model, fragile, rows, done=before, **options)
        assert results == await replay(log, fragile, rows)


async def test_rows_that_failed_are_collected_and_tried_again(new_log: NewLog) -> None:
    log, model = new_log(), Model(fails_at=30)
    results = await part(log, model, on_error="collect")
    failed = {index for index, value in results.items() if isinstance(value, ItemError)}
    assert len(failed) == 1
    stored, num_asked = answers(log), model.num_draws
    good = results.keys() - failed
    again = await part(log, model, done=good, on_error="collect")
    assert again.keys() == failed
    assert results | again == await replay(log)
    assert answers(log).items() >= stored.items()
    assert model.num_draws - num_asked < DRAWS_OF_ROW, "draws of the failed row kept their answers"


async def test_resumed_over_and_over(new_log: NewLog) -> None:
    log, model, results = new_log(), Model(), dict[int, Any]()
    stored: dict[bytes, bytes] = {}
    num_stops = 0
    while len(results) < len(ROWS):
        model.fails_at = model.num_requests + 9
        with suppress(RequestError):
            await part(log, model, done=set(results), results=results)
        assert answers(log).items() >= stored.items()
        stored = answers(log)
        num_stops += 1
    assert num_stops >= 3
    assert results == await replay(log)


@pytest.mark.parametrize("memo_mode", ["read-write", "refresh", "off"])
async def test_draws_keep_their_answers_whatever_the_memo_does(
    new_log: NewLog, tmp_path: Path, memo_mode: Any
) -> None:
    log, model = new_log(), Model(fails_at=40)
    before: Results = {}
    engine = ScriptedEngine(model)
    options: dict[str, Any] = {"memo": tmp_path / "memo", "memo_mode": memo_mode, "run_log": log}
    with pytest.raises(RequestError):
        async with Session(engine, **options) as session:
            async for index, value in session.map(study, ROWS).indexed():
                before[index] = value
    stored = answers(log)
    assert num_draws(stored) > 10
    num_asked, num_lost = model.num_draws, model.num_draws - num_draws(stored)
    async with Session(engine, **options) as session:
        rest = dict([pair async for pair in session.map(study, ROWS, done=before).indexed()])
    assert answers(log).items() >= stored.items()
    assert model.num_draws == DRAWS_OF_ROW * len(ROWS) + num_lost > num_asked
    assert before | rest == await replay(log)


# --- kinds of draws ------------------------------------------------------------------------------


class Number(BaseModel):
    number: int


async def twice(log: RunLog, workflow: Workflow, script: Any) -> tuple[Any, Any]:
    """The result of one row in a run, and in the same run resumed before the row was done."""
    results = []
    for _ in range(2):
        async with Session(ScriptedEngine(script), run_log=log) as session:
            results += [value async for value in session.map(workflow, ["row"])]
    first, second = results
    return first, second


async def test_a_draw_that_was_tried_again_keeps_the_answer_that_fitted(new_log: NewLog) -> None:
    texts = iter(["no number", '{"number": 7}'])

    async def workflow(row: str) -> int:
        return (await llm(user(row), temperature=1, schema=Number)).parsed.number

    assert await twice(new_log(), workflow, lambda request: next(texts)) == (7, 7)


async def test_a_streamed_draw(new_log: NewLog) -> None:
    model = Model()

    async def workflow(row: str) -> list[str]:
        return [piece async for piece in llm(user(row), temperature=1).stream()]

    first, second = await twice(new_log(), workflow, model)
    assert "".join(first) == "".join(second) == "draw-1."


async def test_draws_of_an_operator_that_is_tried_again(new_log: NewLog) -> None:
    model = Model()

    @operator(retries=1)
    async def strict(text: str) -> str:
        reply = await llm(user(text), temperature=1)
        await llm(user("a number?"), temperature=1, retries=0, schema=Number if fails else None)
        return reply.text

    async def workflow(row: str) -> str | Exception:
        (result,) = await gather(strict(row), return_exceptions=True)
        return result if isinstance(result, str) else type(result)

    fails = True
    log = new_log()
    first, second = await twice(log, workflow, model)
    assert first == second
    num_asked = model.num_draws
    fails = False
    first, second = await twice(log, workflow, model)
    assert first == second == "draw-1.", "the first attempt is the same draw as before"
    assert model.num_draws <= num_asked + 1


async def test_seeded_samples_are_not_draws(new_log: NewLog) -> None:
    model = Model()

    async def workflow(row: str) -> str:
        return (await llm(user(row), temperature=1, seed=3)).text

    log = new_log()
    await twice(log, workflow, model)
    assert log.is_empty, "the memo remembers them"


async def test_draws_of_nested_maps_and_of_several_maps(new_log: NewLog) -> None:
    model = Model()

    async def inner(row: str) -> str:
        return (await llm(user(row), temperature=1)).text

    async def outer(row: str) -> list[str]:
        session = current[0]
        return [text async for text in session.map(inner, [row, row])] + [
            text async for text in session.map(inner, [row])
        ]

    log, results, current = new_log(), [], []
    for _ in range(2):
        async with Session(ScriptedEngine(model), run_log=log) as session:
            current[:] = [session]
            two_maps = [[value async for value in session.map(outer, "ab")] for _ in range(2)]
            results.append(two_maps)
    assert results[0] == results[1]
    assert model.num_draws == 2 * 2 * 3


async def test_a_draw_that_is_not_shared(new_log: NewLog) -> None:
    model = Model()

    async def workflow(row: str) -> str:
        return (await llm(user(row), temperature=1, share=False)).text

    assert await twice(new_log(), workflow, model) == ("draw-1.", "draw-1.")


async def test_a_draw_that_is_not_shared_as_an_input(new_log: NewLog) -> None:
    log, model = new_log(), Model(fails_at=1)

    async def workflow(row: str) -> str:
        drawn = llm(user(row), temperature=1, share=False)
        return (await llm(user(prompt("judge {it}", it=drawn)))).text

    with pytest.raises(RequestError):
        await part(log, model, workflow, ["row"])
    await part(log, model, workflow, ["row"])
    assert model.num_draws == 1


async def test_a_greedy_call_after_a_draw_that_is_made_of_a_plain_call(new_log: NewLog) -> None:
    model = Model()

    async def workflow(row: str) -> str:
        drawn = llm(user(prompt("use {it}", it=remark(row))), temperature=1)
        return (await llm(user(prompt("judge {it}", it=drawn)))).text

    first, second = await twice(new_log(), workflow, model)
    assert first == second
    assert max(model.prompts.values()) == 1


@pytest.mark.parametrize("defers", [False, True])
async def test_equal_templates_in_helpers_that_run_at_once(new_log: NewLog, defers: bool) -> None:
    """Which helper comes first depends on the clock; what it asks for does not."""

    async def workflow(row: str) -> list[str]:
        async def helper(text: str) -> str:
            fact = llm(user(text))
            await fact
            if defers:
                return await remark.defer(fact)
            return (await llm(user(prompt("use {it}", it=fact)), temperature=1)).text

        return await asyncio.gather(*(helper(text) for text in "abcd"))

    log, values = new_log(), []
    for timing in range(3):
        async with Session(ScriptedEngine(Model(timing)), run_log=log) as session:
            values += [value async for value in session.map(workflow, ["row"])]
    assert values[0] == values[1] == values[2]


async def test_another_run_draws_anew(new_log: NewLog) -> None:
    model = Model()
    first = await part(new_log(), model)
    assert model.num_draws == DRAWS_OF_ROW * len(ROWS)
    assert await part(new_log(), model) != first
    assert model.num_draws == 2 * DRAWS_OF_ROW * len(ROWS)


# --- identity ------------------------------------------------------------------------------------

Plan = tuple[Any, ...]
"""A random operator: its steps, each of a kind, a text, and the steps of an operator below it."""


async def sampled(request: Request) -> str:
    return xxh3_64_hexdigest(repr(request.messages).encode())[:4]


@operator
async def perform(plan: Plan, given: Any = None) -> str:
    """Run the steps of a plan at once, but what one step draws may go into the next."""
    refs: list[Any] = []
    for kind, text, below in plan:
        last = refs[-1] if refs else "nothing"
        match kind:
            case "sample":
                refs.append(llm(user(text), temperature=1, n=1 + len(below)))
            case "sample of":
                refs.append(llm(user(prompt(text + " {it}", it=last)), temperature=1))
            case "greedy of":
                refs.append(llm(user(prompt(text + " {it}", it=last))))
            case "await":
                await gather(*(ref for ref in refs[-1:]))
                refs.append(llm(user(f"{text} {given}"), temperature=1))
            case "call":
                refs.append(perform(below))
            case "defer":
                refs.append(perform.defer(below, last))
    return " ".join(map(str, await gather(*refs)))


def plans(depth: int = 2) -> st.SearchStrategy[Plan]:
    below = plans(depth - 1) if depth else st.just(())
    kinds = ["sample", "sample of", "greedy of", "await"] + ["call", "defer"] * bool(depth)
    step = st.tuples(st.sampled_from(kinds), st.sampled_from("xy"), below)
    return st.lists(step, max_size=4).map(tuple)


async def keys_of_draws(plan: Plan, timing: int) -> set[bytes]:
    clock = random.Random(timing)

    async def script(request: Request) -> str:
        for _ in range(clock.randrange(20)):
            await asyncio.sleep(0)
        return await sampled(request)

    log: Any = SimpleNamespace(run_id="the run", is_resumed=False, store=MemoryStore())
    async with Session(ScriptedEngine(script), run_log=log) as session:
        async for _ in session.map(perform, [plan, plan, (), plan[:1]], ordered=False):
            pass
    return {entry.key for entry in log.store.entries()}


@settings(max_examples=60, deadline=None)
@given(plan=plans(), timing=st.integers(1, 10**6))
async def test_timing_does_not_change_which_draws_there_are(plan: Plan, timing: int) -> None:
    assert await keys_of_draws(plan, timing) == await keys_of_draws(plan, timing=0)


# --- maps that skip rows -------------------------------------------------------------------------


async def echo(row: int) -> int:
    return row


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("read_ahead", [1, 3, 1024])
@pytest.mark.parametrize(
    "done", [(), {0}, {9}, {0, 1, 2}, {3, 4, 9}, {1, 3, 5, 7, 9}, range(10), range(100), {77}]
)
async def test_rows_that_are_done_are_neither_run_nor_yielded(
    ordered: bool, read_ahead: int, done: Collection[int]
) -> None:
    async with Session(ScriptedEngine()) as session:
        results = session.map(
            echo, range(10), done=done, ordered=ordered, read_ahead=read_ahead
        ).indexed()
        pairs = [pair async for pair in results]
    left = [index for index in range(10) if index not in done]
    assert (pairs if ordered else sorted(pairs)) == [(index, index) for index in left]


async def test_others_get_their_turn_while_many_rows_are_skipped() -> None:
    num_turns = 0

    async def count_turns() -> None:
        nonlocal num_turns
        while True:
            num_turns += 1
            await asyncio.sleep(0)

    async with Session(ScriptedEngine()) as session:
        other = asyncio.create_task(count_turns())
        assert [value async for value in session.map(echo, range(5000), done=range(4999))] == [4999]
        other.cancel()
    assert num_turns > 15


# --- what cannot be -------------------------------------------------------------------------------


async def test_a_run_log_needs_what_it_works_by(new_log: NewLog) -> None:
    log = new_log()
    with pytest.raises(SessionError, match="a run log needs sharing"):
        Session(ScriptedEngine(), share=False, run_log=log)
    with pytest.raises(SessionError, match="is not that of the run log"):
        Session(ScriptedEngine(), run_id="another", run_log=log)
    with pytest.raises(SessionError, match="a run log needs the rule substitute_known"):
        Session(ScriptedEngine(), rules=(), run_log=log)
    assert Session(ScriptedEngine(), run_id=log.run_id, run_log=log).run_id == log.run_id


async def test_a_log_that_cannot_be_written_ends_the_run(new_log: NewLog) -> None:
    log = new_log()
    log.close()
    with pytest.raises(MemoError, match="is closed"):
        await part(log, Model(), memo=MemoryStore())


class SlowStore(MemoryStore):
    """A store whose commits are done when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Future[None]] = []

    def commit(self) -> Future[None]:
        self.commits.append(Future())
        return self.commits[-1]


async def test_a_result_waits_for_all_stores_that_hold_a_part_of_it() -> None:
    """Whoever asks for the commit: another item's later one in another store does not suffice."""
    memo, draws = SlowStore(), SlowStore()
    log: Any = SimpleNamespace(run_id="the run", is_resumed=False, store=draws)
    finished: list[str] = []

    async def workflow(row: str) -> None:
        if row == "greedy, then waits":
            await llm(user(row))
            await go_on.wait()
        else:
            await llm(user(row), **({} if row == "greedy" else {"temperature": 1}))

    go_on = asyncio.Event()
    async with Session(ScriptedEngine(), memo=memo, run_log=log) as session:

        async def collect() -> None:
            rows = ["greedy, then waits", "greedy", "draw"]
            async for index, _ in session.map(workflow, rows, ordered=False).indexed():
                finished.append(rows[index])

        collecting = asyncio.create_task(collect())
        await until(lambda: memo.commits and draws.commits)
        go_on.set()
        await ticks()
        for commit in draws.commits:
            commit.set_result(None)
        await ticks(50)
        assert "greedy, then waits" not in finished
        while not collecting.done():
            for commit in (*memo.commits, *draws.commits):
                if not commit.done():
                    commit.set_result(None)
            await ticks()
        for store in (memo, draws):  # what the session commits when it closes
            store.commit = MemoryStore().commit  # type: ignore[method-assign]
    assert sorted(finished) == ["draw", "greedy", "greedy, then waits"]
