"""What a session remembers: modes, types, versions, and what it must not remember."""

from __future__ import annotations

import asyncio
import enum
import sys
import types
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gate import Gate, ticks, until
from pydantic import BaseModel

import helium_agents
from helium_agents import (
    ItemError,
    LmdbStore,
    MemoryStore,
    Operator,
    Ref,
    Session,
    gather,
    llm,
    operator,
    prompt,
    user,
)
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EncodingError, MemoError, ReplayMiss, RequestError, SessionError
from helium_agents.keys.versions.own_code import OwnCode
from helium_agents.memo.store import Store


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else LmdbStore(tmp_path / "memo")
    yield store
    store.close()


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    store = MemoryStore()
    yield store
    store.close()


async def ask(store: Any, *texts: str, **options: Any) -> tuple[list[str], ScriptedEngine]:
    """The answers in a session of its own, and its engine."""
    engine = ScriptedEngine()
    async with Session(engine, memo=store, **options):
        replies = await gather(*(llm(user(text)) for text in texts))
    return [reply.text for reply in replies], engine


# --- modes ---------------------------------------------------------------------------------------


class TestModes:
    async def test_read_write(self, store: Store) -> None:
        first, engine = await ask(store, "a", "b")
        assert engine.num_requests == 2
        second, engine = await ask(store, "a", "b", "c")
        assert engine.num_requests == 1
        assert second[:2] == first

    async def test_no_engine_is_started_where_all_is_remembered(self, store: Store) -> None:
        await ask(store, "a")
        _, engine = await ask(store, "a")
        assert engine.num_starts == 0

    async def test_a_directory(self, tmp_path: Path) -> None:
        await ask(tmp_path / "memo", "a")
        _, engine = await ask(str(tmp_path / "memo"), "a")
        assert engine.num_requests == 0

    async def test_refresh(self, store: Store) -> None:
        await ask(store, "a")
        new = ScriptedEngine(lambda request: "new")
        async with Session(new, memo=store, memo_mode="refresh"):
            assert (await llm(user("a"))).text == "new"
            assert (await llm(user("a"))).text == "new"
            assert (await llm(user("a"), max_tokens=512)).text == "new"
            assert new.num_requests == 1, "what this session wrote, it reads"
        texts, engine = await ask(store, "a")
        assert texts == ["new"]
        assert engine.num_requests == 0

    async def test_refresh_of_calls_with_inputs(self, store: Store) -> None:
        async def chain(engine: ScriptedEngine, **options: Any) -> str:
            async with Session(engine, memo=store, **options):
                draft = llm(user("draft"))
                return (await llm(user(prompt("improve {it}", it=draft)))).text

        old = await chain(ScriptedEngine())
        renewed = await chain(ScriptedEngine(lambda r: r.messages[-1].content), memo_mode="refresh")
        assert renewed == "improve draft" != old
        engine = ScriptedEngine()
        assert await chain(engine) == "improve draft"
        assert engine.num_requests == 0

    async def test_replay_only(self, store: Store) -> None:
        first, _ = await ask(store, "a")
        again, engine = await ask(store, "a", memo_mode="replay-only")
        assert again == first
        assert engine.num_starts == 0

    async def test_replay_only_refuses_what_is_not_there(self, store: Store) -> None:
        engine = ScriptedEngine()
        async with Session(engine, memo=store, memo_mode="replay-only"):
            with pytest.raises(ReplayMiss, match=r"llm\(user\('a'\)\) is not in the memo"):
                await llm(user("a"))
            with pytest.raises(ReplayMiss):
                await llm(user("a"), temperature=1)
        assert engine.num_starts == 0
        assert store.stats().num_entries == 0

    async def test_replay_only_computes_what_needs_no_model_and_writes_nothing(
        self, tmp_path: Path
    ) -> None:
        await ask(tmp_path, "a")
        for _ in range(2):
            engine = ScriptedEngine()
            async with Session(engine, memo=tmp_path, memo_mode="replay-only"):
                assert await produce(1) == VALUES[1]
                draft = llm(user("a"))
                assert await count_letters.defer(draft) == len((await draft).text)
            assert engine.num_starts == 0
        assert _runs == [1, "count", 1, "count"]

    async def test_replay_only_from_a_directory(self, tmp_path: Path) -> None:
        first, _ = await ask(tmp_path / "memo", "a")
        again, _ = await ask(tmp_path / "memo", "a", memo_mode="replay-only")
        assert again == first

    async def test_replay_only_needs_a_directory_that_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(MemoError):
            await ask(tmp_path / "none", "a", memo_mode="replay-only")
        assert not (tmp_path / "none").exists()

    async def test_off(self, store: Store) -> None:
        await ask(store, "a")
        engine = ScriptedEngine()
        async with Session(engine, memo=store, memo_mode="off"):
            await llm(user("a"))
            await llm(user("a"))
        assert engine.num_requests == 2

    async def test_off_writes_nothing(self, store: Store) -> None:
        await ask(store, "a", memo_mode="off")
        assert store.stats().num_entries == 0

    async def test_unknown(self) -> None:
        with pytest.raises(SessionError, match="read-write, refresh, replay-only, off"):
            Session(ScriptedEngine(), memo_mode="readonly")  # type: ignore[arg-type]

    async def test_another_model_has_other_answers(self, store: Store) -> None:
        await ask(store, "a")
        other = ScriptedEngine(identity="other")
        async with Session(other, memo=store):
            await llm(user("a"))
        assert other.num_requests == 1

    async def test_without_a_memo_a_session_forgets(self) -> None:
        await ask(None, "a")
        _, engine = await ask(None, "a")
        assert engine.num_requests == 1

    async def test_a_store_that_was_given_is_left_open(self, store: Store) -> None:
        await ask(store, "a")
        assert store.stats().num_entries == 1


