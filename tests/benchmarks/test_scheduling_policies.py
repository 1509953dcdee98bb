"""Policies: every order is valid, and each is the one that its name promises."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest

from benchmarks.scheduling.instance import Call, Instance, Segment
from benchmarks.scheduling.model import Worker, price
from benchmarks.scheduling.optimum import optimum
from benchmarks.scheduling.policies import (
    POLICIES,
    Policy,
    first_come_first_served,
    longest_shared_prefix_first,
    operator_wise,
    query_wise,
    random_ready,
)
from benchmarks.scheduling.searched import searched
from benchmarks.scheduling.workflows import instances

INSTANCES = instances(seed=2)
every_instance = pytest.mark.parametrize("instance", INSTANCES, ids=lambda each: each.name)


@every_instance
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_orders_are_valid_and_repeatable(policy: Policy, instance: Instance) -> None:
    order = policy(instance)
    instance.check(order)
    assert policy(instance) == order


@every_instance
def test_no_other_policy_is_cheaper_than_the_searched_one(instance: Instance) -> None:
    found = price(instance, searched(instance)).makespan
    assert all(found <= price(instance, other(instance)).makespan for other in POLICIES.values())


@pytest.mark.parametrize("instance", instances(seed=0), ids=lambda each: each.name)
def test_the_searched_order_is_near_the_optimum(instance: Instance) -> None:
    order = searched(instance)
    best = optimum(instance, hint=order, time_limit_s=2).schedule.makespan
    assert price(instance, order).makespan <= 1.02 * best


@every_instance
def test_random_orders_are_valid_and_seeded(instance: Instance) -> None:
    orders = {random_ready(instance, seed) for seed in range(20)}
    assert len(orders) > 1
    for order in orders:
        instance.check(order)
    assert random_ready(instance, 7) == random_ready(instance, 7)


@every_instance
def test_operator_wise_leaves_an_operator_only_when_done(instance: Instance) -> None:
    calls = [instance.calls[index] for index in operator_wise(instance)]
    runs = [[call.item for call in run] for _, run in groupby(calls, lambda call: call.operator)]
    assert runs == [list(range(instance.batch))] * len({call.operator for call in calls})


@every_instance
def test_query_wise_leaves_an_item_only_when_done(instance: Instance) -> None:
    items = [instance.calls[index].item for index in query_wise(instance)]
    assert items == sorted(items)


@every_instance
@pytest.mark.parametrize(
    "policy", [first_come_first_served, longest_shared_prefix_first, lambda i: random_ready(i, 5)]
)
def test_no_policy_by_readiness_waits_while_a_call_is_ready(
    policy: Policy, instance: Instance
) -> None:
    worker = Worker(instance)
    waiting = set(range(len(instance.calls)))
    for index in policy(instance):
        ready_at = [at for each in waiting if (at := worker.ready_at(each)) is not None]
        free_at = worker.free_at
        worker.run(index)
        waiting.remove(index)
        assert worker.starts[index] == max(free_at, min(ready_at))


def test_first_come_is_by_arrival_of_inputs() -> None:
    # both drafts are there at once; the second says less, so what reads it comes first
    calls = (
        Call("long draft", 0, (Segment("system", 10),), 50),
        Call("reads the long", 0, (Segment("long", 50, 0),), 1),
        Call("short draft", 0, (Segment("system", 10),), 5),
        Call("reads the short", 0, (Segment("short", 5, 2),), 1),
    )
    assert first_come_first_served(Instance("test", 2, 2, 100, calls)) == (0, 2, 3, 1)


def test_the_longest_shared_prefix_comes_next() -> None:
    a, b = Segment("a", 10), Segment("b", 20)
    calls = (
        Call("first", 0, (a, Segment("x", 1)), 1),
        Call("shares nothing", 0, (b,), 1),
        Call("shares a", 0, (a, b), 1),
        Call("shares a and x", 0, (a, Segment("x", 1), b), 1),
    )
    instance = Instance("test", 2, 2, 100, calls)
    assert longest_shared_prefix_first(instance) == (0, 3, 2, 1)
    assert first_come_first_served(instance) == (0, 1, 2, 3)


@every_instance
def test_at_every_choice_no_ready_call_shared_more(instance: Instance) -> None:
    worker = Worker(instance)
    waiting = set(range(len(instance.calls)))
    for previous, index in pairwise(longest_shared_prefix_first(instance)):
        worker.run(previous)
        waiting.remove(previous)
        starts_at = max(worker.free_at, worker.ready_at(index) or 0)
        ready = [
            each
            for each in waiting
            if (at := worker.ready_at(each)) is not None and at <= starts_at
        ]
        shared = {
            each: instance.calls[each].shared_tokens(instance.calls[previous]) for each in ready
        }
        assert shared[index] == max(shared.values())
