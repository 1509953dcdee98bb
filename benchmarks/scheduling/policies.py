"""The policies compared: each takes an instance and gives an order.

Those that go by readiness are played on the worker of the cost model: whenever it is free, they
choose among the calls whose inputs are there, and wait only if there is none. The others fix the
order beforehand and wait for whatever comes next in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from benchmarks.scheduling.instance import Instance
from benchmarks.scheduling.model import Worker
from benchmarks.scheduling.searched import searched

Order = tuple[int, ...]
Policy = Callable[[Instance], Order]
Choose = Callable[[Sequence[int], Worker], int]
"""Picks one of the ready calls, which come by time of readiness, then as declared."""


def first_come_first_served(instance: Instance) -> Order:
    """Calls in the order in which their inputs arrive: what helium_agents does today.

    Every item is open, the dispatcher sends a call to the
    engine when its inputs are there, and the engine serves in order of arrival.
    """
    return _by_readiness(instance, lambda ready, worker: ready[0])


def longest_shared_prefix_first(instance: Instance) -> Order:
    """The ready call that shares the longest prefix with what was just run (LSPF, as in SGLang)."""

    def choose(ready: Sequence[int], worker: Worker) -> int:
        if worker.previous is None:
            return ready[0]
        last = instance.calls[worker.previous]
        return max(ready, key=lambda index: instance.calls[index].shared_tokens(last))

    return _by_readiness(instance, choose)


def operator_wise(instance: Instance) -> Order:
    """Operator by operator, each over the whole batch (OpWise)."""
    operators = {call.operator: rank for rank, call in reversed(list(enumerate(instance.calls)))}
    calls = instance.calls
    return _sorted(instance, lambda index: (operators[calls[index].operator], calls[index].item))


def query_wise(instance: Instance) -> Order:
    """Item by item, each call after call (QueryWise)."""
    return _sorted(instance, lambda index: (instance.calls[index].item, index))


def random_ready(instance: Instance, seed: int) -> Order:
    """Any of the ready calls."""
    draw = random.Random(seed)
    return _by_readiness(instance, lambda ready, worker: draw.choice(ready))


POLICIES: Mapping[str, Policy] = {
    "first come": first_come_first_served,
    "LSPF": longest_shared_prefix_first,
    "OpWise": operator_wise,
    "QueryWise": query_wise,
    "searched": searched,
}
"""All but random order, which is a mean over seeds. A new policy is one line here."""


def _by_readiness(instance: Instance, choose: Choose) -> Order:
    worker = Worker(instance)
    waiting = set(range(len(instance.calls)))
    order: list[int] = []
    while waiting:
        ready_at = {index: at for index in waiting if (at := worker.ready_at(index)) is not None}
        now = max(worker.free_at, min(ready_at.values()))
        ready = [index for index, at in ready_at.items() if at <= now]
        chosen = choose(sorted(ready, key=lambda index: (ready_at[index], index)), worker)
        worker.run(chosen)
        waiting.remove(chosen)
        order.append(chosen)
    return tuple(order)


def _sorted(instance: Instance, key: Callable[[int], tuple[int, int]]) -> Order:
    return tuple(sorted(range(len(instance.calls)), key=key))
