"""The page in a real browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helium_agents import Session
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.viewer.runs import ViewedRuns
from helium_agents.viewer.server import ViewerServer
from tests.trace.made import call, made_run
from tests.viewer.conftest import html, in_thread
from tests.viewer.planted import PLANTED, plant
from tests.viewer.traces import EVIL, answer, long_run, write_known, write_run, written_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Show = Callable[..., Any]


def texts(tab: Any, selector: str) -> list[str]:
    found: list[str] = tab.locator(selector).all_inner_texts()
    return found


def listed(tab: Any) -> str:
    return str(tab.inner_text("#num-listed"))


def test_it_opens_from_a_file_without_a_network(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"), offline=True)
    assert tab.title() == "run.trace · helium view"
    assert tab.inner_text("#num-calls") == "15"
    assert "1 failed" in tab.inner_text("#head")
    assert len(texts(tab, "#row-graph .box")) == 3


def test_calls_are_filtered_and_sorted(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    tab.click("#tab-table")
    assert listed(tab) == "15 calls"
    tab.select_option("[data-filter=operator]", "expert")
    assert listed(tab) == "10 calls of 15"
    tab.select_option("[data-filter=operator]", "")
    tab.fill("[data-filter=text]", "sum up for 3")
    tab.wait_for_selector("#num-listed:text-is('1 call of 15')")
    tab.fill("[data-filter=text]", "")
    tab.wait_for_selector("#num-listed:text-is('15 calls')")
    tab.click("button:text-is('call')")
    numbers = [int(each) for each in texts(tab, ".lines .line > div:first-child")]
    assert numbers == sorted(numbers, reverse=True)


def test_a_call_shows_what_was_asked_as_text(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    tab.click("#row-graph .box >> nth=0")
    tab.wait_for_selector("#details .message")
    assert EVIL in tab.inner_text("#details .message pre >> nth=0")
    assert tab.title() == "run.trace · helium view"
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#details")


def test_a_pointer_over_a_call_tells_what_was_asked_and_answered(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    tab.hover("#row-graph .box >> nth=2")
    tab.wait_for_selector("#tip .talk > div >> nth=1")
    told = tab.inner_text("#tip")
    assert "user: Sum up for 0" in told and "\nanswer: " in told


def test_a_merged_call_leads_to_the_one_that_asked(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    tab.click("#tab-table")
    states = tab.eval_on_selector_all(
        "[data-filter=state] option", "all => all.map(one => one.value)"
    )
    shared = next(state for state in states if state in ("merged", "joined"))
    tab.select_option("[data-filter=state]", shared)
    tab.click(".lines .line >> nth=0")
    mine = tab.inner_text("#details h2")
    tab.click("[data-leader]")
    assert tab.inner_text("#details h2") != mine
    assert "an engine computed it" in tab.inner_text("#details")
    assert tab.locator("#row-graph .box.selected").count() == 1


def test_a_failed_row_says_why(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    assert "1 failed" in tab.inner_text("#head")
    tab.fill("#row-number", "5")
    tab.keyboard.press("Enter")
    assert "five is <b>unlucky</b>" in tab.inner_text("#panel-rows")


EVIDENCE = {
    "layout": ("#layout-advice", "32 prompts", "ask_contract"),
    "loop": ("#panel-rows", "Row 1: 6 calls", "improve"),
    "cache": ("#panel-prefixes .legend", "read again", ""),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_problem_is_found_from_the_page(name: str, show: Show, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    tab = show(html(in_thread(plant, name, tmp_path)))
    first = tab.locator("#losses > li").first
    assert first.get_attribute("data-loss") == name
    assert "What to do:" in first.inner_text()
    first.get_by_role("button").press("Enter")
    if name != "loop":
        assert tab.evaluate("document.activeElement.id") == "tab-prefixes"
    where, evidence, operator = EVIDENCE[name]
    assert evidence in tab.inner_text(where) and operator in tab.inner_text(where)
    if name == "cache":
        assert tab.locator(".prefixes .block rect.lost").count() >= 10
    tab.click("#tab-timeline")
    told = [caption for caption in texts(tab, "figcaption") if "measured by the engine" in caption]
    assert len(told) == 3 and "worked out" not in tab.inner_text("#panel-timeline")


def test_moments_on_an_axis_are_told_apart(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    axes = {
        "[0.25, 0.5]": ["0.25 s", "0.50 s"],
        "[0.0002, 0.0004]": ["0.2 ms", "0.4 ms"],
        "[0, 20]": ["0 s", "20 s"],
        "[300, 300.5]": ["5 min 0.0 s", "5 min 0.5 s"],
        "[7200, 7260]": ["2 h 0 min", "2 h 1 min"],
        "[179.9, 180]": ["2 min 59.9 s", "3 min 0.0 s"],
    }
    for times, told in axes.items():
        assert tab.evaluate(f"{times}.map((at, _, all) => instant(at, all[1] - all[0]))") == told


def test_a_failed_call_says_what_the_engine_had_of_it(show: Show, tmp_path: Path) -> None:
    run = long_run(10)
    failed = replace(run.calls[0], error=f"ValueError: {'x' * 9000}", answer=None)
    run.calls[0] = failed
    tab = show(written_page(run, tmp_path / "run.html"))
    tab.click("#row-graph .box >> nth=0")
    tab.wait_for_selector("#details:has-text('No engine answered')")
    assert "on the engine" in tab.inner_text("#details")
    assert "prompt read" not in tab.inner_text("#details")
    assert tab.eval_on_selector("#details .error", "box => box.clientHeight") <= 220


def test_a_row_in_which_all_wait_for_all_is_laid_out(show: Show, tmp_path: Path) -> None:
    """Arrows from each to each would keep the page from ever being there."""
    first = [call(1 + number, 0, 1, body=900) for number in range(100)]
    second = [call(101 + number, 2, 3, body=900) for number in range(100)]
    gathered = made_run(*first, *second, bodies=[(900, "f:rounds", 0)])
    tab = show(written_page(gathered, tmp_path / "gathered.html"))
    assert tab.locator("#row-graph .joint").count() == 1
    assert tab.locator("#row-graph .edge").count() == 200
    turns = [
        call(1 + turn, turn, turn + 0.9, body=900, inputs=tuple(range(1, 1 + turn)))
        for turn in range(60)
    ]
    talk = made_run(*turns, bodies=[(900, "f:talk", 0)])
    tab = show(written_page(talk, tmp_path / "talk.html"))
    assert tab.locator("#row-graph .edge").count() == 59
    assert "1,711 more arrows are not drawn" in tab.inner_text("#row-graph")


def test_two_runs_stand_side_by_side(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace", traces / "again.trace"))
    assert tab.get_attribute("#tab-compare", "aria-selected") == "true"
    assert "the same was asked as before, and not remembered" in tab.inner_text("#reasons")
    tab.click("#reasons button >> nth=0")
    assert tab.is_visible("#details .message")
    tab.select_option("#which", "0")
    assert tab.title() == "run.trace · helium view"


def test_a_rerun_that_knew_everything_is_the_same_work(show: Show, tmp_path: Path) -> None:
    before, after = tmp_path / "before.trace", tmp_path / "after.trace"
    for path in (before, after):
        in_thread(write_known, path, tmp_path / "memo")
    tab = show(html(before, after))
    figures = tab.inner_text("#panel-compare")
    assert "no operator in common" not in figures
    assert "calls never made, answers of operators being known\t0\t2" in figures
    tab.click("#tab-rows")
    assert "2 more calls of the plain program were never made" in tab.inner_text("#main")
    tab.click("#row-graph .box >> nth=0")
    assert "1 model call that would have led to it" in tab.inner_text("#details")


@contextmanager
def served(*paths: Path) -> Iterator[str]:
    with ViewerServer(ViewedRuns(paths)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def test_what_is_new_comes_while_the_run_goes_on(show: Show, tmp_path: Path) -> None:
    path, begun, seen = tmp_path / "run.trace", threading.Event(), threading.Event()

    async def run() -> None:
        async with Session(ScriptedEngine(), trace=path) as session:
            await session.run(answer, 0)
            begun.set()
            await asyncio.to_thread(seen.wait, 60)
            await session.run(answer, 2)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert begun.wait(60)
        with served(path) as address:
            tab = show(address)
            tab.wait_for_selector("#num-calls:text-is('3')")
            assert "goes on" in tab.inner_text("#head")
            tab.click("#tab-table")
            tab.select_option("#filter-operator", "expert")
            seen.set()
            tab.wait_for_selector("#num-calls:text-is('6')")
            assert tab.get_attribute("#tab-table", "aria-selected") == "true"
            assert tab.input_value("#filter-operator") == "expert" and listed(tab) == "4 calls of 6"
            tab.wait_for_selector("#head:not(:has-text('goes on'))")
            tab.context.close()
    finally:
        seen.set()
        thread.join()


def test_a_run_that_was_resumed_is_one(show: Show, tmp_path: Path) -> None:
    path = tmp_path / "run.trace"
    in_thread(write_run, path, [0, 1])
    with open(path, "ab") as file:
        file.write(b"CHNK what a killed run had begun to write"[:9])
    in_thread(write_run, path, [2, 3], resume=True)
    tab = show(html(path))
    assert "went on once" in tab.inner_text("#main")
    assert tab.inner_text("#num-calls") == "12"


def test_many_calls_are_in_the_page_as_far_as_they_are_seen(show: Show, tmp_path: Path) -> None:
    tab = show(written_page(long_run(10_000), tmp_path / "long.html"))
    tab.click("#tab-table")
    assert listed(tab) == "10,000 calls"
    assert tab.locator(".lines .line").count() < 60
    tab.focus(".scroller")
    tab.keyboard.press("End")
    tab.wait_for_selector('.lines .line[data-call="10000"]')
    assert tab.locator(".lines .line").count() < 60
    tab.click("#tab-timeline")
    assert tab.locator("#panel-timeline canvas").count() == 4
    assert "worked out" in tab.inner_text("#panel-timeline")


def test_everything_is_reached_by_the_keyboard(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    tab.focus("#row-graph .box[tabindex='0']")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    assert "answer" in tab.inner_text("#details h2")
    tab.keyboard.press("Escape")
    tab.focus("#tab-rows")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.id") == "tab-timeline"
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate("document.activeElement.id") == "tab-table"
    tab.focus(".scroller")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    assert tab.is_visible("#details")


def test_a_box_is_spoken_as_it_is_read(show: Show, traces: Path) -> None:
    tab = show(html(traces / "run.trace"))
    tab.wait_for_selector("#row-graph .says:has-text('“')")
    boxes = tab.eval_on_selector_all(
        ".box",
        "all => all.map(box => [box.getAttribute('aria-label'),"
        " [...box.querySelectorAll('text')].map(text => text.textContent.replace(/^[●◆✕] /, ''))])",
    )
    assert len(boxes) == 5
    for label, seen in boxes:
        assert label.startswith(" ".join(filter(None, seen)))


def test_an_early_call_and_a_cut_trace_are_told(show: Show, tmp_path: Path) -> None:
    run = long_run(10)
    run.is_cut = True
    run.speculated = [{"is_used": True, "saved_s": 2.0, "source": "predict", "call": 1}]
    tab = show(written_page(run, tmp_path / "run.html"))
    assert "ends in the middle" in tab.inner_text("#head")
    assert "early" in tab.text_content("#row-graph .box >> nth=0")
    tab.click("#row-graph .box >> nth=0")
    assert "for 2.0 s before it was asked, as guessed by predict=" in tab.inner_text("#details")


def test_texts_may_be_missing(show: Show, tmp_path: Path) -> None:
    in_thread(write_run, tmp_path / "run.trace", [0], content=False)
    tab = show(html(tmp_path / "run.trace"))
    tab.click("#row-graph .box >> nth=0")
    tab.wait_for_selector("#details:has-text('Texts were not kept')")
    tab.click("#tab-prefixes")
    assert tab.locator(".prefixes .block").count() > 0


def test_rows_without_an_end_are_told(show: Show, tmp_path: Path) -> None:
    run = long_run(40)
    run.items[3].closed_s = None
    tab = show(written_page(run, tmp_path / "run.html"))
    assert "Of 1 row the trace does not tell the end" in tab.inner_text("#main")
    assert "3 of 4 rows" in tab.inner_text("#head")
