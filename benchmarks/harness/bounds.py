"""Two lower bounds on the time of a batch, from its calls and a calibration of the engine.

- **physical**: ``max(CP, alpha (U + D) + beta (sum_U pos + sum_D pos))``. Nothing can be faster.
- **attainable**: the same, with decode priced at the best rate measured for its batch and context.
  What a perfect schedule could come close to.

U are the prompt tokens that an infinite prefix cache would still have to prefill, D the output
tokens after each call's first, pos a token's position, CP the longest chain of dependent calls;
alpha + beta pos is the best measured time of a prefill token.

The bounds are on *distinct* calls: calls with the same prompt have the same answer (the engines of
the benchmarks are greedy), so a system may compute them once; of several lengths the longest
counts. A chain, too, is only as long as it is when the first of equal calls answers all of them.

Where there is a choice the bounds are optimistic: the first token of an answer comes with the
prefill and costs no decode, a cached block costs nothing whenever it was computed, and no step
waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from benchmarks.harness.calibration import Calibration
from benchmarks.harness.oracle import KnownCall

BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be computed, however it is scheduled.

    Args:
        num_calls: Distinct calls.
        prefill_tokens: U, prompt tokens that no cached block has.
        prefill_positions: Sum of their positions.
        decode_tokens: D, output tokens after each call's first.
        decode_positions: Sum of their positions.
        shared_positions: How much of that sum is context that a call has in common with another
            one that could run beside it, so that one read of the KV cache may serve both.
        chain_tokens: Most decode tokens of a chain of dependent calls. At least so many steps are
            needed, so no schedule's mean batch exceeds `decode_tokens` ÷ `chain_tokens`.
    """

    num_calls: int
    prefill_tokens: int
    prefill_positions: int
    decode_tokens: int
    decode_positions: int
    shared_positions: int
    chain_tokens: int


def physical_s(
    calls: Sequence[KnownCall], calibration: Calibration, block_tokens: int = BLOCK_TOKENS
) -> float:
    """The physical bound in seconds: every token at the price of the cheapest prefill.

    Args:
        calls: The trace, each call after those that it needs.
        calibration: Of the engine that ran it.
        block_tokens: Tokens of a block of the prefix cache.
    """
    needed = work(calls, block_tokens)
    tokens = needed.prefill_tokens + needed.decode_tokens
    positions = needed.prefill_positions + needed.decode_positions
    return max(critical_path_s(calls, calibration), calibration.prefill.total(tokens, positions))


def attainable_s(
    calls: Sequence[KnownCall], calibration: Calibration, block_tokens: int = BLOCK_TOKENS
) -> float:
    """The attainable bound in seconds: decode at the best rate of its batch and context.

    The batch is as large as any schedule's mean can be: the engine's largest if that many calls
    are ever ready, else decode tokens ÷ those of the longest chain.

    Args:
        calls: The trace, each call after those that it needs.
        calibration: Of the engine that ran it.
        block_tokens: Tokens of a block of the prefix cache.
    """
    needed = work(calls, block_tokens)
    prefill_s = calibration.prefill.total(needed.prefill_tokens, needed.prefill_positions)
    decode_s = 0.0
    if needed.decode_tokens:
        batch = min(calibration.max_batch, needed.decode_tokens / needed.chain_tokens)
        decode_s = calibration.decode_s(
            batch,
            needed.decode_tokens,
            unique_positions=needed.decode_positions - needed.shared_positions,
            shared_positions=needed.shared_positions,
        )
    return max(physical_s(calls, calibration, block_tokens), prefill_s + decode_s)


def critical_path_s(calls: Sequence[KnownCall], calibration: Calibration) -> float:
    """CP: the longest chain of (best time to first token + best inter-token time x the others).

    Pauses before calls are part of it.
    """

    def answer_s(call: KnownCall) -> float:
        return calibration.first_token_s + calibration.inter_token_s * _decode_tokens(call)

    return _longest_chain(calls, answer_s, lambda call: call.pause_s)


def work(calls: Sequence[KnownCall], block_tokens: int = BLOCK_TOKENS) -> Work:
    """Replay the calls in order against an infinite prefix cache."""
    distinct = _distinct(calls)
    cache = _PrefixCache(block_tokens)
    contexts = []
    prefill_tokens = prefill_positions = decode_tokens = decode_positions = 0
    for call in distinct:
        length, steps = len(call.prompt_token_ids), _decode_tokens(call)
        # The last token is computed even if its block is there: its logits begin the answer.
        cached = cache.match(call.prompt_token_ids, limit=length - 1)
        prefill_tokens += length - cached
        prefill_positions += _sum_of_range(cached, length)
        decode_tokens += steps
        decode_positions += _sum_of_range(length, length + steps)
        computed = [*call.prompt_token_ids, *call.output_token_ids[:steps]]
        contexts.append(cache.add(computed))
    shared = _shared_tokens(calls, distinct, contexts, block_tokens)
    shared_positions = sum(
        min(tokens, len(call.prompt_token_ids)) * _decode_tokens(call)
        for call, tokens in zip(distinct, shared, strict=True)
    )
    return Work(
        len(distinct),
        prefill_tokens,
        prefill_positions,
        decode_tokens,
        decode_positions,
        shared_positions,
        round(_longest_chain(calls, _decode_tokens)),
    )


