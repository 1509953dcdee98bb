"""Demand: gathers what is wanted until a loop tick adds nothing, then plans it as one frontier.

Fifty siblings demanded one by one in the same tick are planned together, so that rules see all of
them. A frontier is the wanted calls and, below them, the declared inputs that nobody has computed
yet. What the plan says is made to happen from the wanted calls down, so that an input which turns
out to be needed by nobody is never begun.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from helium_agents.errors import RefMisuse
from helium_agents.graph.concurrently import ENDS_THE_PROGRAM
from helium_agents.graph.node import LlmNode, Node
from helium_agents.graph.outcome import Failure
from helium_agents.graph.plan import (
    COMPUTE,
    Known,
    LogicalPlan,
    PlanNode,
    Prefix,
    Same,
    Step,
)
from helium_agents.optimizer.optimize import optimize
from helium_agents.optimizer.rules import Rule, substitute_known
from helium_agents.runtime.answers import Found, record_key
from helium_agents.runtime.executor import Executor
from helium_agents.runtime.flights import Flight, Flights
from helium_agents.telemetry.events import Observer, Planned, Source

LookUp = Callable[[Node], Found | None]


@dataclass(frozen=True, slots=True)
class _Join:
    """The answer is that of a flight that is under way."""

    flight: Flight


@dataclass(frozen=True, slots=True)
class _Cut:
    """The answer is a prefix of that of a flight that is under way."""

    flight: Flight


_Action = Step | _Join | _Cut


class Demand:
    """Turns what is wanted into flights that run.

    Args:
        rules: The optimizer's rules.
        shares: Whether a call may join an equal one in flight.
        flights: All unfinished flights.
        look_up: Finds remembered answers.
        executor: Runs planned flights.
        emit: Takes events; `None` where nobody observes.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        shares: bool,
        flights: Flights,
        look_up: LookUp,
        executor: Executor,
        emit: Observer | None,
    ) -> None:
        self._rules = rules
        self._shares = shares
        self._flights = flights
        self._look_up = look_up
        self._executor = executor
        self._emit = emit
        self._puts_in_known = substitute_known in rules
        self._is_ticking = False
        self._num_at_last_tick = 0

    def ask(self, node: Node, item: Any) -> Flight:
        """The flight of a call that somebody wants, to be planned with all that are wanted now.

        Args:
            node: The call; without an outcome.
            item: The item of a `map` for whom it is wanted.
        """
        flight: Flight | None = node.flight
        if flight is not None:
            flight.want_for(item)
            return flight
        loop = asyncio.get_running_loop()
        flight = Flight(node, loop.time(), item)
        if not node.is_planned:  # a plain operator, wanted as an input: it needs no plan
            self._executor.run_plain(flight)
            return flight
        if not self._is_ticking:
            self._is_ticking = True
            self._num_at_last_tick = 0
            loop.call_soon(self._tick)
        self._flights.wanted[flight] = None
        return flight

    def known_at_once(self, node: Node, item: Any) -> Found | None:
        """The remembered answer of a call that nobody has asked for yet, where rules put such in.

        What is known needs no plan, since it needs nothing else; and most calls of a warm run are.
        """
        if not self._puts_in_known or node.flight is not None:
            return None
        num_landed = self._flights.num_landed
        found = self._look_up(node)
        if found is None:
            self.ask(node, item).looked_up_at = num_landed
        return found

    def _tick(self) -> None:
        wanted = self._flights.wanted
        if len(wanted) > self._num_at_last_tick:
            self._num_at_last_tick = len(wanted)
            asyncio.get_running_loop().call_soon(self._tick)
            return
        self._is_ticking = False
        if not wanted:
            return
        frontier = list(wanted)
        wanted.clear()
        nodes = _frontier(flight.node for flight in frontier)
        open_nodes = [node for node in nodes if _is_open(node)]
        try:
            self._plan(nodes, frontier)
        except BaseException as error:  # of the store or a rule; raised here, nobody would hear it
            for node in open_nodes:
                flight: Flight | None = node.flight
                if flight is not None and flight.node is node and flight.task is None:
                    self._flights.land(flight, Failure(error))
            if isinstance(error, ENDS_THE_PROGRAM):
                raise

    def _plan(self, nodes: list[Node], wanted: list[Flight]) -> None:
        start_s = time.perf_counter()
        plan = build_plan(nodes, sinks=[flight.node for flight in wanted])
        plan = optimize(plan, self._known(nodes), self._rules)
        if self._emit is not None:
            seconds = time.perf_counter() - start_s
            num_computed = sum(planned.step is COMPUTE for planned in plan)
            self._emit(Planned(len(nodes), num_computed, seconds))
        self._carry_out(plan, dict(enumerate(nodes, 1)))

    def _known(self, nodes: Iterable[Node]) -> dict[bytes, Found]:
        known: dict[bytes, Found] = {}
        for node in nodes:
            flight: Flight | None = node.flight
            if flight is not None and flight.looked_up_at == self._flights.num_landed:
                continue  # nothing was remembered since
            if _is_open(node):
                found = self._look_up(node)
                if found is not None and node.key is not None:
                    known[node.key] = found
        return known

    # --- making the plan happen -----------------------------------------------------------------

    def _carry_out(self, plan: LogicalPlan, nodes: dict[int, Node]) -> None:
        """Make the plan happen.

        First calls take hold of what they need, calls before their inputs, so that what nobody
        holds by then is needed by none. Then what is to be computed begins, in the order in which
        it was asked for.
        """
        actions = self._actions(plan, nodes)
        in_order = plan.in_order()
        to_compute: list[Flight] = []
        for planned in reversed(in_order):
            action = actions.get(planned.id)
            flight: Flight | None = nodes[planned.id].flight
            if action is None or flight is None:
                continue
            if not flight.waiters:
                self._flights.leave_unwanted(flight)
                continue
            match action:
                case Known(found):
                    self._executor.settle_known(flight, found)
                case Same(of):
                    self._follow(flight, nodes[of])
                case Prefix(of):
                    self._executor.cut(flight, nodes[of].flight)
                case _Join(other):
                    self._join(flight, other, "joined")
                case _Cut(other):
                    self._executor.cut(flight, other)
                case _:
                    self._executor.hold_inputs(flight)
                    to_compute.append(flight)
        for flight in reversed(to_compute):
            self._executor.advance(flight)

    def _follow(self, flight: Flight, representative: Node) -> None:
        if representative.flight is not None:
            self._join(flight, representative.flight, "merged")
        else:  # it turned out otherwise: then each for himself
            self._executor.start(flight)

    def _join(self, flight: Flight, other: Flight, how: Source) -> None:
        try:
            self._flights.join(flight, other, how)
        except RefMisuse as error:
            self._flights.land(flight, Failure(error))

    def _actions(self, plan: LogicalPlan, nodes: dict[int, Node]) -> dict[int, _Action]:
        """How each call comes to its answer that is needed for a wanted one."""
        actions: dict[int, _Action] = {}
        now_s = asyncio.get_running_loop().time()
        stack: list[tuple[int, Any]] = [(sink, None) for sink in reversed(plan.sinks)]
        while stack:
            id_, item = stack.pop()
            node = nodes[id_]
            if id_ in actions or not _is_open(node):
                continue
            flight: Flight = node.flight or Flight(node, now_s, item)
            action = self._action(plan.nodes[id_], flight)
            actions[id_] = action
            if isinstance(action, Same | Prefix):
                stack.append((action.of, flight.item))
            elif action is COMPUTE:
                stack.extend((source, flight.item) for source in reversed(plan.nodes[id_].inputs))
        for id_ in actions:
            self._flights.plan(nodes[id_].flight)
        return actions

    def _action(self, planned: PlanNode, flight: Flight) -> _Action:
        step, node = planned.step, flight.node
        if isinstance(step, Known | Same):
            return step
        if isinstance(step, Prefix):
            self._flights.enlist(flight, node.key)
            return step
        if planned.content is not None and self._shares:
            running = self._flights.get(planned.key)
            if running is not None:
                return _Join(running)
            family = record_key(node)
            longest = self._flights.get(family)
            if longest is not None and _max_tokens(longest.node) > _max_tokens(node):
                self._flights.enlist(flight, node.key)
                return _Cut(longest)
            self._flights.enlist(flight, family, planned.key)
        return COMPUTE


