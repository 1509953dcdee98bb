"""A million rows through `map`, one model call each: memory, calls a second, and resuming.

    python -m benchmarks.million_rows
    python -m benchmarks.million_rows --memo

The engine is scripted, so that what is measured is the runtime. The rows are mapped once as a
whole; then again by a run that is killed at about half and resumed by its run log and its output,
whose bytes must be the same in the end. With `--memo` every answer is kept on disk as well.

Memory is given in two columns: what the process has allocated, sampled every 50 ms, and the peak of
all that it had in memory (`VmHWM`). With `--memo` that includes the pages of the memo's file that
it has mapped. Those belong to the system's file cache, which takes them back when it needs room;
they grow with the file as long as there is memory to spare.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from helium_agents import Session, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.memo.run_log import RunLog

_LINE_BYTES = 20
_BUFFERED_LINES = 1000


def main() -> None:
    """Run both and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memo", action="store_true", help="keep the answers on disk")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)  # what the processes get
    arguments = parser.parse_args()
    if arguments.part is not None:
        print(asyncio.run(run_part(arguments.part, arguments.rows, has_memo=arguments.memo)))
        return
    print("| run | rows | s | calls/s | allocated MB | peak MB |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measured = partial(measure, num_rows=arguments.rows, has_memo=arguments.memo)
        whole = measured("whole", Path(folder, "whole"))
        parts = measured("half, killed", Path(folder, "parts"), is_killed=True)
        assert parts is None
        parts = measured("the rest, resumed", Path(folder, "parts"))
    assert whole == parts is not None, "the outputs differ"


def measure(
    name: str, folder: Path, num_rows: int, *, has_memo: bool, is_killed: bool = False
) -> str | None:
    """Run what is left in a process of its own and print what it took.

    Returns the digest of the output, or `None` where the process was killed at half.
    """
    folder.mkdir(exist_ok=True)
    output = folder / "out.txt"
    num_before = _num_lines(output)
    command = [sys.executable, "-m", "benchmarks.million_rows", "--part", str(folder)]
    command += ["--memo"] * has_memo
    start_s = time.monotonic()
    allocated_mb = peak_mb = 0.0
    with subprocess.Popen([*command, "--rows", str(num_rows)], stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            allocated_mb = max(allocated_mb, _status_mb(process.pid, "RssAnon"))
            peak_mb = max(peak_mb, _status_mb(process.pid, "VmHWM"))
            if is_killed and _num_lines(output) >= num_rows // 2:
                process.kill()
                break
            time.sleep(0.05)
        seconds = time.monotonic() - start_s
        assert process.stdout is not None
        report = process.stdout.read()
    assert bool(report) is not is_killed, "it was to be killed, and has ended, or the other way"
    seconds = float(report) if report else seconds
    num_done = _num_lines(output) - num_before
    print(f"| {name} | {num_done:,} | {seconds:.0f} | {num_done / seconds:,.0f} | "
          f"{allocated_mb:.0f} | {peak_mb:.0f} |", flush=True)  # fmt: skip
    return None if is_killed else hashlib.blake2b(output.read_bytes()).hexdigest()


@operator
async def answer(row: str) -> str:
    """One model call."""
    return (await llm(user(row), max_tokens=8)).text


async def run_part(folder: Path, num_rows: int, *, has_memo: bool) -> float:
    """Map the rows that are not in the output yet, a line of fixed length each; the seconds."""
    num_done = _num_lines(folder / "out.txt")
    engine = ScriptedEngine(keep_requests=False)
    start_s = time.monotonic()
    with (
        RunLog(folder / "run") as log,
        (folder / "out.txt").open("r+b" if num_done else "wb") as out,
    ):
        out.truncate(num_done * _LINE_BYTES)
        out.seek(0, 2)
        memo = folder / "memo" if has_memo else None
        async with Session(engine, memo=memo, run_log=log) as session:
            lines = []
            async for text in session.map(answer, _rows(num_rows), done=range(num_done)):
                lines.append(f"{text:<{_LINE_BYTES - 1}}\n".encode())
                if len(lines) == _BUFFERED_LINES:
                    out.write(b"".join(lines))
                    out.flush()
                    lines.clear()
            out.write(b"".join(lines))
    seconds = time.monotonic() - start_s
    assert engine.num_requests <= num_rows - num_done
    return seconds


def _rows(num_rows: int) -> Iterator[str]:
    return (f"question {index}" for index in range(num_rows))


def _num_lines(output: Path) -> int:
    return output.stat().st_size // _LINE_BYTES if output.exists() else 0


def _status_mb(pid: int, name: str) -> float:
    """A figure of a process, 0 where it has just ended."""
    fields = Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()
    return int(fields[0]) / 1024 if fields else 0.0


if __name__ == "__main__":
    main()
