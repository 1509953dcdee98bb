"""A traced run by operator: what its model calls asked, what they got, and how long that took."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from helium_agents.optimizer.prefix_tree import PrefixTree
from helium_agents.trace.run import TracedCall, TracedRun


@dataclass
class OperatorRow:
    """The model calls that were made in the bodies of an operator, of one place in the call tree.

    Args:
        path: The operators' names, outermost first; empty for calls outside of any.
        num_calls: Model calls.
        num_computed: Those that an engine computed.
        num_merged: Those that took another's answer while that was under way.
        num_remembered: Those that the memo or an earlier part of the run had answered.
        num_failed: Those that failed, or were left.
        prompt_tokens: Of the computed ones, like all below.
        cached_tokens: What the engine had of them.
        cacheable_tokens: What it could have had of them: what earlier requests began with.
        output_tokens: Of their answers.
        most_output_tokens: Of their answers at most, by `max_tokens`.
        num_cut: Answers that ended at `max_tokens`.
        queued_s: From when the engine was there, and the call's inputs, until it began.
        engine_s: From then until the answer.
    """

    path: tuple[str, ...]
    num_calls: int = 0
    num_computed: int = 0
    num_merged: int = 0
    num_remembered: int = 0
    num_failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cacheable_tokens: int = 0
    output_tokens: int = 0
    most_output_tokens: int = 0
    num_cut: int = 0
    queued_s: float = 0.0
    engine_s: float = 0.0

    @property
    def name(self) -> str:
        """The innermost operator."""
        return self.path[-1] if self.path else "(no operator)"

    def add(self, call: TracedCall, ready_s: float, cacheable_tokens: int) -> None:
        """Count a call that might have begun at `ready_s`."""
        self.num_calls += 1
        if call.error is not None:
            self.num_failed += 1
        elif call.source in ("memo", "earlier"):
            self.num_remembered += 1
        elif not call.is_computed:
            self.num_merged += 1
        else:
            self.num_computed += 1
            self.prompt_tokens += call.prompt_tokens
            self.cached_tokens += call.cached_tokens
            self.cacheable_tokens += cacheable_tokens
            self.output_tokens += call.output_tokens
            sent_s = call.asked_s if call.sent_s is None else call.sent_s
            self.queued_s += max(0.0, sent_s - ready_s)
            self.engine_s += call.end_s - sent_s
            if call.answer is not None:
                reasons = call.answer.finish_reasons
                self.most_output_tokens += len(reasons) * call.answer.max_tokens
                self.num_cut += reasons.count("length")


def by_operator(run: TracedRun, cacheable: Mapping[int, int] | None = None) -> list[OperatorRow]:
    """The rows of a run, callers before what they call.

    Args:
        run: The run.
        cacheable: Its `cacheable_tokens`, where they are there already.
    """
    paths = Paths(run)
    cacheable = cacheable_tokens(run) if cacheable is None else cacheable
    rows: dict[tuple[str, ...], OperatorRow] = {}
    ready_s = ready_times(run)
    for call in run.calls:
        if call.kind != "llm":
            continue
        path = paths.of(call.body)
        for length in range(len(path) + 1):  # callers without calls of their own have rows too
            if length or not path:
                rows.setdefault(path[:length], OperatorRow(path[:length]))
        rows[path].add(call, ready_s[call.number], cacheable.get(call.number, 0))
    return [rows[path] for path in sorted(rows)]


def ready_times(run: TracedRun) -> dict[int, float]:
    """When each model call's inputs were there, and its part's engine."""
    starts = [part.start_s for part in run.parts]
    first_sent_s: dict[int, float] = {}
    for call in run.computed:
        part, sent_s = bisect_right(starts, call.asked_s), call.sent_s or call.asked_s
        first_sent_s[part] = min(sent_s, first_sent_s.get(part, sent_s))
    found = {}
    for call in run.calls:
        if call.kind == "llm":
            came_s = (run.by_number[each].end_s for each in call.inputs if each in run.by_number)
            begun_s = first_sent_s.get(bisect_right(starts, call.asked_s), 0.0)
            found[call.number] = max(call.asked_s, *came_s, begun_s)
    return found


class Paths:
    """The names of the operators around a body, outermost first, each time they recur once."""

    def __init__(self, run: TracedRun) -> None:
        self._bodies = run.bodies
        self._known: dict[int, tuple[str, ...]] = {0: ()}

    def of(self, body: int) -> tuple[str, ...]:
        """The path of a body, by its number."""
        inner: list[int] = []
        while body not in self._known:
            inner.append(body)
            found = self._bodies.get(body)
            body = 0 if found is None else found.body
        path = self._known[body]
        for number in reversed(inner):
            name = short_name(self._bodies[number].name) if number in self._bodies else "?"
            path = path[: path.index(name) + 1] if name in path else (*path, name)
            self._known[number] = path
        return path


def short_name(name: str) -> str:
    """An operator's name without its module: ``flow:Team.answer`` is ``Team.answer``."""
    return name.rpartition(":")[2].replace("<locals>.", "")


def cacheable_tokens(run: TracedRun) -> dict[int, int]:
    """Of each computed call: the prompt tokens that an engine which forgets nothing would have.

    In whole blocks, and not the last token, which is computed in any case.
    """
    found: dict[int, int] = {}
    for model, calls in _by_model(run.computed).items():
        capacity = run.engines[model].capacity if model in run.engines else None
        block_tokens = 16 if capacity is None else capacity["block_tokens"]
        tree = PrefixTree()
        for call in calls:
            assert call.answer is not None
            prompt = call.answer.prompt
            shared = min(tree.insert(prompt, None), max(0, len(prompt) - 1))
            found[call.number] = max(shared // block_tokens * block_tokens, call.cached_tokens)
            for output in call.answer.outputs[:1]:
                tree.insert(prompt + output[:-1], None)
    return found


def _by_model(calls: Iterable[TracedCall]) -> dict[str, Sequence[TracedCall]]:
    """Calls that have a prompt, by model, in the order in which they were sent."""
    found: dict[str, list[TracedCall]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.sent_s or call.asked_s):
        if call.answer is not None and call.answer.prompt:
            found[call.model].append(call)
    return dict(found)