# --- values of pure operators --------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Item:
    name: str
    tags: list[str] = field(default_factory=list)


class Review(BaseModel):
    score: int
    items: tuple[str, ...]


VALUES: list[Any] = [
    None,
    (1, [2, (3,)]),
    {"b": 1, "a": {1.5}},
    frozenset({(1, 2)}),
    Colour.RED,
    Point(1, 2),
    Item("x", ["y"]),
    Review(score=1, items=("a",)),
    Decimal("1.50"),
    b"bytes",
    [True, 1, 1.0],
]

_value: Any = None
_runs: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh_runs() -> Iterator[None]:
    _runs.clear()
    yield
    _runs.clear()


@operator(pure=True, version="1")
async def produce(number: int) -> Any:
    _runs.append(number)
    return VALUES[number]


@operator(pure=True, version="1")
async def count_letters(text: Any) -> int:
    _runs.append("count")
    return len(str(text))


def exactly(value: Any) -> Any:
    """The value with the types of everything in it: 1, True and 1.0 are equal otherwise."""
    if isinstance(value, dict):
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [exactly(item) for item in value]
    return type(value), value


@pytest.mark.parametrize("number", range(len(VALUES)), ids=lambda i: type(VALUES[i]).__name__)
async def test_values_keep_their_types(number: int, store: Store) -> None:
    for _ in range(2):
        async with Session(ScriptedEngine(), memo=store):
            first, second = await gather(produce(number), produce(number))
            assert exactly(first) == exactly(second) == exactly(VALUES[number])
    assert _runs == [number]


async def test_what_cannot_be_remembered_is_an_error(memory: MemoryStore) -> None:
    @operator(pure=True, version="1")
    async def opaque() -> Any:
        return object()

    for options in ({"memo": memory}, {"share": False}):
        async with Session(ScriptedEngine(), **options):
            with pytest.raises(EncodingError, match=r"opaque\(\.\.\.\) is pure, so its result"):
                await opaque()


async def test_plain_operators_are_not_remembered(memory: MemoryStore) -> None:
    @operator
    async def count() -> int:
        _runs.append(1)
        return len(_runs)

    for _ in range(2):
        async with Session(ScriptedEngine(), memo=memory):
            assert await gather(count(), count()) != await gather(count(), count())
    assert len(_runs) == 8


# --- versions ------------------------------------------------------------------------------------

SOURCE = """
from helium_agents import operator

FACTOR = {factor}

def helper(number):
    return {helper}

@operator(pure=True{version})
async def compute(number: int) -> int:
    record(number)
    return {body}
"""


