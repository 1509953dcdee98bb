"""What a pure operator returns depends on the models that its body asks: they are in its key."""

from __future__ import annotations

from pathlib import Path

from helium_agents import Session, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine


@operator(pure=True)
async def summary(text: str) -> str:
    return (await llm(user(text))).text


def model(name: str) -> ScriptedEngine:
    return ScriptedEngine(lambda _: f"{name}'s answer", identity=name)


async def answer_of(name: str, memo: Path) -> tuple[str, int]:
    async with Session(engine=model(name), memo=memo) as session:
        answer = await summary("a text")
        return answer, session.summary.num_computed


async def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    assert await answer_of("small", tmp_path) == ("small's answer", 1)
    assert await answer_of("large", tmp_path) == ("large's answer", 1)
    assert await answer_of("small", tmp_path) == ("small's answer", 0)
