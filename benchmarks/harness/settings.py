"""How large the engine is, relative to what is asked of it.

What decides a result is not absolute size but the ratio of the KV cache to the working set, of
prefill to decode, and of the batch to the engine's slots. One factor scales batch, cache and slots
together and keeps those ratios.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from benchmarks.harness.model import SHAPES, ModelShape
from helium_agents.engines.cpu_cores import computes_on_all_cores

BLOCK_TOKENS = 32
MAX_MODEL_TOKENS = 8192

KV_TOKENS = {"pressure": 16_384, "fits": 262_144}
"""Capacity at full size: at most a third of a workload's distinct working set, or more than all."""


@dataclass(frozen=True)
class EngineSettings:
    """One engine, and the HTTP server that is its equal.

    Args:
        setting: ``pressure`` or ``fits``.
        scale: Size relative to the full workloads; 1 has batches of tens of rows.
        shape: The model.
        is_gpu: Whether there is a GPU to run on.
    """

    setting: str
    scale: float = 1.0
    shape: ModelShape = SHAPES["medium"]
    is_gpu: bool = False

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, whole blocks; never less than one request needs."""
        tokens = max(int(KV_TOKENS[self.setting] * self.scale), self.max_model_tokens)
        return tokens // BLOCK_TOKENS * BLOCK_TOKENS

    @property
    def dtype(self) -> str:
        """Of weights and activations: few CPUs compute bfloat16 as fast as float32."""
        return "bfloat16" if self.is_gpu else "float32"

    @property
    def model(self) -> str:
        """The model in words."""
        return f"{self.shape}, {self.dtype}"

    @property
    def max_model_tokens(self) -> int:
        """Most tokens of a prompt with its answer."""
        return min(MAX_MODEL_TOKENS, max(int(KV_TOKENS["pressure"] * self.scale), 4096))

    @property
    def max_requests(self) -> int:
        """Most requests in one batch of the engine."""
        return max(8, round(64 * self.scale))

    def num_items(self, full: float) -> int:
        """Rows of a batch that has `full` at full size."""
        return max(2, round(full * self.scale))


def device(settings: EngineSettings) -> str:
    """The machine in words: the GPU, or the CPU cores that may be used, and those that compute."""
    if settings.is_gpu:
        import torch

        return str(torch.cuda.get_device_name(0))
    cores = f"CPU, {len(os.sched_getaffinity(0))} cores"
    binding = os.environ.get("VLLM_CPU_OMP_THREADS_BIND")
    if binding is not None:
        return f"{cores}, threads {binding}"
    return f"{cores}, all in the engine core" if computes_on_all_cores() else cores
