"""The page's data, the file, and the server: what needs no browser."""

from __future__ import annotations

import asyncio
import errno
import gzip
import http.client
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helium_agents.cli import main, trace_command, view_command
from helium_agents.errors import TraceError
from helium_agents.optimizer.step_window import StepWindow
from helium_agents.trace import read_trace
from helium_agents.viewer.analysis import analyzed
from helium_agents.viewer.columns import content_of
from helium_agents.viewer.document import document_of
from helium_agents.viewer.page import page
from helium_agents.viewer.prefix_rows import late_parts
from helium_agents.viewer.runs import ViewedRuns
from helium_agents.viewer.server import ViewerServer
from tests.trace.made import call, made_run
from tests.viewer.traces import EVIL, long_run, write_run


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.trace"
    asyncio.run(write_run(path, range(6)))
    return path


def view(*arguments: object, expect: int = 0) -> str:
    result = CliRunner().invoke(main, ["view", *map(str, arguments)])
    assert result.exit_code == expect, result.output
    return result.output


# --- the file ------------------------------------------------------------------------------------


def test_nothing_in_a_prompt_is_markup(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    view(trace, "--html", out)
    text = out.read_text("utf-8")
    assert "broken" not in text and EVIL[:9] in "</script>"
    assert text.count("</script>") == len(re.findall(r"<script[ >]", text))
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600


def test_prompts_are_told_of_where_they_are_in_the_page(trace: Path, tmp_path: Path) -> None:
    assert "prompts and answers are in it" in view(trace, "--html", tmp_path / "with.html")
    asyncio.run(write_run(tmp_path / "bare.trace", [0], content=False))
    assert "prompts and" not in view(tmp_path / "bare.trace", "--html", tmp_path / "bare.html")


def test_a_call_that_was_computed_early_is_marked() -> None:
    run = made_run(call(1, 0, 1), call(2, 1, 2))
    guess = {"label": "llm", "source": "predict", "probability": 0.9, "wasted_tokens": 0}
    run.speculated = [
        {**guess, "is_used": True, "saved_s": 0.25, "call": 2},
        {**guess, "is_used": False, "saved_s": 0.0, "call": 0},
    ]
    assert document_of(analyzed(run), "run")["calls"]["early"] == [None, (0.25, "predict=")]


def test_the_page_may_run_its_own_scripts_only_and_ask_nobody() -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page({"runs": []}))
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert "unsafe" not in policy[1]
    served = page()
    assert "connect-src 'self'" in served
    addresses = set(re.findall(r"https?://[\w./-]+", served))
    assert addresses <= {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"}


def test_a_file_that_is_there_is_replaced_only_if_that_is_said(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    out.write_text("mine")
    assert "give --overwrite" in view(trace, "--html", out, expect=1)
    assert out.read_text() == "mine"
    view(trace, "--html", out, "--overwrite")
    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_what_is_written_is_its_owners_and_never_the_trace_itself(
    trace: Path, tmp_path: Path
) -> None:
    out, link = tmp_path / "run.html", tmp_path / "link"
    out.write_text("everybody may read this")
    out.chmod(0o644)
    view(trace, "--html", out, "--overwrite")
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    link.symlink_to(trace)
    for path in (trace, link):
        assert "is the trace itself" in view(trace, "--html", path, "--overwrite", expect=1)
    assert len(read_trace(trace).calls) == 15


def test_what_cannot_be_written_to_its_end_is_removed(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trace_command.json, "dumps", fill)
    arguments = ["trace", "export", str(trace), "--perfetto", str(tmp_path / "run.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "cannot be written: No space left" in result.output
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("display", ["", ":0"])
def test_the_browser_is_opened_where_there_is_a_display(
    display: str, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.setenv(name, display)
    monkeypatch.setattr(view_command.click, "launch", launched.append)
    monkeypatch.setattr(ViewerServer, "serve_forever", lambda _: None)
    told = view(trace)
    assert told.startswith("http://127.0.0.1:") and "Ctrl-C ends it." in told
    assert ("ssh -L" in told) == (not display)
    if not display:
        assert launched == []


def test_a_port_that_is_taken_is_told(trace: Path) -> None:
    with ViewerServer(ViewedRuns([trace])) as server:
        told = view(trace, "--no-open", "--port", server.server_port, expect=1)
    assert f"port {server.server_port} cannot be served" in told


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert "is no trace" in view(tmp_path / "rows.jsonl", expect=1)


# --- the data ------------------------------------------------------------------------------------


def test_columns_are_of_one_length_and_point_into_one_another(trace: Path) -> None:
    document = document_of(analyzed(read_trace(trace)), "run.trace")
    columns = document["calls"]
    (size,) = {len(column) for column in columns.values()}
    assert size == document["num_calls"] == 15
    assert all(0 <= number < len(document["waited"]) for number in columns["after"])
    for lists in (document["waited"], columns["inputs"]):
        assert all(0 <= place < size for places in lists for place in places)
    merged = [place for place, leader in enumerate(columns["leader_place"]) if leader is not None]
    assert merged
    for place in merged:
        leader = read_trace(trace).by_number[columns["number"][place]].leader
        assert columns["number"][columns["leader_place"][place]] == leader
    json.dumps(document, allow_nan=False)


def test_a_merged_operator_leads_to_the_first_call_in_the_body_that_ran() -> None:
    inside = call(3, 1, 2, body=12)
    merged = replace(call(4, 0, 2, source="merged", leader=11), kind="operator", calls_below=1)
    run = made_run(inside, merged, bodies=[(11, "f:pure", 0), (12, "f:inner", 11)])
    columns = document_of(analyzed(run), "run")["calls"]
    assert columns["leader_place"] == [None, 0] and columns["below"] == [0, 1]


def test_an_answer_is_that_of_its_call(trace: Path) -> None:
    run = read_trace(trace)
    content = content_of(analyzed(run))
    for each in run.calls:
        if each.answer is not None and each.kind == "llm":
            found = content["answers"][content["of_calls"][each.number]]
            messages = [(role, content["texts"][text]) for role, text in found["messages"]]
            assert messages == list(each.answer.messages or ())


def test_of_a_long_run_whole_rows_are_shown() -> None:
    run = long_run(3_000)
    for number in (7, 90):  # one failed, one took longest
        run.items[number].ended_s = run.items[number].opened_s + 1_000 * (number == 90)
    run.items[7].error = "ValueError: no"
    shown = analyzed(run, rows=[11], most_calls=400).shown
    numbers = {each.item for each in shown.calls}
    assert {7, 11, 90} <= numbers
    assert 200 <= len(shown.calls) <= 400
    for item in numbers:
        assert sum(each.item == item for each in shown.calls) == 10
    document = document_of(analyzed(run, most_calls=400), "long")
    assert document["is_part"] and document["num_calls"] == 3_000
    assert max(document["load"]["running"]) == 200, "all are counted"


def test_the_text_that_comes_too_late_is_shown() -> None:
    contract = " ".join(f"clause{number}" for number in range(60))
    calls = []
    for number in range(8):
        prompt = [500 + number, *range(64)]
        made = call(1 + number, 0, 1, body=1, item=number, prompt=prompt)
        assert made.answer is not None
        text = f"Question {number * 7919}?\n{contract}"
        calls.append(replace(made, answer=replace(made.answer, messages=(("user", text),))))
    run = made_run(*calls, bodies=[(1, "f:ask", 0)])
    (part,) = late_parts(run, analyzed(run).losses)
    assert (part["operator"], part["shared"], part["prompts"]) == ("ask", contract, 8)


def test_what_the_engine_measured_stands_beside_what_the_session_held_back() -> None:
    run = made_run(call(1, 0, 4), replace(call(2, 0, 4), sent_s=1.0))
    assert document_of(analyzed(run), "run")["measured"] is None
    run.steps["tiny", "tiny"] = [StepWindow(1.0, 4.0, 2, 1, 0.5, 30, 60)]
    measured = document_of(analyzed(run), "run")["measured"]
    assert measured == {
        "times": [0, 1, 4],
        "running": [0, 2, 0],
        "waiting": [0, 1, 0],
        "held_back": [1, 0, 0],
        "kv_tokens": [0, 1024, 0],
        "prefill_rate": [0, 10, 0],
        "decode_rate": [0, 20, 0],
    }
    run.calls.append(replace(call(2, 0, 3), model="another, which tells nothing"))
    assert document_of(analyzed(run), "run")["measured"] is None


# --- the server ----------------------------------------------------------------------------------


@pytest.fixture
def server(trace: Path) -> Iterator[ViewerServer]:
    with ViewerServer(ViewedRuns([trace])) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ViewerServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_server_gives_the_page_and_its_data(server: ViewerServer) -> None:
    status, _, text = ask(server, f"/{server.secret}/")
    assert status == 200 and b'data-name="' not in text.partition(b"<script>")[0]
    status, headers, data = ask(server, f"/{server.secret}/run-0")
    assert status == 200 and json.loads(gzip.decompress(data))["num_calls"] == 15
    status, _, data = ask(server, f"/{server.secret}/run-0", **{"If-None-Match": headers["ETag"]})
    assert (status, data) == (304, b"")


@pytest.mark.parametrize("path", ["/", "/run-0", "/wrong/run-0", "/{secret}/run-1", "/{secret}/x"])
def test_nothing_is_told_without_the_secret(server: ViewerServer, path: str) -> None:
    assert ask(server, path.format(secret=server.secret))[0] == 404


def test_requests_under_another_name_are_refused(server: ViewerServer) -> None:
    assert ask(server, f"/{server.secret}/", Host="evil.example")[0] == 404


def test_a_trace_that_is_gone_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        ViewedRuns([tmp_path / "run.trace"]).get("run-0")


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths: list[Any] = [tmp_path / folder / "run.trace" for folder in "ab"]
    assert ViewedRuns(paths).get("runs") == ["a/run.trace", "b/run.trace"]
