"""A model that sees images, small enough for a test: the random model with eyes of random weights.

It is a LLaVA: two layers of CLIP look at an image, and four of its patches become tokens of the
random model's prompt. What it says of an image means nothing, and is another thing of another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from helium_agents.engines.random_model import random_model_dir

IMAGE_TOKENS = 4
_IMAGE = "<image>"
_HIDDEN, _EYE, _PIXELS, _PATCH = 256, 32, 28, 14


def make_vision_model(directory: Path) -> None:
    """Write the model to a directory."""
    language = random_model_dir()
    text = json.loads((language / "config.json").read_text())
    tokenizer = json.loads((language / "tokenizer.json").read_text())
    settings = json.loads((language / "tokenizer_config.json").read_text())
    image_id = text["vocab_size"]
    added = tokenizer["added_tokens"]
    added.append(added[0] | {"id": image_id, "content": _IMAGE, "special": True})
    text |= {"vocab_size": image_id + 1}
    eye = {
        "model_type": "clip_vision_model", "hidden_size": _EYE, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": _PIXELS,
        "patch_size": _PATCH, "projection_dim": _EYE,
    }  # fmt: skip
    template = settings["chat_template"].replace("message['content']", "said(message)")
    files = {
        "config.json": {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "text_config": text,
            "vision_config": eye,
            "image_token_index": image_id,
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "image_seq_length": IMAGE_TOKENS,
            "tie_word_embeddings": False,
            "dtype": "float32",
        },
        "generation_config.json": {"eos_token_id": text["eos_token_id"]},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": settings
        | {"chat_template": _OF_PARTS + template, "image_token": _IMAGE},
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": _IMAGE,
            "patch_size": _PATCH,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": _PIXELS},
            "crop_size": {"height": _PIXELS, "width": _PIXELS},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content), "utf-8")
    weights = _with_eyes(load_file(language / "model.safetensors"))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


_OF_PARTS = (
    "{% macro said(message) %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}{% endmacro %}"
)


def _with_eyes(language: dict[str, Any]) -> dict[str, Any]:
    draws = np.random.default_rng(2)

    def normal(*shape: int) -> Any:
        return draws.standard_normal(shape, dtype=np.float32) * np.float32(0.1)

    weights = {}
    for name, tensor in language.items():
        if name in ("lm_head.weight", "model.embed_tokens.weight"):  # a row for the image's token
            row = np.full_like(tensor[:1], -1.0 if name == "lm_head.weight" else 0.0)
            tensor = np.concatenate([tensor, row])
        weights[f"language_model.{name}"] = tensor
    vision = "vision_tower.vision_model"
    weights |= {
        f"{vision}.embeddings.class_embedding": normal(_EYE),
        f"{vision}.embeddings.patch_embedding.weight": normal(_EYE, 3, _PATCH, _PATCH),
        f"{vision}.embeddings.position_embedding.weight": normal(IMAGE_TOKENS + 1, _EYE),
        "multi_modal_projector.linear_1.weight": normal(_HIDDEN, _EYE),
        "multi_modal_projector.linear_1.bias": normal(_HIDDEN),
        "multi_modal_projector.linear_2.weight": normal(_HIDDEN, _HIDDEN),
        "multi_modal_projector.linear_2.bias": normal(_HIDDEN),
    }
    for name in ("pre_layrnorm", "post_layernorm"):
        weights |= _norm(f"{vision}.{name}")
    for layer in range(2):
        prefix = f"{vision}.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights[f"{prefix}.self_attn.{name}.weight"] = normal(_EYE, _EYE)
            weights[f"{prefix}.self_attn.{name}.bias"] = normal(_EYE)
        for name, shape in (("fc1", (64, _EYE)), ("fc2", (_EYE, 64))):
            weights[f"{prefix}.mlp.{name}.weight"] = normal(*shape)
            weights[f"{prefix}.mlp.{name}.bias"] = normal(shape[0])
        weights |= _norm(f"{prefix}.layer_norm1") | _norm(f"{prefix}.layer_norm2")
    return weights


def _norm(name: str) -> dict[str, Any]:
    ones = np.ones(_EYE, dtype=np.float32)
    return {f"{name}.weight": ones, f"{name}.bias": np.zeros_like(ones)}
