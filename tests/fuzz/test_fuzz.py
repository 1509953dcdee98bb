"""Random programs: optimised sessions give what the plain program gives, and leave nothing behind.

A failure names the seed; `python -m tests.fuzz --only SEED` runs it again and makes it small.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from helium_agents import MemoryStore
from tests.fuzz.check import check, is_countable
from tests.fuzz.clock import Deadlock, VirtualLoop
from tests.fuzz.generate import KILLED, case_of
from tests.fuzz.pool import Crash, work_off
from tests.fuzz.program import Ask, Await, Case, Config, Make, Raise, Together, text_of
from tests.fuzz.run import run_as
from tests.fuzz.shrink import repaired, shrink
from tests.fuzz.work import killed

NUM_AT_ONCE = 25


def from_seeds(num_all: int, num_quick: int) -> pytest.MarkDecorator:
    """A test for each `NUM_AT_ONCE` seeds, from `first` on; those after the quick ones are slow."""
    firsts = range(0, num_all, NUM_AT_ONCE)
    marks = [[pytest.mark.slow] * (first >= num_quick) for first in firsts]
    return pytest.mark.parametrize(
        "first", [pytest.param(first, marks=m) for first, m in zip(firsts, marks, strict=True)]
    )


def failures_of(seeds: range, *, is_self_check: bool = False, **kind: bool) -> str:
    """Every failing case of some seeds and a kind, as of `case_of`, as text."""
    texts: list[str] = []
    for seed in seeds:
        case = case_of(seed, **kind)
        if case.config.kills:  # from a process without threads only
            continue
        gc.freeze()  # each case collects garbage, and would look at what the last workflows hold
        problems = check(case, is_self_check=is_self_check)
        if problems:
            texts.append("\n".join([str(case), *dict.fromkeys(problems)]))
    return "\n\n".join(texts)


@from_seeds(300, num_quick=100)
def test_optimised_equals_plain(first: int) -> None:
    failures = failures_of(range(first, first + NUM_AT_ONCE))
    assert not failures, failures


@from_seeds(200, num_quick=25)
def test_with_guesses_right_and_wrong_it_is_the_same(first: int) -> None:
    failures = failures_of(range(first, first + NUM_AT_ONCE), guesses=True)
    assert not failures, failures


@from_seeds(75, num_quick=25)
def test_where_schedules_are_compared_it_is_the_same(first: int) -> None:
    failures = failures_of(range(first, first + NUM_AT_ONCE), planned=True)
    assert not failures, failures


def test_where_schedules_are_compared_some_are_not_the_default() -> None:
    cases = [case_of(seed, planned=True) for seed in range(NUM_AT_ONCE)]
    policies = {run_as(each.program, each.seed, each.config, None).policy for each in cases}
    assert len(policies - {"", "everything open"}) > 1


def test_the_memo_has_the_same_with_guesses_and_without() -> None:
    num_guesses = 0
    for seed in range(500, 530):
        case = case_of(seed, guesses=True)
        config = replace(case.config, dies_at=None)
        if not config.kills and is_countable(replace(case, config=config)):
            with_guesses, without = MemoryStore(), MemoryStore()
            run = run_as(case.program, seed, config, with_guesses)
            num_guesses += run.num_guesses
            run_as(case.program, seed, replace(config, guesses=None), without)
            assert set(with_guesses._kept) == set(without._kept), str(case)
    assert num_guesses > 5


def test_a_run_over_a_file_that_is_killed_comes_to_the_same_with_guesses() -> None:
    # The last is killed when it has the beginning of an answer and has not asked for the whole.
    seeds = [*range(64, 64 + 5 * KILLED, KILLED), 9_001_152]
    results = dict(work_off(killed, seeds, num_jobs=1, most_s=60))
    failures = {s: found for s, found in results.items() if isinstance(found, Crash) or found[0]}
    assert not failures, failures
    assert sum(num_early for _, num_early in results.values()) > 20


def test_the_plain_program_agrees_with_itself_under_other_delays() -> None:
    failures = failures_of(range(10_000, 10_040), is_self_check=True)
    assert not failures, failures


# --- the generator itself -------------------------------------------------------------------------


def test_a_seed_always_makes_the_same_case() -> None:
    assert [case_of(seed) for seed in range(50)] == [case_of(seed) for seed in range(50)]
    assert "\n".join(text_of(case_of(3).program))


def test_a_clock_jumps_to_the_next_timer_and_sees_a_deadlock() -> None:
    loop = VirtualLoop()
    before_s = loop.time()
    loop.run_until_complete(asyncio.sleep(3600))
    assert loop.time() >= before_s + 3600
    with pytest.raises(Deadlock):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_shrinking_keeps_what_fails_and_drops_the_names_that_nothing_makes() -> None:
    program = (
        Make("a", Ask("q 1")),
        Make("b", Ask("q 2", slots=("a",))),
        Together(((Raise("own"), Await(("a", "b"))), (Await(("b",)),)), (0, 0)),
    )
    case = Case(0, program, Config(rules=()), is_calm=False)

    def raises(smaller: Case) -> bool:
        return "raise own" in "\n".join(text_of(smaller.program))

    assert shrink(case, raises, most_s=5).program == (Raise("own"),)
    assert repaired(program[1:]) == (
        Make("b", Ask("q 2")),
        Together(((Raise("own"), Await(("b",))), (Await(("b",)),)), (0, 0)),
    )


def test_a_process_that_hangs_or_dies_costs_its_item_only() -> None:
    results = dict(work_off(time.sleep, [0, 100, 0.1], num_jobs=1, most_s=0.5))
    assert results.keys() == {0, 100, 0.1}
    assert isinstance(results[100], Crash) and "in time" in results[100].text
    assert results[0.1] is None
    ((_, died),) = work_off(os._exit, [3], num_jobs=2, most_s=5)
    assert isinstance(died, Crash) and "died" in died.text


def test_the_command_runs_cases_in_processes() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "20", "--self-check", "--jobs", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "20 cases" in run.stdout
