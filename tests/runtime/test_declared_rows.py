"""What open rows have declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from helium_agents import Session, llm, user
from helium_agents.engines.engine import Completion, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.sampling import Sampling
from helium_agents.runtime.declared_rows import DeclaredRows
from helium_agents.runtime.learning.learners import Learners, Mapped


async def run_row(row: Callable[[int], Awaitable[None]]) -> None:
    async with Session(ScriptedEngine()) as session:
        async for _ in session.map(row, [0]):
            pass


def declare(rows: DeclaredRows, text: str, **options: Any) -> Any:
    ref = llm(user(text), **options)
    assert isinstance(ref.node, LlmNode)
    rows.declare(ref.node)
    return ref


async def test_answers_are_as_long_as_like_ones_were_and_no_longer_than_they_may_be() -> None:
    learners = Learners(None, b"", "scripted")
    rows = DeclaredRows(learners)

    async def row(_: int) -> None:
        declare(rows, "a", max_tokens=100)
        declare(rows, "b", max_tokens=10)
        known = rows.forecast([], mapped.learner, 8, 64)
        assert [call.output_tokens for call in known.rows[0]] == [20, 10]
        unknown = rows.forecast([], None, 8, 64)
        assert [call.output_tokens for call in unknown.rows[0]] == [100, 10]

    mapped = Mapped(row, None)
    learners.begin(0, mapped)
    for number in range(8):
        request = Request(f"r{number}", (), [1], Sampling(max_tokens=100), item=0)
        learners.ask(request, 0.0)
        learners.answer(request, Completion((), output_tokens=20), 0.0, 1.0)
    await run_row(row)


@pytest.mark.parametrize("is_answered", [False, True])
async def test_calls_after_a_rows_first_answer_are_not_declared_any_more(is_answered: bool) -> None:
    rows = DeclaredRows(Learners(None, b"", "scripted"))

    async def row(_: int) -> None:
        first = declare(rows, "a")
        if is_answered:
            await first
        declare(rows, "b")
        found = rows.forecast([], None, 8, 64)
        assert [len(calls) for calls in found.rows] == ([] if is_answered else [2])

    await run_row(row)
    assert len(rows) == 1
    assert rows.end(0) == (not is_answered), "whether it had declared all"
    assert len(rows) == 0
