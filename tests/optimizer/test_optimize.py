"""Lowering: who joins whom, what is needed, and in which order it begins."""

from __future__ import annotations

import doctest
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import COMPUTE, GIVEN, Known, PlanNode, Prefix, Same
from helium_agents.optimizer import optimize as optimize_module
from helium_agents.optimizer.optimize import Cut, Join, lower, optimize


@dataclass(frozen=True)
class Running:
    """A call that is under way."""

    max_tokens: int = 0


def call(
    id_: int, key: str | None, *inputs: int, family: str | None = None, max_tokens: int = 16
) -> PlanNode:
    name = None if key is None else key.encode()
    record = name if family is None else family.encode()
    return PlanNode(
        id_, "llm", "llm", name, name, inputs, record_key=record, max_tokens=max_tokens
    )  # fmt: skip


def test_the_docstring_shows_what_it_does() -> None:
    result = doctest.testmod(optimize_module)
    assert result.attempted
    assert not result.failed


def test_what_is_under_way_is_joined_and_what_it_needs_is_not_asked() -> None:
    running = Running()
    plan = LogicalPlan([call(1, "a"), call(2, "b", 1)], [2])
    assert lower(plan, {b"b": running}).actions == {2: Join(running)}


def test_a_longer_call_of_the_family_is_cut_and_a_shorter_one_is_not() -> None:
    longer, shorter = Running(64), Running(8)
    plan = LogicalPlan([call(1, "a16", family="a")], [1])
    assert lower(plan, {b"a": longer}).actions == {1: Cut(longer)}
    assert lower(plan, {b"a": shorter}).actions == {1: COMPUTE}


def test_equal_calls_share_although_no_rule_has_merged_them() -> None:
    plan = LogicalPlan(
        [call(1, "a64", family="a", max_tokens=64), call(2, "a64"), call(3, "a16", family="a")],
        [1, 2, 3],
    )
    assert lower(plan, {}).actions == {1: COMPUTE, 2: Same(1), 3: Prefix(1)}
    assert lower(plan, None).actions == dict.fromkeys((1, 2, 3), COMPUTE), "sharing is off"


def test_what_has_no_key_is_never_joined() -> None:
    plan = LogicalPlan([call(1, None), call(2, None)], [1, 2])
    assert lower(plan, {b"a": Running()}).actions == {1: COMPUTE, 2: COMPUTE}


def test_what_is_given_or_known_needs_nothing() -> None:
    nodes = [
        call(1, "a"),
        call(2, "b", 1)._replace(step=GIVEN),
        call(3, "c", 2),
        call(4, "d", 1)._replace(step=Known("answer")),
    ]
    assert lower(LogicalPlan(nodes, [3, 4]), {}).actions == {3: COMPUTE, 4: Known("answer")}


def test_a_plan_prints_itself() -> None:
    nodes = [call(1, "a"), call(2, "b", 1), call(3, "b", 1), call(4, "c16", family="c")]
    plan = LogicalPlan([*nodes, call(5, "e")], [2, 3, 4, 5])
    known = optimize(plan, {b"e": "answer"})
    assert lower(known, {b"c": Running(64)}).explain() == (
        "2 compute, 1 cut, 1 known, 1 same\n"
        "#1 llm computed\n"
        "#2 llm computed from #1\n"
        "#3 llm = #2\n"
        "#4 llm = start of a call under way\n"
        "#5 llm known"
    )
    assert lower(LogicalPlan([], []), {}).explain() == "nothing to do"


@st.composite
def plans(draw: st.DrawFn) -> LogicalPlan:
    """Plans whose keys follow from content and inputs, as those of calls do."""
    nodes: list[PlanNode] = []
    for id_ in range(1, draw(st.integers(1, 12)) + 1):
        inputs = tuple(draw(st.lists(st.integers(1, id_ - 1), max_size=2))) if id_ > 1 else ()
        content = draw(st.sampled_from("ab"))
        keys = ",".join((nodes[i - 1].key or b"").decode() for i in inputs)
        nodes.append(call(id_, f"{content}({keys})", *inputs))
    sinks = draw(st.lists(st.integers(1, len(nodes)), min_size=1, unique=True))
    return LogicalPlan(nodes, sinks)


@given(plans(), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.booleans())
def test_all_that_is_needed_is_there_once_and_after_what_it_needs(
    plan: LogicalPlan, running: set[int], given_ones: set[int], is_optimized: bool
) -> None:
    nodes = [
        n._replace(step=GIVEN, inputs=()) if i in given_ones and i in running else n
        for i, n in enumerate(plan)
    ]
    plan = LogicalPlan(nodes, plan.sinks)
    keys = [node.key for node in plan]
    under_way = {key: Running() for i, key in enumerate(keys) if i in running and key is not None}
    physical = lower(optimize(plan, {}) if is_optimized else plan, under_way)
    given_ids = {node.id for node in plan if node.step is GIVEN}
    seen: set[int] = set()
    computed: list[bytes | None] = []
    for id_, action in physical.actions.items():
        node = plan.nodes[id_]
        if action is COMPUTE:
            assert set(node.inputs) <= seen | given_ids
            computed.append(node.key)
        elif isinstance(action, Same):
            assert action.of in seen
            assert plan.nodes[action.of].key == node.key
        else:
            assert isinstance(action, Join)
        seen.add(id_)
    assert set(plan.sinks) <= seen | given_ids
    assert len(computed) == len(set(computed)), "no question is computed twice"
    assert not set(computed) & set(under_way)
