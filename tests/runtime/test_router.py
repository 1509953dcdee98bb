"""Routing over replicas: by what each has in its cache, and by how much it has to do."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents.engines.engine import ChatMessage, Request
from helium_agents.graph.sampling import Sampling
from helium_agents.runtime.fleet.router import Router


def request(prompt: list[int], max_tokens: int = 16) -> Request:
    messages = (ChatMessage("user", "q"),)
    return Request("id", messages, prompt, Sampling(max_tokens=max_tokens))


def test_equal_load_goes_round() -> None:
    router, held = Router(3), []
    for _ in range(6):
        scope = router.routed(request([1] * 10), range(3))
        held.append((scope, scope.__enter__()))
    assert [index for _, index in held] == [0, 1, 2, 0, 1, 2]
    for scope, _ in held:
        scope.__exit__(None, None, None)
    assert router._open_tokens == [0, 0, 0]


def test_a_prompt_goes_where_its_longest_prefix_went() -> None:
    router = Router(2)
    shared, long = [7] * 64, [7] * 64 + [8] * 64
    with router.routed(request(shared), [1]):
        pass
    with router.routed(request([9] * 64), [0]):
        pass
    with router.routed(request(long), [0, 1]) as index:
        assert index == 1
    with router.routed(request([9] * 64 + [1]), [0, 1]) as index:
        assert index == 0
    with router.routed(request([*long, *[5] * 200]), [0]):  # as if 1 were down
        pass
    with router.routed(request([*long, 6]), [0, 1]) as index:
        assert index == 1, "both have 128 tokens of it, and 1 was sent less"
    with router.routed(request([*long, *[5] * 9]), [0, 1]) as index:
        assert index == 0, "137 tokens of it"


def test_a_prefix_is_not_worth_a_longer_queue() -> None:
    router = Router(2)
    with router.routed(request([7] * 64), [0]):
        pass
    with router.routed(request([1] * 100), [0]), router.routed(request([7] * 64), [0, 1]) as index:
        assert index == 1


def test_what_is_cached_is_nothing_to_do() -> None:
    router = Router(2)
    with router.routed(request([7] * 640), [0]):
        pass
    with (
        router.routed(request([7] * 640 + [1]), [0, 1]),
        router.routed(request([9] * 64), [1]),
        router.routed(request([2] * 8), [0, 1]) as index,
    ):
        assert index == 0, "17 tokens to do there, and 80 on the other"


def test_what_a_dead_one_had_is_forgotten() -> None:
    router = Router(2)
    with router.routed(request([7] * 64), [1]):
        pass
    router.forget(1)
    with router.routed(request([7] * 64), [0, 1]) as index:
        assert index == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_no_replica_is_ahead_by_more_than_a_prompt(seed: int, count: int) -> None:
    draws, router = random.Random(seed), Router(count)
    stems = [[stem] * draws.randrange(0, 300) for stem in range(5)]
    for _ in range(60):
        prompt = draws.choice(stems) + [draws.randrange(99) for _ in range(draws.randrange(1, 90))]
        live = draws.sample(range(count), draws.randint(1, count))
        scope = router.routed(request(prompt), live)
        before = list(router._open_tokens)
        index = scope.__enter__()
        assert index in live
        assert before[index] - min(before[i] for i in live) <= len(prompt)
        if draws.random() < 0.7:
            scope.__exit__(None, None, None)


def test_only_so_many_tokens_are_remembered() -> None:
    router = Router(2, most_tokens=100)
    for number in range(1, 4):
        with router.routed(request([number] * 60), [1]):
            pass
    with router.routed(request([3] * 60), [0, 1]) as index:
        assert index == 1
    with router.routed(request([1] * 60), [0, 1]) as index:
        assert index == 0, "forgotten"
