"""A key is in no key, memo, log, representation or message."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest
from scripted_server import KEY, MODEL, Refusal, ScriptedServer

from helium_agents import OpenAIServer, Session, llm, user
from helium_agents.engines.openai.api_key import ApiKey
from helium_agents.errors import EngineStartError


async def test_it_is_found_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    shown: list[str] = []
    async with ScriptedServer(key=KEY) as server:
        engine = OpenAIServer(server.url, MODEL, weights="w1")
        server.version, server.fingerprint = f"0.32.0 {KEY}", f"vllm {KEY}"
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
        echo = Refusal(400, f'{{"error": {{"message": "your key {escaped} is well"}}}}')
        server.misbehaviours += [echo, Refusal(200, f"{'no JSON' * 27} {KEY}"), Refusal(500, KEY)]
        async with Session(
            engine, memo=tmp_path / "memo", observers=[lambda e: shown.append(repr(e))]
        ):
            for number in range(2):
                try:
                    await llm(user(f"hello {number}"), retries=0)
                except Exception as error:
                    shown += traceback.format_exception(error)
            await llm(user("hello"))
            shown += [repr(engine), str(vars(engine)), str(engine.identity_parts())]
            with pytest.warns(RuntimeWarning, match="system_fingerprint") as warned:
                server.fingerprint = f"another {KEY}"
                await llm(user("bye"))
            shown += [str(warning.message) for warning in warned]
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}x")
        with pytest.raises(EngineStartError) as refused:  # the server repeats what it was sent
            await OpenAIServer(server.url, MODEL).start()
        shown += traceback.format_exception(refused.value)
    assert "your key *** is well" in "".join(shown)
    assert any("Bearer ***" in text for text in shown)
    assert KEY not in "".join(shown) + caplog.text
    assert "w1" in all_of(tmp_path) and KEY not in all_of(tmp_path)


def all_of(folder: Path) -> str:
    """What its files have."""
    return "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())


def test_it_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    assert ApiKey(path).read() == KEY
    with pytest.raises(EngineStartError, match="cannot be read from the file"):
        ApiKey(tmp_path / "missing").read()
    path.write_text(f"{KEY}\n{KEY}\n")
    with pytest.raises(EngineStartError, match="is no API key") as error:
        ApiKey(path).read()
    assert KEY not in str(error.value)


def test_without_any_there_is_none() -> None:
    assert ApiKey(None).read() == ""


@pytest.mark.parametrize(
    "url", ["http://me:secret@host/v1", "https://host/v1?key=secret", "host:8000", "ftp://a/v1", 7]
)
def test_a_url_is_checked_and_has_no_secret(url: str) -> None:
    with pytest.raises(EngineStartError, match=r"base_url=.*give one like") as error:
        OpenAIServer(url, MODEL)
    assert "secret" not in str(error.value)


def test_a_url_without_a_path_means_the_usual_one() -> None:
    for url in ("http://host:8000", "http://host:8000/", "http://host:8000/v1/"):
        assert repr(OpenAIServer(url, "m")) == "OpenAIServer('http://host:8000/v1', 'm')"


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"name": ""},
        {"name": 5},
        {"weights": ""},
        {"max_connections": 0},
        {"requests_per_minute": 1.5},
        {"tokens_per_minute": -1},
        {"timeout_s": 0},
        {"restart_s": float("nan")},
        {"api_key": b"secret"},
        {"api_key": 5},
        {"extra_body": 5},
        {"extra_body": []},
        {"extra_body": {"a": object()}},
        {"extra_body": {"a": 1, 2: 3}},
        {"chat_template_kwargs": "x"},
        {"extra_body": {"max_tokens": 7}},
    ],
)
def test_arguments_are_checked(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(EngineStartError, match=rf"OpenAIServer\({name}=") as error:
        OpenAIServer("http://host", **({"model": "m"} | options))  # type: ignore[arg-type]
    assert "secret" not in str(error.value)
