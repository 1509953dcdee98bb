"""Which model is meant, where its files are, and the digest that tells it from every other.

Runs on the path of a memo hit, so it imports nothing heavy: an answer that is remembered must not
wait seconds for torch to be imported.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from helium_agents.engines.cached_model import cache_root
from helium_agents.engines.embedded import embedded_model_dir
from helium_agents.engines.random_model import random_model_dir
from helium_agents.engines.vllm_installation import instead_or_installed
from helium_agents.errors import EngineStartError

_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

RANDOM = "random"
"""Names the model with random weights; a directory of that name is ``./random``."""

_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_DECIDING_SUFFIXES = (*_WEIGHT_SUFFIXES, ".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
"""What a model directory may hold that decides an answer: weights, tokenizer, template, code."""

_DIGEST_CACHE_BYTES = 1 << 22
"""Files smaller than this are hashed every time (about a millisecond)."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model, pinned.

    Args:
        model: What vLLM is to load: a directory, or the name of a hub repository.
        revision: The repository's commit; `None` for a directory. vLLM must be told it: a branch
            may have moved since it was looked up.
        directory: Where the files are; `None` while the repository is not downloaded.
    """

    model: str
    revision: str | None
    directory: Path | None

    def file(self, name: str) -> Path | None:
        """A file of the model, if it is here."""
        path = self.directory / name if self.directory is not None else None
        return path if path is not None and path.is_file() else None

    def parts(self) -> dict[str, str]:
        """Hex digests of the files that decide an answer, by what a person calls them.

        Of a hub repository its commit says that already, downloaded or not.
        """
        if self.revision is not None or self.directory is None:
            return {"model": f"hub:{self.model}@{self.revision}"}
        return directory_parts(self.directory)

    def chat_template_has(self, *words: str) -> bool:
        """Whether a chat template mentions one of the words; `True` where it can't be known."""
        if self.directory is None:
            return True
        paths = [self.directory / "tokenizer_config.json", *self.directory.rglob("*chat_template*")]
        texts = [path.read_text("utf-8", "replace") for path in paths if path.is_file()]
        return any(word in text for text in texts for word in words)


def find_model(
    model: str | Path | None, *, revision: str | None = None, download_dir: str | None = None
) -> ModelSource:
    """Find out what `model` means.

    A hub repository is pinned to a commit: the one asked for, else the one that the local
    Hugging Face cache has for the branch, else the one that the hub names. The middle one means
    that a model which moves on the hub does not change under a memo; downloading it again does.

    Args:
        model: A directory, the name of a hub repository, `None` for the embedded model, or
            `RANDOM` for the one whose weights are random.
        revision: Branch, tag or commit of a repository.
        download_dir: Hugging Face cache to use in place of the user's.

    Raises:
        EngineStartError: There is no such directory, its config.json is broken, or the repository
            is neither in the local cache nor can the hub be asked.
    """
    if model is None or model == RANDOM:
        directory = embedded_model_dir() if model is None else random_model_dir()
        return ModelSource(str(directory), None, directory)
    path = Path(model).expanduser()
    if path.is_dir():
        _check_configuration(path)
        return ModelSource(str(path.resolve()), None, path.resolve())
    if isinstance(model, Path) or not _REPO_ID.fullmatch(model):
        raise EngineStartError(f"there is no model directory {path}")
    cache = Path(download_dir) if download_dir else _hub_cache()
    repository = cache / f"models--{model.replace('/', '--')}"
    commit = _commit(model, revision or "main", repository)
    snapshot = repository / "snapshots" / commit
    return ModelSource(model, commit, snapshot if snapshot.is_dir() else None)


def _check_configuration(directory: Path) -> None:
    """Refuse a missing or broken config.json here, where no engine has been started for it."""
    if not any((directory / name).is_file() for name in ("config.json", "params.json")):
        raise EngineStartError(f"{directory} is not a model directory: it has no config.json")
    path = directory / "config.json"
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
        problem = "" if isinstance(found, dict) else "no JSON object"
    except ValueError as error:
        problem = f"not valid JSON ({error})"
    if problem:
        raise EngineStartError(f"{path} is {problem}: copy the model's directory again")


def _hub_cache() -> Path:
    """Where huggingface_hub keeps downloads, by its own rules, without importing it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(variable):
            return Path(value).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def _commit(model: str, revision: str, repository: Path) -> str:
    if _COMMIT.fullmatch(revision):
        return revision
    with suppress(OSError):
        return (repository / "refs" / revision).read_text("ascii").strip()
    where = f"is no directory, is not in the local Hugging Face cache ({repository.parent})"
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise EngineStartError(
            f"model {model!r} {where}, and to ask the hub for it huggingface_hub is missing. vLLM "
            f"brings that, and is not installed. {instead_or_installed()}. For a tokenizer alone: "
            "pip install 'helium_agents[tokenizer]'"
        ) from error
    try:
        commit = HfApi().model_info(model, revision=revision, timeout=10).sha
    except Exception as error:  # offline, unknown, or gated
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineStartError(
            f"model {model!r} {where}, and cannot be asked of the hub: {reason}. Download it first "
            f"(hf download {model}), or give the path of a model directory"
        ) from error
    if commit is None:
        raise EngineStartError(f"the hub names no commit for {model!r} at {revision!r}")
    return commit


def directory_parts(directory: Path, *kinds: str) -> dict[str, str]:
    """Hex digests of what in a model's or an adapter's directory decides an answer, by kind.

    Args:
        directory: Where the files are.
        *kinds: Which are wanted, e.g. ``"tokenizer"``; by default all.
    """
    parts: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if relative.parts[0][0] == "." or (kinds and _kind_of(path) not in kinds):
            continue
        if path.suffix in _DECIDING_SUFFIXES and path.is_file():
            line = f"{relative.as_posix()}\0{file_digest(path)}\0"
            parts.setdefault(_kind_of(path), blake3()).update(line.encode())
    return {kind: digest.hexdigest() for kind, digest in parts.items()}


def _kind_of(path: Path) -> str:
    if path.suffix in _WEIGHT_SUFFIXES:
        return "weights"
    if "chat_template" in path.name:
        return "chat template"
    is_tokenizer = any(word in path.name for word in ("token", "vocab", "merges"))
    return "tokenizer" if is_tokenizer else "configuration"


def file_digest(path: Path) -> str:
    """Hex digest of a file; of a large one it is remembered until its size or time changes."""
    status = path.stat()
    if status.st_size < _DIGEST_CACHE_BYTES:
        return blake3(path.read_bytes()).hexdigest()
    key = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    remembered = cache_root() / "digests" / blake3(key.encode()).hexdigest()
    with suppress(OSError):
        text = remembered.read_text("ascii")
        if len(text) == 64:
            return text
    digest = blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    with suppress(OSError):  # a cache that can't be written only costs time
        remembered.parent.mkdir(parents=True, exist_ok=True)
        unfinished = remembered.with_suffix(f".{os.getpid()}")
        unfinished.write_text(digest, "ascii")
        unfinished.rename(remembered)
    return digest
