"""Slots, phases and load of a traced run; its prefix tree."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from helium_agents.diagnose.prefixes import PrefixNode, prefixes
from helium_agents.diagnose.timeline import load_of, phases_of
from helium_agents.optimizer.prefix_tree import PrefixTree
from tests.trace.made import call, made_run


def test_a_request_runs_on_the_first_free_slot() -> None:
    run = made_run(call(1, 0, 4), call(2, 1, 2), call(3, 2, 3), call(4, 2.5, 5), call(5, 6, 7))
    assert [each.slot for each in phases_of(run)] == [0, 1, 1, 2, 0]


def test_phases_are_told_or_estimated() -> None:
    told = replace(call(1, 0, 4), sent_s=1.0, first_token_s=2.0)
    other = replace(call(2, 0, 4), sent_s=1.0, inputs=(1,))
    first, second = phases_of(made_run(told, other))
    assert (first.ready_s, first.sent_s, first.first_token_s) == (1.0, 1.0, 2.0)
    assert not first.is_estimated and second.is_estimated
    assert second.sent_s < second.first_token_s < second.end_s


def test_what_was_not_sent_has_no_phases() -> None:
    left = replace(call(1, 0, 1), sent_s=None, error="stopped")
    assert phases_of(made_run(left, call(2, 0, 1, source="memo"))) == []


def test_the_load_counts_what_runs_and_waits() -> None:
    late = replace(call(2, 0, 3), sent_s=2.0)
    run = made_run(call(1, 0, 2, prompt=[5] * 40, output=[1]), late)
    load = load_of(phases_of(run), ())
    assert load.times == [0, 2, 3]
    assert (load.running, load.waiting) == ([1, 1, 0], [1, 0, 0])
    assert load.kv_tokens == []


def test_shared_tokens_are_held_once() -> None:
    start = list(range(100))
    run = made_run(
        call(1, 0, 4, prompt=[*start, 200], output=()),
        call(2, 1, 3, prompt=[*start, 300], output=()),
    )
    load = load_of(phases_of(run), prefixes(run))
    assert dict(zip(load.times, load.kv_tokens, strict=True)) == {0: 101, 1: 102, 3: 101, 4: 0}


def nodes_of(roots: list[PrefixNode]) -> list[PrefixNode]:
    return [each for root in roots for each in (root, *nodes_of(root.children))]


@pytest.mark.parametrize("seed", range(20))
def test_the_tree_is_that_of_a_radix_tree(seed: int) -> None:
    rng = random.Random(seed)
    prompts = [[rng.randrange(2) for _ in range(rng.randrange(1, 9))] for _ in range(30)]
    run = made_run(*(call(1 + at, at, at + 1, prompt=each) for at, each in enumerate(prompts)))
    (tree,) = prefixes(run)
    nodes = nodes_of(tree.roots)
    assert sum(node.num_tokens for node in nodes) == sum(map(len, prompts))
    known = PrefixTree()
    for prompt in prompts:
        known.insert(prompt, None)
    assert sum(node.stop - node.start for node in nodes) == known.num_tokens
    for node in nodes:
        members = [each.answer.prompt for each in tree.calls[node.begin : node.end] if each.answer]
        assert len({prompt[: node.stop].tobytes() for prompt in members}) == 1
        assert all(child.start == node.stop for child in node.children)


def test_hit_and_lost_tokens_are_told_apart() -> None:
    start = list(range(64))
    run = made_run(
        call(1, 0, 1, prompt=[*start, *[70] * 32]),
        call(2, 1, 2, prompt=[*start, *[80] * 32], cached_tokens=32),
    )
    (tree,) = prefixes(run)
    (root,) = tree.roots
    assert (root.num_prompts, root.num_tokens) == (2, 128)
    assert (root.hit_tokens, root.lost_tokens) == (32, 32)
    assert [(child.hit_tokens, child.lost_tokens) for child in root.children] == [(0, 0)] * 2
