"""What goes to a server, and what becomes of its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel
from scripted_server import MODEL, Refusal, ScriptedServer, reply_to

from helium_agents import (
    OpenAIServer,
    Session,
    assistant,
    gather,
    image,
    llm,
    run_tools,
    system,
    user,
)
from helium_agents.engines.engine import ChatMessage, Completion, Delta, Request, Sampling
from helium_agents.errors import EngineError, RequestError
from helium_agents.optimizer.park import Park
from helium_agents.telemetry.events import Event, ModelOpened, RequestBegan


async def completed(
    engine: OpenAIServer, *, prompt: tuple[int, ...] = (), text: str = "hello", **sampling: Any
) -> Completion:
    messages = (ChatMessage("user", text),)
    async with engine:
        return await engine.complete(Request("r", messages, prompt, Sampling(**sampling)))


async def test_messages_go_as_they_are(server: ScriptedServer) -> None:
    async with Session(OpenAIServer(server.url, MODEL)):
        reply = await llm(system("Be brief."), user("hello"), max_tokens=40)
    assert reply.text == reply_to("hello")
    assert reply.finish_reason == "stop"
    (body,) = server.bodies
    assert body["path"] == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert (body["model"], body["max_tokens"], body["temperature"]) == (MODEL, 40, 0.0)


async def test_headers_of_a_request_are_sent(server: ScriptedServer) -> None:
    opened: list[ModelOpened] = []

    def observe(event: Event) -> None:
        if isinstance(event, RequestBegan):
            event.headers["traceparent"] = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        elif isinstance(event, ModelOpened):
            opened.append(event)

    async with Session(OpenAIServer(server.url, MODEL), observers=[observe]):
        await llm(user("hello"))
    (headers,) = server.headers
    assert headers["traceparent"] == "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    assert opened == [ModelOpened(MODEL, "openai", ("127.0.0.1", port))]


async def test_token_ids_go_where_there_are_any(server: ScriptedServer) -> None:
    completion = await completed(OpenAIServer(server.url, MODEL), prompt=(5, 6, 7))
    (body,) = server.bodies
    assert (body["path"], body["prompt"]) == ("/v1/completions", [5, 6, 7])
    assert "messages" not in body and body["return_token_ids"] is True
    assert completion.choices[0].text == reply_to("[5, 6, 7]")
    assert completion.choices[0].token_ids == tuple(range(8))
    assert (completion.prompt_tokens, completion.cached_tokens) == (3, 2)


async def test_vllm_is_told_every_sampling_value(server: ScriptedServer) -> None:
    """It would take what is not said from the model's files."""
    await completed(OpenAIServer(server.url, MODEL))
    sent = server.bodies[0]
    for name in ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "n"):
        assert sent[name] == getattr(Sampling(), name)
    await completed(
        OpenAIServer(server.url, MODEL), temperature=0.5, top_k=3, seed=9, stop=("x",), n=2
    )
    sent = server.bodies[1]
    assert (sent["temperature"], sent["top_k"], sent["seed"]) == (0.5, 3, 9)
    assert (sent["stop"], sent["n"]) == (["x"], 2)


async def test_another_server_is_told_only_what_the_api_has() -> None:
    async with ScriptedServer(is_vllm=False) as server:
        engine = OpenAIServer(server.url, MODEL)
        await completed(engine, frequency_penalty=0.5)
        assert set(server.bodies[0]) == {
            "path", "model", "messages", "max_tokens", "temperature", "frequency_penalty",
        }  # fmt: skip
        with pytest.raises(RequestError, match="no top_k, and a server may ignore"):
            await completed(engine, temperature=1.0, top_k=3)
        assert len(server.bodies) == 1


