"""Settling ends when nothing more is to come that the planner would look at."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.runtime.dispatch.settling import Settling


@dataclass
class Rows:
    num_rows: int = 7
    awaits_rows: bool = False
    most_prompts: int = 20
    num_prompts: int = 1


def settled_s(rows: Rows, *, prompt_each_s: float = 0.0, row_each_s: float = 0.0) -> float:
    """How long it goes on in virtual time, with a prompt or a row more now and then."""

    async def settle() -> float:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        Settling(rows, lambda: rows.num_prompts, lambda: None, lambda: ended.set_result(None))
        while not ended.done():
            await asyncio.sleep(prompt_each_s or row_each_s or 0.001)
            rows.num_prompts += bool(prompt_each_s)
            rows.num_rows += bool(row_each_s)
        return loop.time()

    return run_in_virtual_time(settle())


def test_it_ends_at_once_where_all_is_known() -> None:
    assert settled_s(Rows()) <= 0.006


def test_it_goes_on_while_prompts_come() -> None:
    rows = Rows()
    assert 0.05 < settled_s(rows, prompt_each_s=0.003) < 0.08
    assert 20 <= rows.num_prompts < 25  # as many as are looked at


def test_it_ends_where_prompts_come_no_more() -> None:
    assert settled_s(Rows(most_prompts=10_000), prompt_each_s=0.2) < 0.25


def test_it_is_patient_with_rows_that_may_come() -> None:
    assert 0.1 <= settled_s(Rows(awaits_rows=True)) < 0.12
    assert 1.9 < settled_s(Rows(awaits_rows=True), row_each_s=0.05) < 2.1
