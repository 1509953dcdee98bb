"""What rows ask is learned, kept with the memo, and known in the next run."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from helium_agents import Session, llm, operator, user
from helium_agents.engines.engine import Choice, Completion, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import VersionError
from helium_agents.graph.sampling import Sampling
from helium_agents.keys.versions.version import version_of
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.run_log import RunLog
from helium_agents.optimizer.profile import BLOCK_TOKENS, MOST_ROWS, Profile
from helium_agents.runtime.learning.learner import _is_kept
from helium_agents.runtime.learning.profiles import decode_profile, encode_profile, workflow_key
from helium_agents.runtime.learning.row_log import RowLog


def request(name: str, tokens: list[int]) -> Request:
    return Request(name, (), tokens, Sampling(max_tokens=64), item=0)


def completion(tokens: list[int]) -> Completion:
    return Completion((Choice("", tuple(tokens), "stop"),), output_tokens=len(tokens))


class TestRowLog:
    def test_a_call_depends_on_what_was_answered_before_it_was_asked(self) -> None:
        log = RowLog(is_kept=True)
        prompts = [[number] * 2 * BLOCK_TOKENS for number in range(5)]
        asked = [request(str(number), prompt) for number, prompt in enumerate(prompts)]
        for number in (0, 1):
            log.ask(asked[number], "map", 0.0)
        log.end(asked[1], completion([1, 2]), 0.0, 1.0)
        log.ask(asked[2], "early", 1.5)
        log.end(asked[0], completion([1, 2, 3]), 0.0, 2.0)
        log.end(asked[2], completion([1]), 1.5, 3.0)
        log.ask(asked[3], "reduce", 4.0)
        log.end(asked[3], completion([1]), 4.0, 5.0)
        seen = log.seen()
        assert seen is not None
        assert [call.inputs for call in seen.calls] == [(), (), (1,), (0, 2)]
        assert [call.output_tokens for call in seen.calls] == [3, 2, 1, 1]
        assert log.pause_s == 1.0, "from the last answer to the last call"
        assert log.num_by_site == {"map": 2, "early": 1, "reduce": 1}

    def test_blocks_of_an_answer_are_those_of_the_prompt_that_goes_on(self) -> None:
        log = RowLog(is_kept=True)
        first, answer = list(range(40)), list(range(100, 124))
        one, two = request("1", first), request("2", [*first, *answer, *range(200, 216)])
        log.ask(one, "chat", 0.0)
        log.end(one, completion(answer), 0.0, 1.0)
        call = log.ask(two, "chat", 1.0)
        log.end(two, completion([1]), 1.0, 2.0)
        assert call.held_tokens == 64
        assert call.turn == 1
        seen = log.seen()
        assert seen is not None
        assert seen.calls[0].prompt == ((0, 2),)
        assert seen.calls[0].answer == ((2, 4),)
        assert seen.calls[1].prompt == ((0, 5),)
        assert len(seen.digests()) == 5

    def test_a_call_that_failed_leaves_nothing(self) -> None:
        log = RowLog(is_kept=True)
        one = request("1", [1] * 64)
        log.ask(one, "chat", 0.0)
        log.end(one, None, 0.0, 1.0)
        assert (log.num_calls, log.num_by_site["chat"], log.seen()) == (0, 0, None)

    def test_a_row_that_does_not_stop_is_not_kept(self) -> None:
        log = RowLog(is_kept=True)
        for number in range(600):
            each = request(str(number), [number] * 16)
            log.ask(each, "loop", 0.0)
            log.end(each, completion([1]), 0.0, 0.0)
        assert log.num_calls == 600
        assert log.seen() is None

    def test_neighbours_are_kept_now_and_then(self) -> None:
        kept = [number for number in range(300) if _is_kept(number)]
        assert kept == [*range(MOST_ROWS), *range(64, 80), *range(256, 272)]


@operator
async def chat(row: int) -> str:
    """Two turns, each awaited."""
    first = (await llm(user(f"row {row} " * 30), max_tokens=8)).text
    await asyncio.sleep(0)
    return (await llm(user(f"row {row} " * 30 + first), max_tokens=8)).text


@operator
async def shout(row: int) -> str:
    """One turn."""
    return (await llm(user(f"row {row} " * 30), max_tokens=8)).text


async def run(memo: Any, fn: Any = chat, num_rows: int = 6, first: int = 0) -> Session:
    async with Session(ScriptedEngine(lambda request: "yes indeed"), memo=memo) as session:
        async for _ in session.map(fn, range(first, first + num_rows)):
            pass
    return session


def profiles_in(memo: Path) -> list[Profile]:
    store = LmdbStore(memo, read_only=True)
    found = [decode_profile(data) for data in store.profiles().values()]
    store.close()
    assert None not in found
    return [each for each in found if each is not None]


async def test_runs_sharpen_the_profile_of_a_workflow(tmp_path: Path) -> None:
    await run(tmp_path)
    await run(tmp_path, first=100)
    (found,) = profiles_in(tmp_path)
    assert found.num_rows == 12
    assert found.workflow.endswith(":chat")
    assert found.calls.mean == 2
    assert not found.is_declared, "the second call is made when the first is answered"
    site = found.sites["chat"]
    assert [turn.output_tokens.mean for turn in site.turns] == [2, 2]
    assert len(found.rows) == 12


async def test_each_workflow_has_its_own_and_rows_from_the_memo_teach_nothing(
    tmp_path: Path,
) -> None:
    await run(tmp_path, chat)
    await run(tmp_path, shout)
    await run(tmp_path, shout)  # all from the memo
    found = {each.workflow.partition(":")[2]: each for each in profiles_in(tmp_path)}
    assert {name: each.num_rows for name, each in found.items()} == {"chat": 6}, (
        "what shout asks is what chat asks first, and is remembered"
    )


@operator
async def talk(row: int) -> str:
    """Five turns, the first two of which `chat` may have had before."""
    said = f"row {row} " * 30
    for _ in range(5):
        said += (await llm(user(said), max_tokens=8)).text
    return said


async def test_rows_that_the_memo_answers_in_part_teach_nothing(tmp_path: Path) -> None:
    await run(tmp_path, chat)
    session = await run(tmp_path, talk)
    assert session.summary.num_computed == 6 * 3
    assert [each.calls.mean for each in profiles_in(tmp_path)] == [2], "only that of chat"
    session = await run(tmp_path, talk, num_rows=20)
    assert session.summary.num_computed == 14 * 5
    found = {each.workflow.partition(":")[2]: each for each in profiles_in(tmp_path)}
    assert (found["talk"].num_rows, found["talk"].calls.mean) == (14, 5)
    session = await run(tmp_path, talk, num_rows=21)
    assert session.summary.as_dict()["profile_misfits"] == ""


async def test_what_rows_share_within_a_run_is_learned(tmp_path: Path) -> None:
    @operator(version="1")
    async def ask_of_all(row: int) -> str:
        about = (await llm(user("what they have in common"))).text
        return (await llm(user(f"{about} and row {row}"))).text

    async with Session(ScriptedEngine(), memo=tmp_path) as session:
        for row in range(6):  # one after another, so that it is remembered
            async for _ in session.map(ask_of_all, [row]):
                pass
    (found,) = profiles_in(tmp_path)
    assert (found.num_rows, found.calls.total) == (6, 7)


async def test_rows_that_a_resumed_run_had_begun_teach_nothing(tmp_path: Path) -> None:
    async def part(*rows: int, fn: Any) -> None:
        with RunLog(tmp_path / "log") as log:
            options = {"memo": tmp_path / "memo", "run_log": log}
            async with Session(ScriptedEngine(lambda request: "yes"), **options) as session:
                async for _ in session.map(fn, rows):
                    pass

    await part(0, fn=chat)  # as if rows of talk had been killed after two calls
    await part(0, 1, fn=talk)
    found = {each.workflow.partition(":")[2]: each for each in profiles_in(tmp_path / "memo")}
    assert (found["talk"].num_rows, found["talk"].calls.mean) == (1, 5)


async def test_a_memo_that_is_cleared_keeps_its_profiles(tmp_path: Path) -> None:
    await run(tmp_path)
    store = LmdbStore(tmp_path, max_bytes=1)
    store.put(b"k" * 32, b"v" * 1000, label="evicts all")
    store.prune(max_bytes=0)
    (key,) = store.profiles()
    store.put_profile(key, b"")
    store.commit().result()
    assert store.profiles() == {}
    assert store.profile(key) is None
    store.close()


async def test_a_store_that_keeps_no_profiles_is_left_in_peace() -> None:
    class Other(MemoryStore):
        profile = put_profile = profiles = None  # type: ignore[assignment]

    session = await run(Other())
    assert session.summary.num_items == 6


async def test_a_profile_that_cannot_be_read_is_learned_anew(tmp_path: Path) -> None:
    await run(tmp_path)
    store = LmdbStore(tmp_path)
    (key,) = store.profiles()
    store.put_profile(key, b"of a version to come")
    store.close()
    await run(tmp_path, first=50)
    (found,) = profiles_in(tmp_path)
    assert found.num_rows == 6


def test_bytes_and_back() -> None:
    profile = Profile("w", "m")
    profile.site("a").turn(3).output_tokens.add(5)
    assert decode_profile(encode_profile(profile)) == profile
    assert decode_profile(b"profile 1\nnonsense") is None
    assert decode_profile(b"") is None


def test_every_function_has_a_key() -> None:
    user_name: ContextVar[str] = ContextVar("user_name", default="")

    async def asks_a_client(row: int) -> str:
        return await chat(row) + user_name.get()

    async def other(row: int) -> str:
        return await chat(row + 1) + user_name.get()

    with pytest.raises(VersionError):
        version_of(asks_a_client).digest()
    assert workflow_key(asks_a_client, b"m") == workflow_key(asks_a_client, b"m") is not None
    other.__qualname__ = asks_a_client.__qualname__
    assert workflow_key(asks_a_client, b"m") != workflow_key(other, b"m")
    assert workflow_key(print, b"m") is None
    assert workflow_key(chat, b"m") != workflow_key(chat, b"other")
    assert workflow_key(chat, b"m") == workflow_key(chat, b"m")


TABLE = [*range(100_000)]


async def asks_of_a_table(row: int) -> str:
    return (await llm(user(str(TABLE[row])), max_tokens=4)).text


def test_a_large_table_is_not_read_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = workflow_key(asks_of_a_table, b"m")
    monkeypatch.setitem(globals(), "TABLE", [*TABLE, 0])
    assert workflow_key(asks_of_a_table, b"m") == key is not None
    monkeypatch.setitem(globals(), "TABLE", [0])
    small = workflow_key(asks_of_a_table, b"m")
    monkeypatch.setitem(globals(), "TABLE", [1])
    assert workflow_key(asks_of_a_table, b"m") not in (small, key)


async def test_what_is_learned_is_kept_before_the_end(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    async with Session(ScriptedEngine(lambda request: "yes"), memo=store) as session:
        async for _ in session.map(chat, range(8)):
            pass
        (data,) = store.profiles().values()
        found = decode_profile(data)
        assert found is not None
        assert found.num_rows in (4, 8), "a run may be killed"
    store.close()


@pytest.mark.parametrize("memo_mode", ["off", "replay-only"])
async def test_nothing_is_kept_where_nothing_may_be(memo_mode: Any, tmp_path: Path) -> None:
    await run(tmp_path)
    async with Session(ScriptedEngine(), memo=tmp_path, memo_mode=memo_mode) as session:
        async for _ in session.map(chat, range(6)):
            pass
    (found,) = profiles_in(tmp_path)
    assert found.num_rows == 6