async def test_extra_fields_hints_and_priority_go_to_vllm(server: ScriptedServer) -> None:
    engine = OpenAIServer(
        server.url,
        MODEL,
        chat_template_kwargs={"enable_thinking": False},
        extra_body={"cache_salt": "tenant 7"},
    )
    hints = {"helium_session": 1, "helium_ended": [2]}
    request = Request("r", (ChatMessage("user", "a"),), (), Sampling(), hints=hints, priority=3)
    async with engine:
        await engine.complete(request)
    (body,) = server.bodies
    assert body["vllm_xargs"] == hints
    assert body["priority"] == 3
    assert body["cache_salt"] == "tenant 7"
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ("priority", "Got priority 3 but priority scheduling is not enabled."),
    ],
)
async def test_what_a_server_does_not_take_is_put_in_another_way(name: str, refusal: str) -> None:
    def refuse(body: dict[str, Any]) -> Refusal | None:
        return Refusal(400, f'{{"error": {{"message": "{refusal}"}}}}') if name in body else None

    async with ScriptedServer(refuse=refuse) as server:
        engine = OpenAIServer(server.url, MODEL)
        request = Request("r", (ChatMessage("user", "a"),), (), Sampling(40), priority=3)
        async with engine:
            for _ in range(2):
                await engine.complete(request)
        assert len(server.bodies) == 3  # it is learnt once
        assert ("max_completion_tokens" in server.bodies[2]) == (name == "max_tokens")


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_schema_is_asked_for_and_parsed(server: ScriptedServer, is_streamed: bool) -> None:
    class Verdict(BaseModel):
        answer: int

    async with Session(OpenAIServer(server.url, MODEL)):
        call = llm(user("how many?"), schema=Verdict)
        if is_streamed:
            streamed = "".join([text async for text in call.stream()])
            assert streamed == (await call).text
        assert isinstance((await call).parsed, Verdict)
    wanted = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert wanted["properties"]["answer"]["type"] == "integer"


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_tools_are_told_and_their_calls_found(
    server: ScriptedServer, is_streamed: bool
) -> None:
    def add(first: int, second: int) -> int:
        return first + second

    asked = {"name": "add", "arguments": '{"first": 1, "second": 2}'}
    calls = [{"id": "call_x9", "type": "function", "function": asked}]
    message = {"content": None, "reasoning": "hm", "tool_calls": calls}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    server.misbehaviours.append(Refusal(200, json.dumps(answer)))
    async with Session(OpenAIServer(server.url, MODEL)):
        call = llm(user("1 + 2?"), tools=[add], tool_choice="add")
        if is_streamed:
            assert [text async for text in call.stream()] == []
        reply = await call
        assert (reply.reasoning, reply.tool_calls[0].arguments) == ("hm", {"first": 1, "second": 2})
        await llm(user("1 + 2?"), *(await run_tools(reply, [add])))
    first, second = server.bodies
    told = first["tools"][0]["function"]
    assert (told["name"], told["strict"]) == ("add", True)  # or its arguments may be anything
    assert first["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert second["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call00000", "type": "function", "function": asked}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "call00000"},
    ]
    assert "tools" not in second


@pytest.mark.parametrize("has_index", [True, False])
async def test_text_is_streamed_and_calls_come_at_the_end(
    server: ScriptedServer, has_index: bool
) -> None:
    def add(first: int, second: int) -> int:
        return first + second

    def called(index: int, id_: str | None, **function: str) -> dict[str, Any]:
        call = {"index": index} if has_index else {}
        call |= {"function": function} | ({"id": id_} if id_ else {})
        return {"tool_calls": [call]}

    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "I ask"},
        {"content": " twice."},
        called(0, "a", name="add", arguments=""),
        called(0, None, arguments='{"first": 1, "sec'),
        called(0, None, arguments='ond": 2}'),
        called(1, "b", name="add", arguments='{"first": 3, "second": 4}'),
    ]
    choices = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    pages = [json.dumps({"choices": [choice]}) for choice in choices]
    stream = "".join(f"data: {page}\n\n" for page in [*pages, "[DONE]"])
    server.misbehaviours.append(Refusal(200, stream, {"content-type": "text/event-stream"}))
    async with Session(OpenAIServer(server.url, MODEL)):
        call = llm(user("1 + 2 and 3 + 4?"), tools=[add])
        assert [text async for text in call.stream()] == ["I ask", " twice."]
        reply = await call
    assert (reply.text, reply.reasoning) == ("I ask twice.", "hm")
    found = [(each.id, each.name, each.arguments) for each in reply.tool_calls]
    assert found == [
        ("call00000", "add", {"first": 1, "second": 2}),
        ("call00001", "add", {"first": 3, "second": 4}),
    ]
    assert server.bodies[0]["stream"] is True


async def test_images_go_in_the_messages(server: ScriptedServer) -> None:
    dot = image(b"\xff\xd8\xff\xe0 a dot")
    async with Session(OpenAIServer(server.url, MODEL, tokens_per_minute=100_000)):
        await llm(system("Look."), user("What is", dot, "?"))
    (body,) = server.bodies
    assert body["path"] == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is"},
                {
                    "type": "image_url",
                    "image_url": {"url": "data:image/jpeg;base64,/9j/4CBhIGRvdA=="},
                },
                {"type": "text", "text": "?"},
            ],
        },
    ]


