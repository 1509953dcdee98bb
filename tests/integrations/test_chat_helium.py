"""`ChatHelium`: from any thread and loop an answer or a clear error; merged calls cost one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="pip install 'helium_agents[langgraph]'")

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

from helium_agents import Session, ToolCall, operator
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.errors import PromptError, SessionError
from helium_agents.integrations.langgraph import ChatHelium
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
    with pytest.raises(PromptError, match="image_url"):
        chat.invoke([HumanMessage([{"type": "image_url", "image_url": "x"}])])
    with pytest.raises(TypeError, match="no_such"):
        chat.invoke("a", no_such=1)
    bad = ChatHelium(engine="")
    for _ in range(2):
        with pytest.raises(SessionError, match="names no model"):
            bad.invoke("a")
    bad.close()


def test_a_closed_one_begins_anew(chat: ChatHelium) -> None:
    assert chat.invoke("a").text == "A"
    chat.close()
    chat.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "helium-langchain"]
    assert chat.invoke("b").text == "B"


def test_a_program_that_closes_nothing_ends() -> None:
    program = (
        "from helium_agents.engines.scripted import ScriptedEngine\n"
        "from helium_agents.integrations.langgraph import ChatHelium\n"
        "print(ChatHelium(engine=ScriptedEngine({'a': 'b'})).invoke('a').text)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "b\n", "")


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
