"""A server that refuses, breaks off, hangs, or is gone: what may pass is waited for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from scripted_server import KEY, MODEL, Misbehaviour, Refusal, ScriptedServer, reply_to, until

from helium_agents import OpenAIServer, Session, gather, llm, user
from helium_agents.engines.engine import ChatMessage, Request, Sampling
from helium_agents.engines.openai import about
from helium_agents.engines.openai.failures import MOST_PAUSE_S, pause_s
from helium_agents.errors import (
    CallTimeout,
    EngineError,
    EngineStartError,
    RequestError,
    TransientEngineError,
)

PASSING: list[Misbehaviour] = [
    Refusal(429, headers={"retry-after": "0"}),
    Refusal(503, headers={"Retry-After": "0.01"}),
    Refusal(500),
    "drop",
    "garbage",
]


@pytest.mark.parametrize("misbehaviour", PASSING, ids=str)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_may_pass_is_tried_again(
    server: ScriptedServer, misbehaviour: Misbehaviour, is_streamed: bool
) -> None:
    server.misbehaviours.append(misbehaviour)
    async with Session(OpenAIServer(server.url, MODEL)):
        call = llm(user("hello"))
        if is_streamed:
            assert "".join([text async for text in call.stream()]) == reply_to("hello")
        text = (await call).text
    assert text == reply_to("hello")
    assert len(server.bodies) == 2


@pytest.mark.parametrize("misbehaviour", ["break off", "stream error"])
async def test_a_stream_that_breaks_off_goes_on(server: ScriptedServer, misbehaviour: str) -> None:
    server.misbehaviours.append(misbehaviour)
    async with Session(OpenAIServer(server.url, MODEL)):
        texts = [text async for text in llm(user("hello there")).stream()]
    assert "".join(texts) == reply_to("hello there")
    assert len(server.bodies) == 2


async def test_an_unseeded_stream_that_breaks_off_is_not_continued(server: ScriptedServer) -> None:
    server.misbehaviours.append("break off")
    async with Session(OpenAIServer(server.url, MODEL)):
        with pytest.raises(EngineError, match="unseeded sample cannot be continued"):
            async for _ in llm(user("hello there"), temperature=1.0).stream():
                pass


async def test_what_does_not_pass_fails_after_some_attempts(server: ScriptedServer) -> None:
    engine = OpenAIServer(server.url, MODEL)
    server.misbehaviours += [Refusal(500, "out of luck")] * 4
    async with engine:
        with pytest.raises(TransientEngineError, match="answered 500: out of luck") as error:
            await engine.complete(Request("r", (ChatMessage("user", "a"),), (), Sampling()))
    assert len(server.bodies) == 4
    assert error.type is TransientEngineError  # a name that programs can import


@pytest.mark.parametrize(
    ("refusal", "error", "words"),
    [
        (Refusal(401), EngineError, "OPENAI_API_KEY, or api_key=, have a key"),
        (Refusal(404), EngineError, "does the server have this model"),
        (
            Refusal(307, "", {"location": "http://else/v1/chat/completions?key=a"}),
            EngineError,
            "sends requests to http://else/v1/chat/completions: give that API as base_url",
        ),
        (Refusal(400), RequestError, "answered 400: scripted"),
        (
            Refusal(400, '{"error": {"message": "maximum context length is 5 tokens"}}'),
            RequestError,
            "Shorten the prompt, lower max_tokens",
        ),
        (
            Refusal(429, '{"error": {"message": "pay", "code": "insufficient_quota"}}'),
            EngineError,
            "no quota left",
        ),
    ],
)
async def test_what_cannot_pass_is_not_tried_again(
    server: ScriptedServer, refusal: Refusal, error: type[EngineError], words: str
) -> None:
    server.misbehaviours.append(refusal)
    async with Session(OpenAIServer(server.url, MODEL)):
        with pytest.raises(error, match=words) as raised:
            await llm(user("hello"))
    assert not isinstance(raised.value, TransientEngineError)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("misbehaviour", ["hang", "drip"])
async def test_a_server_that_gives_no_answer_is_given_up(
    server: ScriptedServer, misbehaviour: str, is_streamed: bool
) -> None:
    server.misbehaviours.append(misbehaviour)
    engine = OpenAIServer(server.url, MODEL, timeout_s=0.2)
    request = Request("r", (ChatMessage("user", "a"),), (), Sampling())
    async with engine, asyncio.timeout(60):
        with pytest.raises(TransientEngineError, match=r"gave no answer for 0.2 s \(timeout_s=\)"):
            await engine.complete(request, (lambda delta: None) if is_streamed else None)
        await until(lambda: not server.num_open)  # the connection is closed


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_cancelling_closes_the_connection(server: ScriptedServer, is_streamed: bool) -> None:
    server.misbehaviours.append("hang")

    async def listen() -> None:
        call = llm(user("hello"))
        if is_streamed:
            async for _ in call.stream():
                pass
        await call

    async with Session(OpenAIServer(server.url, MODEL)):
        task = asyncio.create_task(listen())
        await server.has_request.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.num_aborted)


async def test_a_timeout_of_a_call_closes_the_connection_too(server: ScriptedServer) -> None:
    server.misbehaviours.append("hang")
    async with Session(OpenAIServer(server.url, MODEL)):
        with pytest.raises(CallTimeout):
            await llm(user("hello"), timeout=0.2)
        await until(lambda: server.num_aborted)


# --- at the start --------------------------------------------------------------------------------


async def test_a_model_that_is_not_there_is_named(server: ScriptedServer) -> None:
    for model, words in (("scriptet", "did you mean 'scripted'"), ("gpt", "it has 'scripted'")):
        async with Session(OpenAIServer(server.url, model)):
            with pytest.raises(EngineStartError, match=f"has no model {model!r}: {words}"):
                await llm(user("hello"))


async def test_a_server_that_never_was_there_is_not_waited_for() -> None:
    async with ScriptedServer() as server:
        pass
    async with Session(OpenAIServer(server.url, MODEL)):
        with pytest.raises(EngineStartError, match=r"nobody answers at .* Start the server"):
            await llm(user("hello"))


async def test_a_server_that_never_ends_what_it_says_of_itself_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        has_left.set()

    has_left = asyncio.Event()
    monkeypatch.setattr(about, "_TIMEOUT_S", 0.2)
    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server, asyncio.timeout(60):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(EngineStartError, match=r"has not ended after 0.2 s") as error:
            await OpenAIServer(url, MODEL).start()
        await has_left.wait()
    assert error.type is EngineStartError


async def test_a_wrong_key_is_said_at_the_start() -> None:
    async with ScriptedServer(key=KEY) as server:
        async with Session(OpenAIServer(server.url, MODEL, api_key="another")):
            with pytest.raises(EngineStartError, match=r"answered 401.* have a key that is valid"):
                await llm(user("hello"))
        async with Session(OpenAIServer(server.url, MODEL, api_key=KEY)):
            assert (await llm(user("hello"))).text == reply_to("hello")


async def test_certificates_that_are_not_there_are_named(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/missing")
    with pytest.raises(EngineStartError, match="that SSL_CERT_FILE"):
        await OpenAIServer(server.url, MODEL).start()


# --- a server that comes back --------------------------------------------------------------------


async def test_a_run_outlives_a_server_that_is_restarted(server: ScriptedServer) -> None:
    async with Session(OpenAIServer(server.url, MODEL)) as session:
        await llm(user("first"))
        server.misbehaviours += ["hang"] * 8
        calls = asyncio.ensure_future(gather(*(llm(user(f"q{number}")) for number in range(8))))
        await until(lambda: server.num_open == 8)
        with pytest.warns(RuntimeWarning, match=r"engine 'scripted' died .* nobody answers at"):
            await server.stop()
            await until(
                lambda: "waits for the server, at most 300 s: nobody answers" in session.waiting()
            )
            server.misbehaviours.clear()
            await server.start()
            replies = await calls
        assert [reply.text for reply in replies] == [reply_to(f"q{n}") for n in range(8)]


async def test_a_server_that_does_not_come_back_ends_the_run(server: ScriptedServer) -> None:
    async with Session(OpenAIServer(server.url, MODEL, restart_s=0.3)):
        await llm(user("first"))
        await server.stop()
        with (
            pytest.warns(RuntimeWarning, match="engine 'scripted' died"),
            pytest.raises(EngineStartError, match="nobody answers at"),
        ):
            await llm(user("second"))
    await server.start()


def test_pauses_are_read_as_servers_write_them() -> None:
    assert pause_s(None) is None
    assert pause_s("3") == 3
    assert pause_s("-1") == 0
    assert pause_s("86400") == MOST_PAUSE_S
    assert pause_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert pause_s("soon") is None
