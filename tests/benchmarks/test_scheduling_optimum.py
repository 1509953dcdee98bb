"""The optimum: equal to that of all orders tried, and below every policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.scheduling.instance import Call, Instance, Segment
from benchmarks.scheduling.model import price
from benchmarks.scheduling.workflows import instances

pytest.importorskip("ortools", reason="CP-SAT comes with requirements/bench.txt")

from benchmarks.scheduling.__main__ import main
from benchmarks.scheduling.compare import RANDOM, compare
from benchmarks.scheduling.optimum import optimum
from benchmarks.scheduling.policies import POLICIES

CAPACITY = 64


def valid_orders(instance: Instance) -> Iterator[tuple[int, ...]]:
    """Every order in which each call follows what it reads."""
    for order in permutations(range(len(instance.calls))):
        place = {index: rank for rank, index in enumerate(order)}
        if all(
            place[source] < place[index]
            for index, call in enumerate(instance.calls)
            for source in call.inputs
        ):
            yield order


@st.composite
def tiny_instances(draw: st.DrawFn) -> Instance:
    """Up to six calls over a few texts, of which later ones may read earlier answers.

    Answers are short against the capacity or long, so that either prefixes or delays decide.
    """
    calls: list[Call] = []
    for index in range(draw(st.integers(1, 6))):
        prompt = [
            Segment(f"text {key}", 1 + 3 * key)
            for key in draw(st.lists(st.integers(0, 3), max_size=3))
        ]
        sources = st.sets(st.integers(0, index - 1), max_size=2) if index else st.just(set())
        prompt += [
            Segment(f"{source} said", calls[source].output_tokens, source)
            for source in sorted(draw(sources))
        ]
        calls.append(Call(f"call {index}", 0, tuple(prompt), draw(st.integers(1, 8))))
    return Instance("tiny", 2, 1, draw(st.sampled_from([CAPACITY, 50 * CAPACITY])), tuple(calls))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(instance=tiny_instances())
def test_it_is_the_best_of_all_orders(instance: Instance) -> None:
    found = optimum(instance, num_workers=1)
    assert found.is_proved
    assert found.schedule.makespan == found.bound
    best = min(price(instance, order).makespan for order in valid_orders(instance))
    assert found.schedule.makespan == best


def test_it_keeps_a_long_prefix_together() -> None:
    shared, others = Segment("long", 40), [Segment(f"other {each}", 5) for each in range(2)]
    calls = (
        Call("long", 0, (shared,), 4),
        Call("other", 0, (others[0],), 4),
        Call("long again", 0, (shared, others[1]), 4),
    )
    found = optimum(Instance("test", 2, 2, CAPACITY, calls), num_workers=1).schedule
    assert abs(found.order.index(0) - found.order.index(2)) == 1
    assert found.makespan == 4 * (40 + 5 + 5) + 3 * 10


def test_it_waits_for_a_prefix_where_that_is_shorter() -> None:
    """The best order may leave the worker idle although a call is ready, as no policy here does."""
    shared = Segment("long", 60)
    calls = (
        Call("writes", 0, (shared,), 1),
        Call("reads", 0, (shared, Segment("written", 1, 0)), 1),
        Call("stranger", 0, (Segment("elsewhere", 50),), 1),
    )
    instance = Instance("test", 2, 2, CAPACITY, calls)
    found = optimum(instance, num_workers=1).schedule
    idle = found.makespan - sum(
        end - start for start, end in zip(found.starts, found.ends, strict=True)
    )
    assert idle > 0
    assert found.makespan == min(
        price(instance, order).makespan for order in valid_orders(instance)
    )


@pytest.mark.parametrize("name", ["mapred, documents", "reflect", "iterative", "parallel"])
def test_no_policy_is_better(name: str) -> None:
    instance = next(each for each in instances(seed=5) if each.name == name)
    found = compare(instance, time_limit_s=60, seed=5, num_random_orders=20)
    assert found.optimum.is_proved
    assert found.gap_to_bound == 0
    assert set(found.gaps) == {*POLICIES, RANDOM}
    assert all(gap >= 0 for gap in found.gaps.values())
    assert found.gaps["QueryWise"] > 0


@pytest.mark.parametrize("time_limit_s", [0.001, 0.5])
def test_out_of_time_it_has_an_order_and_a_bound(time_limit_s: float) -> None:
    instance = next(each for each in instances(seed=0) if each.name == "debate of 4")
    hint = POLICIES["LSPF"](instance)
    found = optimum(instance, hint=hint, time_limit_s=time_limit_s)
    assert not found.is_proved
    assert 0 <= found.bound < found.schedule.makespan <= price(instance, hint).makespan


def test_the_command_prints_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    main(["--time-limit-s", "1", "--seed", "1", "--json", str(path)])
    printed = capsys.readouterr().out
    report = json.loads(path.read_text("utf-8"))
    assert len(report["instances"]) == 7
    for each, drawn in zip(report["instances"], instances(seed=1), strict=True):
        assert f"| {drawn.name} |" in printed
        schedule = price(drawn, each["best_order"])
        assert schedule.makespan == each["best_makespan"]
        assert each["lower_bound"] <= each["best_makespan"] <= min(each["makespans"].values())
        for policy, makespan in each["makespans"].items():
            assert each["gaps"][policy] == makespan / each["best_makespan"] - 1
    for policy in (*POLICIES, RANDOM):
        assert f"| {policy} |" in printed
