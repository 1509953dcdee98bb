"""The planner: gathers demand until a loop tick adds none, then plans it as one frontier.

Fifty siblings demanded one by one in the same tick are planned together, so that rules see all of
them. A frontier is the demanded calls and, below them, the declared inputs that nobody has
computed yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from helium_agents.graph.node import LlmNode, Node
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
from helium_agents.runtime.recall import Found, record_key
from helium_agents.runtime.single_flight import Flight, Flights
from helium_agents.telemetry.events import Observer, Planned

LookUp = Callable[[Node], Found | None]


class Planner:
    """Turns demand into flights that run.

    Args:
        rules: The optimizer's rules.
        shares: Whether a call may join an equal one in flight.
        flights: The table of running flights.
        look_up: Finds remembered answers.
        launch: Starts computing a flight.
        derive: Starts cutting a flight's answer from another flight's.
        settle: Gives a flight its remembered answer.
        fail: Gives a flight the error that kept it from being planned.
        emit: Takes events.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        shares: bool,
        flights: Flights,
        look_up: LookUp,
        launch: Callable[[Flight], None],
        derive: Callable[[Flight, Flight], None],
        settle: Callable[[Flight, Found], None],
        fail: Callable[[Flight, Exception], None],
        emit: Observer,
    ) -> None:
        self.rules = rules
        self._shares = shares
        self._flights = flights
        self._look_up = look_up
        self._launch = launch
        self._derive = derive
        self._settle = settle
        self._fail = fail
        self._emit = emit
        self._puts_in_known = substitute_known in rules
        self._is_ticking = False
        self._num_at_last_tick = 0

    def demand(self, node: Node) -> Flight:
        """The flight of a node that somebody wants, pending until the frontier is planned."""
        flight: Flight = node.flight or self._demand(node)
        return flight

    def _demand(self, node: Node) -> Flight:
        loop = asyncio.get_running_loop()
        flight = Flight(node, loop.time())
        if not self._is_ticking:
            self._is_ticking = True
            self._num_at_last_tick = 0
            loop.call_soon(self._tick)
        self._flights.pending[flight] = None
        return flight

    def known_at_once(self, node: Node) -> Found | None:
        """The remembered answer of a call that was just demanded, where the rules put such in.

        What is known needs no plan, since it needs nothing else; and most calls of a warm run are.
        """
        if not self._puts_in_known or node.flight is not None:
            return None
        found = self._look_up(node)
        if found is None and not self._is_computed_now(node):
            node.flight = self._demand(node)
            self._flights.note_unknown(node.flight)
        return found

    def _is_computed_now(self, node: Node) -> bool:
        flights = self._flights
        key, family = node.key, record_key(node)
        return flights.get(family) is not None or (key != family and flights.get(key) is not None)

    def put_in_known(self, node: Node) -> Found | None:
        """What the rules put in for one call whose inputs have become known."""
        found = self._look_up(node)
        if found is None or node.key is None:
            return None
        plan = optimize(build_plan([node]), {node.key: found}, self.rules)
        step = next(iter(plan)).step
        return step.value if isinstance(step, Known) else None

    def _tick(self) -> None:
        pending = self._flights.pending
        if len(pending) > self._num_at_last_tick:
            self._num_at_last_tick = len(pending)
            asyncio.get_running_loop().call_soon(self._tick)
            return
        self._is_ticking = False
        if pending:
            wanted = list(pending)
            pending.clear()
            self._plan(wanted)

    def _plan(self, wanted: list[Flight]) -> None:
        start_s = time.perf_counter()
        nodes = _frontier(flight.node for flight in wanted)
        try:
            plan = build_plan(nodes, sinks=[flight.node for flight in wanted])
            plan = optimize(plan, self._known(nodes), self.rules)
        except Exception as error:  # of the store or a rule; raised here, nobody would hear of it
            for flight in wanted:
                self._fail(flight, error)
            return
        seconds = time.perf_counter() - start_s
        num_computed = sum(planned.step is COMPUTE for planned in plan)
        self._emit(Planned(len(nodes), num_computed, seconds))
        self._lower(plan, dict(enumerate(nodes, 1)))

    def _known(self, nodes: Iterable[Node]) -> dict[bytes, Found]:
        known: dict[bytes, Found] = {}
        for node in nodes:
            is_unknown = node.flight is not None and self._flights.is_unknown(node.flight)
            if is_unknown or not _is_open(node):
                continue
            found = self._look_up(node)
            if found is not None and node.key is not None:
                known[node.key] = found
        return known

    def _lower(self, plan: LogicalPlan, nodes: dict[int, Node]) -> None:
        """Make every planned step happen, inputs before the calls that need them."""
        now_s = asyncio.get_running_loop().time()
        for planned in plan.in_order():
            node = nodes[planned.id]
            if not _is_open(node):
                continue
            flight: Flight = node.flight or Flight(node, now_s)
            match planned.step:
                case step if step is COMPUTE:
                    self._compute(flight, node, planned)
                case Known(found):
                    self._settle(flight, found)
                case Same(of):
                    self._follow(flight, nodes[of], plan.nodes[of])
                case Prefix(of) if nodes[of].flight is not None:
                    self._cut(flight, node, nodes[of].flight)
                case _:
                    self._compute(flight, node, planned)

    def _follow(self, flight: Flight, other: Node, planned: PlanNode) -> None:
        if isinstance(planned.step, Known):
            self._settle(flight, planned.step.value)
        else:
            other.flight.absorb(flight, "merged")

    def _compute(self, flight: Flight, node: Node, planned: PlanNode) -> None:
        if planned.content is not None and self._shares:
            running = self._flights.get(planned.key)
            if running is not None:
                running.absorb(flight, "joined")
                return
            family = record_key(node)
            longest = self._flights.get(family)
            if longest is not None and _max_tokens(longest.node) > _max_tokens(node):
                self._cut(flight, node, longest)
                return
            self._flights.register(flight, family, planned.key)
        for source in node.inputs:
            if source.flight is not None and source.outcome is None:
                flight.hold(source.flight)
        self._launch(flight)

    def _cut(self, flight: Flight, node: Node, longer: Flight) -> None:
        flight.hold(longer, flight.admit)
        self._flights.register(flight, node.key)
        self._derive(flight, longer)


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
    is_running = node.flight is not None and node.flight.task is not None
    return node.is_planned and node.outcome is None and not is_running


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