async def test_several_answers_and_an_answer_that_is_cut(server: ScriptedServer) -> None:
    engine = OpenAIServer(server.url, MODEL)
    completion = await completed(engine, temperature=1.0, n=3, max_tokens=2)
    assert [choice.text for choice in completion.choices] == ["You said"] * 3
    assert {choice.finish_reason for choice in completion.choices} == {"length"}
    heard: list[Delta] = []
    async with engine:
        request = Request("s", (ChatMessage("user", "a"),), (), Sampling(2, temperature=1.0, n=2))
        completion = await engine.complete(request, heard.append)
    assert heard == [Delta(0, "You"), Delta(0, " said"), Delta(1, "You"), Delta(1, " said")]
    assert completion.choices[0].token_ids == (0, 1)
    assert completion.first_token_s is not None


async def test_another_prompt_than_was_sent_is_noticed(server: ScriptedServer) -> None:
    server.misbehaviours.append("wrong ids")
    with pytest.raises(EngineError, match=r"another prompt than was sent: 3 .* from token 2 on"):
        await completed(OpenAIServer(server.url, MODEL), prompt=(5, 6, 8))


async def test_a_limit_of_the_servers_own_is_noticed(server: ScriptedServer) -> None:
    page = (
        '{"choices": [{"text": "a", "finish_reason": "length", "token_ids": [1, 2]}], '
        '"usage": {"prompt_tokens": 3}}'
    )
    server.misbehaviours.append(Refusal(200, page))
    with pytest.raises(EngineError, match="after 2 tokens, but max_tokens is 256"):
        await completed(OpenAIServer(server.url, MODEL), prompt=(5, 6, 8))


async def test_what_cannot_fit_is_not_sent(server: ScriptedServer) -> None:
    with pytest.raises(RequestError, match=r"3 tokens and max_tokens is 5000.* 4096 of both"):
        await completed(OpenAIServer(server.url, MODEL), prompt=(5, 6, 8), max_tokens=5000)
    assert server.bodies == []


async def test_an_answer_without_token_ids_serves_its_own_length_only() -> None:
    async with (
        ScriptedServer(is_vllm=False) as server,
        Session(OpenAIServer(server.url, MODEL)),
    ):
        long, short = await gather(llm(user("a"), max_tokens=20), llm(user("a"), max_tokens=2))
        assert (long.text, short.text) == (reply_to("a"), "You said")
        assert len(server.bodies) == 2


async def test_a_connection_is_used_again(server: ScriptedServer) -> None:
    async with OpenAIServer(server.url, MODEL) as engine:
        before = server.num_connections
        for hear in (None, lambda _: None, lambda _: None, None):
            await engine.complete(Request("r", (ChatMessage("user", "a"),), (), Sampling()), hear)
        assert server.num_connections == before + 1


async def test_most_connections_is_kept(server: ScriptedServer) -> None:
    engine = OpenAIServer(server.url, MODEL, max_connections=3)
    async with Session(engine):
        await gather(*(llm(user(str(number))) for number in range(20)))
    assert server.most_open <= 3 < len(server.bodies)


@pytest.mark.parametrize("is_vllm", [True, False])
async def test_a_session_tells_vllm_whose_cache_is_of_use(is_vllm: bool) -> None:
    async def chat(row: str) -> str:
        first = await llm(user(row))
        return (await llm(user(row), assistant(first), user("more"))).text

    async with (
        ScriptedServer(is_vllm=is_vllm) as server,
        Session(OpenAIServer(server.url, MODEL), schedule=Park()) as session,
    ):
        for rows in (["a", "b"], ["c"]):
            async for _ in session.map(chat, rows):
                pass
    hints = [body.get("vllm_xargs", {}) for body in server.bodies]
    assert len(hints) == 6
    if not is_vllm:
        assert not any(hints)
        return
    names = [each.pop("helium_session") for each in hints]
    assert sorted(map(names.count, set(names))) == [2, 2, 2]
    ended = [name for each in hints for name in each.get("helium_ended", ())]
    assert sorted(ended) == sorted(set(names[:4])), "once each"
    for each in filter(None, hints):
        assert len(each["helium_kept_tokens"]) == len(each["helium_ended"])
