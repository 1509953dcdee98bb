"""A batch from Python: files in, files out, errors as exceptions, resuming."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents import Session, llm, operator, user
from helium_agents.batch import Batch
from helium_agents.engines.engine import Completion, Delta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    InputError,
    ItemError,
    MemoError,
    SessionError,
    TokenBudgetExceeded,
    TraceError,
)
from helium_agents.optimizer.schedule import FewOpen
from helium_agents.telemetry.events import Event, MapOpened
from helium_agents.trace import read_trace

OUT, PART = Path("out.jsonl"), Path("out.jsonl.part")


class Row(BaseModel):
    text: str


@operator
async def shout(row: Row) -> dict[str, str]:
    if row.text == "bad":
        raise ValueError("bad \ud800")
    return {"text": (await llm(user(row.text))).text}


@operator
async def draw(row: Row) -> str:
    return (await llm(user("luck"), temperature=1, max_tokens=8)).text


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows, the last of which is like the first."""
    monkeypatch.chdir(tmp_path)
    write_rows("a", "b", "c", "d", "a")


def write_rows(*texts: str) -> None:
    Path("rows.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts))


def batch(engine: ScriptedEngine, fn: Any = shout, **options: Any) -> Batch:
    return Batch(fn, "rows.jsonl", OUT, engine=engine, **options)


def lines(path: Path = OUT) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def num_lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def loud(request: Request) -> str:
    return request.messages[-1].content.upper()


async def test_each_row_becomes_a_line() -> None:
    engine, events = ScriptedEngine(loud), list[Event]()
    found = batch(engine)
    await found.run([events.append])
    assert [line["text"] for line in lines()] == ["A", "B", "C", "D", "A"]
    assert (found.num_answered, found.num_failed, found.summary.num_computed) == (5, 0, 4)
    assert MapOpened(5, is_nested=False) in events
    with pytest.raises(SessionError, match="a batch runs once"):
        await found.run()


async def test_its_session_has_the_options_of_any() -> None:
    engine = ScriptedEngine(loud, latency_s=0.001)
    await batch(engine, schedule=FewOpen(1), share=True).run()
    assert engine.most_open == 1
    with pytest.raises(SessionError, match="memo_mode='never' must be"):
        batch(engine, memo_mode="never")


async def test_a_failure_is_raised_and_the_rest_is_resumed() -> None:
    ill = {"c"}

    def script(request: Request) -> str:
        if loud(request).lower() in ill:
            raise ValueError("ill")
        return loud(request)

    engine = ScriptedEngine(script)
    with pytest.raises(ItemError) as raised:
        await batch(engine).run()
    assert raised.value.index == 2
    assert [line["text"] for line in lines(PART)] == ["A", "B"]
    with pytest.raises(InputError, match=r"did not finish: add resume=True to go on with it"):
        batch(engine)
    ill.clear()
    events: list[Event] = []
    found = batch(engine, resume=True)
    await found.run([events.append])
    assert [line["text"] for line in lines()] == ["A", "B", "C", "D", "A"]
    assert MapOpened(5, is_nested=False, num_done=2) in events
    again = batch(engine, resume=True)
    assert again.is_finished
    await again.run()
    assert again.session is None


async def test_failures_are_lines_where_they_are_collected() -> None:
    write_rows("a", "bad")
    found = batch(ScriptedEngine(loud), on_error="collect")
    await found.run()
    error = {"type": "ValueError", "message": "bad ?", "item": 1}
    assert lines() == [{"text": "A"}, {"error": error}]
    assert found.num_failed == 1
    assert found.first_failure is not None
    assert found.first_failure.index == 1


class Stuck(ScriptedEngine):
    """Answers three requests, and keeps the next one until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        if self.num_requests == 3:
            await self.goes_on.wait()
        return await super().complete(request, on_delta)


async def test_a_cancelled_run_goes_on_with_the_draws_that_it_had() -> None:
    engine = Stuck()
    task = asyncio.ensure_future(batch(engine, draw, max_open=1).run())
    while num_lines(PART) < 3:  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = lines(PART)
    engine.goes_on.set()
    await batch(engine, draw, resume=True).run()
    assert lines()[:3] == before
    assert len(set(lines())) == engine.num_requests == 5


async def test_what_cannot_be_run_writes_nothing() -> None:
    engine = ScriptedEngine()
    for fn, options, message in (
        (3, {}, "3 is a value of type int, not a workflow: give an @operator or an async"),
        (shout, {"retry_failed": True}, "give resume=True too"),
        (shout, {"memo_mode": "refresh"}, 'memo_mode="refresh" needs memo=DIR'),
    ):
        with pytest.raises(InputError, match=message):
            batch(engine, fn, **options)
    with pytest.raises(TokenBudgetExceeded):
        await batch(engine, token_budget=1).run()
    assert os.listdir() == ["rows.jsonl"]


async def test_several_models_are_part_of_what_a_run_is_about() -> None:
    def two(second: str) -> dict[str, ScriptedEngine]:
        return {"big": ScriptedEngine(), "small": ScriptedEngine(identity=second)}

    with pytest.raises(TokenBudgetExceeded):
        await Batch(draw, "rows.jsonl", OUT, engine=two("one"), token_budget=25).run()
    with pytest.raises(MemoError, match=r"its model 'small' has changed \(one, now two\)"):
        await Batch(draw, "rows.jsonl", OUT, engine=two("two"), resume=True).run()


async def test_a_trace_of_another_run_is_not_appended_to() -> None:
    """Of the same work it is, even where nothing was worth keeping of the run before."""
    options = {"trace": "run.trace", "resume": True, "memo": "memo"}

    def refuse(request: Request) -> str:
        raise ValueError("not today")

    with pytest.raises(ItemError):
        await batch(ScriptedEngine(refuse), **options).run()
    await batch(ScriptedEngine(), limit=2, **options).run()
    await batch(ScriptedEngine(), **options).run()
    whole = read_trace("run.trace")
    assert len(whole.parts) == 3 and len({part.run_id for part in whole.parts}) == 2
    os.unlink(OUT)
    with pytest.raises(TraceError, match="of another run: its workflow has changed"):
        await batch(ScriptedEngine(), draw, **options).run()
    async with Session(ScriptedEngine(), trace="session.trace"):
        await llm(user("x"))
    with pytest.raises(TraceError, match="it is of no batch"):
        await batch(ScriptedEngine(), **{**options, "trace": "session.trace"}).run()
    assert not {OUT.name, PART.name} & {*os.listdir()}
    assert len(read_trace("run.trace").parts) == 3
