"""What is remembered of a server: what somebody vouches for, as long as it is the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from scripted_server import MODEL, ScriptedServer

from helium_agents import LmdbStore, OpenAIServer, Session, gather, llm, operator, user
from helium_agents.errors import EngineStartError
from helium_agents.memo.run_log import RunLog


@operator(pure=True)
async def shout(text: str) -> str:
    return (await llm(user(f"Shout {text}."))).text.upper()


async def asked(server: ScriptedServer, memo: Path | None, *texts: str, **options: Any) -> int:
    """How many requests reach the server for calls, one after another, and equal ones at once."""
    before = len(server.bodies)
    async with Session(OpenAIServer(server.url, MODEL, **options), memo=memo):
        for text in texts:
            await gather(llm(user(text)), llm(user(text)), shout(text))
    return len(server.bodies) - before


async def test_without_weights_answers_last_a_session(
    server: ScriptedServer, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"does not tell which weights .*weights="):
            assert await asked(server, tmp_path / "memo", "a", "a", "b") == 4
    store = LmdbStore(tmp_path / "memo")
    assert store.stats().num_entries == 0
    store.close()


def test_what_a_template_shows_of_the_date_decides_the_answer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    template = tmp_path / "chat_template.jinja"
    for text, is_dated in (("Today is {{ strftime_now('%Y') }}.", True), ("Hello.", False)):
        template.write_text(text)
        engine = OpenAIServer("http://host", MODEL, tokenizer=tmp_path)
        assert ("date" in engine.identity_parts()) == is_dated
        assert engine.identity_parts()["prompts"] == "rendered here"


async def test_a_run_that_is_resumed_has_what_it_had(
    server: ScriptedServer, tmp_path: Path
) -> None:
    for num_asked in (4, 4, 5):
        with RunLog(tmp_path / "run") as log:
            engine = OpenAIServer(server.url, MODEL)
            async with Session(engine, memo=log.store, run_log=log):
                texts = ["a", "b", "c"][: num_asked - 2]
                await gather(*map(shout, texts[:2]), *(llm(user(text)) for text in texts))
        assert len(server.bodies) == num_asked


async def test_without_a_memo_nothing_is_said(server: ScriptedServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await asked(server, None, "a", "a") == 2


async def test_with_weights_answers_last(server: ScriptedServer, tmp_path: Path) -> None:
    assert await asked(server, tmp_path / "memo", "a", "b", weights="w1") == 4
    assert await asked(server, tmp_path / "memo", "a", "b", weights="w1") == 0


async def test_what_is_remembered_needs_no_server(server: ScriptedServer, tmp_path: Path) -> None:
    assert await asked(server, tmp_path / "memo", "a", weights="w1") == 2
    await server.stop()
    assert await asked(server, tmp_path / "memo", "a", weights="w1") == 0
    with pytest.raises(EngineStartError, match="nobody answers"):
        await asked(server, tmp_path / "memo", "a", weights="w2")  # what it is nobody ever heard
    await server.start()


@pytest.mark.parametrize("what", ["version", "fingerprint", "weights", "extra_body"])
async def test_another_model_is_asked_anew(
    server: ScriptedServer, tmp_path: Path, what: str
) -> None:
    options: dict[str, Any] = {"weights": "w1"}
    assert await asked(server, tmp_path / "memo", "a", **options) == 2
    if what == "version":
        server.version = "0.33.0"
    elif what == "fingerprint":
        server.fingerprint = "other"
    else:
        options[what] = "w2" if what == "weights" else {"logit_bias": {"7": -100}}
    async with Session(OpenAIServer(server.url, MODEL, **options), memo=tmp_path / "memo"):
        await llm(user("a"))
    assert len(server.bodies) == 3


async def test_what_decides_nothing_changes_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    assert await asked(server, tmp_path / "memo", "a", weights="w1") == 2
    salted = {"extra_body": {"cache_salt": "mine"}, "max_connections": 3, "timeout_s": 9.0}
    assert await asked(server, tmp_path / "memo", "a", weights="w1", **salted) == 0


@pytest.mark.parametrize("weights", [None, "w1"])
async def test_a_server_that_changes_in_mid_run_ends_the_use_of_the_memo(
    server: ScriptedServer, tmp_path: Path, weights: str | None
) -> None:
    memo = tmp_path / "memo" if weights else None
    async with Session(OpenAIServer(server.url, MODEL, weights=weights), memo=memo):
        await llm(user("a"))
        server.fingerprint = "other"
        with pytest.warns(RuntimeWarning, match="system_fingerprint was 'vllm-0.32.0-aaaa' and is"):
            await llm(user("b"))
        num_asked = len(server.bodies)
        for text in ("a", "b", "c", "c"):  # of these none comes from before, nor is kept
            await gather(llm(user(text)), llm(user(text)))
        assert len(server.bodies) == num_asked + 4
    server.fingerprint = "vllm-0.32.0-aaaa"
    if memo is not None:
        async with Session(OpenAIServer(server.url, MODEL, weights=weights), memo=memo):
            num_asked = len(server.bodies)
            await llm(user("a"))
            assert len(server.bodies) == num_asked
            await llm(user("b"))
            assert len(server.bodies) == num_asked + 1


async def test_a_server_that_was_another_while_nobody_was_there(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """It was known by what it had said the last time, and is another when a call needs it."""
    assert await asked(server, tmp_path / "memo", "a", weights="w1") == 2
    await server.stop()
    async with Session(
        OpenAIServer(server.url, MODEL, weights="w1"), memo=tmp_path / "memo"
    ) as session:
        await llm(user("a"))
        server.version = "0.33.0"
        await server.start()
        with pytest.warns(RuntimeWarning, match="its version was '0.32.0' and is '0.33.0'"):
            await llm(user("b"))
        assert session.summary.num_computed == 1
