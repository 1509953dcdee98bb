"""Traces of odd programs, and traces that end anywhere: each command shows what there is."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helium_agents import MemoryStore, Session, ToolCall, agent_loop, gather, llm, operator, user
from helium_agents.cli import main
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.trace import TraceFile
from helium_agents.trace.chunks import HEADER, chunk_of, chunks_in
from tests.viewer.traces import EVIL

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
ODD = f"{EVIL} \x00\x07\x1b[31m \u202egnihtyna\u202c \u2028"


def fails(request: Request) -> str:
    if len(request.messages[-1].content) % 3:
        raise ValueError(f"{ODD}\nover lines {'x' * 500}")
    return ODD


def calls_tools(request: Request) -> str | ScriptedReply:
    text = request.messages[-1].content
    if request.messages[-1].role == "tool":
        return text
    return ScriptedReply(tool_calls=[ToolCall("search", {"query": text})])


async def search(query: str) -> str:
    """Look something up."""
    if "2" in query:
        raise ValueError(ODD)
    return query


@operator
async def ask(x: Any) -> str:
    return (await llm(user(f"{ODD} {x}"))).text


@operator(pure=True)
async def known(x: int) -> str:
    return (await llm(user(f"known {x}"))).text


@operator
async def mixed(x: int) -> str:
    if x == 3:
        raise KeyError(ODD)
    return str(await gather(known(x % 2), known(x % 3), ask(x)))


@operator
async def uses_tools(x: int) -> str:
    return (await agent_loop(user(f"{x}"), tools=[search])).text


@operator
async def long(x: int) -> str:
    return (await llm(user("lorem ipsum " * 80_000 + str(x)))).text


async def nothing(session: Session) -> None:
    pass


async def one_call(session: Session) -> None:
    await llm(user(""))


def rows(fn: Callable[[int], Awaitable[Any]], number: int = 6) -> Callable[[Session], Any]:
    async def run(session: Session) -> None:
        async for _ in session.map(fn, range(number), on_error="collect"):
            pass

    return run


async def remembered(session: Session) -> None:
    await rows(mixed)(session)
    await rows(known, 3)(session)


async def no_rows_but_one_of_none(session: Session) -> None:
    async def alone(x: int) -> int:
        return x

    await rows(alone, 1)(session)


PROGRAMS: dict[str, tuple[Callable[[Session], Awaitable[None]], Any]] = {
    "nothing": (nothing, None),
    "one call": (one_call, lambda _: ""),
    "rows without calls": (no_rows_but_one_of_none, None),
    "all fail": (rows(ask), lambda _: 1 / 0),
    "some fail": (rows(mixed), fails),
    "remembered": (remembered, None),
    "tools": (rows(uses_tools), calls_tools),
    "a megabyte": (rows(long, 2), lambda _: "lorem " * 100_000),
}


def write(path: Path, name: str, *, content: bool = True) -> None:
    program, script = PROGRAMS[name]

    async def run() -> None:
        engines = {"</script>\x1b[31m": ScriptedEngine(script, name="</script><b>\x1b[31m")}
        trace = TraceFile(path, content=content)
        async with Session(engines, memo=MemoryStore(), trace=trace) as session:
            await program(session)

    asyncio.run(run())


def helium(*arguments: object, expect: int = 0) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == expect, (arguments, result.output, result.exception)
    assert not CONTROL.search(result.output), result.output
    return result.output


def check_commands(trace: Path) -> None:
    """Each command reads it, and what they write is well-formed."""
    page, line = trace.with_suffix(".html"), trace.with_suffix(".json")
    helium("view", trace, "--html", page, "--overwrite")
    text = page.read_text("utf-8")
    assert text.count("</script>") == len(re.findall(r"<script[ >]", text))
    helium("explain", trace, "--plan")
    assert "None" not in helium("explain", trace, "--analyze")
    report = json.loads(helium("explain", trace, "--analyze", "--json"))
    helium("trace", "export", trace, "--perfetto", line, "--overwrite")
    check_events(json.loads(line.read_bytes())["traceEvents"])
    machine = ["--model-cost", "h100-8b", "--kv-tokens", 2**20, "--coarse"]
    computed = sum(each["num_computed"] for each in report["operators"])
    helium("simulate", trace, *machine, expect=0 if computed else 1)


def check_events(events: Iterable[dict[str, Any]]) -> None:
    """They are as the trace event format has them."""
    arrows: dict[int, list[str]] = defaultdict(list)
    for event in events:
        assert event["ph"] in "XMCisf" and isinstance(event["pid"], int) and event["name"]
        if event["ph"] != "M":
            assert event["ts"] >= 0 and event.get("dur", 0) >= 0 and isinstance(event["tid"], int)
        if event["ph"] in "sf":
            arrows[event["id"]].append(event["ph"])
    assert all(ends == ["s", "f"] for ends in arrows.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_odd_program_is_shown(name: str, tmp_path: Path) -> None:
    write(tmp_path / "run.trace", name)
    check_commands(tmp_path / "run.trace")


def test_a_run_without_texts_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "run.trace", "some fail", content=False)
    check_commands(tmp_path / "run.trace")


@pytest.mark.parametrize("name", ["some fail", "tools"])
def test_a_run_that_was_killed_after_any_record_is_shown(name: str, tmp_path: Path) -> None:
    write(tmp_path / "whole", name)
    with open(tmp_path / "whole", "rb") as file:
        file.seek(len(HEADER))
        chunks = [chunk for _, chunk in chunks_in(file, "whole")]
    records = [record for chunk in chunks for record in chunk["records"]]
    (many,) = (chunk for chunk in chunks if len(chunk["records"]) > 5)  # the others have no texts
    for number in range(0, len(records), 7):
        kept = chunk_of({**many, "records": records[:number]})
        (tmp_path / "cut.trace").write_bytes(HEADER + kept)
        check_commands(tmp_path / "cut.trace")


def test_what_answers_of_operators_saved_is_told(tmp_path: Path) -> None:
    write(tmp_path / "run.trace", "remembered")
    told = helium("explain", tmp_path / "run.trace", "--analyze")
    assert "more never made, since operators' answers were known" in told
    write(tmp_path / "none.trace", "nothing")
    assert "No model was called." in helium("explain", tmp_path / "none.trace", "--analyze")


def test_a_row_that_the_run_does_not_have_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "run.trace"
    write(trace, "remembered")
    html = "--html", tmp_path / "run.html", "--overwrite"
    assert "warning" not in helium("view", trace, *html, "--row", 1)
    said = helium("view", trace, *html, "--row", 1, "--row", 99)
    assert f"warning: --row 99: {trace} has 9 rows" in said
