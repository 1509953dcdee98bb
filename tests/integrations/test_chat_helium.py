"""`ChatHelium`: from any thread and loop an answer or a clear error; merged calls cost one."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="pip install 'helium_agents[langgraph]'")

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel

from helium_agents import LmdbStore, Session, ToolCall, operator
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.errors import PromptError, SessionError
from helium_agents.integrations.langgraph import ChatHelium, work
from helium_agents.memo.memory import MemoryStore

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Asked(BaseModel):
    answer: int


@pytest.fixture
def chat() -> Iterator[ChatHelium]:
    model = ChatHelium(engine=ScriptedEngine(lambda request: request.messages[-1].content.upper()))
    yield model
    model.close()


# --- where it is called from ---------------------------------------------------------------------


def test_without_any_loop(chat: ChatHelium) -> None:
    assert chat.invoke("a").text == "A"
    assert [message.text for message in chat.batch(["a", "b", "a"])] == ["A", "B", "A"]
    assert "".join(chunk.text for chunk in chat.stream("a b c")) == "A B C"
    assert chat.engine.num_requests == 3


def test_from_one_loop_after_another(chat: ChatHelium) -> None:
    async def ask() -> str:
        return (await chat.ainvoke("a")).text

    assert [asyncio.run(ask()), asyncio.run(ask())] == ["A", "A"]
    assert chat.engine.num_requests == 1


def test_from_twenty_threads(chat: ChatHelium) -> None:
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(chat.invoke, [f"t{number % 4}" for number in range(20)]))
    assert {reply.text for reply in replies} == {"T0", "T1", "T2", "T3"}
    assert (chat.engine.num_requests, chat.engine.num_starts) == (4, 1)


async def test_without_await_in_a_loop_that_has_no_session(chat: ChatHelium) -> None:
    assert chat.invoke("a").text == "A"


async def test_in_the_callers_session() -> None:
    engine = ScriptedEngine({"a": "b"})
    async with Session(engine) as session:
        chat = ChatHelium()
        assert (await chat.ainvoke("a")).text == "b"
        assert "".join([chunk.text async for chunk in chat.astream("a")]) == "b"
        with pytest.raises(SessionError, match="use ainvoke"):
            chat.invoke("a")
        assert (await asyncio.to_thread(chat.invoke, "a")).text == "b"
        streamed = await asyncio.to_thread(lambda: [c.text for c in chat.stream("a")])
        assert "".join(streamed) == "b"
        assert session.summary.num_computed == 1
    assert engine.num_requests == 1


async def test_async_without_a_session(chat: ChatHelium) -> None:
    assert (await chat.ainvoke("a")).text == "A"
    assert "".join([chunk.text async for chunk in chat.astream("a b")]) == "A B"


async def test_cancelling_reaches_the_engine() -> None:
    engine = ScriptedEngine(latency_s=3600)
    chat = ChatHelium(engine=engine)
    for where in (chat.ainvoke("a"), _first(chat)):
        task = asyncio.create_task(where)
        while not engine.num_open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while engine.num_open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len(engine.aborted) == 2
    await asyncio.to_thread(chat.close)


async def _first(chat: ChatHelium) -> Any:
    async for chunk in chat.astream("b"):
        return chunk


def test_errors_are_raised_where_it_was_called(chat: ChatHelium) -> None:
    with pytest.raises(PromptError, match="no message that a model is given"):
        chat.invoke([RemoveMessage(id="x")])
    with pytest.raises(TypeError, match="no_such"):
        chat.invoke("a", no_such=1)
    bad = ChatHelium(engine="")
    for _ in range(2):
        with pytest.raises(SessionError, match="names no model"):
            bad.invoke("a")
    bad.close()


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": "R0lGODlh", "mime_type": "image/gif"},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlh"}},
        {"type": "image_url", "image_url": "data:image/gif;base64,R0lGODlh"},
    ],
)
def test_images_are_told(chat: ChatHelium, block: dict[str, Any]) -> None:
    chat.invoke([HumanMessage(["what?", block, {"type": "text", "text": "a dot?"}])])
    (message,) = chat.engine.requests[0].messages
    assert [image.data for image in message.images] == [b"GIF89a"]
    assert message.content == f"what?{message.images[0].mark}a dot?"


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "may change"),
        ({"type": "image_url", "image_url": "/etc/hostname"}, "base64 or as data: URLs"),
        ({"type": "image", "file_id": "7"}, "malformed"),
        ({"type": "image_url"}, "malformed"),
        ({"type": "video", "url": "x"}, "type 'video'"),
    ],
)
def test_only_what_is_known_by_its_content_is_told(
    chat: ChatHelium, block: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PromptError, match=problem):
        chat.invoke([HumanMessage([block])])
    assert chat.engine.num_requests == 0


def test_a_closed_one_begins_anew(chat: ChatHelium) -> None:
    assert chat.invoke("a").text == "A"
    chat.close()
    chat.close()
    assert not chat.engine.is_started
    assert chat.invoke("b").text == "B"


def test_a_program_that_closes_nothing_ends(tmp_path: Path) -> None:
    """Its session is closed all the same, in whose course threads are asked for."""
    options = {"memo": str(tmp_path / "memo"), "trace": str(tmp_path / "trace")}
    program = (
        "from helium_agents.engines.scripted import ScriptedEngine\n"
        "from helium_agents.integrations.langgraph import ChatHelium\n"
        f"chat = ChatHelium(engine=ScriptedEngine({{'a': 'b'}}), session_options={options})\n"
        "print(chat.invoke('a').text)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b\n", "")


async def test_sync_batches_say_that_they_would_wait_for_themselves() -> None:
    async with Session(ScriptedEngine()):
        with pytest.raises(SessionError, match="use ainvoke"):
            ChatHelium().batch(["a", "b"])


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
async def test_threads_see_that_their_loop_is_blocked(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LOOKS_EVERY_S", 0.05)
    model = ChatHelium()
    ask: dict[str, Callable[[], Any]] = {
        "invoke": lambda: model.invoke("a"),
        "stream": lambda: list(model.stream("a")),
        "ainvoke": lambda: asyncio.run(_asked(model)),
        "astream": lambda: asyncio.run(_first(model)),
    }
    async with Session(ScriptedEngine()):
        with ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            with pytest.raises(SessionError, match="is blocked"):
                pool.submit(context.run, ask[way]).result(timeout=30)


async def test_a_loop_that_computes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "LOOKS_EVERY_S", 0.01)
    async with Session(ScriptedEngine({"a": "b"})):
        asked = asyncio.create_task(asyncio.to_thread(ChatHelium().invoke, "a"))
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - many looks
        assert (await asked).text == "b"


async def test_a_loop_that_is_gone_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "LOOKS_EVERY_S", 0.05)

    def ask_later() -> Callable[[], Any]:
        loop = asyncio.new_event_loop()

        async def context() -> contextvars.Context:
            session = await Session(ScriptedEngine()).open()
            return await session.run(_context)

        return partial(loop.run_until_complete(context()).run, ChatHelium().invoke, "a")

    with ThreadPoolExecutor(2) as pool:
        later = pool.submit(ask_later).result(timeout=30)
        with pytest.raises(SessionError, match="does not run any more"):
            pool.submit(later).result(timeout=30)


async def _context() -> contextvars.Context:
    return contextvars.copy_context()


async def _asked(model: ChatHelium) -> Any:
    return await model.ainvoke("a")


def test_an_interrupted_call_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(latency_s=3600)
    chat = ChatHelium(engine=engine)

    def interrupted(*_: Any) -> Any:
        while not engine.num_open:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chat.invoke("a")
    while engine.num_open:
        time.sleep(0.01)
    assert len(engine.aborted) == 1
    chat.close()


def test_models_with_one_memo_share_its_store(tmp_path: Path) -> None:
    options = {"memo": tmp_path / "memo"}
    engine = ScriptedEngine()
    one, two = (ChatHelium(engine=engine, session_options=options) for _ in range(2))
    short = one.model_copy(update={"max_tokens": 2})
    assert one.invoke("a").text == two.invoke("a").text != short.invoke("a").text
    one.close()
    assert two.invoke("b").text
    two.close()
    short.close()
    LmdbStore(tmp_path / "memo").close()


def test_copies_ask_their_engine(chat: ChatHelium) -> None:
    assert chat.invoke("a").text == "A"
    assert copy.deepcopy(chat).invoke("a").text == "A"
    assert chat.engine.num_requests == 1
    other = chat.model_copy(update={"engine": ScriptedEngine({"a": "other"})})
    assert other.invoke("a").text == "other"
    other.close()


def test_a_forked_process_begins_anew() -> None:
    program = (
        "import os, signal\n"
        "from helium_agents.engines.scripted import ScriptedEngine\n"
        "from helium_agents.integrations.langgraph import ChatHelium\n"
        "chat = ChatHelium(engine=ScriptedEngine({'a': 'b'}))\n"
        "chat.invoke('a')\n"
        "child = os.fork()\n"
        "signal.alarm(30)\n"
        "os.write(1, chat.invoke('a').text.encode() + b'\\n')\n"  # at once: both write
        "assert not child or os.waitpid(child, 0)[1] == 0\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b\nb\n", "")


@pytest.mark.parametrize("missing", ["langchain_core", "langgraph"])
def test_without_what_it_needs_it_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import {ChatHelium.__module__}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'helium_agents[langgraph]'" in ended.stderr.splitlines()[-1]


# --- what it says --------------------------------------------------------------------------------


async def test_a_conversation_with_tools() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    engine = ScriptedEngine(
        lambda request: (
            "3"
            if request.messages[-1].role == "tool"
            else ScriptedReply("so:", [ToolCall("add", {"a": 1, "b": 2})], "hm")
        )
    )
    async with Session(engine):
        chat = ChatHelium().bind_tools([add], tool_choice="any")
        said = await chat.ainvoke([SystemMessage("s"), HumanMessage("1 + 2")])
        assert isinstance(said, AIMessage)
        call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call00000", "type": "tool_call"}
        assert said.tool_calls == [call]
        assert said.additional_kwargs["reasoning_content"] == "hm"
        assert said.response_metadata["finish_reason"] == "tool_calls"
        chunks = [chunk async for chunk in chat.astream("1 + 2")]
        assert sum(chunks[1:], chunks[0]).tool_calls == [call]
        history = [HumanMessage("1 + 2"), said, ToolMessage("3", tool_call_id="call00000")]
        assert (await ChatHelium().ainvoke(history)).text == "3"
    result = engine.requests[-1].messages[-1]
    assert (result.tool_call_id, result.tool_name) == ("call00000", "add")
    assert engine.requests[0].tool_choice == "required"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output(method: Any) -> None:
    async with Session(ScriptedEngine()):
        structured = ChatHelium().with_structured_output(Asked, method=method)
        assert isinstance(await structured.ainvoke("a"), Asked)
        raw = ChatHelium().with_structured_output(Asked, method=method, include_raw=True)
        found = await raw.ainvoke("a")
        assert isinstance(found["parsed"], Asked) and isinstance(found["raw"], AIMessage)


async def test_a_stream_has_the_same_invalid_calls() -> None:
    def add(a: int) -> int:
        """Add."""
        return a

    bad = [ToolCall("add", {"a": "x"}), ToolCall("no", {}), ToolCall("add", {"a": 1})]
    async with Session(ScriptedEngine(lambda _: ScriptedReply(tool_calls=bad))):
        chat = ChatHelium().bind_tools([add])
        whole = await chat.ainvoke("a")
        chunks = [chunk async for chunk in chat.astream("a")]
    summed = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessage) and isinstance(summed, AIMessage)
    assert len(whole.invalid_tool_calls) == 2
    assert summed.tool_calls == whole.tool_calls
    for one, other in zip(summed.invalid_tool_calls, whole.invalid_tool_calls, strict=True):
        assert (one["id"], one["name"]) == (other["id"], other["name"])
        assert one["args"] == f"{other['error']}: {other['args']}"


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="temperatur"):
        ChatHelium(temperatur=0.7)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="bogus"):
        ChatHelium().with_structured_output(Asked, method="bogus")  # type: ignore[arg-type]


class Runs(BaseCallbackHandler):
    def __init__(self) -> None:
        self.started: list[Any] = []
        self.ended: list[Any] = []

    def on_chat_model_start(self, *_: Any, run_id: Any, **__: Any) -> None:
        self.started.append(run_id)

    def on_llm_end(self, *_: Any, run_id: Any, **__: Any) -> None:
        self.ended.append(run_id)


async def test_merged_calls_have_their_own_callbacks_and_the_usage_of_one() -> None:
    engine, runs, usage = ScriptedEngine(), Runs(), UsageMetadataCallbackHandler()
    async with Session(engine):
        chat = ChatHelium(model="scripted")
        replies = await chat.abatch(["a b c"] * 5, {"callbacks": [runs, usage]})
    assert engine.num_requests == 1
    assert len(set(runs.started)) == 5 and set(runs.ended) == set(runs.started)
    (total,) = usage.usage_metadata.values()
    assert (total["input_tokens"], total["output_tokens"]) == (4, 4)
    sources = [reply.response_metadata["helium"]["source"] for reply in replies]
    assert sources.count("engine") == 1
    assert set(sources) <= {"engine", "merged", "joined", "earlier"}
    saved = [reply.response_metadata["helium"]["saved_output_tokens"] for reply in replies]
    assert sum(saved) == 16


def test_what_is_remembered_costs_no_tokens() -> None:
    memo = MemoryStore()
    for computed in (1, 0):
        chat = ChatHelium(engine=ScriptedEngine({"a": "b"}), session_options={"memo": memo})
        usage = chat.invoke("a").usage_metadata
        assert usage is not None and usage["output_tokens"] == computed
        assert chat.engine.num_requests == computed
        chat.close()


@pytest.mark.parametrize("streaming", [True, False])
def test_callbacks_see_pieces_where_it_is_wanted(streaming: bool) -> None:
    seen: list[str] = []

    class Pieces(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **_: Any) -> None:
            seen.append(token)

    chat = ChatHelium(engine=ScriptedEngine({"a": "b c"}), streaming=streaming)
    assert chat.invoke("a", {"callbacks": [Pieces()]}).text == "b c"
    assert "".join(seen) == ("b c" if streaming else "")
    chat.close()


def test_samples_are_never_merged() -> None:
    chat = ChatHelium(engine=ScriptedEngine(), temperature=1.0)
    assert len({message.text for message in chat.batch(["a"] * 5)}) == 5
    assert chat.engine.num_requests == 5
    chat.close()


async def test_in_a_pure_operator_it_is_shared() -> None:
    @operator(pure=True, version="1")
    async def ask(text: str) -> str:
        return str((await ChatHelium().ainvoke(text)).text)

    engine = ScriptedEngine({"a": "b"})
    async with Session(engine):
        assert await asyncio.gather(ask("a"), ask("a")) == ["b", "b"]
    assert engine.num_requests == 1
