"""Where a traced run lost most, in words, with what to do about it.

Tokens count as the time that the engine takes for them. What several causes share is counted for
each: the losses do not add up.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from xxhash import xxh3_64_intdigest

from helium_agents.diagnose.analyze import Paths, cacheable_tokens
from helium_agents.optimizer.prefix_tree import num_shared_tokens
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost
from helium_agents.trace.run import TracedCall, TracedRun

_WINDOW_TOKENS = 24
_SAMPLED = 8
"""Of windows of so many tokens, one in so many is looked at: those whose hash says so."""

_MOST_PROMPTS = 400
"""So many prompts of an operator are looked at."""

_LEAST_TURNS = 4
_LEAST_SHARE = 0.02
_LEAST_S = 0.05
"""Smaller losses, of the run or at all, are not worth a word."""

_FEW = 4
"""So few requests at once leave an engine mostly idle: a step costs about as much as with many."""


@dataclass(frozen=True)
class Loss:
    """A loss.

    Args:
        kind: For programs: "cache", "uncached", "layout", "loop", "cut", "idle", "repeated".
        seconds: About how long it took.
        what: What was lost, in words.
        advice: What to do.
        operator: In whose bodies; "" where it is the whole run's.
    """

    kind: str
    seconds: float
    what: str
    advice: str
    operator: str = ""


def losses(
    run: TracedRun, seconds: float, cacheable: Mapping[int, int] | None = None
) -> list[Loss]:
    """The losses of a run that took so many seconds, the largest first.

    None takes longer than the run, though one may by a step cost that does not fit.

    Args:
        run: The run.
        seconds: How long it took.
        cacheable: Its `cacheable_tokens`, where they are there already.
    """
    if not run.computed:
        return []
    found = _Losses(run, cacheable_tokens(run) if cacheable is None else cacheable)
    every = [
        *found.cache(), *found.layout(), *found.loops(), *found.cut(), *found.idle(),
        *found.repeated(),
    ]  # fmt: skip
    every = [replace(loss, seconds=min(loss.seconds, seconds)) for loss in every]
    least_s = max(_LEAST_S, _LEAST_SHARE * seconds)
    large = (loss for loss in every if loss.seconds >= least_s)
    return sorted(large, key=lambda loss: -loss.seconds)


class _Losses:
    """What is known of a run."""

    def __init__(self, run: TracedRun, cacheable: Mapping[int, int]) -> None:
        self._run = run
        self._calls = [call for call in run.computed if call.answer is not None]
        self._cacheable = cacheable
        self._concurrency = _mean_running(self._calls)
        busy_s = sum(seconds for _, seconds in self._concurrency) or 1.0
        running_s = sum(number * seconds for number, seconds in self._concurrency)
        self._batch = max(1.0, running_s / busy_s)
        self._cost_of = cache(self._find_cost)
        paths = Paths(run)
        self._sites: dict[str, list[TracedCall]] = defaultdict(list)
        for call in self._calls:
            path = paths.of(call.body)
            self._sites[path[-1] if path else "calls outside of operators"].append(call)

    def cache(self) -> Iterator[Loss]:
        """Prefixes that were computed before, and gone when they came again."""
        lost = seconds = 0.0
        for call in self._calls:
            tokens = self._cacheable.get(call.number, 0) - call.cached_tokens
            lost += tokens
            seconds += tokens * self._cost(call).prefill_s
        capacities = [each.capacity for each in self._run.engines.values() if each.capacity]
        held = sum(capacity["kv_tokens"] for capacity in capacities)
        hits = sum(call.cached_tokens for call in self._calls)
        if lost and not hits and not held:
            yield Loss(
                "uncached", seconds,
                f"{lost:,.0f} prompt tokens had been computed before, and the engine did not tell "
                "that any came from a prefix cache: it has none, or keeps it to itself",
                "switch its prefix cache on, or let it tell: "
                "vllm serve --enable-prompt-tokens-details",
            )  # fmt: skip
        elif lost:
            room = f" of {held:,} tokens" if held else ""
            yield Loss(
                "cache", seconds,
                f"{lost:,.0f} prompt tokens had been computed before, and were computed again: the "
                f"KV cache{room} had lost them, or had them not yet",
                "try more memory and fewer rows at once: "
                "helium simulate TRACE --kv-tokens 2x --max-open N",
            )  # fmt: skip

    def layout(self) -> Iterator[Loss]:
        """Text that several prompts of an operator have, after something in which they differ."""
        for name, calls in self._sites.items():
            some = calls[:: max(1, len(calls) // _MOST_PROMPTS)]
            tokens = _late_tokens(some, self._cacheable) * len(calls) // len(some)
            if tokens:
                yield Loss(
                    "layout", tokens * self._cost(calls[0]).prefill_s,
                    f"{name}: about {tokens:,} prompt tokens are the same in several prompts, but "
                    "come after a part that differs, so that no cache can serve them",
                    "put what many calls share (a document, instructions) before what differs "
                    "(the question)",
                    name,
                )  # fmt: skip

    def loops(self) -> Iterator[Loss]:
        """Bodies that make the same number of calls one after another, all of them."""
        for name, calls in self._sites.items():
            turns: dict[tuple[int, int | None], list[TracedCall]] = defaultdict(list)
            for call in calls:
                turns[call.body, call.item if not call.body else None].append(call)
            numbers = {len(each) for each in turns.values() if _is_chain(each)}
            (number,) = numbers if len(numbers) == 1 else (0,)
            if number >= _LEAST_TURNS and len(turns) > 1 and all(map(_is_chain, turns.values())):
                later = [call for each in turns.values() for call in each[1:]]
                yield Loss(
                    "loop", sum(map(self._seconds, later)) / 2,
                    f"{name}: each of its {len(turns):,} runs makes {number} calls one after "
                    "another, none fewer, as a loop does that always runs to its limit",
                    "see whether what ends the loop can come true, or lower the limit",
                    name,
                )  # fmt: skip

    def cut(self) -> Iterator[Loss]:
        """Answers that `max_tokens` ended."""
        for name, calls in self._sites.items():
            cut = [c for c in calls if c.answer and "length" in c.answer.finish_reasons]
            if len(cut) * 2 > len(calls):
                limits = {call.answer.max_tokens for call in cut if call.answer}
                limit = f"max_tokens={min(limits)}" if len(limits) == 1 else "their max_tokens"
                yield Loss(
                    "cut", sum(map(self._decode_seconds, cut)),
                    f"{name}: {len(cut):,} of {len(calls):,} answers were cut at {limit}",
                    "ask for shorter answers, raise max_tokens, or give a stop string: cut "
                    "answers cost all of their tokens",
                    name,
                )  # fmt: skip

    def idle(self) -> Iterator[Loss]:
        """Times in which few requests were on the engines though rows were under way."""
        few_s = 0.0
        for number, seconds in self._concurrency:
            few_s += seconds * (1 - number / _FEW) if number < _FEW else 0.0
        total_s = sum(seconds for _, seconds in self._concurrency)
        if few_s:
            average = sum(number * seconds for number, seconds in self._concurrency) / total_s
            yield Loss(
                "idle", few_s,
                f"on average {average:.1f} requests were on the engine, often fewer than {_FEW}: "
                "calls waited for one another, for tools, or for few rows",
                "ask side by side what need not wait (gather), and give it more rows at once",
            )  # fmt: skip

    def repeated(self) -> Iterator[Loss]:
        """The same prompt, computed several times."""
        asked: Counter[tuple[str, bytes]] = Counter()
        number, seconds = 0, 0.0
        for call in self._calls:
            if call.answer is None or not call.answer.prompt:
                continue
            question = call.model, call.answer.prompt.tobytes()
            if asked[question]:
                number, seconds = number + 1, seconds + self._seconds(call)
            asked[question] += 1
        if number:
            yield Loss(
                "repeated", seconds,
                f"{number:,} calls asked what had been asked before, and were computed all the "
                "same: samples without a seed, or share=False",
                "where one answer does, let it be greedy (temperature=0) or give a seed",
            )  # fmt: skip

    # --- what things take ------------------------------------------------------------------------

    def _cost(self, call: TracedCall) -> StepCost:
        """What a step takes; where nobody knows, a guess that is the same for all."""
        return self._cost_of(call.model)

    def _find_cost(self, model: str) -> StepCost:
        engine = self._run.engines.get(model)
        known = None if engine is None else engine.cost
        return STEP_COSTS["h100-8b"] if known is None else StepCost.from_dict(known)

    def _decode_seconds(self, call: TracedCall) -> float:
        """What an answer takes of the engine, where it shares its steps with others."""
        cost = self._cost(call)
        return call.output_tokens * (cost.step_s / self._batch + cost.decode_s)

    def _seconds(self, call: TracedCall) -> float:
        prefill_tokens = call.prompt_tokens - call.cached_tokens
        return prefill_tokens * self._cost(call).prefill_s + self._decode_seconds(call)


def _mean_running(calls: Sequence[TracedCall]) -> list[tuple[int, float]]:
    """How many requests were on engines, and for how long; not where there were none."""
    changes = sorted(
        [(call.sent_s or call.asked_s, 1) for call in calls] + [(call.end_s, -1) for call in calls]
    )
    found, number = [], 0
    for (start_s, change), (end_s, _) in pairwise(changes):
        number += change
        if number:
            found.append((number, end_s - start_s))
    return found


def _is_chain(calls: Sequence[TracedCall]) -> bool:
    """Whether calls were asked one after another."""
    ordered = sorted(calls, key=lambda call: call.asked_s)
    return all(later.asked_s >= earlier.end_s for earlier, later in pairwise(ordered))


def _late_tokens(calls: Sequence[TracedCall], cacheable: Mapping[int, int]) -> int:
    """Tokens that three prompts or more have, behind what they share with others from the start.

    What a prompt shares with a later one is not late either.
    """
    starts = _shared_starts(calls)
    numbers: Counter[int] = Counter()
    windows: list[set[int]] = []
    for call in calls:
        assert call.answer is not None
        windows.append(_windows(call.answer.prompt))
        numbers.update(windows[-1])
    found = 0
    for call in calls:
        assert call.answer is not None
        rest = call.answer.prompt[max(cacheable.get(call.number, 0), starts[call.number]) :]
        common = sum(numbers[window] >= 3 for window in _windows(rest))
        found += min(len(rest), common * _SAMPLED)
    if len(calls) < 3 or found < _WINDOW_TOKENS * len(calls) / 2:
        return 0
    return found - found // len(calls)  # one of them must be computed


def _shared_starts(calls: Sequence[TracedCall]) -> dict[int, int]:
    """Of each call: how many tokens its prompt has in common with another's, from the start."""
    prompts = [(call.answer.prompt, call.number) for call in calls if call.answer]
    prompts.sort(key=lambda each: each[0].tobytes())  # those with most in common are neighbours
    found = dict.fromkeys((number for _, number in prompts), 0)
    for (one, first), (other, second) in pairwise(prompts):
        shared = num_shared_tokens(one, other)
        found[first] = max(found[first], shared)
        found[second] = max(found[second], shared)
    return found


def _windows(tokens: array[int]) -> set[int]:
    """Hashes of windows of a prompt: one in `_SAMPLED`, the same ones wherever they stand."""
    data = tokens.tobytes()
    width = 4 * _WINDOW_TOKENS
    starts = range(0, len(data) - width + 1, 4)
    hashes = (xxh3_64_intdigest(data[start : start + width]) for start in starts)
    return {each for each in hashes if each % _SAMPLED == 0}
