"""Workflows over made-up rows with everything that a killed run must not lose; for `kill_runs`."""

from __future__ import annotations

from pydantic import BaseModel

from helium_agents import gather, llm, operator, prompt, user


class Row(BaseModel):
    text: str


@operator(pure=True)
async def fact(text: str) -> str:
    return (await llm(user(f"a fact about {text}"))).text


@operator
async def steady(row: Row) -> list[str]:
    """Deterministic calls only; some are shared by all rows."""
    shared = llm(user("what all rows ask"))
    critique = llm(user(prompt("criticise {it}", it=fact(row.text))))
    verdict = llm(user(prompt("{critique} {shared} {text}", critique=critique, shared=shared,
                              text=row.text)))  # fmt: skip
    again = await llm(user(f"{(await verdict).text} again"))
    return [await fact(row.text), (await critique).text, (await verdict).text, again.text]


@operator
async def view(text: str, role: str) -> list[str]:
    draft = llm(user(f"{role}: draft {text}"), temperature=1)
    better = llm(user(prompt("improve {draft}", draft=draft)))
    return [(await draft).text, (await better).text]


@operator
async def drawn(row: Row) -> list[str]:
    """Unseeded samples: several at once, in siblings that ask the same, one after another."""
    samples = llm(user(f"guess {row.text}"), temperature=1, n=2)
    views = await gather(view(row.text, "poet"), view(row.text, "poet"), view(row.text, "critic"))
    first = await llm(user(await fact(row.text)), temperature=1)
    second = await llm(user(f"{first.text} or not?"), temperature=1)
    texts = [choice.text for choice in (await samples).choices]
    return [*texts, *(text for both in views for text in both), first.text, second.text]
