"""A trace tells what a run did, whatever became of the run."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents import MemoryStore, Session, agent_loop, gather, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.errors import RequestError, TraceError
from helium_agents.graph.tool_call import ToolCall
from helium_agents.telemetry.events import (
    CallSettled,
    EngineLost,
    EngineStarted,
    Event,
    MapOpened,
    ProfileMisfit,
    RequestAnswered,
)
from helium_agents.trace import TracedRun, TraceFile, read_trace, writer
from helium_agents.trace.chunks import HEADER, check_header, chunk_of, chunks_in
from helium_agents.trace.encode import KEPT, encoded
from helium_agents.trace.file import close
from helium_agents.trace.front_coding import Texts, TokenSequences, decoded

ROOT = Path(__file__).parents[2]


@operator(pure=True)
async def expert(role: str, question: str) -> str:
    return (await llm(user(f"You are {role}. {question}"))).text


@operator
async def panel(question: str) -> str:
    views = [llm(user(f"As {role}: {question}")) for role in ("a", "b")]
    merged = llm(user(prompt("{a} {b}", a=views[0], b=views[1])))
    said = await gather(expert("a judge", question), expert("a judge", question))
    return (await merged).text + said[0]


async def traced(path: Path, rows: list[str], **options: Any) -> TracedRun:
    trace = options.pop("trace", path)
    async with Session(ScriptedEngine(), trace=trace, **options) as session:
        assert len([text async for text in session.map(panel, rows)]) == len(rows)
    return read_trace(path)


async def test_it_tells_calls_as_events_do(tmp_path: Path) -> None:
    settled: list[CallSettled] = []

    def keep(event: Any) -> None:
        if isinstance(event, CallSettled):
            settled.append(event)

    run = await traced(tmp_path / "t", ["one?", "two?"], observers=[keep])
    assert len(run.calls) == len(settled) == 12
    for call, event in zip(run.calls, settled, strict=True):
        assert (call.number, call.kind, call.source) == (event.call, event.kind, event.source)
        assert (call.body, call.leader, call.item) == (event.parent, event.leader, event.item)
        assert (call.inputs, call.model, call.label) == (event.inputs, event.model, event.label)
        assert run.caller(call) == event.caller
        usage = event.usage
        assert call.prompt_tokens == usage.prompt_tokens and usage.end_s is not None
        assert call.end_s - call.asked_s == pytest.approx(usage.end_s - usage.asked_s)
    assert [item.index for item in run.items.values()] == [0, 1]
    assert all(item.closed_s is not None and item.error is None for item in run.items.values())
    assert repr(run) == "<TracedRun: 2 rows, 12 calls, 8 computed, 0 failed, 0 tools>"


async def test_it_has_prompts_and_answers_as_the_engine_had_them(tmp_path: Path) -> None:
    run = await traced(tmp_path / "t", ["one?"])
    engine = ScriptedEngine()
    assert len(run.computed) == 4
    for call in run.computed:
        assert call.answer is not None and call.answer.messages is not None
        (message,) = call.answer.messages
        assert message[0] == "user"
        assert len(call.answer.prompt) == call.prompt_tokens
        assert len(call.answer.outputs[0]) == call.output_tokens
        assert call.answer.texts is not None and call.answer.texts[0]
    assert engine.name in run.engines and run.engines[engine.name].num_engines == 1


async def test_texts_are_left_out_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "t"
    run = await traced(path, ["a secret"], trace=TraceFile(path, content=False))
    assert not run.parts[0].has_content
    for call in run.computed:
        assert call.answer is not None
        assert call.answer.messages is None and call.answer.texts is None
        assert len(call.answer.prompt) == call.prompt_tokens > 0


async def test_errors_quote_nothing_where_texts_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t"

    class Verdict(BaseModel):
        score: int

    @operator
    async def judge(row: str) -> int:
        if "own" in row:
            raise ValueError(row)
        return (await llm(user(row), schema=Verdict)).parsed.score

    def answer(request: Request) -> str:
        if "refused" in request.messages[-1].content:
            raise RequestError(f"no: {request.messages[-1].content}")
        return "a secret answer"

    rows = ["a secret", "a secret refused", "an own secret"]
    trace = TraceFile(path, content=False)
    async with Session(ScriptedEngine(answer), trace=trace) as session:
        found = [each async for each in session.map(judge, rows, on_error="collect")]
    assert all("secret" in str(each) for each in found)
    with path.open("rb") as file:
        check_header(file, "t")
        assert "secret" not in json.dumps([chunk for _, chunk in chunks_in(file, "t")])
    run = read_trace(path)
    errors = [item.error for item in run.items.values()]
    assert errors == ["InvalidReply", "RequestError", "ValueError"]
    assert {call.error for call in run.calls} == {"InvalidReply", "RequestError"}


def test_why_an_engine_died_is_left_out_with_the_texts() -> None:
    lost = EngineLost("m", "at a secret prompt", 1, 1)
    kept = [encoded([(0.0, lost)], has_content=each)["records"][0] for each in (True, False)]
    assert [each["reason"] for each in kept] == ["at a secret prompt", ""]


async def test_failures_are_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "t"

    def refuse(_: object) -> str:
        raise ValueError("not today")

    async with Session(ScriptedEngine(refuse), trace=path) as session:
        found = [each async for each in session.map(panel, ["x"], on_error="collect")]
    assert len(found) == 1
    run = read_trace(path)
    assert {call.error for call in run.calls if call.kind == "llm"} >= {"ValueError: not today"}
    assert run.items[0].error == "ValueError: not today"
    assert not run.computed


async def test_what_is_remembered_was_not_sent(tmp_path: Path) -> None:
    memo = MemoryStore()
    await traced(tmp_path / "1", ["x"], memo=memo)
    again = await traced(tmp_path / "2", ["x"], memo=memo)
    assert {call.source for call in again.calls} == {"memo"}
    assert all(call.sent_s is None and call.answer is None for call in again.calls)


# --- the file ------------------------------------------------------------------------------------


async def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"mine")
    for trace in (path, TraceFile(path, overwrite=True), TraceFile(path, resume=True)):
        with pytest.raises(TraceError, match="is no trace: name another file, or remove it"):
            await traced(path, ["x"], trace=trace)
    assert path.read_bytes() == b"mine"
    path.write_bytes(b"")
    with pytest.raises(TraceError, match="is there already"):
        await traced(path, ["x"])
    for _ in range(2):
        run = await traced(path, ["x"], trace=TraceFile(path, overwrite=True))
        assert len(run.parts) == 1 and len(run.items) == 1


@pytest.mark.parametrize("how", ["overwrite", "resume"])
async def test_one_run_writes_it_at_a_time(tmp_path: Path, how: str) -> None:
    path = tmp_path / "t"
    trace = TraceFile(path, **{how: True})
    async with Session(ScriptedEngine(), trace=trace) as session:
        with pytest.raises(TraceError, match="another run is writing the trace"):
            await traced(path, ["y"], trace=trace)
        assert len([text async for text in session.map(panel, ["x"])]) == 1
    assert len(read_trace(path).parts) == 1 and len(read_trace(path).calls) == 6
    run = await traced(path, ["y"], trace=trace)
    assert len(run.parts) == (1 if how == "overwrite" else 2)


def test_who_inherited_the_file_does_not_keep_it(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t", resume=True)
    file = trace.open()
    inherited = os.dup(file)  # as an engine that was forked has it
    try:
        close(file)
        close(trace.open())
    finally:
        os.close(inherited)


async def test_it_tells_what_it_is_of(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t", resume=True, work={"input": "rows"})
    assert trace.began_with() is None
    close(trace.open())
    assert trace.began_with() is None, "it was killed before it began"
    await traced(tmp_path / "t", ["x"], trace=trace)
    assert TraceFile(tmp_path / "t").began_with() == {"input": "rows"}
    await traced(tmp_path / "2", ["x"])
    assert TraceFile(tmp_path / "2").began_with() == {}


async def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    await traced(tmp_path / "t", ["x"])
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600


async def test_a_run_that_goes_on_is_one_run(tmp_path: Path) -> None:
    path = tmp_path / "t"
    whole = await traced(path, ["x", "y"])
    both = await traced(path, ["x", "y"], trace=TraceFile(path, resume=True))
    assert [part.start_s for part in both.parts] == sorted(part.start_s for part in both.parts)
    assert len(both.parts) == 2 and len(both.calls) == 2 * len(whole.calls)
    numbers = [call.number for call in both.calls]
    assert len(set(numbers)) == len(numbers)
    second = both.calls[len(whole.calls) :]
    assert min(call.asked_s for call in second) >= both.parts[1].start_s
    assert both.parts[1].start_s >= max(call.end_s for call in whole.calls)
    assert {both.bodies[call.body].name for call in second} == {
        whole.bodies[call.body].name for call in whole.calls
    }


async def test_what_was_half_written_is_cut_when_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "t"
    whole = await traced(path, ["x"])
    with path.open("ab") as file:
        file.write(path.read_bytes()[len(HEADER) : -7])
    assert read_trace(path).is_cut and len(read_trace(path).calls) >= len(whole.calls)
    run = await traced(path, ["x"], trace=TraceFile(path, resume=True))
    assert not run.is_cut and len(run.calls) >= 2 * len(whole.calls)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no trace"),
        (b'{"question": "x"}\n', "is no trace"),
        (HEADER[:8] + (99).to_bytes(4, "little"), "version 99"),
        (HEADER + b"CHNK" + bytes(8) + b"x" * 20, "damaged at byte"),
        (HEADER + b"CHNK\x04\0\0\0\1\2\3\4data", "damaged at byte 12"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=message):
        read_trace(path)
    if data:
        with pytest.raises(TraceError, match=message):
            TraceFile(path, resume=True).check()


def test_records_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    nothing = {"texts": Texts().coded(), "tokens": TokenSequences().coded()}
    too_large = {"shared": [0], "rests": [[2**40]], "numbers": [0]}
    for other in ({"records": [{"kind": "llm"}]}, {"tokens": too_large, "records": []}):
        path.write_bytes(HEADER + chunk_of({**nothing, **other}))
        with pytest.raises(TraceError, match="records of another form"):
            read_trace(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "t")
    with pytest.raises(TraceError, match="cannot be written"):
        TraceFile(tmp_path / "no" / "t").open()


async def test_any_beginning_of_a_trace_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    whole = await traced(path, ["x", "y"])
    data = path.read_bytes()
    for end in random.Random(0).sample(range(len(HEADER), len(data)), 40):
        path.write_bytes(data[:end])
        run = read_trace(path)
        assert run.is_cut or len(run.calls) in (0, len(whole.calls))
        assert run.calls == whole.calls[: len(run.calls)]


async def test_a_full_disk_ends_the_trace_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Session(ScriptedEngine(), trace=tmp_path / "t"):

            def fill(file: int, data: bytes) -> None:
                os.write(file, data[:20])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(writer, "write_all", fill)
            assert await panel("x")
    assert "No space left on device" in str(caught[0].message) and len(caught) == 1
    run = read_trace(tmp_path / "t")
    assert run.is_cut and len(run.parts) == 1 and not run.calls


def test_a_run_that_is_killed_leaves_a_readable_trace(tmp_path: Path) -> None:
    path = tmp_path / "t"
    program = f"""
