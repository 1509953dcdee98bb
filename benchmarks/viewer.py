"""How fast a long run opens in the browser, and how smoothly it scrolls there.

    python -m benchmarks.viewer
    python -m benchmarks.viewer --calls 10000 --calls 1000000

The run is a workflow of ten calls a row on a scripted engine, in virtual time, traced by the real
writer. `helium view --html` makes the page of it, and Debian's Chromium opens that from the disk
without a network. *Interactive* is when the page is drawn and takes a click, from when its address
was given; a frame is what passes from one `requestAnimationFrame` to the next while the table is
scrolled, or the zoomed timeline moved, once in each.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from helium_agents import Session, gather, llm, operator, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time

_CALLS_A_ROW = 10
_OPEN_ROWS = 64
_NUM_FRAMES = 240

_READY = """
new MutationObserver((_, watch) => {
  if (!document.body?.dataset.ready) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => {
    document.documentElement.dataset.interactive = performance.now();
  }));
}).observe(document, { subtree: true, childList: true, attributes: true });
"""

_FRAMES = """
([number, selector, key]) => new Promise((done) => {
  const element = document.querySelector(selector);
  const times = [];
  const step = (now) => {
    times.push(now);
    if (times.length > number) return done(times.slice(1).map((time, at) => time - times[at]));
    if (key) {
      const right = times.length % 60 < 30;
      element.dispatchEvent(new KeyboardEvent("keydown",
        { key: right ? "ArrowRight" : "ArrowLeft", bubbles: true }));
    } else element.scrollTop += 140;
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})
"""


@operator
async def expert(number: int, part: int) -> str:
    """One of eight who read the same document."""
    draw = random.Random(number)
    document = " ".join(f"{draw.getrandbits(16):x}" for _ in range(60))
    question = f"What does it say of point {part}?"
    return (await llm(user(f"Read the contract.\n\n{document}\n\n{question}"), max_tokens=64)).text


@operator
async def study(number: int) -> str:
    """Ten calls: eight experts, a judge, and a summary."""
    views = await gather(*(expert(number, part) for part in range(_CALLS_A_ROW - 2)))
    verdict = (await llm(user(f"Judge: {' '.join(views)}"), max_tokens=64)).text
    return (await llm(user(f"Sum up: {verdict}"), max_tokens=64)).text


def says(request: Request) -> str:
    """Some words that differ from call to call."""
    return " ".join(f"word{number}" for number in range(len(request.messages[-1].content) % 23, 24))


async def write_trace(path: Path, num_calls: int) -> None:
    """Run the workflow for so many calls, and keep its trace."""
    engine = ScriptedEngine(says, latency_s=1.0, keep_requests=False)
    async with Session(engine, trace=path, max_open=_OPEN_ROWS) as session:
        rows = range(num_calls // _CALLS_A_ROW)
        async for _ in session.map(study, rows):
            pass


def write_page(trace: Path, page: Path) -> tuple[float, float]:
    """Let `helium view` write the page; gives seconds, and the most memory in MB."""
    begun_s = time.perf_counter()
    command = [sys.executable, "-m", "helium_agents.cli", "view", str(trace), "--html", str(page)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begun_s, usage.ru_maxrss / 1024


def opened(browser: Any, page: Path) -> dict[str, Any]:
    """Open the page in a new window and use it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    tab.add_init_script(_READY)
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-interactive]")
    milliseconds = float(tab.get_attribute("html", "data-interactive"))
    found: dict[str, Any] = {"interactive_s": milliseconds / 1000}
    tab.click("#tab-table")
    found["table_ms"] = tab.evaluate(_FRAMES, [_NUM_FRAMES, ".scroller", ""])
    tab.click("#tab-timeline")
    lines = "#panel-timeline [role=application]"
    for _ in range(3):
        tab.focus(lines)
        tab.keyboard.press("+")
    found["timeline_ms"] = tab.evaluate(_FRAMES, [_NUM_FRAMES, lines, "arrows"])
    memory = context.new_cdp_session(tab).send("Runtime.getHeapUsage")
    found["heap_mb"] = memory["usedSize"] / 2**20
    context.close()
    return found


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, action="append", help="by default 10000")
    parser.add_argument("--repeat", type=int, default=5, help="how often the page is opened")
    chosen = parser.parse_args()
    from playwright.sync_api import sync_playwright

    print("| calls | trace | `helium view --html` | page | interactive | table | timeline | heap |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for num_calls in chosen.calls or [10_000]:
        with tempfile.TemporaryDirectory() as folder:
            trace, page = Path(folder, "run.trace"), Path(folder, "run.html")
            run_in_virtual_time(write_trace(trace, num_calls))
            seconds, memory_mb = write_page(trace, page)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                every = [opened(browser, page) for _ in range(chosen.repeat)]
                browser.close()
            print(_row(num_calls, trace, page, seconds, memory_mb, every), flush=True)


def _row(
    num_calls: int,
    trace: Path,
    page: Path,
    seconds: float,
    memory_mb: float,
    every: list[dict[str, Any]],
) -> str:
    sizes = [f"{path.stat().st_size / 1e6:,.1f} MB" for path in (trace, page)]
    interactive_s = sorted(each["interactive_s"] for each in every)
    return " | ".join(
        [
            f"| {num_calls:,}",
            sizes[0],
            f"{seconds:.1f} s, {memory_mb:,.0f} MB",
            sizes[1],
            f"{statistics.median(interactive_s):.2f} s ({interactive_s[0]:.2f} to "
            f"{interactive_s[-1]:.2f})",
            *(_frames([ms for each in every for ms in each[name]]) for name in _SCROLLED),
            f"{statistics.median(each['heap_mb'] for each in every):,.0f} MB |",
        ]
    )


_SCROLLED = ("table_ms", "timeline_ms")


def _frames(found: list[float]) -> str:
    """The median, and what 95 of 100 frames take at most."""
    percentiles = statistics.quantiles(found, n=20)
    return f"{statistics.median(found):.0f} ms, 95% within {percentiles[-1]:.0f}"


if __name__ == "__main__":
    main()