def record(number: int) -> None:
    _runs.append(number)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    """Makes the operator `compute` from source; the module has one name for all versions of it."""
    number = iter(range(100))

    def make(
        *,
        factor: str = "2",
        helper: str = "number + 1",
        body: str = "helper(number) * FACTOR",
        version: str = "",
        comment: str = "",
    ) -> Operator[..., int]:
        source = SOURCE.format(factor=factor, helper=helper, body=body, version=version) + comment
        path = tmp_path / f"flow{next(number)}.py"
        path.write_text(source)
        module = types.ModuleType("flow_under_test")
        module.__dict__["record"] = record
        module.__file__ = str(path)
        sys.modules["flow_under_test"] = module
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
        compute: Operator[..., int] = module.__dict__["compute"]
        return compute

    yield make
    sys.modules.pop("flow_under_test", None)


async def value_in(store: Store, compute: Operator[..., int]) -> int:
    async with Session(ScriptedEngine(), memo=store):
        return await compute(3)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"body": "helper(number) * FACTOR + 1"}, 9),
        ({"helper": "number"}, 6),
        ({"factor": "3"}, 12),
    ],
    ids=["body", "function it names", "constant it names"],
)
async def test_a_change_of_the_source_forgets(
    change: dict[str, str], value: int, make: Any, memory: MemoryStore
) -> None:
    version = ', version="1"'
    first, second = make(**change), make()
    assert await value_in(memory, second) == 8
    num_runs = len(_runs)
    assert await value_in(memory, make(comment="# a comment\n")) == 8
    assert len(_runs) == num_runs, "what does not decide the answer does not count"
    assert await value_in(memory, first) == value
    assert len(_runs) == num_runs + 1
    pinned = make(version=version)
    assert await value_in(memory, pinned) == 8
    assert await value_in(memory, make(version=version, **change)) == 8, "version= overrides"
    assert await value_in(memory, make(version=', version="2"', **change)) == value


def test_this_package_is_nobody_elses_source(monkeypatch: pytest.MonkeyPatch) -> None:
    # not even a script's that stands beside it in a checkout
    script = types.ModuleType("script_under_test")
    script.__file__ = str(Path(helium_agents.__file__).parents[1] / "script_under_test.py")
    monkeypatch.setitem(sys.modules, "script_under_test", script)
    own = OwnCode()
    own.add("script_under_test")
    assert own.has("script_under_test")
    assert not own.has("helium_agents.authoring.llm")


async def test_a_class_that_is_gone_is_a_miss(memory: MemoryStore) -> None:
    module = types.ModuleType("shop_under_test")
    sys.modules["shop_under_test"] = module
    try:
        module.__dict__["Thing"] = make_dataclass("Thing", [("size", int)])
        module.__dict__["Thing"].__module__ = "shop_under_test"

        @operator(pure=True, version="1", name="buy")
        async def buy() -> Any:
            _runs.append("buy")
            return module.Thing(3) if "shop_under_test" in sys.modules else "sold out"

        async with Session(ScriptedEngine(), memo=memory):
            assert (await buy()).size == 3
        async with Session(ScriptedEngine(), memo=memory):
            assert (await buy()).size == 3
        assert _runs == ["buy"]
    finally:
        del sys.modules["shop_under_test"]
    async with Session(ScriptedEngine(), memo=memory):
        assert await buy() == "sold out"
    assert _runs == ["buy", "buy"]


# --- what must not be remembered -----------------------------------------------------------------


async def test_failures_are_not_remembered(store: Store) -> None:
    @operator(pure=True, version="1")
    async def fragile() -> str:
        _runs.append(1)
        if len(_runs) == 1:
            raise ValueError("the first time")
        return "fine"

    def script(request: Request) -> str:
        if len(engine.requests) == 1:
            raise RequestError("the first time")
        return "fine"

    engine = ScriptedEngine(script)
    async with Session(engine, memo=store):
        for make in (lambda: llm(user("a")), fragile):
            refs: list[Ref[Any]] = [make(), make()]  # two who share the failure
            assert [type(e) for e in await gather(*refs, return_exceptions=True)] != []
            with pytest.raises((RequestError, ValueError), match="the first time"):
                await refs[0]
            assert str(await make()) == "fine"
    assert engine.num_requests == 2
    assert len(_runs) == 2


