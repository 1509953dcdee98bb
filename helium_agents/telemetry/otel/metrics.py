"""Metrics of what has ended: durations, tokens that were used, and calls that were saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.attributes import Attributes, of_model, short_name
from helium_agents.telemetry.otel.records import (
    Agent,
    Answer,
    Began,
    Chat,
    Ended,
    Tool,
    Workflow,
)

_DURATIONS = {
    names.AGENT_DURATION: "How long an operator's call took.",
    names.CLIENT_DURATION: "How long a model call took that an engine was asked.",
    names.CLIENT_FIRST_CHUNK: "From asking an engine until its first text.",
    names.TOOL_DURATION: "How long a tool took.",
    names.WORKFLOW_DURATION: "How long a map or a run took.",
}


class Count:
    """A counter that is asked for its totals when metrics are sent, which costs calls nothing."""

    def __init__(self, meter: Meter, name: str, unit: str, what: str) -> None:
        self._totals: Counter[tuple[tuple[str, Any], ...]] = Counter()
        meter.create_observable_counter(name, [self._observe], unit, what)

    def add(self, number: int, attributes: Attributes) -> None:
        """Count."""
        self._totals[tuple(attributes.items())] += number

    def _observe(self, _: CallbackOptions) -> Iterator[Observation]:
        for attributes, total in self._totals.copy().items():
            yield Observation(total, dict(attributes))


class Metrics:
    """Instruments of a meter."""

    def __init__(self, meter: Meter) -> None:
        self._seconds: dict[str, Histogram] = {}
        for name, what in _DURATIONS.items():
            is_first = name == names.CLIENT_FIRST_CHUNK
            buckets = names.FIRST_CHUNK_BUCKETS if is_first else names.SECONDS_BUCKETS
            self._seconds[name] = meter.create_histogram(
                name, "s", what, explicit_bucket_boundaries_advisory=buckets
            )
        self._tokens = meter.create_histogram(
            names.CLIENT_TOKENS,
            "{token}",
            "Tokens that engines were sent and computed.",
            explicit_bucket_boundaries_advisory=names.TOKENS_BUCKETS,
        )
        self._tokens_saved = Count(
            meter, names.TOKENS_SAVED, "{token}", "Tokens of answers that needed no engine."
        )
        self._calls = Count(
            meter, names.CALLS, "{call}", "Model calls by how they came to their answer."
        )

    def record(self, began: Began, ended: Ended) -> None:
        """Take what has ended."""
        seconds = max(ended.end_ns - began.start_ns, 0) / 1e9
        failure: Attributes = {} if ended.error is None else {names.ERROR_TYPE: ended.error[0]}
        match began.work:
            case Workflow(name=name):
                about: Attributes = {names.WORKFLOW_NAME: name}
                self._seconds[names.WORKFLOW_DURATION].record(seconds, about | failure)
            case Agent(name=name):
                about = {names.AGENT_NAME: short_name(name)}
                self._seconds[names.AGENT_DURATION].record(seconds, about | failure)
            case Tool(name=name):
                about = {names.TOOL_NAME: name}
                self._seconds[names.TOOL_DURATION].record(seconds, about | failure)
            case Chat() as chat if ended.answer is not None:
                about = {names.OPERATION_NAME: names.CHAT} | of_model(chat)
                self._record_call(ended.answer, seconds, about, failure)

    def _record_call(
        self, answer: Answer, seconds: float, about: Attributes, failure: Attributes
    ) -> None:
        self._calls.add(1, about | failure | {names.SOURCE: answer.source})
        counts = {"input": answer.prompt_tokens, "output": answer.output_tokens}
        if answer.source != "engine":
            for kind, num_tokens in counts.items():
                self._tokens_saved.add(num_tokens, about | {names.TOKEN_TYPE: kind})
            return
        self._seconds[names.CLIENT_DURATION].record(seconds, about | failure)
        if failure:
            return
        for kind, num_tokens in counts.items():
            self._tokens.record(num_tokens, about | {names.TOKEN_TYPE: kind})
        if answer.first_token_s is not None:
            self._seconds[names.CLIENT_FIRST_CHUNK].record(answer.first_token_s, about)
