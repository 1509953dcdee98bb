"""Servers that say it otherwise than OpenAI's: what can be meant is taken, the rest is named."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from scripted_server import MODEL, Refusal, ScriptedServer

from helium_agents import OpenAIServer, Reply, Session, llm, user
from helium_agents.engines.openai import pacing
from helium_agents.errors import EngineError, EngineStartError, RequestError, TransientEngineError

HI = {"content": "hi"}
REFUSED = {"content": None, "refusal": "I cannot."}


def page(message: Any = HI, reason: str | None = "stop", **also: Any) -> str:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return json.dumps({"choices": [choice], **also})


def piece(content: str | None, reason: str | None = None, **also: Any) -> str:
    choice = {"index": 0, "delta": {"content": content, **also}, "finish_reason": reason}
    return json.dumps({"choices": [choice]}, ensure_ascii=False)


def stream(*pieces: str, end: str = "data: [DONE]\n\n") -> Refusal:
    text = "".join(f"data: {each}\n\n" for each in pieces)
    return Refusal(200, text + end, {"content-type": "text/event-stream"})


async def asked(server: ScriptedServer, *, is_streamed: bool = False, **options: Any) -> Reply[Any]:
    async with Session(OpenAIServer(server.url, MODEL)):
        call = llm(user("hello"), retries=0, **options)
        if is_streamed:
            heard = "".join([text async for text in call.stream()])
            assert heard == (await call).text
        return await call


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_back_off_s", lambda state: 0.0)


@pytest.mark.parametrize(
    "body",
    [
        page(usage={"prompt_tokens": None, "completion_tokens": None}),
        page(usage={"prompt_tokens": -3, "completion_tokens": 10**30}),
        page(usage={"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}}),
        page({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]}),
        page(reason="STOP"),
        page(reason="eos"),
        page(error={}),
        json.dumps({"choices": [{"index": None, "message": HI, "finish_reason": "stop"}]}),
    ],
)
async def test_an_answer_in_other_words_is_one(server: ScriptedServer, body: str) -> None:
    server.misbehaviours.append(Refusal(201, body))
    assert (await asked(server)).text == "hi"
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        stream(piece("hi"), piece("", "stop"), end=""),
        stream("", '{"type": "ping"}', piece("hi"), piece(None, "stop")),
        stream(piece("hi", "stop"), '{"choices": null, "usage": {"prompt_tokens": 1}}'),
        stream('{"choices": [{"index": 0, "delta": null}]}', piece("hi", "stop")),
        stream(piece("hi", "stop"), end='data: [DONE]\n\ndata: {"after'),
        Refusal(200, page(), {"content-type": "application/json"}),  # it does not stream
    ],
)
async def test_a_stream_in_other_words_is_one(server: ScriptedServer, answer: Refusal) -> None:
    server.misbehaviours.append(answer)
    assert (await asked(server, is_streamed=True)).text == "hi"
    assert len(server.bodies) == 1


async def test_a_line_of_a_stream_ends_where_the_standard_says(server: ScriptedServer) -> None:
    server.misbehaviours.append(stream(piece("a\u2028b\u0085c\u2029", "stop")))
    assert (await asked(server, is_streamed=True)).text == "a\u2028b\u0085c\u2029"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Refusal(200, page(REFUSED)), RequestError, r"refuses to answer: I cannot\."),
        (
            stream(piece(None, refusal="I can"), piece(None, "stop", refusal="not.")),
            RequestError,
            r"refuses to answer: I cannot\.",
        ),
        (Refusal(200, page(reason="content_filter")), RequestError, "by its content filter"),
        (stream(piece("h"), piece(None, "content_filter")), RequestError, "by its content filter"),
        (Refusal(200, '{"error": {"message": "pay", "code": 402}}'), RequestError, "402: pay"),
        (
            Refusal(200, '{"object": "error", "message": "no", "code": 400}'),
            RequestError,
            "400: no",
        ),
        (stream(piece("h"), '{"error": {"message": "no", "code": "400"}}'), RequestError, ": no"),
        (Refusal(200, page(reason="tired")), EngineError, "unknown reason: tired"),
    ],
)
async def test_what_is_no_answer_is_told(
    server: ScriptedServer, answer: Refusal, kind: type[EngineError], words: str
) -> None:
    is_streamed = "content-type" in answer.headers
    server.misbehaviours.append(answer)
    with pytest.raises(kind, match=words) as raised:
        await asked(server, is_streamed=is_streamed)
    assert type(raised.value) is kind
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Refusal(200, '{"choices": []}'), 'no answer of the OpenAI API: \'{"choices": '),
        (Refusal(200, '{"detail": "Not Found"}'), "no answer of the OpenAI API: .*Not Found"),
        (Refusal(204, ""), "no answer of the OpenAI API: ''"),
        (Refusal(200, '{"error": "out of luck"}'), "answered 500: out of luck"),
        (Refusal(200, page(reason=None)), "broke off in the middle of an answer"),
        (stream(piece("h"), end=""), "broke off in the middle of an answer"),
        (stream(piece("h")), "broke off in the middle of an answer"),
        (stream(piece("h"), '{"error": "out of luck"}'), "answered 500: out of luck"),
    ],
)
async def test_what_may_pass_is_named_at_last(
    server: ScriptedServer, answer: Refusal, words: str
) -> None:
    server.misbehaviours += [answer] * 4
    with pytest.raises(TransientEngineError, match=words):
        await asked(server, is_streamed="content-type" in answer.headers)
    assert len(server.bodies) == 4


async def test_fewer_answers_than_were_asked_are_named(server: ScriptedServer) -> None:
    server.misbehaviours.append(Refusal(200, page()))
    with pytest.raises(EngineError, match=r"gave 1 of 3 answers: it may not know n="):
        await asked(server, n=3, temperature=1.0)
    assert len(server.bodies) == 1


# --- where it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1/", "/v1//"])
async def test_slashes_at_the_end_mean_nothing(server: ScriptedServer, path: str) -> None:
    root = server.url.removesuffix("/v1")
    async with Session(OpenAIServer(root + path, MODEL)):
        assert (await llm(user("hello"))).text


@pytest.mark.parametrize("url", ["http://a..b/v1", f"http://{'a' * 70}/v1", "http://\x00/v1"])
async def test_a_host_that_cannot_be_is_no_url(url: str) -> None:
    with pytest.raises(EngineStartError, match="base_url"):
        await OpenAIServer(url, MODEL).start()


async def test_a_proxy_that_cannot_be_used_is_named(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1")
    with pytest.raises(EngineStartError, match=r"socks.*the proxy that .* ALL_PROXY names"):
        await OpenAIServer(server.url, MODEL).start()


async def test_a_certificate_that_is_not_trusted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    monkeypatch.setattr(httpx.Client, "stream", refuse)
    with pytest.raises(EngineStartError, match=r"is not trusted .*self-signed.* SSL_CERT_FILE"):
        await OpenAIServer("https://localhost:1", MODEL).start()
