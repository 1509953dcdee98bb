"""The walk of one cold call does not grow in silence."""

from __future__ import annotations

from benchmarks.walk import Walk, walk_of
from helium_agents import llm, user


async def walk() -> Walk:
    return await walk_of(lambda text: llm(user(text)))


async def test_a_cold_call_makes_so_many_calls_and_no_more() -> None:
    found = await walk()
    assert 20 < len(found.calls) < 100
    assert found.num_changes <= 40
    assert found.num_files <= 25
    assert found.calls[0][0] == "authoring/messages.py"


async def test_it_is_the_same_each_time() -> None:
    assert (await walk()).calls == (await walk()).calls
