"""A text is encoded as its tokenizer does it, and what was encoded before is looked up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents.engines import encode
from helium_agents.engines.encode import Encoder, encoder_of
from helium_agents.engines.model_source import find_model

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PARTS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start", "|>", "user\n", " the", "The",
    "\n", "\n\n", "  ", "\t", "12", ".5%", "'s", "n't", "…", "é", "e\u0301", "東京",
    "\U0001f642", "a",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(find_model("random").model)


@pytest.fixture(scope="module")
def encoder(tokenizer: Any) -> Encoder:
    encoder = encoder_of(tokenizer)
    assert encoder is not None
    return encoder


@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=30).map("".join))
def test_a_text_has_the_tokens_of_its_tokenizer(
    tokenizer: Any, encoder: Encoder, text: str
) -> None:
    assert encoder.encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


class Counting:
    """A tokenizer that notes what it is asked to encode."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.encoded: list[str] = []

    def encode(self, text: str, **options: bool) -> Any:
        self.encoded.append(text)
        return self._tokenizer.encode(text, **options)


def counted(tokenizer: Any) -> tuple[Counting, Encoder]:
    counting = Counting(tokenizer.backend_tokenizer)
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    return counting, Encoder(counting, special)  # type: ignore[arg-type]


def test_of_a_growing_history_only_what_is_new_is_encoded(tokenizer: Any) -> None:
    counting, encoder = counted(tokenizer)
    history = "<|im_start|>system\nBe brief.<|im_end|>"
    for turn in range(5):
        history += f"\n<|im_start|>user\nQuestion {turn}?<|im_end|>"
        encoder.encode(history + "\n<|im_start|>assistant\n")
    assert len(counting.encoded) == len(set(counting.encoded))
    assert sum("Question" in text for text in counting.encoded) == 5


def test_what_was_not_looked_up_for_long_is_forgotten(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_MOST_CHARACTERS", 40)
    counting, encoder = counted(tokenizer)
    for text in ("x" * 15, "y" * 15, "x" * 15, "z" * 15, "x" * 15, "y" * 15, "w" * 50, "w" * 50):
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encoder.encode(text) == expected
    assert [text[0] for text in counting.encoded] == ["x", "y", "z", "y", "w", "w"]


def made(pre_tokenizer: Any, *special: Any) -> Any:
    """A tokenizer of single characters."""
    vocabulary = {"[UNK]": 0, "▁": 1, **{letter: 2 + n for n, letter in enumerate("abc")}}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizer
    backend.add_special_tokens(list(special))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def test_the_longest_of_special_tokens_counts() -> None:
    tokenizer = made(tokenizers.pre_tokenizers.Digits(), "<s", "<s>", "s>")
    found = encoder_of(tokenizer)
    assert found is not None
    for text in ("<s>a<sb<s>s>", "<<s>>", "ab"):
        assert found.encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_one_that_encodes_parts_otherwise_has_none() -> None:
    pre_tokenizers = tokenizers.pre_tokenizers
    first = pre_tokenizers.Metaspace(prepend_scheme="first")
    stripping = tokenizers.AddedToken("<s>", lstrip=True, special=True)
    digits = pre_tokenizers.Digits()
    assert encoder_of(made(first, "<s>")) is None
    assert encoder_of(made(pre_tokenizers.Sequence([digits, first]), "<s>")) is None
    assert encoder_of(made(pre_tokenizers.ByteLevel(add_prefix_space=True), "<s>")) is None
    assert encoder_of(made(digits, stripping)) is None
    assert encoder_of(made(digits)) is None  # nothing to split at
    assert encoder_of(object()) is None
    assert encoder_of(made(digits, "<s>")) is not None
