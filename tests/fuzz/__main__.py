"""`python -m tests.fuzz`: many random cases, and each failure made small.

python -m tests.fuzz --cases 20000 --jobs 2   # all seeds from 0
python -m tests.fuzz --only 748               # one case again
python -m tests.fuzz --self-check             # the plain program against itself
python -m tests.fuzz --guesses --cases 2000   # with speculation, and with kills
python -m tests.fuzz --planned --cases 2000   # on engines on which schedules are compared
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from functools import partial
from typing import Any

from tests.fuzz.generate import case_of
from tests.fuzz.pool import Crash, work_off
from tests.fuzz.program import Case
from tests.fuzz.shrink import kind_of
from tests.fuzz.work import SHRINK_S, problems_of, shrunk

_CASE_S = 30.0


def main() -> int:
    arguments = _arguments()
    options = {
        "is_self_check": arguments.self_check,
        "kind": _kind(arguments),
        "ignored": tuple(arguments.ignore),
    }
    if arguments.only is None:
        seeds = range(arguments.seed, arguments.seed + arguments.cases)
    else:
        seeds = range(arguments.only, arguments.only + 1)
    failures: dict[int, list[str]] = {}
    kinds: Counter[str] = Counter()
    start_s, num_done = time.monotonic(), 0
    try:
        for seed, result in work_off(
            partial(problems_of, **options), seeds, arguments.jobs, _CASE_S
        ):
            num_done += 1
            problems = [f"crash: {result.text}"] if isinstance(result, Crash) else result
            if problems:
                failures[seed] = problems
                kinds.update({kind_of(problem) for problem in problems})
            _show_progress(num_done, len(seeds), len(failures), start_s)
        print(file=sys.stderr)
        _report(failures, arguments, options)
    except KeyboardInterrupt:
        print(f"\nstopped after {num_done} cases", file=sys.stderr)
        for seed, problems in sorted(failures.items()):
            print(_in_short(seed, problems))
    seconds = time.monotonic() - start_s
    print(f"{num_done} cases in {seconds:.0f} s, {len(failures)} failed {dict(kinds)}")
    return 1 if failures or num_done < len(seeds) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--only", type=int, metavar="SEED", help="run this case alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--self-check", action="store_true", help="the plain program with itself")
    kind = parser.add_mutually_exclusive_group()
    text = "sessions that speculate, with calls that are guessed right and wrong"
    kind.add_argument("--guesses", action="store_true", help=text)
    text = "engines that hold little and say what a step takes, so that schedules are compared"
    kind.add_argument("--planned", action="store_true", help=text)
    text = "failures of each kind to make small (1)"
    parser.add_argument("--shrink", type=int, default=1, metavar="N", help=text)
    text = "problems not to look at, e.g. 'own exception'; may be given again"
    parser.add_argument("--ignore", action="append", default=[], metavar="KIND", help=text)
    return parser.parse_args()


def _kind(arguments: argparse.Namespace) -> dict[str, bool]:
    return {"guesses": arguments.guesses, "planned": arguments.planned}


def _show_progress(num_done: int, num_all: int, num_failed: int, start_s: float) -> None:
    is_terminal = sys.stderr.isatty()
    if num_done % (20 if is_terminal else 1000) == 0 or num_done == num_all:
        rate = num_done / (time.monotonic() - start_s)
        text = f"{num_done} of {num_all}, {num_failed} failed, {rate:.0f} a second "
        print(f"\r{text}" if is_terminal else f"{text}\n", end="", file=sys.stderr, flush=True)


def _report(failures: dict[int, list[str]], arguments: Any, options: dict[str, Any]) -> None:
    """Print each failure; the first of each kind made small."""
    num_of_kind: Counter[str] = Counter()
    chosen: list[int] = []
    for seed, problems in sorted(failures.items()):
        kind = kind_of(problems[0])
        num_of_kind[kind] += 1
        if num_of_kind[kind] <= arguments.shrink and kind != "crash":
            chosen.append(seed)
        elif arguments.only is not None or kind == "crash":
            _print(case_of(seed, **_kind(arguments)), problems)
        else:
            print(_in_short(seed, problems))
    work = partial(shrunk, **options)
    for seed, result in work_off(work, chosen, arguments.jobs, SHRINK_S + _CASE_S):
        if isinstance(result, Crash):
            print(f"\nseed {seed} could not be made smaller: {result.text}")
            _print(case_of(seed, **_kind(arguments)), failures[seed])
        else:
            _print(result.case, result.problems)


def _in_short(seed: int, problems: list[str]) -> str:
    return f"seed {seed}: {'; '.join(dict.fromkeys(map(kind_of, problems)))}"


def _print(case: Case, problems: list[str]) -> None:
    print(f"\n{case}")
    for problem in list(dict.fromkeys(problems))[:6]:
        print(f"  -- {problem[:2000]}")
    print(f"  as data: {case!r}\n")


if __name__ == "__main__":
    sys.exit(main())
