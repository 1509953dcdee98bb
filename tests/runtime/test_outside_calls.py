"""Outside calls: how many are open beside guesses, and how long they took."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.optimizer.speculation_cost import Outside
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.speculation.outside_calls import OutsideCalls


class Demand:
    """A dispatcher of which a test says how much it has."""

    num_requests = 0

    def num_demanded(self, model: str | None) -> int:
        return self.num_requests


async def _take(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_how_many_there_are_and_usually_are() -> None:
    async def scenario() -> None:
        demand = Demand()
        calls = OutsideCalls(cast(Dispatcher, demand))
        demand.num_requests = 3
        calls.begin("small", asyncio.create_task(_take(2.0)), is_inside=True)
        assert calls.seen("small").num_now == 2
        outside = asyncio.create_task(_take(1.0))
        calls.begin("small", outside, is_inside=False)
        await asyncio.sleep(4.0)
        assert calls.seen("small").num_now == 3  # none is inside any more
        assert calls.seen("small").usual == pytest.approx(0.25)  # one for one of four seconds
        assert calls.seen("small").usual_s == pytest.approx(1.0)
        assert calls.seen("large").usual == 0.0
        assert calls.take_seconds() == pytest.approx(1.0)
        assert calls.take_seconds() == 0.0

    run_in_virtual_time(scenario())


def test_one_that_ends_is_waited_for_but_not_for_ever() -> None:
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        calls = OutsideCalls(cast(Dispatcher, Demand()))
        calls.begin(None, asyncio.create_task(_take(1.0)), is_inside=False)
        assert await calls.next_end(5.0)
        assert clock() == pytest.approx(1.0)
        assert not await calls.next_end(2.0)
        assert clock() == pytest.approx(3.0)

    run_in_virtual_time(scenario())


def test_where_none_was_seen_there_are_none() -> None:
    async def scenario() -> None:
        calls = OutsideCalls(cast(Dispatcher, Demand()))
        assert calls.seen(None) == Outside()
        assert calls.take_seconds() == 0

    run_in_virtual_time(scenario())
