"""A list schedule that is searched for: some rules of thumb, the cheapest orders improved.

Each rule plays the worker of the cost model and picks the call with the least mix of three things:
when it could start, what it would add to the cache after the call before it, and how long the chain
of calls is that wait for it. The cheapest of these orders are improved by moving one call at a time
to another place, until no move helps. It is for small instances whose lengths are known, as the
optimum is: it shows how much an order can bring, and is not what the dispatcher does, since engines
run calls side by side.
"""

from __future__ import annotations

from itertools import product

from benchmarks.scheduling.instance import Instance
from benchmarks.scheduling.model import Worker, delay, price, usage

Order = tuple[int, ...]

_CHAIN_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
_USAGE_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_START_WEIGHTS = (0.5, 1.0, 2.0, 100.0)
_NUM_IMPROVED = 6


def searched(instance: Instance) -> Order:
    """The cheapest order that rules of thumb and moves of single calls find."""
    chains = _chains(instance)
    weights = product(_CHAIN_WEIGHTS, _USAGE_WEIGHTS, _START_WEIGHTS)
    found = {_listed(instance, chains, *each) for each in weights}
    cheapest = sorted(found, key=lambda order: (price(instance, order).makespan, order))
    improved = [_improved(instance, order) for order in cheapest[:_NUM_IMPROVED]]
    return min(improved, key=lambda order: price(instance, order).makespan)


def _chains(instance: Instance) -> list[int]:
    """By call, the least time from its start to the end of all that waits for it."""
    chains = [0] * len(instance.calls)
    readers: list[list[int]] = [[] for _ in instance.calls]
    for index, call in reversed(list(enumerate(instance.calls))):
        after = max((chains[reader] for reader in readers[index]), default=0)
        o = call.output_tokens
        chains[index] = o * (o + 1) // 2 + (delay(instance, index) + after if after else 0)
        for source in call.inputs:
            readers[source].append(index)
    return chains


def _listed(
    instance: Instance, chains: list[int], chain: float, used: float, start: float
) -> Order:
    worker = Worker(instance)
    waiting = set(range(len(instance.calls)))
    order: list[int] = []

    def cost(index: int) -> tuple[float, int]:
        ready_at = worker.ready_at(index)
        assert ready_at is not None
        starts = max(worker.free_at, ready_at)
        taken = usage(instance, index, worker.previous)
        return start * starts + used * taken - chain * chains[index], index

    while waiting:
        ready = [index for index in waiting if worker.ready_at(index) is not None]
        chosen = min(ready, key=cost)
        worker.run(chosen)
        waiting.remove(chosen)
        order.append(chosen)
    return tuple(order)


def _improved(instance: Instance, order: Order) -> Order:
    """Where moving any single call makes it no cheaper."""
    best, least = order, price(instance, order).makespan
    is_better = True
    while is_better:
        is_better = False
        for source, target in product(range(len(order)), repeat=2):
            moved = [*best]
            moved.insert(target, moved.pop(source))
            try:
                makespan = price(instance, moved).makespan
            except ValueError:  # a call would run before what it reads
                continue
            if makespan < least:
                best, least, is_better = tuple(moved), makespan, True
    return best
