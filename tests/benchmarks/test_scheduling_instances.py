"""Instances: prefixes that calls share, orders that are valid, and the seven that are compared."""

from __future__ import annotations

import pytest

from benchmarks.scheduling.instance import Call, Instance, Segment
from benchmarks.scheduling.workflows import KV_CAPACITY_TOKENS, instances

SYSTEM, QUESTION, OTHER = Segment("system", 10), Segment("question", 5), Segment("other", 7)


def instance(*calls: Call, capacity_tokens: int = 100) -> Instance:
    return Instance("test", 1, 1, capacity_tokens, calls)


def test_only_leading_segments_are_shared() -> None:
    call = Call("a", 0, (SYSTEM, QUESTION, OTHER), 1)
    assert call.shared_tokens(Call("b", 0, (SYSTEM, QUESTION), 1)) == 15
    assert call.shared_tokens(Call("b", 0, (SYSTEM, OTHER), 1)) == 10
    assert call.shared_tokens(Call("b", 0, (OTHER, SYSTEM, QUESTION), 1)) == 0
    assert call.shared_tokens(call) == call.prompt_tokens == 22


def test_the_tree_counts_a_shared_prefix_once() -> None:
    drawn = instance(
        Call("a", 0, (SYSTEM, QUESTION), 1), Call("b", 0, (SYSTEM, OTHER, QUESTION), 1)
    )
    assert drawn.prompt_tokens == 37
    assert drawn.tree_tokens == 27  # the question after the other text is another node


def test_ancestors_are_transitive() -> None:
    drawn = instance(
        Call("a", 0, (SYSTEM,), 3),
        Call("b", 0, (Segment("a said", 3, 0),), 4),
        Call("c", 0, (Segment("b said", 4, 1),), 1),
    )
    assert drawn.ancestors == (frozenset(), {0}, {0, 1})


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        ([Call("a", 0, (SYSTEM,), 0)], "says nothing"),
        ([Call("a", 0, (SYSTEM,), 91)], "does not fit"),
        ([Call("a", 0, (Segment("a said", 1, 0),), 1)], "comes later"),
        ([Call("a", 0, (SYSTEM,), 1), Call("b", 0, (Segment("system", 11),), 1)], "two texts"),
        ([Call("a", 0, (SYSTEM,), 1), Call("b", 0, (Segment("a said", 2, 0),), 1)], "as long as"),
    ],
)
def test_what_makes_no_sense_is_refused(calls: list[Call], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        instance(*calls)


@pytest.mark.parametrize("order", [(0,), (0, 0), (1, 0), (0, 1, 2)])
def test_invalid_orders_are_refused(order: tuple[int, ...]) -> None:
    drawn = instance(Call("a", 0, (SYSTEM,), 3), Call("b", 0, (Segment("a said", 3, 0),), 1))
    drawn.check((0, 1))
    with pytest.raises(ValueError):
        drawn.check(order)


def test_there_are_seven_of_the_published_size() -> None:
    drawn = instances(seed=0)
    assert len({each.name for each in drawn}) == 7
    for each in drawn:
        assert each.kv_capacity_tokens == KV_CAPACITY_TOKENS == 8192
        assert 2 <= each.num_agents <= 4
        assert 2 <= each.batch <= 4
        assert {call.item for call in each.calls} == set(range(each.batch))
        assert each.tree_tokens < each.prompt_tokens
        assert any(call.inputs for call in each.calls)


def test_a_seed_draws_the_same_and_another_does_not() -> None:
    assert instances(seed=3) == instances(seed=3)
    assert all(a != b for a, b in zip(instances(seed=3), instances(seed=4), strict=True))


def test_a_later_debate_round_continues_the_earlier() -> None:
    debate = next(each for each in instances(seed=0) if each.name == "debate of 4")
    for call in debate.calls:
        if call.operator.endswith("round 2"):
            assert len(call.inputs) == 4
            agent = call.operator.removesuffix("round 2")
            own = next(
                debate.calls[index]
                for index in call.inputs
                if debate.calls[index].operator.startswith(agent)
            )
            assert call.shared_tokens(own) == own.prompt_tokens
