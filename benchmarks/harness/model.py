"""The model that the benchmarks compute: the shape of a real one, weights that mean nothing.

Its answers are decided by a logits processor, so vLLM may fill the weights with its own seeded
noise (``load_format="dummy"``) and a directory without weights is enough, whatever the size.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.harness.digest import FILE_NAME
from helium_agents.engines.cached_model import cache_root
from helium_agents.engines.random_model import random_model_dir

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_FORMAT = 1


@dataclass(frozen=True)
class ModelShape:
    """The size of a Qwen model.

    Args:
        name: What it is called on the command line and in results.
        family: ``qwen2`` or ``qwen3``, which also normalises queries and keys.
        hidden: Width of the residual stream.
        layers: Number of layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        intermediate: Width of the feed-forward layers.
        vocabulary: Rows of the embedding; at least the tokenizer's 4,096.
    """

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int = 4096

    def __str__(self) -> str:
        return f"{self.name} ({self.family}, {self.hidden} x {self.layers})"


SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("small", "qwen2", 256, 4, 4, 2, 64, 768),
        ModelShape("medium", "qwen2", 512, 8, 8, 4, 64, 1536),
        ModelShape("qwen3-8b", "qwen3", 4096, 36, 32, 8, 128, 12288, vocabulary=151_936),
    )
}
"""By name: two for a CPU, and the one that the published numbers are for."""


def model_directory(shape: ModelShape) -> Path:
    """The model's directory, made at the first call."""
    target = cache_root() / f"benchmark-{shape.name}-v{_FORMAT}"
    if not target.is_dir():
        source = random_model_dir()
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        for name in _TOKENIZER_FILES:
            shutil.copyfile(source / name, unfinished / name)
        config = _config(json.loads((source / "config.json").read_text()), shape)
        (unfinished / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        answers = _answers(Tokenizer.from_file(str(source / "tokenizer.json")), config)
        (unfinished / FILE_NAME).write_text(json.dumps(answers) + "\n")
        try:
            unfinished.rename(target)
        except OSError:  # made by another process meanwhile, with the same content
            shutil.rmtree(unfinished)
    return target


def _config(config: dict[str, object], shape: ModelShape) -> dict[str, object]:
    return config | {
        "architectures": [f"{shape.family.capitalize()}ForCausalLM"],
        "model_type": shape.family,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "dtype": "bfloat16",
    }


def _answers(tokenizer: Tokenizer, config: dict[str, object]) -> dict[str, object]:
    """What answers are made of: whole lower-case words with their space."""
    words = [
        token_id
        for token_id in range(tokenizer.get_vocab_size())
        if (text := tokenizer.decode([token_id]))[:1] == " "
        and len(text) > 2
        and text[1:].isascii()
        and text[1:].islower()
        and text[1:].isalpha()
    ]
    return {"word_ids": words, "end_id": config["eos_token_id"]}
