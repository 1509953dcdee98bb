"""Sampling parameters as part of keys: by name, and only those that are not the default."""

from __future__ import annotations

from itertools import combinations

from helium_agents.graph.sampling import Sampling
from helium_agents.keys.encoding import encode

SAMPLED = {
    "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "presence_penalty": 1.0,
    "frequency_penalty": 1.0, "repetition_penalty": 1.5, "stop": ("x",), "seed": 1, "n": 2,
}  # fmt: skip


def test_defaults_are_no_part_of_a_key() -> None:
    assert Sampling().encoded == encode({})
    assert Sampling(max_tokens=7).encoded == encode({})
    assert Sampling(n=2).encoded == encode({"n": 2})


def test_every_parameter_is_named() -> None:
    assert Sampling(**SAMPLED).encoded == encode(dict(sorted(SAMPLED.items())))


def test_all_that_differ_have_keys_of_their_own() -> None:
    chosen = [dict(pairs) for count in range(4) for pairs in combinations(SAMPLED.items(), count)]
    keys = {Sampling(**{"temperature": 0.5} | each).encoded for each in chosen}
    assert len(keys) == len({frozenset(({"temperature": 0.5} | each).items()) for each in chosen})
