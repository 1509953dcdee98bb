"""The LangGraph example gives the same with its one line and without, for fewer requests."""

from __future__ import annotations

import pytest

pytest.importorskip("langgraph", reason="pip install 'helium_agents[langgraph]'")

from agents_examples.langgraph_app import MAX_ROUNDS, main


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_plain_and_planned_are_equal() -> None:
    plain, num_plain = await main(is_planned=False)
    planned, num_planned = await main(is_planned=True)
    assert plain == planned and len(plain) == 12
    assert num_plain == 12 * (3 + 2 * MAX_ROUNDS)
    assert num_planned <= 12 * (2 + 2 * MAX_ROUNDS)  # two of three readers are the same
