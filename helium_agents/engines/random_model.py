"""The random model: a small language model made on the machine, for tests and benchmarks.

It has the shape of a real one (Qwen2: grouped-query attention, rotary positions, SwiGLU) and a
byte-level BPE tokenizer with a chat template, so all of vLLM is exercised; only its weights are
random. They are normal with untied embeddings in float32, because a random model hides errors
unless it is chosen well: with tied dummy weights the same answer came out in 40 of 40 cases when
50 of 420 prompt tokens were dropped, with these in none of 63.

Raw noise would also answer in broken bytes and never stop. So dimension 0 of the residual stream
is a constant that no layer writes to, which makes column 0 of the output head a bias per token:
broken bytes and control tokens are pushed down, the end of the answer and the closing quote are
pulled up. Answers are then strings of English words, and half of them end within 256 tokens.

Only numpy, tokenizers and safetensors are needed, and they are imported when a model is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helium_agents.engines.cached_model import cached_model
from helium_agents.errors import EngineStartError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_DIRECTORY = "random-v2"
"""Changes whenever the model made here does, so that an old one is never taken for it."""

_SEED = 1
_WEIGHT_STD = 0.06
_VOCABULARY = 4096
_HIDDEN = 256
_LAYERS = 4
_HEADS = 4
_KV_HEADS = 2
_HEAD_DIM = _HIDDEN // _HEADS
_INTERMEDIATE = 768
_MAX_POSITION = 32_768

_END_OF_TEXT, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_SPECIAL_TOKENS = [_END_OF_TEXT, _START, _END]  # a token's id is its place

_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CHAT_TEMPLATE = (
    "{% if tools %}"
    "{{ '<|im_start|>tools\\n' }}{% for tool in tools %}{{ tool | tojson + '\\n' }}{% endfor %}"
    '{{ \'<tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>\\n\' }}'
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>' + call['function'] | tojson + '</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Queries are twice as wide: at the same width attention is so even that long prompts of like
# words look alike, and a third of 21 cuts of 50 out of 420 tokens left the answer as it was.
_QUERY_STD = 2 * _WEIGHT_STD

# The head is three times as wide as the rest, which changes no greedy answer but makes sampling
# at temperature 1 about as decided as a real model's: logits have a standard deviation of 2.9,
# the best of 4,096 lies near 10.
_HEAD_STD = 3 * _WEIGHT_STD
_BROKEN_BIAS = -30.0
_PIECE_BIAS = -4.0
_END_BIAS = 2.2
_PUNCTUATION_BIAS = {".": 4.0, '"': 5.0}

_CONSTANT_AFTER_NORM = 0.028
"""What the last norm makes of the constant (`_WEIGHT_STD`, no larger than its neighbours, or it
would drown them in the first norm); measured, within 7% at any position."""


def random_model_dir(cache_dir: Path | None = None) -> Path:
    """The random model's directory, made at the first call (about two seconds).

    Args:
        cache_dir: Where to keep it; `cache_root()` by default.

    Raises:
        EngineStartError: The directory cannot be written, or a package is missing.
    """
    try:
        return cached_model(_DIRECTORY, _make, cache_dir)
    except ImportError as error:
        raise EngineStartError(
            f"the random model needs the package {error.name!r}: "
            "pip install 'helium_agents[random]'"
        ) from error


def _make(directory: Path) -> None:
    from safetensors.numpy import save_file

    tokenizer = _train_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    for name, content in _configs().items():
        (directory / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    save_file(_weights(tokenizer), directory / "model.safetensors", metadata={"format": "pt"})


def _configs() -> dict[str, dict[str, Any]]:
    """The JSON files of a model directory, by file name."""
    return {
        "config.json": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "vocab_size": _VOCABULARY,
            "hidden_size": _HIDDEN,
            "intermediate_size": _INTERMEDIATE,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _KV_HEADS,
            "hidden_act": "silu",
            "max_position_embeddings": _MAX_POSITION,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": False,
            "dtype": "float32",
            "bos_token_id": _SPECIAL_TOKENS.index(_END_OF_TEXT),
            "eos_token_id": _SPECIAL_TOKENS.index(_END),
        },
        "generation_config.json": {
            "bos_token_id": _SPECIAL_TOKENS.index(_END_OF_TEXT),
            "pad_token_id": _SPECIAL_TOKENS.index(_END_OF_TEXT),
            "eos_token_id": _SPECIAL_TOKENS.index(_END),
        },
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "bos_token": None,
            "eos_token": _END,
            "pad_token": _END_OF_TEXT,
            "additional_special_tokens": [_START],
            "clean_up_tokenization_spaces": False,
            "model_max_length": _MAX_POSITION,
            "chat_template": _CHAT_TEMPLATE,
        },
    }


# --- tokenizer ---------------------------------------------------------------------------------


def _train_tokenizer() -> Tokenizer:
    """Byte-level BPE: any text can be encoded, common English words are one token.

    Transformers loads every `qwen2` model with Qwen2's own normalizer and word pattern, whatever
    `tokenizer.json` says, so these are the same.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True) for token in _SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if tokenizer.get_vocab_size() != _VOCABULARY:  # the corpus has too few distinct words
        raise AssertionError(f"{tokenizer.get_vocab_size()} tokens instead of {_VOCABULARY}")
    return tokenizer


