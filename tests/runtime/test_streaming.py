"""Streams: every reader gets all pieces from the start, whatever became of the call meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gate import Gate, ticks, until
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents import MemoryStore, Ref, Reply, Session, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Completion, Delta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    CallTimeout,
    EngineError,
    RefMisuse,
    RequestError,
    SessionError,
    TransientEngineError,
)
from helium_agents.runtime import evaluator
from helium_agents.runtime.streaming import StreamBuffer

PIECES = ["one", " two", " three", " four"]
TEXT = "".join(PIECES)


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "FIRST_BACKOFF_S", 0)


class Teleprinter(ScriptedEngine):
    """Says a piece whenever the test lets it; attempts fail after as many pieces as planned."""

    def __init__(self, *fails_after: int, text: str = TEXT, error: Exception | None = None) -> None:
        super().__init__(lambda request: text)
        self.fails_after = list(fails_after)
        self.error = error or TransientEngineError("try again")
        self.permits = asyncio.Semaphore(0)

    def let(self, num_pieces: int) -> None:
        for _ in range(num_pieces):
            self.permits.release()

    async def complete(self, request: Request, on_delta: Any = None) -> Completion:
        fails_after = self.fails_after.pop(0) if self.fails_after else None
        said: list[Delta] = []
        completion = await super().complete(request, said.append)
        for number, delta in enumerate(said):
            if number == fails_after:
                raise self.error
            await self.permits.acquire()
            if on_delta is not None:
                on_delta(delta)
        return completion


class Reader:
    """Reads a stream in a task of its own."""

    def __init__(self, ref: Ref[Any]) -> None:
        self.pieces: list[str] = []
        self.task = asyncio.create_task(self._read(ref.stream()))

    async def _read(self, stream: AsyncIterator[str]) -> None:
        async for piece in stream:
            self.pieces.append(piece)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


# --- live ----------------------------------------------------------------------------------------


async def test_pieces_come_as_the_engine_says_them() -> None:
    engine = Teleprinter()
    async with Session(engine):
        ref = llm(user("q"))
        reader = Reader(ref)
        for number in range(len(PIECES)):
            await ticks()
            assert reader.pieces == PIECES[:number]
            engine.let(1)
        await reader.task
        assert reader.pieces == PIECES
        assert (await ref).text == TEXT
    assert engine.num_requests == 1


async def test_a_late_reader_gets_all_from_the_start() -> None:
    engine = Teleprinter()
    async with Session(engine):
        ref = llm(user("q"))
        early = Reader(ref)
        engine.let(2)
        await until(lambda: len(early.pieces) == 2)
        late = Reader(ref)
        await until(lambda: late.pieces == PIECES[:2])
        engine.let(2)
        await gather(early.task, late.task)
        assert early.pieces == late.pieces == PIECES
        last = Reader(ref)
        await last.task
        assert last.text == TEXT
    assert engine.num_requests == 1


async def test_a_reader_of_a_call_that_was_begun_without_one_gets_it_all() -> None:
    engine = Teleprinter()
    async with Session(engine):
        ref = llm(user("q")).start()
        await until(lambda: engine.num_requests)
        reader = Reader(ref)
        engine.let(4)
        await reader.task
        assert reader.text == TEXT == (await ref).text


async def test_a_call_with_inputs() -> None:
    engine = ScriptedEngine(lambda request: request.messages[-1].content)
    async with Session(engine):
        draft = llm(user("some draft"))
        pieces = [p async for p in llm(user(prompt("better {it}", it=draft))).stream()]
    assert pieces == ["better", " some", " draft"]


async def test_awaiting_does_not_need_the_stream_to_be_read() -> None:
    engine = Teleprinter()
    async with Session(engine):
        ref = llm(user("q"))
        stream = ref.stream()
        engine.let(4)
        assert (await ref).text == TEXT
        assert "".join([piece async for piece in stream]) == TEXT


async def test_a_stop_string_and_a_limit() -> None:
    engine = ScriptedEngine(lambda request: TEXT)
    async with Session(engine):
        assert [p async for p in llm(user("q"), max_tokens=2).stream()] == PIECES[:2]
        assert [p async for p in llm(user("q"), stop=" three").stream()] == PIECES[:2]


# --- shared --------------------------------------------------------------------------------------


async def test_a_remembered_answer_is_replayed() -> None:
    store = MemoryStore()
    async with Session(ScriptedEngine(lambda request: TEXT), memo=store):
        await llm(user("q"))
    engine = ScriptedEngine()
    async with Session(engine, memo=store):
        assert "".join([piece async for piece in llm(user("q")).stream()]) == TEXT
        assert "".join([p async for p in llm(user("q"), max_tokens=2).stream()]) == "one two"
    assert engine.num_starts == 0


async def test_merged_calls_stream_both() -> None:
    engine = Teleprinter()
    async with Session(engine) as session:
        first, second, third = (llm(user("q")) for _ in range(3))
        readers = [Reader(first), Reader(second)]
        third.start()
        await until(lambda: engine.num_requests)
        engine.let(1)
        await until(lambda: all(reader.pieces == PIECES[:1] for reader in readers))
        engine.let(3)
        await gather(*(reader.task for reader in readers))
        assert [reader.pieces for reader in readers] == [PIECES, PIECES]
        assert (await third).text == TEXT
        assert session.summary.calls_by_source == {"engine": 1, "merged": 2}


async def test_one_that_joins_a_call_in_flight_streams_too() -> None:
    engine = Teleprinter()
    async with Session(engine):
        first = Reader(llm(user("q")))
        engine.let(2)
        await until(lambda: first.pieces == PIECES[:2])
        second = Reader(llm(user("q")))
        await until(lambda: second.pieces == PIECES[:2])
        engine.let(2)
        await gather(first.task, second.task)
        assert second.pieces == PIECES
    assert engine.num_requests == 1


async def test_one_that_is_cut_from_a_longer_one() -> None:
    engine = ScriptedEngine(lambda request: TEXT)
    async with Session(engine):
        short, long = Reader(llm(user("q"), max_tokens=2)), Reader(llm(user("q"), max_tokens=9))
        await gather(short.task, long.task)
        assert (short.text, long.text) == ("one two", TEXT)
    assert engine.num_requests == 1


async def test_one_that_turns_out_to_be_in_flight() -> None:
    engine = Teleprinter(text="q")
    async with Session(engine):
        below = llm(user("below"))
        first = Reader(llm(user("q")))
        second = Reader(llm(user(prompt("{it}", it=below))))  # "q" once that is known
        engine.let(1)
        await ticks()
        engine.let(1)
        await ticks()
        engine.let(5)
        await gather(first.task, second.task)
        assert first.text == second.text == "q"


# --- failures ------------------------------------------------------------------------------------


async def test_a_failure_comes_after_the_pieces() -> None:
    engine = Teleprinter(2, error=RequestError("broken"))
    async with Session(engine):
        ref = llm(user("q"))
        reader = Reader(ref)
        engine.let(2)
        with pytest.raises(RequestError, match="broken"):
            await reader.task
        assert reader.pieces == PIECES[:2]
        with pytest.raises(RequestError, match="broken"):
            await ref
        late = Reader(ref)
        with pytest.raises(RequestError, match="broken"):
            await late.task


@pytest.mark.parametrize("fails_after", [[0], [2], [3, 1], [1, 3]])
async def test_a_retry_does_not_say_anything_twice(fails_after: list[int]) -> None:
    engine = Teleprinter(*fails_after)
    async with Session(engine):
        ref = llm(user("q"))
        reader = Reader(ref)
        engine.let(20)
        await reader.task
        assert reader.pieces == PIECES
        assert (await ref).text == TEXT
    assert engine.num_requests == 1 + len(fails_after)


async def test_a_retry_must_not_contradict_what_was_delivered() -> None:
    class Fickle(Teleprinter):
        async def _reply(self, request: Request, index: int) -> str:
            return TEXT if self.num_requests == 1 else "one 2 three"

    engine = Fickle(2)
    async with Session(engine):
        reader = Reader(llm(user("q")))
        engine.let(20)
        with pytest.raises(EngineError, match="different text"):
            await reader.task
        assert reader.text == "one two"


# --- the end -------------------------------------------------------------------------------------


async def test_breaking_out_cancels_the_call() -> None:
    engine = Teleprinter()
    async with Session(engine):
        ref = llm(user("q"))
        engine.let(2)
        async for piece in ref.stream():
            assert piece == "one"
            break
        gc.collect()
        await ticks()
        assert ref.node.outcome is None
        engine.let(9)
        assert (await ref).text == TEXT, "and it may be asked again"
    assert engine.num_requests == 2


async def test_breaking_out_of_one_leaves_the_others_theirs() -> None:
    engine = Teleprinter()
    async with Session(engine):
        ref = llm(user("q"))
        other = Reader(ref)
        engine.let(1)
        async for _ in ref.stream():
            break
        gc.collect()
        await ticks()
        engine.let(3)
        await other.task
        assert other.pieces == PIECES
    assert engine.num_requests == 1


async def test_cancelling_a_reader_cancels_the_call() -> None:
    gate = Gate()
    engine = ScriptedEngine(gate)
    async with Session(engine):
        reader = Reader(llm(user("q")))
        await until(lambda: engine.num_open)
        reader.task.cancel()
        await until(lambda: reader.task.done())
        assert engine.num_open == 0
        assert len(engine.aborted) == gate.num_cleaned_up == 1


async def test_leaving_the_session_ends_a_stream() -> None:
    engine = Teleprinter()
    async with Session(engine):
        reader = Reader(llm(user("q")))
        engine.let(1)
        await until(lambda: reader.pieces)
    await ticks()
    assert reader.task.done()
    assert reader.task.exception() is not None, "half an answer does not pass for one"


# --- refusals ------------------------------------------------------------------------------------


async def test_only_one_answer_can_be_streamed() -> None:
    async with Session(ScriptedEngine()):
        with pytest.raises(RefMisuse, match="n=1"):
            llm(user("q"), n=2).stream()


async def test_only_a_model_call_can_be_streamed() -> None:
    @operator(pure=True, version="1")
    async def compute() -> int:
        return 1

    async with Session(ScriptedEngine()):
        with pytest.raises(RefMisuse, match="compute"):
            compute().stream()


async def test_a_stream_needs_a_session() -> None:
    with pytest.raises(SessionError):
        llm(user("q")).stream()


# --- the buffer ----------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=6), st.data())
def test_whatever_the_attempts_every_reader_reads_the_text(
    pieces: list[str], data: st.DataObject
) -> None:
    async def main() -> None:
        buffer, text = StreamBuffer(), "".join(pieces)
        found: list[list[str]] = []

        async def read() -> None:
            found.append([])
            mine = found[-1]
            async for piece in buffer.read(asyncio.get_running_loop().create_future()):
                mine.append(piece)

        readers = [asyncio.create_task(read())]
        for num_said in data.draw(st.lists(st.integers(0, len(pieces)), max_size=3)):
            buffer.restart()
            for piece in pieces[:num_said]:
                buffer.on_delta(Delta(0, piece))
                if data.draw(st.booleans()):
                    readers.append(asyncio.create_task(read()))
                    await asyncio.sleep(0)
        buffer.close(text)
        readers.append(asyncio.create_task(read()))
        await asyncio.gather(*readers)
        assert ["".join(mine) for mine in found] == [text] * len(readers)
        assert all("" not in mine for mine in found)

    asyncio.run(main())


async def test_the_reply_of_a_stream_is_a_reply() -> None:
    async with Session(ScriptedEngine(lambda request: TEXT)):
        ref = llm(user("q"))
        async for _ in ref.stream():
            pass
        assert isinstance(await ref, Reply)
        assert (await ref).finish_reason == "stop"


async def test_a_timeout_counts_for_a_stream_too() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(0.5)
        return "late"

    engine = ScriptedEngine(slow)
    async with Session(engine):
        with pytest.raises(CallTimeout, match=r"within its timeout of 0\.02 s"):
            async for _ in llm(user("q"), timeout=0.02).stream():
                pass
        assert engine.num_open == 0
        pieces = [piece async for piece in llm(user("q"), timeout=30).stream()]
    assert pieces == ["late"]
