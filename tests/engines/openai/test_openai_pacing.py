"""Rate limits hold requests back, in their order, and say so."""

from __future__ import annotations

import asyncio

import pytest
from scripted_server import MODEL, Refusal, ScriptedServer, until

from helium_agents import OpenAIServer, Session, gather, llm, user


@pytest.mark.parametrize(
    ("limits", "num_sent"),
    [({"requests_per_minute": 3}, 3), ({"tokens_per_minute": 200}, 4)],
)
async def test_a_rate_limit_is_kept(
    server: ScriptedServer, limits: dict[str, int], num_sent: int
) -> None:
    async with Session(OpenAIServer(server.url, MODEL, **limits)) as session:
        calls = [llm(user(f"q{number}"), max_tokens=50) for number in range(9)]
        for call in calls:
            call.start()
        await until(lambda: len(server.bodies) >= num_sent and not server.num_open)
        waiting = f"wait for their turn by the rate limit: {9 - num_sent}"
        await until(lambda: waiting in session.waiting())
        assert len(server.bodies) == num_sent
        asked = [body["messages"][0]["content"] for body in server.bodies]
        assert sorted(asked) == [f"q{number}" for number in range(num_sent)]


async def test_a_request_larger_than_a_minutes_tokens_goes_all_the_same(
    server: ScriptedServer,
) -> None:
    async with Session(OpenAIServer(server.url, MODEL, tokens_per_minute=10)):
        await llm(user("hello"), max_tokens=50)


async def test_a_pause_that_the_server_asks_for_holds_all_back(server: ScriptedServer) -> None:
    server.misbehaviours += [Refusal(429, headers={"retry-after": "30"}), "hang"]
    async with Session(OpenAIServer(server.url, MODEL)) as session:
        first = llm(user("first"))
        first.start()
        await until(lambda: "wait as long as the server asked: 1" in session.waiting())
        later = gather(*(llm(user(f"q{number}")) for number in range(3)))
        task = asyncio.ensure_future(later)
        await until(lambda: "wait for their turn by the rate limit: 4" in session.waiting())
        assert len(server.bodies) == 1
        task.cancel()