def _words() -> list[str]:
    text = files("helium_agents.engines").joinpath("random_model_words.txt").read_text("utf-8")
    return list(dict.fromkeys(text.split()))


def _corpus() -> Iterator[str]:
    """Words by falling frequency, and the punctuation of prose, JSON and tables around them.

    Pre-tokens are counted one by one, so their order carries nothing: only counts matter.
    """
    for rank, word in enumerate(_words()):
        count = 2 + 4000 // (rank + 20)
        yield f" {word}" * count
        yield f" {word.capitalize()} " * (1 + count // 8)
        yield f"\n{word.capitalize()}" * (1 + count // 16)
        yield f'"{word}": ' * (1 + count // 16)
        yield f"({word})_{word}, {word}. {word}; {word}: " * (1 + count // 32)
    for _ in range(200):
        yield '{"a": ["b", "c"], "d": {"e": 1.5, "f": true}}\n[{"g": null}, {"h": ""}]\n\n- '
        yield "It's we're don't I'll they've: 10% of $2.50 (3,000) = 7 / 8? No! ... -- \n\n    # * "
    for number in range(100):
        yield f" {number} {number:02d} {number * 10} {1950 + number}"


# --- weights -----------------------------------------------------------------------------------


def _weights(tokenizer: Tokenizer) -> dict[str, NDArray[np.float32]]:
    import numpy as np

    draws = np.random.default_rng(_SEED)

    def normal(*shape: int, std: float = _WEIGHT_STD) -> NDArray[np.float32]:
        return draws.standard_normal(shape, dtype=np.float32) * np.float32(std)

    def ones() -> NDArray[np.float32]:
        return np.ones(_HIDDEN, dtype=np.float32)

    embedding = normal(_VOCABULARY, _HIDDEN)
    embedding[:, 0] = _WEIGHT_STD
    head = normal(_VOCABULARY, _HIDDEN, std=_HEAD_STD)
    head[:, 0] = _biases(tokenizer) / _CONSTANT_AFTER_NORM
    tensors = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": head,
        "model.norm.weight": ones(),
    }
    kv = _KV_HEADS * _HEAD_DIM
    for layer in range(_LAYERS):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        for name, rows, std in (
            ("q_proj", _HIDDEN, _QUERY_STD),
            ("k_proj", kv, _WEIGHT_STD),
            ("v_proj", kv, _WEIGHT_STD),
        ):
            tensors[f"{attention}.{name}.weight"] = normal(rows, _HIDDEN, std=std)
            tensors[f"{attention}.{name}.bias"] = normal(rows, std=std)
        tensors[f"{attention}.o_proj.weight"] = normal(_HIDDEN, _HIDDEN)
        tensors[f"{mlp}.gate_proj.weight"] = normal(_INTERMEDIATE, _HIDDEN)
        tensors[f"{mlp}.up_proj.weight"] = normal(_INTERMEDIATE, _HIDDEN)
        tensors[f"{mlp}.down_proj.weight"] = normal(_HIDDEN, _INTERMEDIATE)
        for writer in (f"{attention}.o_proj.weight", f"{mlp}.down_proj.weight"):
            tensors[writer][0] = 0.0  # nobody writes to the constant
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = ones()
        tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = ones()
    return tensors


def _biases(tokenizer: Tokenizer) -> NDArray[np.float32]:
    """What is added to each token's logit: whole words 0, their pieces less, broken bytes never."""
    import numpy as np

    words = {f" {word}" for word in _words()}
    biases = np.zeros(_VOCABULARY, dtype=np.float32)
    for token_id in range(_VOCABULARY):
        text = tokenizer.decode([token_id], skip_special_tokens=True)
        if not text.strip() or not text.isprintable() or "\ufffd" in text:
            biases[token_id] = _BROKEN_BIAS
        elif text not in words:
            biases[token_id] = _PUNCTUATION_BIAS.get(text, _PIECE_BIAS)
    biases[_SPECIAL_TOKENS.index(_END)] = _END_BIAS
    return biases
