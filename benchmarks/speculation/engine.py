"""A simulated engine that says what a script says, word by word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    OnDelta,
    Request,
    WrittenCall,
)
from helium_agents.engines.scripted_reply import TOKEN
from helium_agents.engines.simulated.engine import SimulatedEngine
from helium_agents.optimizer.step_cost import StepCost

KV_TOKENS = 64 * 1024
BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Said:
    """What a model says.

    Args:
        text: Its words are one token each.
        hidden_tokens: Before it: what is thought, or what a call of a tool is written with.
        calls: Of tools.
    """

    text: str = ""
    hidden_tokens: int = 0
    calls: tuple[WrittenCall, ...] = ()

    @property
    def num_tokens(self) -> int:
        """All of it, with the end."""
        return self.hidden_tokens + len(TOKEN.findall(self.text)) + 1


Truth = Callable[[Sequence[ChatMessage]], Said]
"""What a model says to a conversation."""


class ScriptEngine(SimulatedEngine):
    """Answers as a script says, at the cost of so many tokens.

    Args:
        cost: What a step takes.
        truth: The script.
    """

    follows_schemas = True
    calls_tools = True

    def __init__(self, cost: StepCost, truth: Truth) -> None:
        self._truth = truth
        limits = Capacity(KV_TOKENS, BLOCK_TOKENS)
        super().__init__(cost, limits, lambda request: truth(request.messages).num_tokens)

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> Sequence[int]:
        """One token for each word, and for what is beside it."""
        return await self._text.render(messages, tools)

    def piece(self, request: Request, number: int) -> str:
        """The word, after what is hidden."""
        said = self._truth(request.messages)
        words = TOKEN.findall(said.text)
        at = number - said.hidden_tokens
        return words[at] if 0 <= at < len(words) else ""

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """Answer when its last token is there."""
        completion = await super().complete(request, on_delta)
        (choice,) = completion.choices
        said = self._truth(request.messages)
        choice = Choice(said.text, choice.token_ids, "stop", None, said.calls)
        return completion._replace(choices=(choice,))
