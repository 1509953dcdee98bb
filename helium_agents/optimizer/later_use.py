"""Later use: how much of what a call leaves in the KV cache others begin with, as seen in rows.

Where calls are declared, it is known of each what others will begin with. Where nothing is, rows
that were seen tell it of each turn of a call site: the verdict of a critic is of no use to any call
that comes, but for its instructions, while a draft is what its revision goes on from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from helium_agents.optimizer.profile import BLOCK_TOKENS, Runs, SeenCall, SeenRow

LaterUse = Mapping[tuple[str, int], float]
"""By call site, and how often the row has called it before: tokens that are of use, as a multiple
of those of the prompt; without those of which all may be."""

_LEAST_ROWS = 4


def later_use(rows: Sequence[SeenRow]) -> LaterUse:
    """What is of use of each turn of a site, the most that it was in any row.

    What two rows have in common counts as of use: further ones may have it, too.
    """
    digests = [row.digests() for row in rows]
    num_rows = Counter(digest for each in digests for digest in set(each))
    found: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for row, of_row in zip(rows, digests, strict=True):
        common = {number for number, digest in enumerate(of_row) if num_rows[digest] > 1}
        turns: Counter[str] = Counter()
        for index, call in enumerate(row.calls):
            used = _used(call, _to_come(row.calls, index) | common)
            found[call.site, turns[call.site]].append(used)
            turns[call.site] += 1
    least = min(_LEAST_ROWS, len(rows))
    return {
        place: max(used)
        for place, used in found.items()
        if len(used) >= least and max(used) < float("inf")
    }


def _used(call: SeenCall, of_use: Collection[int]) -> float:
    """The tokens at the beginning of a call and its answer that are of use, by its prompt's."""
    blocks = [*_blocks(call.prompt), *_blocks(call.answer)]
    num_used = next((at for at, block in enumerate(blocks) if block not in of_use), len(blocks))
    if num_used == len(blocks):
        return float("inf")
    return num_used * BLOCK_TOKENS / max(1, call.prompt_tokens)


def _to_come(calls: Sequence[SeenCall], index: int) -> set[int]:
    """The blocks of prompts that may be asked after a call: of all but those that it came after."""
    before = {index}
    for number in range(index, -1, -1):
        if number in before:
            before.update(calls[number].inputs)
    return {
        block
        for number, call in enumerate(calls)
        if number not in before
        for block in _blocks(call.prompt)
    }


def _blocks(runs: Runs) -> list[int]:
    return [block for start, stop in runs for block in range(start, stop)]
