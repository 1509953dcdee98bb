"""The order with the least makespan, found and as far as time allows proved by CP-SAT (OR-tools).

The token-step model as a constraint programme. A circuit through all calls and a depot is the
order; the arc from one call to the next decides what the next prefills, and so its usage. A call
starts after the one before it on the circuit has ended, and after the delay of each answer that it
reads. Arcs that no valid order has, to a call's own ancestor or past a call between, are left out.

Two things follow from these, and are added because they help to prove: calls do not overlap, and
the makespan is at least the usage of all calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import NamedTuple

from ortools.sat.python import cp_model

from benchmarks.scheduling.instance import Instance
from benchmarks.scheduling.model import Schedule, delay, price, usage


@dataclass(frozen=True)
class Optimum:
    """The best schedule that was found, and what is known of better ones.

    Args:
        schedule: The best order, priced by the model.
        bound: No order has a smaller makespan, in token·steps: the solver's own bound.
        is_proved: Whether the solver proved that the schedule is optimal.
        wall_s: What that took.
    """

    schedule: Schedule
    bound: int
    is_proved: bool
    wall_s: float


class Programme(NamedTuple):
    """What the solver is given, and the variables that make up a schedule.

    Args:
        model: All constraints.
        arcs: Whether one call runs just after another; the depot is numbered after the last call.
        starts: When each call starts.
        ends: When each call ends.
        makespan: The end of the last.
    """

    model: cp_model.CpModel
    arcs: dict[tuple[int, int], cp_model.IntVar]
    starts: list[cp_model.IntVar]
    ends: list[cp_model.IntVar]
    makespan: cp_model.IntVar


def optimum(
    instance: Instance,
    *,
    hint: Sequence[int] | None = None,
    time_limit_s: float = 60.0,
    seed: int = 0,
    num_workers: int = 8,
) -> Optimum:
    """The order with the least makespan.

    Args:
        instance: What to order.
        hint: A valid order to start from; default: as declared. Nothing worse is looked at.
        time_limit_s: When to stop proving.
        seed: The solver's.
        num_workers: Search strategies side by side; they differ, so more than cores is no waste.

    Raises:
        RuntimeError: The solver disagrees with the cost model.
    """
    known = price(instance, range(len(instance.calls)) if hint is None else hint)
    programme = build(instance, known)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit_s
    solver.parameters.random_seed = seed
    solver.parameters.num_workers = num_workers
    status = solver.solve(programme.model)
    bound = max(0, round(solver.best_objective_bound))
    if status == cp_model.UNKNOWN:  # not even the hint was taken up in time
        return Optimum(known, bound, False, solver.wall_time)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise RuntimeError(f"{instance.name!r}: {solver.status_name(status)}, but it has an order")
    starts = [solver.value(start) for start in programme.starts]
    schedule = price(instance, sorted(range(len(starts)), key=starts.__getitem__))
    if not bound <= schedule.makespan <= round(solver.objective_value):
        raise RuntimeError(
            f"{instance.name!r}: the solver says {solver.objective_value}, at least {bound}, "
            f"and the cost model {schedule.makespan}"
        )
    return Optimum(schedule, bound, status == cp_model.OPTIMAL, solver.wall_time)


def build(instance: Instance, known: Schedule) -> Programme:
    """The constraint programme of an instance, with a schedule to start from and to beat."""
    model = cp_model.CpModel()
    indices = range(len(instance.calls))
    horizon = known.makespan
    arcs = _circuit(model, instance)
    starts = [model.new_int_var(0, horizon, f"start {index}") for index in indices]
    ends = [model.new_int_var(0, horizon, f"end {index}") for index in indices]
    makespan = model.new_int_var(0, horizon, "makespan")
    depot = len(indices)
    sizes: list[cp_model.IntVar] = []
    for index in indices:
        by_arc = [
            (usage(instance, index, None if before == depot else before), arc)
            for (before, after), arc in arcs.items()
            if after == index
        ]
        costs = [cost for cost, _ in by_arc]
        size = model.new_int_var(min(costs), max(costs), f"usage {index}")
        model.add(size == sum(cost * arc for cost, arc in by_arc))
        sizes.append(size)
        model.add(ends[index] <= makespan)
        for source in instance.calls[index].inputs:
            model.add(starts[index] >= ends[source] + delay(instance, source))
    for (before, after), arc in arcs.items():
        if depot not in (before, after):
            model.add(starts[after] >= ends[before]).only_enforce_if(arc)
    model.add_no_overlap(
        model.new_interval_var(*bounds, f"call {index}")
        for index, bounds in enumerate(zip(starts, sizes, ends, strict=True))
    )
    model.add(makespan >= sum(sizes))
    model.minimize(makespan)
    programme = Programme(model, arcs, starts, ends, makespan)
    _hint(programme, known)
    return programme


def _circuit(model: cp_model.CpModel, instance: Instance) -> dict[tuple[int, int], cp_model.IntVar]:
    """Arc variables, on a circuit that visits the depot and every call once."""
    depot = len(instance.calls)
    arcs = {
        (before, after): model.new_bool_var(f"{before} then {after}")
        for before, after in permutations(range(depot + 1), 2)
        if _may_follow(instance, before, after)
    }
    model.add_circuit([(before, after, arc) for (before, after), arc in arcs.items()])
    return arcs


def _may_follow(instance: Instance, before: int, after: int) -> bool:
    """Whether some valid order has one call just after the other (or first, or last)."""
    depot = len(instance.calls)
    ancestors = instance.ancestors
    if before == depot:
        return not ancestors[after]
    if after == depot:
        return not any(before in each for each in ancestors)
    is_past_one = any(before in ancestors[between] for between in ancestors[after])
    return after not in ancestors[before] and not is_past_one


def _hint(programme: Programme, known: Schedule) -> None:
    depot = len(known.order)
    taken = set(pairwise((depot, *known.order, depot)))
    for pair, arc in programme.arcs.items():
        programme.model.add_hint(arc, pair in taken)
    for index in known.order:
        programme.model.add_hint(programme.starts[index], known.starts[index])
        programme.model.add_hint(programme.ends[index], known.ends[index])
    programme.model.add_hint(programme.makespan, known.makespan)