import asyncio
from helium_agents import Session, llm, user
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply

async def main():
    async with Session(ScriptedEngine(), trace={str(path)!r}) as session:
        async def row(number):
            await asyncio.sleep(0.001)
            return (await llm(user(f"row {{number}}"))).text
        async for _ in session.map(row, range(10**9)):
            pass

asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            if path.exists() and path.stat().st_size > 100_000:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    run = read_trace(path)
    assert len(run.computed) > 100
    assert all(call.answer is not None for call in run.computed)
    assert any(item.closed_s is None for item in run.items.values()) or len(run.items) > 100


# --- its size ------------------------------------------------------------------------------------


def test_sequences_come_back_as_they_were() -> None:
    rng = random.Random(1)
    tokens, kept = TokenSequences(), []
    for _ in range(200):
        start = kept[rng.randrange(len(kept))][: rng.randrange(30)] if kept else []
        kept.append(start + [rng.randrange(2**17) for _ in range(rng.randrange(20))])
    numbers = [tokens.add(each) for each in kept]
    found = decoded(tokens.coded())
    assert [found[number] for number in numbers] == kept
    texts, words = Texts(), ["", "a", "ab", "abc", "aé", "a\ud800", "\U0001f600", "ab"]
    numbers = [texts.add(word) for word in words]
    found = decoded(texts.coded())
    assert [found[number] for number in numbers] == words