async def test_draws_are_not_remembered_nor_what_is_made_of_them(store: Store) -> None:
    @operator(pure=True, version="1")
    async def shorten(text: Any) -> str:
        return str(text)[:3]

    texts = []
    for _ in range(2):
        engine = ScriptedEngine(lambda request: "always the same")
        async with Session(engine, memo=store, run_id="the same run"):
            draw = llm(user("a"), temperature=1)
            texts.append(await gather(llm(user(prompt("b {it}", it=draw))), shorten.defer(draw)))
        assert engine.num_requests == 2
    assert texts[0] == texts[1]
    assert store.stats().num_entries == 0


async def test_what_refuses_to_be_shared_is_not_remembered(store: Store) -> None:
    async with Session(ScriptedEngine(), memo=store):
        await llm(user("a"), share=False)
    assert store.stats().num_entries == 0


async def test_seeded_samples_are_remembered(store: Store) -> None:
    engines = []
    for _ in range(2):
        engines.append(ScriptedEngine())
        async with Session(engines[-1], memo=store):
            await llm(user("a"), temperature=1, seed=3, n=2)
    assert [engine.num_requests for engine in engines] == [1, 0]


# --- cascading -----------------------------------------------------------------------------------


async def test_a_remembered_end_spares_the_whole_chain(store: Store) -> None:
    @operator(pure=True, version="1")
    async def count(text: Any) -> int:
        _runs.append(str(text))
        return len(str(text))

    async def chain(engine: ScriptedEngine) -> int:
        async with Session(engine, memo=store) as session:
            draft = llm(user("draft"))
            better = llm(user(prompt("improve {it}", it=draft)))
            value = await count.defer(better)
            assert session.summary.num_calls == (2 if engine.num_requests else 0)
            return value

    first = ScriptedEngine()
    value = await chain(first)
    assert first.num_requests == 2

    second = ScriptedEngine(lambda request: "other")  # not asked
    assert await chain(second) == value
    assert second.num_starts == 0
    assert len(_runs) == 1


async def test_it_does_so_where_what_is_below_was_forgotten() -> None:
    class Forgetful(MemoryStore):
        def get(self, key: bytes) -> bytes | None:
            found = super().get(key)
            return found if self.labels.get(key) == "count" else None

        def put(self, key: bytes, value: bytes, *, label: str, provenance: bytes = b"") -> None:
            self.labels[key] = label
            super().put(key, value, label=label, provenance=provenance)

        labels: dict[bytes, str]

    @operator(pure=True, version="1", name="count")
    async def count(text: Any) -> int:
        _runs.append(str(text))
        return len(str(text))

    store = Forgetful()
    store.labels = {}
    values = []
    engine = ScriptedEngine()
    for _ in range(2):
        async with Session(engine, memo=store):
            draft = llm(user("draft"))
            values.append(await count.defer(llm(user(prompt("improve {it}", it=draft)))))
    assert values[0] == values[1]
    assert engine.num_requests == 2
    assert len(_runs) == 1
    store.close()


async def test_a_changed_beginning_changes_only_what_follows_from_it(store: Store) -> None:
    def script(request: Request) -> str:
        text = request.messages[-1].content
        return "the same" if text.startswith("draft") else text

    async def chain(engine: ScriptedEngine, start: str) -> str:
        async with Session(engine, memo=store):
            draft = llm(user(start))
            return (await llm(user(prompt("improve {it}", it=draft)))).text

    await chain(ScriptedEngine(script), "draft 1")
    engine = ScriptedEngine(script)
    assert await chain(engine, "draft 2") == "improve the same"
    assert engine.num_requests == 1, "an equal draft leads to a remembered end"


async def test_plain_operators_between_do_not_hinder(store: Store) -> None:
    @operator
    async def strip(text: Any) -> str:
        return str(text).strip()

    for expected in (2, 0):
        engine = ScriptedEngine()
        async with Session(engine, memo=store):
            draft = llm(user("draft"))
            await llm(user(prompt("improve {it}", it=strip.defer(draft))))
        assert engine.num_requests == expected


# --- maps and durability -------------------------------------------------------------------------


