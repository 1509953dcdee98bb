"""The logits processor by which an engine answers as `benchmarks.harness.digest` says.

vLLM imports this in its own processes; name it as ``logits_processors=[PROCESSOR]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from benchmarks.harness.digest import Vocabulary

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate

_CERTAIN = 1e4
"""Above any logit of a model."""


class DigestAnswers(LogitsProcessor):  # type: ignore[misc]  # vLLM is not analysed
    """Raises the logit of the token that comes next by the digest of the prompt."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._vocabulary = Vocabulary.read(Path(vllm_config.model_config.model))
        self._device = device
        self._answers: dict[int, tuple[list[int], list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        """It decides the greedy answer."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Requests came, went, or changed places."""
        process_dict_updates(self._answers, batch_update, self._of_request)

    def _of_request(
        self, params: SamplingParams, prompt: list[int] | None, output: list[int]
    ) -> tuple[list[int], list[int]] | None:
        if prompt is None or params.max_tokens is None:
            return None
        return self._vocabulary.answer(prompt, params.max_tokens), output

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Make the next token of every request certain."""
        rows, tokens = [], []
        for row, (answer, output) in self._answers.items():
            if len(output) < len(answer):  # else vLLM already runs ahead of the end
                rows.append(row)
                tokens.append(answer[len(output)])
        if rows:
            index = (
                torch.tensor(rows, device=self._device),
                torch.tensor(tokens, device=self._device),
            )
            logits[index] = _CERTAIN
        return logits
