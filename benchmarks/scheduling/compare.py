"""How far each policy is from the optimum, on each instance."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from benchmarks.scheduling.instance import Instance
from benchmarks.scheduling.model import price
from benchmarks.scheduling.optimum import Optimum, optimum
from benchmarks.scheduling.policies import POLICIES, random_ready

RANDOM = "random"
NUM_RANDOM_ORDERS = 1000


@dataclass(frozen=True)
class Comparison:
    """One instance: the optimum, and what each policy's order costs.

    Args:
        instance: What was ordered.
        optimum: The best order.
        makespans: By policy, in token·steps; for random order the mean over its seeds.
    """

    instance: Instance
    optimum: Optimum
    makespans: dict[str, float]

    @property
    def gaps(self) -> dict[str, float]:
        """By policy, how much longer than the best order it takes, as a fraction of that."""
        best = self.optimum.schedule.makespan
        return {name: makespan / best - 1 for name, makespan in self.makespans.items()}

    @property
    def gap_to_bound(self) -> float:
        """How much longer than the solver's bound the best order takes; 0 where it is optimal."""
        if not self.optimum.bound:
            return math.inf  # the solver had no time for any
        return self.optimum.schedule.makespan / self.optimum.bound - 1


def compare(
    instance: Instance,
    *,
    time_limit_s: float,
    seed: int,
    num_random_orders: int = NUM_RANDOM_ORDERS,
) -> Comparison:
    """Price every policy's order, and search for the optimum from the best of them."""
    orders = {name: policy(instance) for name, policy in POLICIES.items()}
    makespans = {name: float(price(instance, order).makespan) for name, order in orders.items()}
    hint = orders[min(makespans, key=makespans.__getitem__)]
    drawn = (random_ready(instance, seed + number) for number in range(num_random_orders))
    makespans[RANDOM] = statistics.mean(price(instance, order).makespan for order in drawn)
    best = optimum(instance, hint=hint, time_limit_s=time_limit_s, seed=seed)
    return Comparison(instance, best, makespans)