class SlowStore(MemoryStore):
    """A store whose commits are done when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Future[None]] = []

    def commit(self) -> Future[None]:
        self.commits.append(Future())
        return self.commits[-1]


@pytest.fixture
async def slow() -> AsyncIterator[SlowStore]:
    store = SlowStore()
    yield store
    store.close()


@operator
async def answer(row: str) -> str:
    return (await llm(user(row))).text


async def drain(session: Session, rows: list[str], found: list[Any], **options: Any) -> None:
    async for result in session.map(answer, rows, **options):
        found.append(result)


async def test_leaving_a_session_waits_for_the_commit(slow: SlowStore) -> None:
    asking = asyncio.create_task(ask(slow, "a"))
    await until(lambda: slow.commits)
    await ticks()
    assert not asking.done()
    slow.commits[0].set_result(None)
    await asking


async def test_map_yields_what_is_committed(slow: SlowStore) -> None:
    found: list[Any] = []
    async with Session(ScriptedEngine(), memo=slow) as session:
        draining = asyncio.create_task(drain(session, ["a"], found))
        await until(lambda: slow.commits)
        await ticks()
        assert found == []
        slow.commits[0].set_result(None)
        await draining
        assert len(found) == 1


async def test_map_yields_what_others_commit_when_they_have(slow: SlowStore) -> None:
    # the second item's answer is the first one's, whose commit is under way
    found: list[Any] = []
    async with Session(ScriptedEngine(), memo=slow) as session:
        draining = asyncio.create_task(drain(session, ["a", "a", "a"], found, ordered=False))
        await until(lambda: slow.commits)
        await ticks()
        assert found == []
        for commit in slow.commits:
            commit.set_result(None)
        await draining
        assert len(found) == 3


async def test_a_cancelled_map_does_not_cancel_the_commit_of_others(slow: SlowStore) -> None:
    async with Session(ScriptedEngine(), memo=slow) as session:
        found: list[Any] = []
        first = asyncio.create_task(drain(session, ["a"], []))
        second = asyncio.create_task(drain(session, ["a"], found))
        await until(lambda: slow.commits)
        await ticks()
        first.cancel()
        await ticks()
        assert not slow.commits[0].cancelled()
        for commit in slow.commits:
            commit.set_result(None)
        await second
        assert len(found) == 1


async def test_a_map_needs_no_commit_where_all_is_remembered(slow: SlowStore) -> None:
    engine = ScriptedEngine()
    found: list[Any] = []
    async with Session(engine, memo=slow) as session:
        draining = asyncio.create_task(drain(session, ["a", "b"], found))
        while not draining.done():
            for commit in slow.commits:
                if not commit.done():
                    commit.set_result(None)
            await asyncio.sleep(0)
    num_commits = len(slow.commits)
    async with Session(engine, memo=slow) as session:
        await drain(session, ["a", "b"], found)
    assert len(slow.commits) == num_commits
    assert found[:2] == found[2:]


async def test_a_commit_that_fails_ends_the_map(slow: SlowStore) -> None:
    found: list[Any] = []
    with pytest.raises(MemoError, match="disk full"):
        async with Session(ScriptedEngine(), memo=slow) as session:
            draining = asyncio.create_task(
                drain(session, ["a", "a"], found, ordered=False, on_error="collect")
            )
            await until(lambda: slow.commits)
            for commit in slow.commits:
                commit.set_exception(MemoError("disk full"))
            await draining
    assert found == []


async def test_collected_errors_are_no_reason_to_forget_the_rest(store: Store) -> None:
    def script(request: Request) -> str:
        if request.messages[-1].content == "b":
            raise RequestError("bad row")
        return "fine"

    for expected in (3, 1):
        engine = ScriptedEngine(script)
        found: list[Any] = []
        async with Session(engine, memo=store) as session:
            await drain(session, ["a", "b", "c"], found, on_error="collect")
        assert [type(result) for result in found] == [str, ItemError, str]
        assert engine.num_requests == expected


async def test_what_is_in_flight_at_the_end_is_not_half_remembered(store: Store) -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine, memo=store):
        llm(user("a")).start()
        await until(lambda: engine.num_open)
    assert store.stats().num_entries == 0
    assert len(engine.aborted) == 1
