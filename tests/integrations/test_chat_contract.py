"""`ChatHelium` does what LangChain's programs take for granted of any chat model."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core", reason="pip install 'helium_agents[langgraph]'")

from langchain_core.messages import HumanMessage, trim_messages
from pydantic import BaseModel

from helium_agents import Session
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import InvalidReply
from helium_agents.integrations.langgraph import ChatHelium


class Verdict(BaseModel):
    score: int


CUT = '{"score": 1'


@pytest.mark.parametrize("streaming", [False, True])  # as where callbacks want pieces
async def test_an_answer_that_does_not_fit_comes_raw(streaming: bool) -> None:
    chat = ChatHelium(streaming=streaming)
    async with Session(ScriptedEngine(lambda request: CUT)):
        found = await chat.with_structured_output(Verdict, include_raw=True).ainvoke("How good?")
        with pytest.raises(InvalidReply, match="is no JSON") as raised:
            await chat.with_structured_output(Verdict).ainvoke("How good?")
    assert (found["raw"].text, found["parsed"]) == (CUT, None)
    assert isinstance(found["parsing_error"], InvalidReply)
    assert found["parsing_error"].text == raised.value.text == CUT


async def test_an_answer_that_fits_comes_raw_too() -> None:
    raw = ChatHelium().with_structured_output(Verdict, include_raw=True)
    async with Session(ScriptedEngine(lambda request: '{"score": 1}')):
        found = await raw.ainvoke("How good?")
    assert (found["parsed"], found["parsing_error"]) == (Verdict(score=1), None)


async def test_no_tools_are_none() -> None:
    async with Session(ScriptedEngine(lambda request: str(len(request.tools)))):
        assert (await ChatHelium().bind_tools([]).ainvoke("a")).text == "0"


def test_tokens_are_counted_without_fetching_anything() -> None:
    history = [HumanMessage(letter * 400) for letter in "abc"]
    kept = trim_messages(history, max_tokens=250, token_counter=ChatHelium())
    assert kept == history[1:]
    words = ChatHelium(custom_get_token_ids=lambda text: [0] * len(text.split()))
    assert words.get_num_tokens("one two three") == 3
    with pytest.raises(NotImplementedError, match="custom_get_token_ids"):
        ChatHelium().get_token_ids("one")
