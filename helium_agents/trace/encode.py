"""Events as the records of a chunk: JSON, with texts and token ids in tables beside them.

A record is an object with its `kind` and, but for calls and answers, the time `t` at which it came,
in seconds of the event loop's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

from helium_agents.errors import in_words
from helium_agents.telemetry.events import (
    CallSettled,
    EngineDescribed,
    EngineLost,
    EngineStarted,
    EngineStepped,
    Event,
    Guessed,
    ItemClosed,
    ItemOpened,
    MapOpened,
    OperatorCall,
    Planned,
    ProfileMisfit,
    RequestAnswered,
    ScheduleChosen,
    Speculated,
    ToolEnded,
)
from helium_agents.trace.front_coding import Texts, TokenSequences

KINDS: dict[type[Any], str] = {
    EngineDescribed: "engine",
    EngineLost: "engine lost",
    EngineStarted: "engine started",
    MapOpened: "map",
    Planned: "plan",
    ProfileMisfit: "misfit",
    ScheduleChosen: "schedule",
    Speculated: "speculated",
    Guessed: "guessed",
}
"""Events that are kept as they are, by kind."""

KEPT = (
    *KINDS, EngineStepped, ItemOpened, ItemClosed, RequestAnswered, ToolEnded, CallSettled,
)  # fmt: skip
"""Events that are kept at all."""


def encoded(events: Iterable[tuple[float, Event]], *, has_content: bool) -> dict[str, Any]:
    """The content of a chunk.

    Args:
        events: With the times at which they came.
        has_content: Whether the texts of prompts and answers are kept, and those of errors, which
            may quote them; else the errors' types are.
    """
    chunk = _Chunk(has_content)
    for time_s, event in events:
        chunk.add(time_s, event)
    return {
        "texts": chunk.texts.coded(),
        "tokens": chunk.tokens.coded(),
        "records": chunk.records,
    }


def _fields_of(event: Event) -> dict[str, Any]:
    return (
        event._asdict() if isinstance(event, Speculated | Guessed) else asdict(cast("Any", event))
    )


def _steps(event: EngineStepped, time_s: float) -> dict[str, Any]:
    windows = [[round(value, 4) for value in window] for window in event.windows]
    named = {"model": event.model, "engine": event.engine}
    return {"kind": "steps", "t": time_s, **named, "windows": windows}


class _Chunk:
    """What is collected of a chunk."""

    def __init__(self, has_content: bool) -> None:
        self.texts, self.tokens = Texts(), TokenSequences()
        self.records: list[dict[str, Any]] = []
        self._has_content = has_content
        self._bodies: set[int] = set()

    def add(self, time_s: float, event: Event) -> None:
        match event:
            case CallSettled():
                self.records.append(self._call(event))
            case RequestAnswered():
                self.records.append(self._answer(event))
            case ToolEnded():
                self.records.append(self._tool(event))
            case ItemOpened() | ItemClosed():
                self.records.append(self._item(event, time_s))
            case EngineStepped():
                self.records.append(_steps(event, time_s))
            case _:
                kind, kept = KINDS[type(event)], _fields_of(event)
                if isinstance(event, EngineLost) and not self._has_content:
                    kept["reason"] = ""
                self.records.append({"kind": kind, "t": time_s, **kept})

    def _call(self, event: CallSettled) -> dict[str, Any]:
        self._add_body(event.body)
        usage = event.usage
        return {
            "kind": event.kind,
            "call": event.call,
            "label": event.label,
            "source": event.source,
            "body": event.parent,
            "leader": event.leader,
            "item": event.item,
            "model": event.model,
            "inputs": event.inputs,
            "below": event.calls_below,
            "error": self._error(event.error),
            "request": usage.request_id,
            "times": (usage.asked_s, usage.sent_s, usage.first_token_s, usage.end_s),
            "engine": (usage.begun_s, usage.read_s),
            "tokens": (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens),
            "attempts": usage.num_attempts,
        }

    def _add_body(self, body: OperatorCall | None) -> None:
        """The operator calls around a call, once in each chunk."""
        while body is not None and body.number not in self._bodies:
            self._bodies.add(body.number)
            caller = 0 if body.caller is None else body.caller.number
            record = {"kind": "body", "call": body.number, "name": body.name, "body": caller}
            self.records.append(record)
            body = body.caller

    def _answer(self, event: RequestAnswered) -> dict[str, Any]:
        record: dict[str, Any] = {
            "kind": "answer",
            "request": event.request_id,
            "prompt": self.tokens.add(event.prompt_token_ids),
            "outputs": [self.tokens.add(ids) for ids in event.token_ids],
            "max_tokens": event.max_tokens,
            "finish": event.finish_reasons,
        }
        if self._has_content:
            messages = event.messages
            record["messages"] = [(role, self.texts.add(text)) for role, text in messages]
            record["texts"] = [self.texts.add(text) for text in event.texts]
            record["tool_calls"] = event.tool_calls
        return record

    def _tool(self, event: ToolEnded) -> dict[str, Any]:
        self._add_body(event.body)
        record: dict[str, Any] = {
            "kind": "tool",
            "t": event.ended_s,
            "begun": event.begun_s,
            "name": event.name,
            "body": 0 if event.body is None else event.body.number,
            "item": event.item,
            "error": self._error(event.error),
        }
        if self._has_content:
            record["arguments"] = event.arguments
        return record

    def _item(self, event: ItemOpened | ItemClosed, time_s: float) -> dict[str, Any]:
        record: dict[str, Any] = {
            "kind": "item opened" if isinstance(event, ItemOpened) else "item closed",
            "t": time_s,
            "index": event.index,
            "nested": event.is_nested,
            "item": event.item,
        }
        if isinstance(event, ItemClosed):
            record["error"] = self._error(event.error)
            record["ended"] = time_s if event.ended_s is None else event.ended_s
        return record

    def _error(self, error: BaseException | None) -> str | None:
        """An error in words, or by its type: its message may quote a prompt or an answer."""
        if error is None:
            return None
        return in_words(error) if self._has_content else type(error).__name__
