"""Tools on the real engine: told in the model's template, forced by structure, read by vLLM."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from helium_agents import Session, assistant, image, llm, operator, run_tools, tool, user
from helium_agents.authoring.tool_schema import tool_set
from helium_agents.engines.engine import ChatMessage, Choice, Request
from helium_agents.engines.vllm import VLLM
from helium_agents.engines.vllm.answer import AnswerReader, known_parser
from helium_agents.errors import EngineStartError, RequestError
from helium_agents.graph.sampling import Sampling
from helium_agents.memo.memory import MemoryStore

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

Word = Annotated[str, Field(pattern="^[a-z ]{1,12}$")]


@operator(pure=True)
async def search(query: Word, limit: Literal[1, 2, 3] = 1) -> str:
    """Search the archive."""
    return f"{limit} found for {query}"


def forecast(city: Word) -> str:
    """The weather of tomorrow."""
    return f"rain in {city}"


TOOLS = [search, forecast]


async def test_required_calls_six_turns_long_and_remembered(engine: VLLM) -> None:
    memo = MemoryStore()
    runs = []
    for _ in range(2):
        async with Session(engine, memo=memo) as session:
            history = [user("Find out about tomorrow.")]
            called = []
            for _ in range(6):
                reply = await llm(*history, tools=TOOLS, tool_choice="required", max_tokens=600)
                assert [call.error for call in reply.tool_calls if call.error] == []
                called += [(call.id, call.name, call.arguments) for call in reply.tool_calls]
                history += await run_tools(reply, TOOLS, on_error="raise")
            runs.append((called, history, session.summary.num_computed))
    assert len(runs[0][0]) >= 6
    assert runs[0][:2] == runs[1][:2]
    assert [run[2] for run in runs] == [6, 0]
    assert len({id_ for id_, _, _ in runs[0][0]}) == len(runs[0][0])


async def test_a_named_tool_is_called_and_none_is_not(engine: VLLM) -> None:
    async with Session(engine):
        question = user("And in Rome?")
        reply = await llm(question, tools=TOOLS, tool_choice="forecast", max_tokens=200)
        assert [call.name for call in reply.tool_calls] == ["forecast"]
        for choice in ("none", "auto"):  # the model has no sense, and calls none by itself
            reply = await llm(question, tools=TOOLS, tool_choice=choice, max_tokens=20)
            assert reply.text and not reply.tool_calls


async def test_the_model_is_told_of_tools_calls_and_results(engine: VLLM) -> None:
    async with Session(engine):
        plain = await llm(user("a"), max_tokens=16)
        told = await llm(user("a"), tools=TOOLS, max_tokens=16)
        assert plain.text != told.text
        reply = await llm(user("a"), tools=TOOLS, tool_choice="forecast", max_tokens=200)
        said = [
            (await llm(user("a"), assistant(reply), tool(result, reply.tool_calls[0]))).text
            for result in ("rain", "snow")
        ]
        assert said[0] != said[1]


async def test_text_without_tools_is_rendered_as_before(engine: VLLM) -> None:
    rendered = await engine.render([ChatMessage("user", "Hi")])
    with_tools = await engine.render([ChatMessage("user", "Hi")], [{"type": "function"}])
    assert [*with_tools[-len(rendered) :]] == [*rendered]
    assert len(with_tools) > len(rendered)


async def test_calls_in_the_words_of_the_model_are_read(engine: VLLM) -> None:
    # what a model would have to say by itself, as vLLM's parser for it reads it
    reader = AnswerReader(engine._running().llm, "random", None, None, {})
    request = Request("a", (), [1], Sampling(), tools=tool_set(TOOLS).schemas)
    text = 'So:\n<tool_call>\n{"name": "forecast", "arguments": {"city": "rome"}}\n</tool_call>'
    found = reader.read(Choice(text, (1,), "stop"), reader.asked(request), request)
    assert found.text.strip() == "So:"
    assert [(call.name, call.arguments) for call in found.tool_calls] == [
        ("forecast", '{"city": "rome"}')
    ]


async def test_text_is_streamed_while_it_comes(engine: VLLM) -> None:
    async with Session(engine):
        call = llm(user("And in Rome?"), tools=TOOLS, max_tokens=20)
        heard = [text async for text in call.stream()]
        assert "".join(heard) == (await call).text
        assert len(heard) > 3
        forced = llm(user("a"), tools=TOOLS, tool_choice="forecast", max_tokens=200)
        assert [text async for text in forced.stream()] == []


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            'So:\n<tool_call>\n{"name": "forecast", "arguments": {"city": "rome"}}\n</tool_call>',
            "So:",
        ),
        ("<tool_call>no call</tool_call>", ""),
        ("One <tool b\n\n", "One <tool b"),
    ],
)
async def test_a_stream_has_no_calls_in_it(engine: VLLM, said: str, text: str) -> None:
    from vllm.outputs import CompletionOutput

    reader = AnswerReader(engine._running().llm, "random", None, None, {})
    request = Request("a", (), [1], Sampling(), tools=tool_set(TOOLS).schemas)
    asked = reader.asked(request)
    stream, heard = reader.stream(asked, request), []
    for at, character in enumerate(said):
        reason = "stop" if at == len(said) - 1 else None
        heard.append(stream.add(CompletionOutput(0, character, [1], None, None, reason)))
    whole = reader.read(Choice(said, (1,), "stop"), asked, request)
    assert "".join(heard) == text
    assert "".join(heard) + stream.rest(whole.text) == whole.text


async def test_reasoning_is_told_from_the_answer(engine: VLLM) -> None:
    reader = AnswerReader(engine._running().llm, "random", None, "granite", {})
    request = Request("a", (), [1], Sampling())
    text = "Here is my thought process: hm. Here is my response: yes."
    found = reader.read(Choice(text, (1,), "stop"), reader.asked(request), request)
    assert [str(found.reasoning).strip(), found.text.strip()] == ["hm.", "yes."]


async def test_a_parser_that_vllm_does_not_have_is_refused(engine: VLLM) -> None:
    with pytest.raises(EngineStartError, match="tool_call_parser='hermit'"):
        AnswerReader(engine._running().llm, "random", "hermit", None, {})


async def test_a_model_that_sees_no_images_is_not_asked(engine: VLLM) -> None:
    async with Session(engine) as session:
        with pytest.raises(RequestError, match="the model 'random' takes no images"):
            await llm(user("What is this?", image(b"GIF89a")))
        assert session.summary.num_computed == 0


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        ('<tool_call>\n{"name": <function-name>', "hermes"),
        ("<tool_call>\n<function=name>", "qwen3_coder"),
        ("{{ '[TOOL_CALLS]' }}", "mistral"),
        ("{% for message in messages %}", None),
    ],
)
async def test_the_parser_is_known_by_the_template(template: str, parser: str | None) -> None:
    assert known_parser(template) == parser
