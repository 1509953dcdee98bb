"""The cost of an order, against examples worked by hand, and what must hold of any order."""

from __future__ import annotations

import random

import pytest

from benchmarks.scheduling.instance import Call, Instance, Segment
from benchmarks.scheduling.model import Worker, delay, price, usage
from benchmarks.scheduling.policies import random_ready
from benchmarks.scheduling.workflows import instances

CAPACITY = 100
SYSTEM, TEXT = Segment("system", 10), Segment("text", 20)

#: Two drafts of a text share its system prompt and the text; a merger reads the first; a stranger
#: shares nothing.
WORKED = Instance(
    "worked",
    3,
    1,
    CAPACITY,
    (
        Call("draft", 0, (SYSTEM, TEXT, Segment("short", 1)), 2),
        Call("redraft", 0, (SYSTEM, TEXT, Segment("long", 3)), 4),
        Call("merge", 0, (SYSTEM, Segment("draft said", 2, 0)), 3),
        Call("stranger", 0, (Segment("elsewhere", 5),), 1),
    ),
)


def test_usage_is_prefill_held_for_every_step_and_a_growing_answer() -> None:
    # 31 tokens of prompt, 2 of answer: 32 tokens are held for the first, 33 for the second
    assert usage(WORKED, 0, None) == 32 + 33
    # 33 tokens of prompt, of which 30 are shared with the draft: 4, 5, 6, and 7 tokens
    assert usage(WORKED, 1, 0) == 4 + 5 + 6 + 7
    # only the system prompt is shared
    assert usage(WORKED, 2, 1) == 3 + 4 + 5
    # nothing is shared, so it's as if it came first
    assert usage(WORKED, 3, 0) == usage(WORKED, 3, None) == 6


def test_a_dependent_call_waits_a_step_per_token_of_the_answer() -> None:
    assert delay(WORKED, 0) == 2 * CAPACITY


def test_an_order_with_a_gap() -> None:
    schedule = price(WORKED, (0, 1, 3, 2))
    # draft 0 to 65; redraft shares 30: 65 to 87; stranger 87 to 93; merge waits until 65 + 200, and
    # shares nothing with the stranger: 12 tokens of prompt held for 3 steps, and 1 + 2 + 3
    assert schedule.starts == (0, 65, 265, 87)
    assert schedule.ends == (65, 87, 265 + 42, 93)
    assert schedule.makespan == 307
    assert schedule.makespan_steps == 3.07


def test_only_the_call_just_before_is_shared_with() -> None:
    # the stranger between the drafts costs the second all of its prefix
    apart = price(WORKED, (0, 3, 1, 2))
    assert apart.starts[1] == 71
    assert apart.ends[1] == 71 + 4 * 33 + 10
    # merge shares the system prompt with the redraft before it
    assert apart.ends[2] - apart.starts[2] == 12
    assert apart.makespan == 265 + 12 < price(WORKED, (0, 1, 3, 2)).makespan


def test_no_wait_where_the_answer_is_there() -> None:
    calls = (*WORKED.calls, Call("chapter", 0, (Segment("chapter", 50),), 10))
    schedule = price(Instance("worked", 3, 1, CAPACITY, calls), (0, 4, 1, 3, 2))
    assert schedule.starts[2] == schedule.ends[3] == 65 + 555 + (4 * 33 + 10) + 6


def test_nothing_costs_nothing() -> None:
    assert price(Instance("empty", 2, 2, CAPACITY, ()), ()).makespan == 0


def test_a_call_runs_once_and_after_its_inputs() -> None:
    worker = Worker(WORKED)
    assert worker.ready_at(2) is None
    with pytest.raises(ValueError, match="merge"):
        worker.run(2)
    worker.run(0)
    assert worker.ready_at(2) == 265
    with pytest.raises(ValueError, match="draft"):
        worker.run(0)
    with pytest.raises(ValueError, match="before what it reads"):
        price(WORKED, (2, 0, 1, 3))


@pytest.mark.parametrize("instance", instances(seed=1), ids=lambda each: each.name)
def test_what_holds_of_every_schedule(instance: Instance) -> None:
    draw = random.Random(0)
    for _ in range(20):
        schedule = price(instance, random_ready(instance, draw.randrange(1 << 30)))
        ends = 0
        previous = None
        for index in schedule.order:
            assert schedule.starts[index] >= ends, "one call at a time"
            ends = schedule.ends[index]
            assert ends - schedule.starts[index] == usage(instance, index, previous)
            previous = index
            for source in instance.calls[index].inputs:
                waited = schedule.starts[index] - schedule.ends[source]
                assert waited >= instance.kv_capacity_tokens * instance.calls[source].output_tokens
        assert schedule.makespan == ends
