"""Traces for the page: of small runs on a scripted engine, and long ones made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helium_agents import Session, gather, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.trace import TracedRun, TraceFile
from helium_agents.viewer.analysis import analyzed
from helium_agents.viewer.columns import content_of
from helium_agents.viewer.document import document_of
from helium_agents.viewer.page import page
from tests.trace.made import call, made_run

EVIL = "</script><script>document.title = 'broken'</script><img src=x onerror=alert(1)> \ud800 é"


@operator
async def expert(name: str, topic: str) -> str:
    return (await llm(user(f"As {name}, about {topic}: {EVIL}"), max_tokens=8)).text


@operator
async def answer(number: int) -> str:
    """Two rows share a topic, and the fifth one fails."""
    if number == 4:
        raise ValueError("five is <b>unlucky</b>")
    views = await gather(*(expert(name, f"topic {number // 2}") for name in ("Ada", "Grace")))
    return (await llm(user(f"Sum up for {number}: {views}"), max_tokens=8)).text


def says(request: Any) -> str:
    return f"reply {len(request.messages[-1].content) % 7}"


async def write_run(
    path: Path,
    numbers: Sequence[int],
    *,
    content: bool = True,
    resume: bool = False,
    **options: Any,
) -> None:
    """Trace `answer` of some rows."""
    trace = TraceFile(path, content=content, resume=resume)
    async with Session(ScriptedEngine(), trace=trace, **options) as session:
        mapped = session.map(answer, numbers, on_error="collect")
        assert len([each async for each in mapped]) == len(numbers)


@operator(pure=True)
async def known(number: int) -> str:
    """What a memo may have whole."""
    return (await llm(user(f"About {number}"), max_tokens=8)).text


async def write_known(path: Path, memo: Path) -> None:
    """Trace a pure operator of two rows."""
    async with Session(ScriptedEngine(), memo=memo, trace=path) as session:
        assert len([each async for each in session.map(known, range(2))]) == 2


def long_run(num_calls: int) -> TracedRun:
    """Rows of ten calls, each a second long, two hundred at once."""
    calls = []
    for number in range(num_calls):
        start_s = float(number // 200)
        prompt = [number // 10, *range(50), number]
        calls.append(call(1 + number, start_s, start_s + 1, item=number // 10, prompt=prompt))
    return made_run(*calls)


def written_page(run: TracedRun, path: Path) -> str:
    """The address of a page that shows a run."""
    analysis = analyzed(run)
    data = {
        "runs": ["run.trace"],
        "run-0": document_of(analysis, "run.trace"),
        "content-0": content_of(analysis),
    }
    path.write_text(page(data), "utf-8")
    return path.as_uri()