async def test_what_prompts_share_takes_no_room() -> None:
    """A debate's prompts grow: each begins with an earlier one. 600 tokens are new in each."""
    rng = random.Random(2)

    @operator
    async def debate(_: int) -> str:
        history = ""
        for _ in range(20):
            history += " ".join(f"word{rng.randrange(50_000)}" for _ in range(60))
            history += (await llm(user(history))).text
        return history

    events: list[tuple[float, Event]] = []

    def keep(event: Event) -> None:
        if isinstance(event, KEPT):
            events.append((0.0, event))

    async with Session(ScriptedEngine(), observers=[keep]) as session:
        assert len([text async for text in session.map(debate, range(10))]) == 10
    answered = [event for _, event in events if isinstance(event, RequestAnswered)]
    num_tokens = sum(len(event.prompt_token_ids) for event in answered)
    assert len(answered) == 200 and num_tokens > 100_000
    bytes_per_call = len(chunk_of(encoded(events, has_content=True))) / len(answered)
    assert bytes_per_call < 1_200, f"{bytes_per_call:.0f} bytes a call"


async def test_calls_of_tools_are_kept_as_the_model_wrote_them(tmp_path: Path) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    reply = ScriptedReply(tool_calls=[ToolCall("add", {"a": 1, "b": 2})])
    async with Session(ScriptedEngine(lambda request: reply), trace=tmp_path / "t"):
        await llm(user("1 + 2?"), tools=[add])
    (call,) = read_trace(tmp_path / "t").computed
    assert call.answer is not None
    ((name, arguments),) = call.answer.tool_calls[0]
    assert name == "add" and json.loads(arguments) == {"a": 1, "b": 2}


