"""Kills `helium run` at random moments, over and over, and continues it with `--resume`.

    python -m benchmarks.kill_runs --scripted 200
    python -m benchmarks.kill_runs --real 10 --input rows.jsonl --limit 24

What must hold after each kill and at the end is in `killed_run`; the first thing that does not
ends the program.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.killed_run import Expected, KilledRun, Tally

_REPOSITORY = Path(__file__).parents[1]
_FLOW = _REPOSITORY / "benchmarks" / "kill_flow.py"
_DOCUMENT_QA = _REPOSITORY / "agents_examples" / "document_qa.py"


def main() -> None:
    """Kill, check, and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scripted", type=int, metavar="KILLS")
    parser.add_argument("--real", type=int, metavar="KILLS")
    parser.add_argument("--input", type=Path, help="rows of document QA, for --real")
    parser.add_argument("--limit", type=int, default=24, help="how many of them")
    parser.add_argument("--minutes", type=float, default=10, help="for --real: no kill later")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.scripted:
            print(kill_scripted(arguments.scripted, Path(folder), dice), flush=True)
        if arguments.real:
            if arguments.input is None:
                parser.error("--real needs --input")
            rows = ["--input", str(arguments.input.resolve()), "--limit", str(arguments.limit)]
            tally = kill_real(arguments.real, Path(folder), dice, rows, arguments.minutes)
            print(tally)
            if tally.num_orphaned:
                sys.exit("an engine's processes outlived the run that started them")


def kill_scripted(num_kills: int, folder: Path, dice: random.Random, num_rows: int = 60) -> Tally:
    """Kill runs of the workflows in `kill_flow`, with and without a memo, ordered and not."""
    rows = folder / "rows.jsonl"
    texts = (f"text {dice.randrange(num_rows)}" for _ in range(num_rows))  # some come again
    rows.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts))
    expected: dict[str, Expected] = {}
    tally = Tally()
    while tally.num_kills < num_kills:
        choices = dice.choice(["drawn", "drawn", "steady"]), dice.choice(["", "", "--unordered"])
        kind = " ".join(choices)
        workflow, *options = kind.split()
        arguments = [f"{_FLOW}:{workflow}", "--input", str(rows), *options]
        if kind not in expected:
            run = KilledRun("scripted", arguments, folder / kind, Tally())
            expected[kind] = run.uninterrupted()
        folder_of_run, has_memo = folder / str(tally.num_runs), dice.random() < 0.5
        run = KilledRun(
            "scripted", arguments, folder_of_run, tally, expected[kind], has_memo=has_memo
        )
        resumes = dice.random() < 0.5
        while not run.live(_moment(dice, expected[kind], tally, num_kills), resumes=resumes):
            resumes = True
    return tally


def kill_real(
    num_kills: int, folder: Path, dice: random.Random, rows: list[str], minutes: float
) -> Tally:
    """Kill runs of document QA on vLLM and the random model, which start its engine each time."""
    arguments = [f"{_DOCUMENT_QA}:answer", *rows]
    expected = KilledRun("real", arguments, folder / "whole", Tally()).uninterrupted()
    num_calls = expected.requests.total()
    print(f"uninterrupted: {expected.seconds:.1f} s, {num_calls} requests", flush=True)
    end_s = time.monotonic() + 60 * minutes
    tally = Tally()
    while tally.num_kills < num_kills and time.monotonic() < end_s:
        run = KilledRun("real", arguments, folder / f"real {tally.num_runs}", tally, expected)
        resumes, is_done = False, False
        while not is_done:
            has_time = time.monotonic() < end_s
            seconds = dice.uniform(0, expected.seconds) if has_time else None
            is_done = run.live(seconds if tally.num_kills < num_kills else None, resumes=resumes)
            resumes = True
            what = "finished" if is_done else f"killed {seconds:.1f} s after being ready"
            print(f"{what}; with orphans so far: {tally.num_orphaned}", flush=True)
    return tally


def _moment(dice: random.Random, expected: Expected, tally: Tally, num_kills: int) -> float | None:
    """Seconds until the next kill: now and then while the run begins, else anywhere in it."""
    if tally.num_kills == num_kills:
        return None
    return dice.uniform(0, 0.1 if dice.random() < 0.25 else expected.seconds)


if __name__ == "__main__":
    main()
