"""A Llama model in llama.cpp's GGUF format, read as what a model directory holds.

Everything is written by hand, without `safetensors` and `tokenizers`, so that the bytes depend on
the model alone and not on the versions of those packages. Needs `gguf` and numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import GGUFReader, dequantize

if TYPE_CHECKING:
    import numpy as np
    from gguf import ReaderTensor
    from numpy.typing import NDArray

_CONTROL_TOKEN = 3

_OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What llama.cpp calls a tensor, and what transformers does; another one raises `KeyError`."""


class GgufModel:
    """A model file, opened.

    Args:
        path: Of architecture `llama`, with embeddings that are the output head too.
    """

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)

    def field(self, name: str) -> Any:
        """One of the file's metadata.

        Raises:
            KeyError: There is none of this name.
        """
        return self._reader.fields[name].contents()

    def config(self) -> dict[str, Any]:
        """The content of config.json, without the ids of special tokens."""
        hidden, heads = self.field("llama.embedding_length"), self._num_heads("")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.field("llama.vocab_size"),
            "hidden_size": hidden,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "num_hidden_layers": self.field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._num_heads("_kv"),
            "head_dim": hidden // heads,
            "hidden_act": "silu",
            "max_position_embeddings": self.field("llama.context_length"),
            # stored in 32 bits, of which six digits were meant
            "rms_norm_eps": float(f"{self.field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_theta": self.field("llama.rope.freq_base"),
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "dtype": "float32",
        }

    def tokenizer(self) -> dict[str, Any]:
        """The content of tokenizer.json: byte-level BPE in which every digit is a token."""
        tokens = self.field("tokenizer.ggml.tokens")
        kinds = self.field("tokenizer.ggml.token_type")
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        }
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                _control_token(token_id, token)
                for token_id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
                if kind == _CONTROL_TOKEN
            ],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: token_id for token_id, token in enumerate(tokens)},
                "merges": [merge.split(" ") for merge in self.field("tokenizer.ggml.merges")],
            },
        }

    # --- weights -------------------------------------------------------------------------------

    def write_weights(self, path: Path) -> None:
        """Write all tensors as float32 safetensors, one after another, so that few are held."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, tensor in self._tensors():
            shape = [int(size) for size in reversed(tensor.shape)]
            start, end = end, end + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, tensor in self._tensors():
                self._weights(name, tensor).astype("<f4", copy=False).tofile(file)

    def _tensors(self) -> Iterator[tuple[str, ReaderTensor]]:
        for tensor in self._reader.tensors:
            yield _transformers_name(tensor.name), tensor

    def _weights(self, name: str, tensor: ReaderTensor) -> NDArray[np.float32]:
        weights: NDArray[np.float32] = dequantize(tensor.data, tensor.tensor_type)
        if "q_proj" in name:
            return _halves_of_heads(weights, self._num_heads(""))
        if "k_proj" in name:
            return _halves_of_heads(weights, self._num_heads("_kv"))
        return weights

    def _num_heads(self, kind: str) -> int:
        return int(self.field(f"llama.attention.head_count{kind}"))


def _transformers_name(name: str) -> str:
    outer, *layer = name.removesuffix(".weight").split(".")
    if not layer:
        return f"{_OUTER_NAMES[outer]}.weight"
    number, kind = layer
    return f"model.layers.{number}.{_LAYER_NAMES[kind]}.weight"


def _halves_of_heads(weights: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Rows in transformers' order: llama.cpp rotates neighbours, transformers the two halves."""
    rows, columns = weights.shape
    pairs = weights.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _control_token(token_id: int, content: str) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
