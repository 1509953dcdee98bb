"""Parts of conversations that several workloads have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from helium_agents import Message, Prompt, Ref, Reply, assistant, gather, llm, prompt, user

Answer = Ref[Reply[None]]
"""An answer that may not be there yet."""


def listed(answers: Mapping[str, Answer]) -> Prompt:
    """The answers under their names, one a line."""
    slots = {f"answer{index}": answer for index, answer in enumerate(answers.values())}
    lines = (f"{name}: {{{slot}}}" for name, slot in zip(answers, slots, strict=True))
    return prompt("\n".join(lines), **slots)


def two_rounds(
    openings: Mapping[str, tuple[Message, ...]], revise: str, max_tokens: int
) -> tuple[dict[str, Answer], dict[str, Answer]]:
    """A debate: all agents answer, read each other, and go on with their own conversations.

    Args:
        openings: What each agent is told, by its name.
        revise: What it is told next, with a slot `{others}`.
        max_tokens: Most tokens of an answer.

    Returns:
        The answers of the first and of the second round, by agent.
    """
    firsts = {name: llm(*opening, max_tokens=max_tokens) for name, opening in openings.items()}
    seconds = {}
    for name, opening in openings.items():
        others = listed({other: first for other, first in firsts.items() if other != name})
        messages = (*opening, assistant(firsts[name]), user(prompt(revise, others=others)))
        seconds[name] = llm(*messages, max_tokens=max_tokens)
    return firsts, seconds


async def texts_of(answers: Iterable[Answer]) -> list[str]:
    """Await answers; their texts, in order."""
    return [reply.text for reply in await gather(*answers)]
