"""The running count of what was asked, what was computed, and what was saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from helium_agents.errors import RefCancelled
from helium_agents.telemetry.events import (
    CallSettled,
    EngineStarted,
    Event,
    ItemClosed,
    ProfileMisfit,
    ScheduleChosen,
    SpansLost,
    Speculated,
)


@dataclass
class Summary:
    """Counts of a session; an observer.

    Args:
        num_items: Items of top-level maps that ended.
        num_failed_items: Those that failed.
        num_failed_calls: Model calls that ended in an error.
        num_cancelled_calls: Model calls that an engine was asked, and that were then cancelled,
            since nobody waited for them any more (a timeout, say).
        calls_by_source: Answered model calls by how their answer came about.
        operators_by_source: Pure operator calls likewise.
        num_calls_below: Model calls that were never made, since they only lead up to an answer
            that was there already.
        prompt_tokens: Prompt tokens sent to engines.
        cached_tokens: Those that were in the engine's prefix cache.
        output_tokens: Tokens computed by engines.
        saved_prompt_tokens: Prompt tokens of calls that needed no engine.
        saved_output_tokens: Output tokens of calls that needed no engine.
        engine_start_s: Seconds spent starting engines.
        policy: Which rows the planner has open at once, in words, by its last choice; empty where
            it made none.
        policy_source: Whence was known what rows will ask when it was chosen.
        predicted_gain: By how much that was predicted to be faster than having all open.
        predicted_s: How long the rows that were looked at were predicted to take; `None` where
            nothing was.
        misfits: What of earlier runs did not fit this one, in words.
        choosing_s: Seconds spent on such choices.
        num_lost_spans: Spans that could not be sent to OpenTelemetry's collector.
        num_early: Calls whose answer was computed before they were asked for.
        early_s: How long these had been computed by then, together.
        num_given_up: Calls that were computed early, and that nobody asked for.
        wasted_tokens: Tokens computed for these.
    """

    num_items: int = 0
    num_failed_items: int = 0
    num_failed_calls: int = 0
    num_cancelled_calls: int = 0
    calls_by_source: Counter[str] = field(default_factory=Counter)
    operators_by_source: Counter[str] = field(default_factory=Counter)
    num_calls_below: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    saved_prompt_tokens: int = 0
    saved_output_tokens: int = 0
    engine_start_s: float = 0.0
    policy: str = ""
    policy_source: str = ""
    predicted_gain: float = 1.0
    predicted_s: float | None = None
    misfits: list[str] = field(default_factory=list)
    choosing_s: float = 0.0
    num_lost_spans: int = 0
    num_early: int = 0
    early_s: float = 0.0
    num_given_up: int = 0
    wasted_tokens: int = 0

    def __call__(self, event: Event) -> None:
        """Count one event."""
        count = _COUNTS.get(type(event))  # most events count nothing here
        if count is not None:
            count(self, event)

    @property
    def num_calls(self) -> int:
        """Model calls that the program made."""
        answered = sum(self.calls_by_source.values())
        return answered + self.num_failed_calls + self.num_cancelled_calls

    @property
    def num_plain_calls(self) -> int:
        """Model calls that the plain program would have made."""
        return self.num_calls + self.num_calls_below

    @property
    def num_saved(self) -> int:
        """Model calls of the plain program that got an answer without an engine."""
        unanswered = self.num_failed_calls + self.num_cancelled_calls
        return self.num_plain_calls - self.num_computed - unanswered

    @property
    def num_computed(self) -> int:
        """Model calls that an engine computed."""
        return self.calls_by_source["engine"]

    @property
    def prefix_hit_rate(self) -> float:
        """Share of the sent prompt tokens that the prefix cache had, from 0 to 1."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def as_dict(self) -> dict[str, str | int | float | None]:
        """The counts under stable names, for JSON."""
        calls = self.calls_by_source
        return {
            "items": self.num_items,
            "failed_items": self.num_failed_items,
            "calls": self.num_calls,
            "failed_calls": self.num_failed_calls,
            "cancelled_calls": self.num_cancelled_calls,
            "computed": self.num_computed,
            "merged": calls["merged"] + calls["joined"],
            "memo_hits": calls["memo"],
            "earlier_hits": calls["earlier"],
            "prefix_answers": calls["prefix"],
            "operator_calls": sum(self.operators_by_source.values()),
            "operator_memo_hits": self.operators_by_source["memo"],
            "operator_earlier_hits": self.operators_by_source["earlier"],
            "calls_below": self.num_calls_below,
            "plain_calls": self.num_plain_calls,
            "saved_calls": self.num_saved,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "saved_prompt_tokens": self.saved_prompt_tokens,
            "saved_output_tokens": self.saved_output_tokens,
            "prefix_hit_rate": round(self.prefix_hit_rate, 4),
            "engine_start_s": round(self.engine_start_s, 3),
            "policy": self.policy,
            "policy_source": self.policy_source,
            "predicted_s": self.predicted_s,
            "profile_misfits": "; ".join(self.misfits),
            "predicted_gain": round(self.predicted_gain, 3),
            "choosing_s": round(self.choosing_s, 3),
            "lost_spans": self.num_lost_spans,
            "early_calls": self.num_early,
            "early_s": round(self.early_s, 3),
            "early_given_up": self.num_given_up,
            "wasted_tokens": self.wasted_tokens,
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: the counts that are not zero."""
        shown = {
            name: value for name, value in self.as_dict().items() if value not in (0, "", None)
        }
        cells = (
            f"<tr><th style='text-align: left'>{escape(name.replace('_', ' '))}</th>"
            f"<td>{escape(_shown(value))}</td></tr>"
            for name, value in shown.items()
        )
        return f"<table>{''.join(cells)}</table>"

    def _count_settled(self, event: CallSettled) -> None:
        if event.kind == "llm":
            self._count_call(event)
        else:
            self.operators_by_source[event.source] += 1
        self.num_calls_below += event.calls_below

    def _count_item(self, event: ItemClosed) -> None:
        if not event.is_nested:
            self.num_items += 1
            self.num_failed_items += event.error is not None

    def _count_start(self, event: EngineStarted) -> None:
        self.engine_start_s += event.seconds

    def _note_schedule(self, event: ScheduleChosen) -> None:
        self.policy, self.predicted_gain = event.policy, event.gain
        self.policy_source, self.predicted_s = event.source, event.predicted_s
        self.choosing_s += event.seconds

    def _note_misfit(self, event: ProfileMisfit) -> None:
        self.misfits.append(event.reason)

    def _count_lost_spans(self, event: SpansLost) -> None:
        self.num_lost_spans += event.num_spans

    def _count_speculated(self, event: Speculated) -> None:
        self.num_early += event.is_used
        self.num_given_up += not event.is_used
        self.early_s += event.saved_s
        self.wasted_tokens += event.wasted_tokens

    def _count_call(self, call: CallSettled) -> None:
        if isinstance(call.error, RefCancelled):
            self.num_cancelled_calls += 1
            return
        if call.error is not None:
            self.num_failed_calls += 1
            return
        self.calls_by_source[call.source] += 1
        usage = call.usage
        if call.source == "engine":
            self.prompt_tokens += usage.prompt_tokens
            self.cached_tokens += usage.cached_tokens
            self.output_tokens += usage.output_tokens
        else:
            self.saved_prompt_tokens += usage.prompt_tokens
            self.saved_output_tokens += usage.output_tokens


_COUNTS: dict[type[Any], Callable[[Summary, Any], None]] = {
    CallSettled: Summary._count_settled,
    EngineStarted: Summary._count_start,
    ItemClosed: Summary._count_item,
    ProfileMisfit: Summary._note_misfit,
    ScheduleChosen: Summary._note_schedule,
    SpansLost: Summary._count_lost_spans,
    Speculated: Summary._count_speculated,
}


def _shown(value: str | float | None) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
