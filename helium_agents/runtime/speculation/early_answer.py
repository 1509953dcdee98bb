"""An early answer: what is computed, or there, before anybody has asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.outcome import Value
from helium_agents.runtime.dispatch.idle_requests import IdleRequests
from helium_agents.runtime.record import Answer


@dataclass(eq=False, slots=True)
class EarlyAnswer:
    """One of them.

    Args:
        key: That of the call.
        label: What a person calls it.
        ended: Made done when it is there, or will never be.
        stake: What was set on it, for who asked for it; opaque here.
        wanted_by: Who wants it; the first has begun it.
        task: What computes it.
        idle: Where its request waits or runs.
        request: What the engine is asked.
        sent_s: When it was begun last, by the event loop's clock; `None` while it waits.
        end_s: When it was there.
        is_there: Whether it was computed.
        value: A `Completion`, or the value of an operator.
        error: What computing it failed with.
        is_claimed: Whether somebody has asked for it.
    """

    key: bytes
    label: str
    ended: asyncio.Future[None]
    stake: Any = None
    wanted_by: dict[Hashable, None] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    idle: IdleRequests | None = None
    request: Request | None = None
    sent_s: float | None = None
    end_s: float = 0.0
    is_there: bool = False
    value: Any = None
    error: BaseException | None = None
    is_claimed: bool = False

    def begun(self) -> None:
        """Its computation proper begins."""
        self.sent_s = asyncio.get_running_loop().time()

    def promote(self) -> bool:
        """Its request is as any other from now on; whether it runs."""
        idle, request = self.idle, self.request
        return idle is not None and request is not None and idle.promote(request)

    @property
    def outcome(self) -> Value:
        """What the call came to, before its own form is made of it."""
        value = self.value
        if isinstance(value, Completion):
            value = Answer(value.choices, value.prompt_tokens, value.output_tokens)
        return Value(value)

    @property
    def seconds(self) -> float:
        """How long it was computed so far."""
        end_s = self.end_s if self.is_there else asyncio.get_running_loop().time()
        return 0.0 if self.sent_s is None else end_s - self.sent_s

    @property
    def tokens(self) -> int | None:
        """What an engine has computed for it; `None` where that is not known."""
        if isinstance(self.value, Completion):
            value = self.value
            return value.prompt_tokens - value.cached_tokens + value.output_tokens
        return 0 if self.request is None or self.sent_s is None else None
