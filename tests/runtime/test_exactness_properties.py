"""Optimised equals plain: random programs, with every subset of the rules, memo cold and warm."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_hexdigest

from helium_agents import Ref, Reply, Session, gather, llm, operator, prompt, system, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import HeliumError, RequestError
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.store import Store
from helium_agents.optimizer.rules import RULES, Rule, substitute_known

_draws = itertools.count()  # no two unseeded samples of all tests have the same text


async def model(request: Request) -> str:
    """Six words that depend on everything, after a delay that does so too; fails on demand."""
    question = request.messages[-1].content
    draw: Any = request.sampling.seed
    if not request.sampling.is_deterministic:
        draw = f"draw {next(_draws)}"
    digest = xxh3_64_hexdigest(repr((request.messages, draw)).encode())
    for _ in range(int(digest[0], 16)):
        await asyncio.sleep(0)
    if question.startswith("boom"):
        raise RequestError(f"no answer to {question}")
    return " ".join(digest[start : start + 2] for start in range(0, 12, 2))


# --- random programs -----------------------------------------------------------------------------


@operator(pure=True)
async def condense(first: Any, *more: Any) -> str:
    text = "|".join(map(str, (first, *more)))
    reply = await llm(user(f"condense {text}"), max_tokens=4)
    again = await llm(user(prompt("condense {it} again", it=reply)), max_tokens=2)
    return f"{reply} / {again}"


@operator(pure=True)
async def shout(text: Any) -> str:
    return str(text).upper()


@operator
async def remark(number: int, *texts: Any) -> str:
    reply = await llm(system("You remark."), user("; ".join(map(str, texts))), max_tokens=4)
    return f"{number}: {reply}"


@dataclass(frozen=True)
class Step:
    """One call of a program; `inputs` are earlier steps, taken as Refs or awaited first."""

    kind: str
    text: str
    inputs: tuple[int, ...] = ()
    awaits_first: bool = False
    is_started: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_unseeded(self) -> bool:
        return self.kind == "llm" and "temperature" in self.options and "seed" not in self.options

    def make(self, number: int, inputs: Sequence[Any]) -> Ref[Any]:
        has_refs = any(isinstance(value, Ref) for value in inputs)
        match self.kind:
            case "llm":
                slots = {f"slot{i}": value for i, value in enumerate(inputs)}
                template = " + ".join([self.text, *(f"{{{name}}}" for name in slots)])
                return llm(user(prompt(template, **slots)), **self.options)
            case "condense":
                make = condense.defer if has_refs else condense
                return make(self.text, *inputs)
            case "shout":
                make = shout.defer if has_refs else shout
                return make([self.text, *inputs][-1])
            case "remark":
                make = remark.defer if has_refs else remark
                return make(number, self.text, *inputs)
        raise AssertionError(self.kind)


Outcome = tuple[str, Any]


async def outcome_of(awaitable: Any) -> Outcome:
    try:
        value = await awaitable
    except HeliumError as error:
        return type(error).__name__, str(error)
    return "value", value


async def run_program(program: Sequence[Step]) -> list[Outcome]:
    refs: list[Ref[Any]] = []
    for number, step in enumerate(program):
        inputs: list[Any] = [refs[i] for i in step.inputs]
        if step.awaits_first:
            waited = await gather(*inputs, return_exceptions=True)
            inputs = ["failed" if isinstance(value, Exception) else str(value) for value in waited]
        refs.append(step.make(number, inputs))
        if step.is_started:
            refs[-1].start()
    return list(await asyncio.gather(*map(outcome_of, refs)))


@st.composite
def programs(draw: st.DrawFn, *, fails: bool = True, draws: bool = True) -> list[Step]:
    texts = ["a", "a", "b", "own"] + ["boom"] * fails
    program: list[Step] = []
    for number in range(draw(st.integers(1, 7))):
        earlier = st.lists(st.integers(0, number - 1), max_size=2, unique=True)
        text = draw(st.sampled_from(texts))
        kind = draw(st.sampled_from(["llm", "llm", "llm", "condense", "shout", "remark"]))
        options: dict[str, Any] = {"max_tokens": draw(st.sampled_from([2, 4, 64]))}
        options |= draw(
            st.sampled_from(
                [{}, {}, {"temperature": 1, "seed": 1}, {"temperature": 1.0, "seed": 2}]
                + [{"temperature": 1}] * draws
            )
        )
        if text == "own":
            options["share"] = False
        program.append(
            Step(
                kind,
                text,
                tuple(draw(earlier)) if number else (),
                awaits_first=draw(st.booleans()),
                is_started=draw(st.integers(0, 3)) == 0,
                options=options,
            )
        )
    return program


def drawn_steps(program: Sequence[Step]) -> set[int]:
    """Unseeded samples, and what has one among its inputs."""
    found: set[int] = set()
    for number, step in enumerate(program):
        if step.is_unseeded or found & set(step.inputs):
            found.add(number)
    return found


# --- running them --------------------------------------------------------------------------------


def run(program: Sequence[Step], **options: Any) -> tuple[list[Outcome], list[Request]]:
    engine = ScriptedEngine(model)

    async def main() -> list[Outcome]:
        async with Session(engine, **options):
            return await run_program(program)

    return asyncio.run(main()), engine.requests


def run_plain(program: Sequence[Step]) -> tuple[list[Outcome], list[Request]]:
    return run(program, rules=(), share=False, memo=None)


def question(request: Request) -> Any:
    return request.messages, request.sampling, request.json_schema


def is_shareable(request: Request) -> bool:
    is_own = request.messages[-1].content.startswith("own")
    return request.sampling.is_deterministic and not (is_own and request.messages[0].role == "user")


def assert_as_plain(program: Sequence[Step], plain: list[Outcome], outcomes: list[Outcome]) -> None:
    drawn = drawn_steps(program)
    for number, (expected, found) in enumerate(zip(plain, outcomes, strict=True)):
        if number in drawn:
            assert expected[0] == found[0], f"step {number}"
        else:
            assert expected == found, f"step {number}"


subsets_of_rules = st.sets(st.sampled_from(RULES)).map(
    lambda chosen: tuple(rule for rule in RULES if rule in chosen)
)


@settings(max_examples=60, deadline=None)
@given(programs(), subsets_of_rules)
def test_optimised_equals_plain(program: list[Step], rules: tuple[Rule, ...]) -> None:
    plain, _ = run_plain(program)
    outcomes, _ = run(program, rules=rules)
    assert_as_plain(program, plain, outcomes)


@settings(max_examples=60, deadline=None)
@given(programs(fails=False), subsets_of_rules)
def test_no_more_requests_than_distinct_calls(program: list[Step], rules: tuple[Rule, ...]) -> None:
    outcomes, requests = run(program, rules=rules)
    _, plain = run_plain(program)
    assert len(requests) <= len(plain)
    assert all(kind == "value" for kind, _ in outcomes)
    if substitute_known in rules:  # no rule, no memo
        shared = [question(request) for request in requests if is_shareable(request)]
        assert len(shared) == len(set(shared))


@settings(max_examples=60, deadline=None)
@given(programs(fails=False, draws=False))
def test_a_warm_memo_answers_everything(program: list[Step]) -> None:
    plain, _ = run_plain(program)
    with closing(MemoryStore()) as store:
        cold, _ = run(program, memo=store)
        warm, requests = run(program, memo=store)
        assert not [request for request in requests if is_shareable(request)]
        if not requests:  # no call refused to be shared
            replayed, _ = run(program, memo=store, memo_mode="replay-only")
            assert_as_plain(program, plain, replayed)
        refreshed, _ = run(program, memo=store, memo_mode="refresh")
    for outcomes in (cold, warm, refreshed):
        assert_as_plain(program, plain, outcomes)


@settings(max_examples=40, deadline=None)
@given(programs(), programs())
def test_a_memo_of_another_program_changes_nothing(program: list[Step], other: list[Step]) -> None:
    plain, _ = run_plain(program)
    with closing(MemoryStore()) as store:
        run(other, memo=store)
        once, first = run(program, memo=store)
        twice, second = run(program, memo=store)
    assert_as_plain(program, plain, once)
    assert_as_plain(program, plain, twice)
    asked = {question(request) for request in first if is_shareable(request)}
    again = {question(request) for request in second if is_shareable(request)}
    is_failing = {q for q in asked & again if q[0][-1].content.startswith("boom")}
    assert asked & again == is_failing, "what succeeded is remembered"


@settings(max_examples=12, deadline=None)
@given(programs(draws=False))
def test_a_memo_on_disk_gives_the_same(program: list[Step]) -> None:
    plain, _ = run_plain(program)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        cold, _ = run(program, memo=directory)
        store: Store = stack.enter_context(closing(LmdbStore(directory)))
        warm, requests = run(program, memo=store)
    assert_as_plain(program, plain, cold)
    assert_as_plain(program, plain, warm)
    if all(kind == "value" for kind, _ in plain):
        assert not [request for request in requests if is_shareable(request)]


@settings(max_examples=30, deadline=None)
@given(st.lists(programs(draws=False), min_size=1, max_size=4), st.booleans())
def test_a_map_equals_its_items(rows: list[list[Step]], is_ordered: bool) -> None:
    async def main(**options: Any) -> dict[int, list[Outcome]]:
        found: dict[int, list[Outcome]] = {}
        async with Session(ScriptedEngine(model), **options) as session:
            rows_by_item = session.map(run_program, rows, ordered=is_ordered)
            async for index, outcomes in rows_by_item.indexed():
                found[index] = outcomes
        return found

    found = asyncio.run(main())
    assert found == asyncio.run(main(rules=(), share=False, memo=None))
    assert [found[index] for index in range(len(rows))] == [run_plain(row)[0] for row in rows]


# --- simple programs, counted --------------------------------------------------------------------


@pytest.mark.parametrize("is_concurrent", [True, False])
@pytest.mark.parametrize("num_kinds", [1, 3])
def test_exactly_one_request_for_each_distinct_call(num_kinds: int, is_concurrent: bool) -> None:
    engine = ScriptedEngine(model)

    async def main() -> list[Reply[None]]:
        async with Session(engine):
            refs = [llm(user(f"question {i % num_kinds}")) for i in range(12)]
            if is_concurrent:
                return list(await gather(*refs))
            return [await ref for ref in refs]

    replies = asyncio.run(main())
    assert engine.num_requests == num_kinds
    assert all(reply == replies[i % num_kinds] for i, reply in enumerate(replies))
    assert len(set(replies)) == num_kinds


def test_a_chain_known_beforehand_costs_one_request_per_link() -> None:
    engine = ScriptedEngine(model)

    async def main() -> set[str]:
        async with Session(engine):
            ends = []
            for _ in range(4):
                ref: Ref[Any] = llm(user("draft"))
                for number in range(5):
                    ref = llm(user(prompt("improve {draft}, round {n}", draft=ref, n=number)))
                ends.append(ref)
            return {reply.text for reply in await gather(*ends)}

    assert len(asyncio.run(main())) == 1
    assert engine.num_requests == 6
