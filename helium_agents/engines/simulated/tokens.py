"""A simulated engine whose texts are token ids, so that prompts are told exactly.

A message is numbers with spaces between them; what is in brackets is text that no prompt has. An
answer that is shorter than it might be has ended by itself: its last token is not in its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from helium_agents.engines.engine import ChatMessage, Choice, Completion, OnDelta, Request
from helium_agents.engines.simulated.engine import SimulatedEngine


class TokenEngine(SimulatedEngine):
    """`SimulatedEngine` for messages of token ids; answers are such texts too."""

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        """The token ids of all messages."""
        found = []
        for message in messages:
            before, *others = message.content.split("[")
            rest = "".join(each.partition("]")[2] for each in others)
            found += [int(word) for word in f"{before} {rest}".split()]
        return found

    async def complete(self, request: Request, on_delta: OnDelta | None = None) -> Completion:
        """As a simulated engine does, with the token ids as text."""
        completion = await super().complete(request, on_delta)
        token_ids = completion.choices[0].token_ids
        if len(token_ids) < request.max_tokens:
            choice = Choice(token_text(token_ids[:-1]), token_ids, "stop")
        else:
            choice = Choice(token_text(token_ids), token_ids, "length")
        return completion._replace(choices=(choice,))

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The first tokens."""
        kept = choice.token_ids[:max_tokens]
        return Choice(token_text(kept), kept, "length")


def token_text(token_ids: Iterable[int]) -> str:
    """Token ids as the text of a message."""
    return " ".join(map(str, token_ids))
