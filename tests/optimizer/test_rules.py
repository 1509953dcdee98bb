"""The rules: what each does, that plans stay valid, and that any order of them settles."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents.graph import plan as plan_module
from helium_agents.graph.plan import LogicalPlan, PlanError
from helium_agents.graph.plan_node import Compute, Known, PlanNode, Prefix, Same, Step
from helium_agents.optimizer import rules as rules_package
from helium_agents.optimizer.optimize import optimize
from helium_agents.optimizer.rules import (
    RULES,
    Rule,
    drop_unneeded,
    merge_identical,
    substitute_known,
    subsume_shorter,
)

RULE_MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.iter_modules(rules_package.__path__, f"{rules_package.__name__}.")
]


def ask(
    id_: int,
    content: str | None,
    *inputs: int,
    family: str | None = None,
    max_tokens: int | None = None,
    key: str | None = None,
    step: Step | None = None,
) -> PlanNode:
    """A model call of a plan."""
    return PlanNode(
        id_,
        "llm",
        "llm",
        content=content and content.encode(),
        key=key and key.encode(),
        inputs=inputs,
        question=family and family.encode(),
        max_tokens=max_tokens,
        step=step or Compute(),
    )


def steps(plan: LogicalPlan) -> dict[int, Step]:
    return {node.id: node.step for node in plan}


# --- the documentation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", [*RULE_MODULES, plan_module], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_doctests(module: Any) -> None:
    result = doctest.testmod(module)
    assert not result.failed
    assert result.attempted or module is plan_module, "a rule's docstring shows what it does"


def test_every_rule_is_in_a_file_of_its_name_and_in_RULES() -> None:
    names = {module.__name__.rpartition(".")[2] for module in RULE_MODULES}
    assert {rule.__name__ for rule in RULES} == names
    assert len(RULES) == len(names)
    for module in RULE_MODULES:
        name = module.__name__.rpartition(".")[2]
        assert getattr(module, name) is getattr(rules_package, name)


# --- before and after ----------------------------------------------------------------------------


class TestSubstituteKnown:
    def test_puts_in_what_is_known_and_nothing_else(self) -> None:
        plan = LogicalPlan(
            [ask(1, "a", key="a"), ask(2, "b", key="b"), ask(3, "c"), ask(4, "a", key="a")], [1, 2]
        )
        after = substitute_known(plan, {b"a": "answer", b"c": "no"})
        assert steps(after) == {
            1: Known("answer"),
            2: Compute(),
            3: Compute(),
            4: Known("answer"),
        }

    def test_takes_a_known_none_for_known(self) -> None:
        plan = LogicalPlan([ask(1, "a", key="a")], [1])
        assert steps(substitute_known(plan, {b"a": None})) == {1: Known(None)}

    def test_leaves_what_comes_from_elsewhere_already(self) -> None:
        plan = LogicalPlan(
            [
                ask(1, "a", key="a", step=Known("first")),
                ask(2, "b", key="b"),
                ask(3, "b", key="b", step=Same(2)),
            ],
            [1, 3],
        )
        after = substitute_known(plan, {b"a": "second", b"b": "B"})
        assert steps(after) == {1: Known("first"), 2: Known("B"), 3: Same(2)}


class TestMergeIdentical:
    def test_tells_calls_apart_by_their_inputs(self) -> None:
        plan = LogicalPlan(
            [ask(1, "a"), ask(2, "b"), ask(3, "c", 1), ask(4, "c", 2), ask(5, "c", 1)], [3, 4, 5]
        )
        assert steps(merge_identical(plan, {})) == {
            **dict.fromkeys((1, 2, 3, 4), Compute()),
            5: Same(3),
        }

    def test_tells_inputs_apart_by_their_order(self) -> None:
        plan = LogicalPlan([ask(1, "a"), ask(2, "b"), ask(3, "c", 1, 2), ask(4, "c", 2, 1)], [3, 4])
        assert merge_identical(plan, {}) is plan

    def test_reaches_the_top_of_a_tower_in_one_pass(self) -> None:
        left = [ask(1, "0"), *(ask(i, str(i), i - 1) for i in range(2, 20))]
        right = [
            node._replace(id=node.id + 100, inputs=tuple(i + 100 for i in node.inputs))
            for node in left
        ]
        after = merge_identical(LogicalPlan([*left, *right], [19, 119]), {})
        assert [after.nodes[i + 100].step for i in range(1, 20)] == [Same(i) for i in range(1, 20)]

    def test_never_merges_what_has_no_content_nor_what_is_above_it(self) -> None:
        plan = LogicalPlan([ask(1, None), ask(2, None), ask(3, "c", 1), ask(4, "c", 2)], [3, 4])
        assert merge_identical(plan, {}) is plan

    def test_does_not_depend_on_the_order_in_which_nodes_are_listed(self) -> None:
        plan = LogicalPlan([ask(4, "c", 2), ask(3, "c", 1), ask(2, "a"), ask(1, "a")], [3, 4])
        after = merge_identical(plan, {})
        assert sum(isinstance(node.step, Compute) for node in after) == 2
        after.check()

    def test_redirects_those_who_took_the_answer_of_a_merged_call(self) -> None:
        plan = LogicalPlan(
            [
                ask(5, "d", 4),
                ask(3, "long", family="f", max_tokens=9),
                ask(4, "long", family="f", max_tokens=9),
                ask(1, "short", family="f", max_tokens=3, step=Prefix(3)),
            ],
            [1, 3, 5],
        )
        plan.check()
        after = merge_identical(plan, {})
        after.check()
        assert steps(after)[3] == Same(4) and steps(after)[1] == Prefix(4)


class TestSubsumeShorter:
    def test_cuts_all_from_the_longest(self) -> None:
        plan = LogicalPlan(
            [ask(i, f"c{i}", family="f", max_tokens=i) for i in (3, 9, 5)]
            + [ask(7, "g7", family="g", max_tokens=7)],
            [3, 5, 7, 9],
        )
        assert steps(subsume_shorter(plan, {})) == {
            3: Prefix(9),
            5: Prefix(9),
            7: Compute(),
            9: Compute(),
        }

    def test_keeps_calls_of_other_inputs_apart(self) -> None:
        plan = LogicalPlan(
            [
                ask(1, "a"),
                ask(2, "b"),
                ask(3, "c3", 1, family="f", max_tokens=3),
                ask(9, "c9", 2, family="f", max_tokens=9),
            ],
            [3, 9],
        )
        assert subsume_shorter(plan, {}) is plan

    def test_sees_through_merged_inputs(self) -> None:
        plan = LogicalPlan(
            [
                ask(1, "a"),
                ask(2, "a", step=Same(1)),
                ask(3, "c3", 1, family="f", max_tokens=3),
                ask(9, "c9", 2, family="f", max_tokens=9),
            ],
            [3, 9],
        )
        assert steps(subsume_shorter(plan, {}))[3] == Prefix(9)

    @pytest.mark.parametrize(
        "longer",
        [
            ask(9, "c9", family=None, max_tokens=9),
            ask(9, None, family="f", max_tokens=9),
            ask(9, "c9", family="f", max_tokens=9, step=Known("x")),
        ],
        ids=["not of the family", "not shared", "known already"],
    )
    def test_leaves_alone(self, longer: PlanNode) -> None:
        plan = LogicalPlan([ask(3, "c3", family="f", max_tokens=3), longer], [3, 9])
        assert subsume_shorter(plan, {}) is plan

    def test_does_not_cut_a_call_that_is_not_shared(self) -> None:
        plan = LogicalPlan(
            [
                ask(3, None, family="f", max_tokens=3),
                ask(9, "c9", family="f", max_tokens=9),
            ],
            [3, 9],
        )
        assert subsume_shorter(plan, {}) is plan


class TestDropUnneeded:
    def test_keeps_sinks_and_their_sources(self) -> None:
        plan = LogicalPlan([ask(1, "a"), ask(2, "b", 1), ask(3, "c", 1), ask(4, "d")], [2])
        after = drop_unneeded(plan, {})
        assert set(after.nodes) == {1, 2} and after.sinks == (2,)

    def test_drops_the_inputs_of_what_is_known_merged_or_cut(self) -> None:
        plan = LogicalPlan(
            [
                ask(1, "a"),
                ask(2, "b", 1, step=Known("x")),
                ask(3, "a"),
                ask(4, "long", family="f", max_tokens=9),
                ask(5, "long", 3, step=Same(4)),
                ask(6, "short", 3, family="f", max_tokens=3, step=Prefix(4)),
            ],
            [2, 5, 6],
        )
        assert set(drop_unneeded(plan, {}).nodes) == {2, 4, 5, 6}

    def test_keeps_a_plan_without_waste(self) -> None:
        plan = LogicalPlan([ask(1, "a"), ask(2, "b", 1)], [2])
        assert drop_unneeded(plan, {}) is plan


def test_the_rules_together() -> None:
    plan = LogicalPlan(
        [
            ask(1, "a", key="a"),
            ask(2, "a", key="a"),
            ask(3, "b", 1, key="ab"),
            ask(4, "b", 2, key="ab"),
            ask(5, "s", 3, family="f", max_tokens=3),
            ask(6, "l", 4, family="f", max_tokens=9),
            ask(7, "c", 6, key="known"),
        ],
        [5, 6, 7],
    )
    after = optimize(plan, {b"known": "x"})
    assert steps(after) == {
        1: Compute(),
        3: Compute(),
        4: Same(3),
        5: Prefix(6),
        6: Compute(),
        7: Known("x"),
    }


# --- random plans --------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> LogicalPlan:
    """Random plans, listed in any order; content and key follow from what is asked, as in life."""
    num = draw(st.integers(1, 9))
    nodes: list[PlanNode] = []
    for id_ in range(num):
        inputs = tuple(
            draw(st.lists(st.integers(0, id_ - 1), max_size=2, unique=True)) if id_ else []
        )
        question = draw(st.sampled_from("ab"))
        max_tokens = draw(st.sampled_from([None, 4, 8, 16]))
        content: str | None = f"{question}{max_tokens}"
        if draw(st.integers(0, 5)) == 0:
            content = None
        above = [nodes[i].key for i in inputs]
        key = None
        if content is not None and None not in above:
            key = f"{content}({','.join(k.decode() for k in above if k)})"
        family = question if max_tokens is not None and question == "a" else None
        nodes.append(ask(id_, content, *inputs, family=family, max_tokens=max_tokens, key=key))
    sinks = draw(st.lists(st.integers(0, num - 1), min_size=1, unique=True))
    return LogicalPlan(draw(st.permutations(nodes)), sinks)


@st.composite
def plans_and_known(draw: st.DrawFn) -> tuple[LogicalPlan, dict[bytes, Any]]:
    plan = draw(plans())
    keys = sorted({node.key for node in plan if node.key is not None})
    known = draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    return plan, {key: f"answer to {key!r}" for key in known}


rule_orders = st.permutations(RULES).flatmap(
    lambda rules: st.integers(0, len(rules)).map(lambda num: tuple(rules[:num]))
)


@settings(max_examples=150, deadline=None)
@given(plans_and_known(), st.lists(st.sampled_from(RULES), max_size=6))
def test_every_rule_keeps_every_plan_valid(
    case: tuple[LogicalPlan, dict[bytes, Any]], sequence: Sequence[Rule]
) -> None:
    plan, known = case
    plan.check()
    for rule in sequence:
        after = rule(plan, known)
        after.check()
        assert after is plan or after != plan, "a rule that changes nothing returns its argument"
        assert after.sinks == plan.sinks
        plan = after


@settings(max_examples=150, deadline=None)
@given(plans_and_known(), rule_orders)
def test_every_order_of_rules_settles_and_is_idempotent(
    case: tuple[LogicalPlan, dict[bytes, Any]], rules: tuple[Rule, ...]
) -> None:
    plan, known = case
    once = optimize(plan, known, rules)
    once.check()
    assert optimize(once, known, rules) is once


def answers(plan: LogicalPlan) -> dict[int, Any]:
    """What each node is answered, by a model that never fails: its question, as a tree.

    A cut answer is that of the shorter question, so questions of a family count by their length.
    """
    found: dict[int, Any] = {}
    for node in plan.in_order():
        match node.step:
            case Compute():
                asked = (node.content, node.id) if node.content is None else node.content
                found[node.id] = (asked, *(found[i] for i in node.inputs))
            case Known(value):
                found[node.id] = value
            case Same(of):
                found[node.id] = found[of]
            case Prefix(of):
                long = found[of]
                found[node.id] = (node.content, *long[1:]) if isinstance(long, tuple) else long
    return found


@settings(max_examples=150, deadline=None)
@given(plans(), rule_orders)
def test_rules_change_no_answer(plan: LogicalPlan, rules: tuple[Rule, ...]) -> None:
    plain, optimized = answers(plan), answers(optimize(plan, {}, rules))
    assert {sink: optimized[sink] for sink in plan.sinks} == {
        sink: plain[sink] for sink in plan.sinks
    }


@settings(max_examples=150, deadline=None)
@given(plans_and_known())
def test_all_rules_leave_nothing_to_compute_twice(
    case: tuple[LogicalPlan, dict[bytes, Any]],
) -> None:
    plan, known = case
    after = optimize(plan, known)
    left = [node for node in after if isinstance(node.step, Compute)]
    keys = [node.key for node in left if node.key is not None]
    assert len(keys) == len(set(keys)), "no question twice"
    assert not set(keys) & set(known), "no question that is answered"
    lengths: dict[Any, set[int | None]] = {}
    for node in left:
        if node.question is not None and node.key is not None:
            above = tuple(plan.nodes[i].key for i in node.inputs)
            lengths.setdefault((node.question, above), set()).add(node.max_tokens)
    assert all(len(found) == 1 for found in lengths.values()), "one length of each family"


# --- the loop ------------------------------------------------------------------------------------


def test_no_rules_rewrite_nothing() -> None:
    plan = LogicalPlan([ask(1, "a", key="a"), ask(2, "a", key="a")], [1])
    assert optimize(plan, {b"a": 1}, ()) is plan


def test_rules_that_do_not_settle_are_named() -> None:
    def to_and_fro(plan: LogicalPlan, known: Any) -> LogicalPlan:
        return LogicalPlan(plan, plan.sinks)

    plan = LogicalPlan([ask(1, "a"), ask(2, "b")], [1, 2])
    with pytest.raises(PlanError, match="do not converge: to_and_fro keep"):
        optimize(plan, {}, (drop_unneeded, to_and_fro))


def test_every_order_of_all_rules_merges_as_much() -> None:
    plan = LogicalPlan(
        [
            ask(1, "a", key="a"),
            ask(2, "a", key="a"),
            ask(3, "b", 1, key="ab"),
            ask(4, "b", 2, key="ab"),
        ],
        [3, 4],
    )
    for rules in itertools.permutations(RULES):
        after = optimize(plan, {}, rules)
        assert sum(isinstance(node.step, Compute) for node in after) == 2, rules


# --- the validator -------------------------------------------------------------------------------

LONG = ask(9, "l", family="f", max_tokens=9)
MALFORMED = {
    "sink 2 is not in the plan": ([ask(1, "a")], [2]),
    "node 1 needs node 7, which is not in the plan": ([ask(1, "a", 7)], [1]),
    "node 1 needs node 8, which is not": ([ask(1, "a", step=Same(8))], [1]),
    "depend on each other": ([ask(1, "a", 2), ask(2, "b", 1)], [1]),
    "node 3 takes the answer of node 2, which takes another's": (
        [ask(1, "a"), ask(2, "a", step=Same(1)), ask(3, "a", step=Same(2))],
        [3],
    ),
    "node 2 is not the same as node 1": ([ask(1, "a"), ask(2, "b", step=Same(1))], [2]),
    "node 4 is not the same as node 3": ([ask(3, None), ask(4, None, step=Same(3))], [4]),
    "node 5 is no prefix of node 9": ([LONG, ask(5, "s", max_tokens=3, step=Prefix(9))], [5]),
    "node 6 is no prefix of node 9": (
        [LONG, ask(6, "s", family="g", max_tokens=3, step=Prefix(9))],
        [6],
    ),
    "node 7 is longer than node 9": (
        [LONG, ask(7, "s", family="f", max_tokens=10, step=Prefix(9))],
        [7],
    ),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_check_refuses(message: str) -> None:
    nodes, sinks = MALFORMED[message]
    with pytest.raises(PlanError, match=message):
        LogicalPlan(nodes, sinks).check()


def test_check_accepts_what_is_not_needed_to_be_there() -> None:
    # the inputs of what is known or merged may have been dropped
    nodes = [ask(1, "a", 7, step=Known("x")), ask(2, "b"), ask(3, "b", 8, step=Same(2))]
    LogicalPlan(nodes, [1, 3]).check()


# --- what a person sees --------------------------------------------------------------------------


def test_explain() -> None:
    plan = LogicalPlan(
        [
            PlanNode(1, "operator", "answer"),
            PlanNode(2, "operator", "expert", parent=1),
            ask(3, "a", key="a", max_tokens=64)._replace(parent=2),
            PlanNode(4, "operator", "expert", parent=1),
            ask(5, "a", key="a", max_tokens=64, step=Same(3))._replace(parent=4),
            ask(6, "b", 3, 5, max_tokens=256, step=Known("x"))._replace(parent=1),
            ask(7, "c", max_tokens=16, step=Prefix(6))._replace(
                parent=99, messages=(("user", ("Say it in",)),)
            ),
        ],
        [1, 7],
    )
    assert plan.explain() == (
        "7 nodes: 3 operator calls, 4 model calls, of which 1 to compute\n"
        "#1 answer\n"
        "  #2 expert\n"
        "    #3 llm max_tokens=64 key=61\n"
        "  #4 expert\n"
        "    #5 llm max_tokens=64 = #3 key=61\n"
        "  #6 llm max_tokens=256 of #3, #5 known\n"
        '#7 llm max_tokens=16 = start of #6 "Say it in"'
    )


def test_plans_are_compared_by_what_they_say() -> None:
    assert LogicalPlan([ask(1, "a")], [1]) == LogicalPlan([ask(1, "a")], (1,))
    assert LogicalPlan([ask(1, "a")], [1]) != LogicalPlan([ask(1, "b")], [1])
    assert LogicalPlan([ask(1, "a")], [1]) != LogicalPlan([ask(1, "a")], [])
    assert LogicalPlan([ask(1, "a")], [1]) != "plan"
