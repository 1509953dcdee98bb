"""The best schedule that a search in the exact simulator finds, with all lengths known beforehand.

Limits of open rows, rows whose live KV cache fits at several tightnesses, sessions that park, and
everything open: whatever is best of these, no user could have known it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.harness.case import Case
from benchmarks.harness.settings import BLOCK_TOKENS
from benchmarks.harness.simulated import Bed
from benchmarks.systems.ours import Ours
from helium_agents.optimizer.forecast import Forecast, ForecastCall
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.policy import Peaks, PeaksFit
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen, Gated, Schedule

_TIGHTNESSES = (0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.8)
_NEXT_LIMIT = 0.87

Candidate = tuple[str, Callable[[], Schedule]]


async def best_simulated(case: Case, bed: Bed) -> tuple[str, float]:
    """The name of the best schedule, and its virtual seconds."""
    tried: list[Callable[[], Schedule]] = []
    ours = Ours("search", schedule=lambda: tried[-1]())  # one, whose memo is filled once
    found: dict[str, float] = {}
    for name, make in candidates(case, bed.bed.settings.kv_tokens):
        tried.append(make)
        found[name] = (await bed.run(ours, case)).seconds
    best = min(found, key=lambda name: found[name])
    return best, found[best]


def candidates(case: Case, kv_tokens: int) -> Iterator[Candidate]:
    """All that is tried, by name."""
    yield "everything open", EverythingOpen
    yield "parking", Park
    for limit in _limits(len(case.batch.rows), least=6 if case.batch.has_pauses else 1):
        yield f"{limit} rows open", partial(FewOpen, limit)
    if not case.batch.has_pauses:
        known = forecast_of(case)
        peaks = Peaks(known, known.piece_tokens)
        for tightness in _TIGHTNESSES:
            policy = partial(PeaksFit, peaks, kv_tokens, tightness)
            yield f"live cache fits {tightness:g} times", partial(_gated, policy)


def _gated(policy: Callable[[], PeaksFit]) -> Gated:
    """A schedule of its own for each run, since the policy counts what is open."""
    return Gated(policy())


def _limits(num_rows: int, least: int) -> list[int]:
    """Limits from nearly all rows down, each a little lower than the one before."""
    found, limit = [], num_rows - 1
    while limit >= least:
        found.append(limit)
        limit = min(limit - 1, round(limit * _NEXT_LIMIT))
    return found


def forecast_of(case: Case) -> Forecast:
    """What the rows will ask, to the token: a piece is a block of the KV cache."""
    blocks: dict[tuple[int, tuple[int, ...]], int] = {}

    def pieces(token_ids: list[int]) -> tuple[int, ...]:
        block, chain = -1, []
        for end in range(BLOCK_TOKENS, len(token_ids) + BLOCK_TOKENS, BLOCK_TOKENS):
            key = (block, tuple(token_ids[end - BLOCK_TOKENS : end]))
            block = blocks.setdefault(key, len(blocks))
            chain.append(block)
        return tuple(chain)

    rows: dict[int, list[ForecastCall]] = {number: [] for number in range(len(case.batch.rows))}
    places: list[int] = []
    for call in case.needed:
        prompt, answer = list(call.prompt_token_ids), list(call.output_token_ids)
        chain = pieces(prompt)
        places.append(len(rows[call.item]))
        rows[call.item].append(
            ForecastCall(
                inputs=tuple(sorted(places[source] for source in call.inputs)),
                prompt=chain,
                answer=pieces(prompt + answer)[len(chain) :],
                prompt_tokens=len(prompt),
                output_tokens=len(answer),
                question=tuple(prompt),
            )
        )
    return Forecast(list(rows.values()), [BLOCK_TOKENS] * len(blocks), list(rows))
