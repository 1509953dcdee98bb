"""Answers by digest: what the oracle says is what a real engine answers, and every word counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.digest import MAX_TOKENS, MIN_TOKENS, Vocabulary
from benchmarks.harness.model import SHAPES, model_directory
from benchmarks.harness.oracle import Oracle

SHAPE = SHAPES["small"]
TOKENS = st.lists(st.integers(0, 4095), min_size=1, max_size=200)


@pytest.fixture(scope="module")
def vocabulary(cache_home: Path) -> Vocabulary:
    return Vocabulary.read(model_directory(SHAPE))


@given(prompt=TOKENS, data=st.data())
def test_every_token_of_the_prompt_counts(
    vocabulary: Vocabulary, prompt: list[int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(prompt) - 1))
    other = data.draw(st.integers(0, 4095).filter(lambda token: token != prompt[at]))
    changed = [*prompt[:at], other, *prompt[at + 1 :]]
    assert vocabulary.answer(prompt, 16) != vocabulary.answer(changed, 16)
    assert vocabulary.answer(prompt, 16) != vocabulary.answer(prompt[:at] + prompt[at + 1 :], 16)


@given(prompt=TOKENS, length=st.integers(1, 200), more=st.integers(1, 200))
def test_a_shorter_answer_is_the_beginning_of_a_longer(
    vocabulary: Vocabulary, prompt: list[int], length: int, more: int
) -> None:
    shorter = vocabulary.answer(prompt, length)
    assert len(shorter) <= length
    assert vocabulary.answer(prompt, length + more)[: len(shorter)] == shorter


def test_lengths_are_log_uniform(vocabulary: Vocabulary) -> None:
    lengths = [len(vocabulary.answer([number], 2 * MAX_TOKENS)) for number in range(2000)]
    assert MIN_TOKENS < min(lengths) < 20
    assert MAX_TOKENS * 0.9 < max(lengths) <= MAX_TOKENS
    middle = (MIN_TOKENS * MAX_TOKENS) ** 0.5
    assert 0.45 < sum(length < middle for length in lengths) / len(lengths) < 0.55


def test_answers_are_words_that_survive_decoding(vocabulary: Vocabulary) -> None:
    oracle = Oracle(SHAPE)
    texts = {oracle.text([token]) for token in vocabulary.word_ids.tolist()}
    assert len(texts) == len(vocabulary.word_ids) > 1000
    assert all(text[0] == " " and text[1:].isalpha() for text in texts)
