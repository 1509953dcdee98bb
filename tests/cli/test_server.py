"""`--server`: a workflow over a file of rows, computed by a server."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helium_agents.cli import main

sys.path.append(str(Path(__file__).parents[1] / "engines" / "openai"))

from scripted_server import KEY, MODEL, ScriptedServer

FLOW = """
from helium_agents import llm, operator, user

@operator
async def answer(row: str) -> str:
    return (await llm(user(row))).text
"""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server, in a thread: the command has an event loop of its own."""
    server, is_up = ScriptedServer(key=KEY), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server:
            is_up.set()
            await is_over.wait()

    is_over = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    is_up.wait()
    yield server
    loop.call_soon_threadsafe(is_over.set)
    thread.join()
    loop.close()


@pytest.fixture
def helium(
    server: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "flow.py").write_text(FLOW)
    (folder / "rows.jsonl").write_text('"a"\n"b"\n"a"\n')

    def run(*arguments: str) -> Result:
        files = ("--input", "rows.jsonl", "--output", "out.jsonl", "--overwrite")
        return CliRunner().invoke(main, ["run", "flow.py:answer", *files, *arguments])

    return run


def test_a_run_is_computed_by_a_server(
    helium: Callable[..., Result], server: ScriptedServer
) -> None:
    asked = ("--server", server.url, "--model", MODEL, "--weights", "w1", "--memo", "memo")
    for num_computed in (2, 0):
        result = helium(*asked, "--json")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout)
        assert (report["server"], report["computed"]) == (server.url, num_computed)
    assert len(server.bodies) == 2
    assert len(Path("out.jsonl").read_text().splitlines()) == 3
    shown = result.output + "".join(
        path.read_text("latin-1") for path in Path().rglob("*") if path.is_file()
    )
    assert KEY not in shown


@pytest.mark.filterwarnings("default")
def test_what_is_not_kept_is_said_once_in_a_line(
    helium: Callable[..., Result], server: ScriptedServer
) -> None:
    asked = ("--server", server.url, "--model", MODEL)
    assert helium(*asked).stderr == ""  # the run's own log keeps them, and goes with it
    lines = helium(*asked, "--memo", "memo").stderr.splitlines()
    (line,) = [line for line in lines if "weights" in line]
    assert line.startswith("warning: the server of 'scripted' does not tell which weights it has")


def test_a_dry_run_asks_the_server_what_it_has(
    helium: Callable[..., Result], server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = helium("--server", server.url, "--model", MODEL, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"{server.url}, which has the model" in result.output
    result = helium("--server", server.url, "--model", "scriptet", "--dry-run")
    assert result.exit_code == 1 and "did you mean 'scripted'" in result.output
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    result = helium("--server", server.url, "--model", MODEL, "--dry-run")
    assert result.exit_code == 1 and "have a key that is valid" in result.output
    assert server.bodies == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--server", "http://host/v1"), "name one with --model"),
        (("--weights", "w1"), "--weights goes with a --server: leave it out"),
        (
            ("--server", "http://host/v1", "--model", "m", "--kv-tokens", "5"),
            "--kv-tokens goes with an engine on this machine",
        ),
        (("--server", "host", "--model", "m"), "is no URL"),
    ],
)
def test_options_go_together(
    helium: Callable[..., Result], arguments: tuple[str, ...], words: str
) -> None:
    result = helium(*arguments)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