async def test_tools_are_told_of_with_who_carried_them_out(tmp_path: Path) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    async def fail(page: str) -> str:
        raise ValueError(page)

    @operator
    async def look_up(page: str) -> str:
        return page

    asked = [("add", {"a": 1, "b": 2}), ("fail", {"page": "x"}), ("look_up", {"page": "y"})]

    def answer(request: Request) -> str | ScriptedReply:
        if any(message.role == "tool" for message in request.messages):
            return "done"
        return ScriptedReply(tool_calls=[ToolCall(*each) for each in asked])

    @operator
    async def agent(row: str) -> str:
        return (await agent_loop(user(row), tools=[add, fail, look_up])).text

    for content in (True, False):
        trace = TraceFile(tmp_path / "t", content=content, overwrite=True)
        async with Session(ScriptedEngine(answer), trace=trace) as session:
            assert [text async for text in session.map(agent, ["q", "r"])] == ["done", "done"]
        run = read_trace(tmp_path / "t")
        assert sorted((tool.item, tool.name) for tool in run.tools) == [
            (item, name) for item in (0, 1) for name in ("add", "fail", "look_up")
        ]
        assert {run.bodies[tool.body].name.rpartition(".")[2] for tool in run.tools} == {"agent"}
        assert all(tool.begun_s <= tool.end_s for tool in run.tools)
        failed = next(tool for tool in run.tools if tool.name == "fail")
        assert failed.error == ("ValueError: x" if content else "ValueError")
        assert failed.arguments == ('{"page":"x"}' if content else None)


def test_what_happens_to_the_whole_run_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t"

    def part(start_s: float, *events: tuple[float, Event]) -> bytes:
        head = {"kind": "part", "t": start_s, "unix_s": 1000 + start_s, "version": "0"}
        head |= {"run_id": "r", "content": True, "schedule": "Adaptive", "work": {}}
        chunk = encoded(events, has_content=True)
        return chunk_of({**chunk, "records": [head, *chunk["records"]]})

    first = part(
        50.0,
        (51.0, MapOpened(10, False)),
        (51.0, MapOpened(99, True)),
        (53.0, EngineStarted("m", 2.0)),
        (54.0, ProfileMisfit("flow:answer", "longer answers")),
        (55.0, EngineLost("m", "killed", 3, 1)),
    )
    second = part(7.0, (7.5, MapOpened(10, False, 4)), (8.0, MapOpened(5, False)))
    path.write_bytes(HEADER + first + second)
    run = read_trace(path)
    assert run.num_rows == 15 and [part.start_s for part in run.parts] == [0.0, 5.0]
    assert [(each.kind, each.at_s, each.subject, each.detail) for each in run.moments] == [
        ("engine started", 3.0, "m", ""),
        ("misfit", 4.0, "flow:answer", "longer answers"),
        ("engine lost", 5.0, "m", "killed"),
    ]
    assert run.moments[0].seconds == 2.0 and run.moments[2].num_open == 3
    assert run.unix_s(1.0) == 1051.0 and run.unix_s(5.5) == 1007.5
    path.write_bytes(HEADER + part(0.0, (1.0, MapOpened(None, False)), (1.0, MapOpened(3, False))))
    assert read_trace(path).num_rows is None