class _PrefixCache:
    """An infinite one: blocks by their tokens and by the block before them, and none forgotten.

    A block has a number instead of a hash, so that no two blocks can be taken for one.
    """

    _ROOT = -1

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._blocks: dict[tuple[int, tuple[int, ...]], int] = {}

    def match(self, token_ids: Sequence[int], limit: int) -> int:
        """How many of the first `limit` tokens lie in whole blocks that are cached."""
        block, matched = self._ROOT, 0
        for tokens in self._split(token_ids[: max(limit, 0)]):
            found = self._blocks.get((block, tokens))
            if found is None:
                break
            block, matched = found, matched + self._block_tokens
        return matched

    def add(self, token_ids: Sequence[int]) -> list[int]:
        """Keep the whole blocks of what was computed; their numbers."""
        block, chain = self._ROOT, []
        for tokens in self._split(token_ids):
            block = self._blocks.setdefault((block, tokens), len(self._blocks))
            chain.append(block)
        return chain

    def _split(self, token_ids: Sequence[int]) -> Iterable[tuple[int, ...]]:
        size = self._block_tokens
        for end in range(size, len(token_ids) + 1, size):
            yield tuple(token_ids[end - size : end])


def _distinct(calls: Sequence[KnownCall]) -> list[KnownCall]:
    """Of calls with the same prompt the one with the longest answer, at the place of the first."""
    found: dict[tuple[int, ...], KnownCall] = {}
    for call in calls:
        prompt = tuple(call.prompt_token_ids)
        known = found.setdefault(prompt, call)
        if len(call.output_token_ids) > len(known.output_token_ids):
            found[prompt] = call
    return list(found.values())


def _shared_tokens(
    calls: Sequence[KnownCall],
    distinct: Sequence[KnownCall],
    contexts: Sequence[Sequence[int]],
    block_tokens: int,
) -> list[int]:
    """For each distinct call how many of its first tokens a call that may run beside it has too.

    Calls of one chain do not run beside each other, so a history shared only with the call that
    goes on with it is not shared here.
    """
    chains = _chains(calls, distinct)
    owners: dict[int, int] = {}  # of a block, one bit for each call that has it
    for number, blocks in enumerate(contexts):
        for block in blocks:
            owners[block] = owners.get(block, 0) | 1 << number
    return [
        block_tokens * sum(1 for block in blocks if owners[block] & ~chains[number])
        for number, blocks in enumerate(contexts)
    ]


def _chains(calls: Sequence[KnownCall], distinct: Sequence[KnownCall]) -> list[int]:
    """For each distinct call a bit for itself and each that it needs or is needed by."""
    numbers = {tuple(call.prompt_token_ids): number for number, call in enumerate(distinct)}
    of_call = [numbers[tuple(call.prompt_token_ids)] for call in calls]
    needs = [0] * len(distinct)
    for number, call in zip(of_call, calls, strict=True):
        for source in call.inputs:
            needs[number] |= needs[of_call[source]] | 1 << of_call[source]
    chains = [each | 1 << number for number, each in enumerate(needs)]
    for number, each in enumerate(needs):
        while each:
            lowest = each & -each
            chains[lowest.bit_length() - 1] |= 1 << number
            each ^= lowest
    return chains


def _longest_chain(
    calls: Sequence[KnownCall],
    cost: Callable[[KnownCall], float],
    pause: Callable[[KnownCall], float] = lambda _: 0.0,
) -> float:
    """When the last call is answered if every one starts as soon as it can, after its pause.

    Calls become ready in the order of time, so the first one with a prompt starts it, and those
    that ask for the same later wait for it at most.
    """
    waiting = [len(set(call.inputs)) for call in calls]
    dependents: list[list[int]] = [[] for _ in calls]
    for index, call in enumerate(calls):
        for source in set(call.inputs):
            dependents[source].append(index)
    order = count()
    ready: list[tuple[float, int, int]] = []
    for index, num_inputs in enumerate(waiting):
        if not num_inputs:
            heappush(ready, (pause(calls[index]), next(order), index))
    started: dict[tuple[int, ...], float] = {}
    latest = [0.0] * len(calls)  # when the last of a call's inputs was there
    last = 0.0
    while ready:
        now, _, index = heappop(ready)
        start = started.setdefault(tuple(calls[index].prompt_token_ids), now)
        end = max(now, start + cost(calls[index]))
        last = max(last, end)
        for each in dependents[index]:
            latest[each] = max(latest[each], end)
            waiting[each] -= 1
            if not waiting[each]:
                heappush(ready, (latest[each] + pause(calls[each]), next(order), each))
    return last


def _decode_tokens(call: KnownCall) -> int:
    """Output tokens after the first; each is a step that computes the token before it."""
    return max(len(call.output_token_ids) - 1, 0)


def _sum_of_range(start: int, stop: int) -> int:
    return (start + stop - 1) * (stop - start) // 2
