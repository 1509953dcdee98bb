"""Whether an optimised run is as good as the plain program.

What is not compared, and why:

- The order of draws: an unseeded draw is new in every run, so results are compared up to the names
  of the draws. Two draws that are one in a run have one name there, and that is seen.
- Results where an observer raises `Odd`: whether that ends what it watches is not promised; only
  that nothing hangs or is left.
- The number of requests where something is cancelled half-way: how much was asked by then is a
  matter of timing. Likewise the warnings of plain operators never awaited.
- Questions asked twice where something fails (failures are not remembered), those with a schema
  that an answer may not fit, and those made from the Ref of an unseeded draw: they are known by the
  draw, not by its text, and remembered in a run log only.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from helium_agents import LmdbStore, MemoryStore
from helium_agents.engines.engine import Request
from tests.fuzz.interpret import forget_bodies
from tests.fuzz.killed import lived
from tests.fuzz.model import MARK
from tests.fuzz.program import (
    UNSEEDED,
    Ask,
    Await,
    Cancel,
    Case,
    Diamond,
    Expire,
    Leave,
    Make,
    Map,
    Op,
    Stream,
    parts_of,
)
from tests.fuzz.records import in_full, up_to_draws
from tests.fuzz.run import Result, run_as, run_plain, run_reference


def check(case: Case, *, is_self_check: bool = False) -> list[str]:
    """What is wrong with a case; each problem begins with its kind and a colon.

    Args:
        case: The case.
        is_self_check: Compare the plain program with itself, under other delays.
    """
    forget_bodies()
    if case.config.kills and not is_self_check:
        return check_killed(case)[0]
    plain = run_plain(case.program, case.seed)
    if is_self_check:
        return list(_of_itself(case, plain))
    problems = [f"plain {problem}" for problem in plain.problems]
    if plain.is_stuck:
        return problems
    own_problems = (*_of_open(case, plain), *_of_meaning(case, plain))
    problems += [f"plain {problem}" for problem in own_problems]
    return [*problems, *_of_sessions(case, plain)]


def check_killed(case: Case) -> tuple[list[str], int]:
    """What is wrong with a case that is killed, and how many calls it computed early."""
    forget_bodies()
    alive = replace(case, config=replace(case.config, dies_at=None))
    # what follows from a draw has keys of its own in every run
    return lived(case, is_countable=is_countable(alive) and not _has_draws(case))


def _of_itself(case: Case, plain: Result) -> Iterator[str]:
    """Whether the plain program agrees with itself; what is wrong with both is not the question."""
    if case.is_calm and is_countable(case) and plain.caught:
        yield f"generator: a calm program failed: {plain.caught}"
    again = run_plain(case.program, case.seed + 1)
    if plain.is_stuck != again.is_stuck:
        yield f"hang: one of two runs: {plain.problems} {again.problems}"
    elif not plain.is_stuck:
        yield from _of_results(case, plain, again)
        yield from _of_counts(case, plain, again)


def _of_sessions(case: Case, plain: Result) -> Iterator[str]:
    config = case.config
    with ExitStack() as stack:
        memo: Any = None
        if config.memo == "lmdb":
            memo = LmdbStore(stack.enter_context(tempfile.TemporaryDirectory()))
        elif config.memo != "none":
            memo = MemoryStore()
        if memo is not None:
            stack.enter_context(closing(memo))
        first = run_as(case.program, case.seed + 1, config, memo)
        yield from _of_run(case, plain, first)
        yield from _of_counts(case, plain, first)
        yield from _of_sharing(case, first)
        if config.memo in ("warm", "lmdb"):
            second = run_as(case.program, case.seed + 2, config, memo)
            for problem in (
                *_of_run(case, plain, second),
                *_of_counts(case, plain, second),
                *_of_warmth(case, second),
            ):
                yield f"warm {problem}"


def _of_meaning(case: Case, plain: Result) -> Iterator[str]:
    """Whether the plain program gives what it must."""
    meant = run_reference(case.program, case.seed)
    if meant.is_stuck:
        yield f"reference: {meant.problems}"
    elif up_to_draws(meant.outcome) != up_to_draws(plain.outcome):
        yield f"meaning: {_difference(meant.outcome, plain.outcome)}"


# --- results --------------------------------------------------------------------------------------


def _of_run(case: Case, plain: Result, run: Result) -> Iterator[str]:
    yield from run.problems
    yield from _of_open(case, run)
    if not run.is_stuck and case.config.observer != "odd":
        yield from _of_results(case, plain, run)


def _of_open(case: Case, run: Result) -> Iterator[str]:
    """Whether requests were open once the program had ended, and nothing in it was left running."""
    if run.num_open and not run.is_stuck and not any(map(_leaves_work, all_parts(case))):
        yield f"open: {run.num_open} requests, before the session closed"


def _leaves_work(part: Any) -> bool:
    match part:
        case Make():
            return part.is_started
        case Leave():
            return True
        case Stream():
            return part.take is not None and not part.closes
        case Map():
            return part.stop_after is not None and part.leaves_by == "break"
    return False


def _of_results(case: Case, plain: Result, run: Result) -> Iterator[str]:
    expected, found = in_full(plain.outcome), in_full(run.outcome)
    if up_to_draws(expected) != up_to_draws(found):
        yield f"results: {_difference(expected, found)}"


def _difference(expected: Any, found: Any) -> str:
    if isinstance(expected, tuple) and isinstance(found, tuple) and len(expected) == len(found):
        for left, right in zip(expected, found, strict=True):
            if MARK.sub("~", repr(left)) != MARK.sub("~", repr(right)):
                return _difference(left, right)
        if MARK.sub("~", repr(expected)) == MARK.sub("~", repr(found)):
            return (
                f"draws are merged or split:\n      expected {up_to_draws(expected)}"
                f"\n      found    {up_to_draws(found)}"
            )
    return f"\n      expected {expected!r}\n      found    {found!r}"


# --- counts ---------------------------------------------------------------------------------------


def _of_counts(case: Case, plain: Result, run: Result) -> Iterator[str]:
    if run.is_stuck or plain.is_stuck or not is_countable(case):
        return
    if len(run.requests) > len(plain.requests):
        yield f"requests: {len(run.requests)}, of the plain program {len(plain.requests)}"
    if run.unawaited != plain.unawaited:
        yield f"warnings: {run.unawaited}, of the plain program {plain.unawaited}"
    if case.is_calm:
        draws, plain_draws = (sum(map(_is_draw, r.requests)) for r in (run, plain))
        if draws != plain_draws:
            yield f"draws: {draws} requests, of the plain program {plain_draws}"
        own, plain_own = (sum(map(_is_own, r.requests)) for r in (run, plain))
        if own != plain_own and not any(map(_may_save_own, all_parts(case))):
            yield f"own: {own} requests of share=False, of the plain program {plain_own}"


def _of_sharing(case: Case, run: Result) -> Iterator[str]:
    if _shares(case) and not run.is_stuck and not _is_built_on_draws(case):
        asked = Counter(map(_question, filter(_is_shareable, run.requests)))
        for question, count in asked.items():
            if count > 1 and not question[0][-1].content.startswith("flaky"):
                yield f"twice: asked {count} times: {question[0]}"


def _of_warmth(case: Case, run: Result) -> Iterator[str]:
    if _shares(case) and not run.is_stuck and not _has_draws(case):
        for request in filter(_is_shareable, run.requests):
            yield f"asked again: {request.messages}"


def _has_draws(case: Case) -> bool:
    return any(isinstance(part, Ask) and part.draw == UNSEEDED for part in all_parts(case))


def _is_built_on_draws(case: Case) -> bool:
    asks = [part for part in all_parts(case) if isinstance(part, Ask)]
    return any(ask.draw == UNSEEDED for ask in asks) and any(ask.slots for ask in asks)


def _shares(case: Case) -> bool:
    config = case.config
    remembers = "substitute_known" in config.rules and config.memo_mode != "off"
    return case.is_calm and is_countable(case) and config.share and remembers


def _question(request: Request) -> Any:
    return request.messages, request.sampling, request.json_schema


def _is_draw(request: Request) -> bool:
    """Whether it is an unseeded draw; not of a question that fails at first, whoever asks it."""
    is_flaky = request.messages[-1].content.startswith("flaky")
    return not request.sampling.is_deterministic and not is_flaky


def _is_shareable(request: Request) -> bool:
    return request.sampling.is_deterministic and not _is_own(request)


def _is_own(request: Request) -> bool:
    return request.messages[-1].content.startswith("own")


def _may_save_own(part: Any) -> bool:
    """Whether a pure operator asks calls of `share=False`: with it, they are shared."""
    match part:
        case Op(is_pure=True) | Map(fn="pure"):
            return any(isinstance(p, Ask) and not p.share for p in parts_of(part.body))
    return False


def all_parts(case: Case) -> Iterator[Any]:
    return parts_of(case.program)


def is_countable(case: Case) -> bool:
    """Whether all that is begun is waited for, so that the number of requests is determined."""
    if case.config.observer == "odd" or any(map(_always_ends_others, all_parts(case))):
        return False
    if case.config.dies_at is not None:
        return False  # what is open then is asked again
    if not case.is_calm and any(map(_ends_others_on_failure, all_parts(case))):
        return False
    started = {part.name for part in all_parts(case) if isinstance(part, Make) and part.is_started}
    last = case.program[-1]
    return started <= set(last.names if isinstance(last, Await) else ())


def _always_ends_others(part: Any) -> bool:
    match part:
        case Cancel() | Expire() | Leave():
            return True
        case Stream():
            return part.take is not None
        case Map():
            return part.stop_after is not None or part.fails_at is not None
    return False


def _ends_others_on_failure(part: Any) -> bool:
    match part:
        case Ask():
            return len(part.slots) > 1
        case Op():
            return len(part.inputs) > 1
        case Diamond():
            return True
        case Await():
            return part.how in ("gather", "gather_exceptions")
        case Map():
            return True
    return False