def _max_tokens(node: Node) -> int:
    return node.call.sampling.max_tokens if isinstance(node, LlmNode) else 0


def _frontier(wanted: Iterable[Node]) -> list[Node]:
    """The wanted nodes and everything they wait for, inputs first.

    What is settled, running, or not ours to run (plain operators) is in it too, since it tells
    calls apart, but nothing below that.
    """
    wanted = list(wanted)
    if not any(node.inputs for node in wanted):
        return list(dict.fromkeys(wanted))
    order: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(wanted)]
    while stack:
        node, is_expanded = stack.pop()
        if node in order:
            continue
        if is_expanded or not node.inputs or not _is_open(node):
            order[node] = None
            continue
        stack.append((node, True))
        stack.extend((source, False) for source in reversed(node.inputs))
    return list(order)


def _is_open(node: Node) -> bool:
    """Whether the planner decides how the node's answer comes about."""
    has_plan = node.flight is not None and node.flight.has_plan
    return node.is_planned and node.outcome is None and not has_plan


def build_plan(nodes: Sequence[Node], sinks: Iterable[Node] = ()) -> LogicalPlan:
    """The logical plan of some nodes, numbered from 1.

    Args:
        nodes: The calls; inputs that are not among them are those of calls that run already.
        sinks: The wanted ones; all, where none is given.
    """
    ids = {node: position for position, node in enumerate(nodes, 1)}
    wanted = [ids[node] for node in sinks] or list(ids.values())

    def planned(node: Node, id_: int) -> PlanNode:
        step = COMPUTE if node.outcome is None else Known(None)
        if not node.inputs:
            return plan_node(node, id_, (), step=step)
        inputs = tuple(ids[source] for source in node.inputs if source in ids)
        is_mergeable = all(source in ids for source in node.inputs)
        return plan_node(node, id_, inputs, step=step, is_mergeable=is_mergeable)

    return LogicalPlan([planned(node, id_) for node, id_ in ids.items()], wanted)


def plan_node(
    node: Node,
    id_: int,
    inputs: tuple[int, ...],
    *,
    step: Step = COMPUTE,
    parent: int | None = None,
    is_mergeable: bool = True,
) -> PlanNode:
    """What the optimizer sees of a node.

    `is_mergeable` is false where `inputs` are not all of the node's inputs.
    """
    if not isinstance(node, LlmNode):
        content, key = node.content if is_mergeable else None, node.key
        return PlanNode(id_, "operator", node.label, content, key, inputs, parent=parent, step=step)
    is_shared = node.call.is_shared
    return PlanNode(
        id_,
        "llm",
        node.label,
        content=node.content if is_shared and is_mergeable else None,
        key=node.key if is_shared or node.is_drawn else None,  # a draw's is its own
        inputs=inputs,
        family=node.family,
        max_tokens=node.call.sampling.max_tokens,
        parent=parent,
        step=step,
    )
