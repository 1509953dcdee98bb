"""What the command's processes do: run the case of a seed, or make it small."""

from __future__ import annotations

import gc
from dataclasses import dataclass

from tests.fuzz.check import check, check_killed
from tests.fuzz.generate import case_of
from tests.fuzz.program import Case
from tests.fuzz.shrink import kind_of, shrink

SHRINK_S = 60.0


@dataclass
class Shrunk:
    """A case made small, and what is wrong with it."""

    case: Case
    problems: list[str]


def problems_of(
    seed: int, *, is_self_check: bool, kind: dict[str, bool], ignored: tuple[str, ...]
) -> list[str]:
    """What is wrong with the case of a seed and a kind, apart from the ignored problems."""
    return _problems(case_of(seed, **kind), is_self_check, ignored)


def killed(seed: int) -> tuple[list[str], int]:
    """What is wrong with a case that is killed, and how many calls it computed early."""
    return check_killed(case_of(seed, guesses=True))


def _problems(case: Case, is_self_check: bool, ignored: tuple[str, ...]) -> list[str]:
    gc.collect()  # what the last case left would stay for ever
    gc.freeze()  # what is there already need not be looked at after each case
    problems = check(case, is_self_check=is_self_check)
    return [p for p in problems if not kind_of(p).endswith(ignored)] if ignored else problems


def shrunk(
    seed: int, *, is_self_check: bool, kind: dict[str, bool], ignored: tuple[str, ...]
) -> Shrunk:
    """The case of a seed, made small."""
    original = case_of(seed, **kind)

    def kinds(case: Case) -> set[str]:
        return {kind_of(problem) for problem in _problems(case, is_self_check, ignored)}

    problems = _problems(original, is_self_check, ignored)
    if not problems:
        return Shrunk(original, ["vanished: it failed before, and does not now"])
    wanted = kind_of(problems[0])

    def fails(case: Case) -> bool:
        # a smaller program must still be one whose results are determined
        return wanted in kinds(case) and (is_self_check or not check(case, is_self_check=True))

    case = shrink(original, fails, SHRINK_S)
    return Shrunk(case, _problems(case, is_self_check, ignored))
