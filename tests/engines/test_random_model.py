"""The random model: the same everywhere, with a tokenizer for any text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from helium_agents.engines.model_source import directory_parts
from helium_agents.engines.random_model import random_model_dir

PROSE = (
    "The quarterly report shows that revenue grew over the year, driven by strong demand for "
    "cloud services; management raised its guidance and expects margins to improve."
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model_dir(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def test_it_is_the_same_wherever_it_is_made(model: Path, tmp_path: Path) -> None:
    assert directory_parts(random_model_dir(tmp_path)) == directory_parts(model)


def test_the_default_directory_is_read_at_call_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = tmp_path / "helium_agents" / model.name
    target.mkdir(parents=True)
    assert random_model_dir() == target


def test_english_takes_few_tokens(tokenizer: Tokenizer) -> None:
    assert len(PROSE) / len(tokenizer.encode(PROSE).ids) > 3.5
    record = '{"question": "What is the price?", "answer": "ten dollars", "score": 0.5}'
    assert len(record) / len(tokenizer.encode(record).ids) > 2.5


@pytest.mark.parametrize("text", ["naïve 日本語 🤖", "\x00\x01\x7f\t\r\n", "a" * 1000])
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_byte_is_a_token(tokenizer: Tokenizer) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert all(tokenizer.token_to_id(byte) is not None for byte in ByteLevel.alphabet())


def test_no_layer_writes_to_the_constant_that_carries_the_biases(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    assert np.ptp(tensors["model.embed_tokens.weight"][:, 0]) == 0
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert not tensor[0].any()
