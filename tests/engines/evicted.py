"""What hints on a cache do, seen by what is left in it."""

from __future__ import annotations

from typing import Any

from helium_agents.engines.engine import Completion, Engine, Request
from helium_agents.graph.sampling import Sampling


async def left_of_the_first(engine: Engine, prompt_tokens: int, **hints: Any) -> int:
    """Tokens that are left of the first of four prompts, of which three nearly fill the cache.

    Args:
        engine: Its cache is empty.
        prompt_tokens: Of each prompt: a little less than a third of the cache.
        **hints: What is said with the fourth.
    """

    async def ask(name: str, first: int, **more: Any) -> Completion:
        prompt = [first + number % 50 for number in range(prompt_tokens)]
        request = Request(name, (), prompt, Sampling(max_tokens=1))
        request.hints = {"helium_session": name, **more}
        return await engine.complete(request)

    for number, name in enumerate("abc"):
        await ask(name, 500 + 100 * number)
    await ask("d", 900, **hints)
    return (await ask("a2", 500)).cached_tokens
