"""A request in vLLM's terms, and what vLLM makes of it in the port's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helium_agents.engines.engine import Choice, FinishReason, Request
from helium_agents.engines.vllm_launched import Launched
from helium_agents.errors import EngineError, RequestError, TransientEngineError

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput
    from vllm.sampling_params import SamplingParams


def sampling_params(request: Request, is_streamed: bool) -> SamplingParams:
    """How vLLM is to sample."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    sampling, schema = request.sampling, request.json_schema
    return SamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop),
        seed=sampling.seed,
        structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
        output_kind=RequestOutputKind.DELTA if is_streamed else RequestOutputKind.FINAL_ONLY,
    )


class Answer:
    """One answer as its pieces come in."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._finish_reason: str | None = None

    def add(self, piece: CompletionOutput) -> None:
        """Take the next piece."""
        self._texts.append(piece.text)
        self._token_ids.extend(piece.token_ids)
        self._finish_reason = piece.finish_reason or self._finish_reason

    def choice(self) -> Choice:
        """All of it, once it has ended."""
        reason: FinishReason
        match self._finish_reason:
            case "length":
                reason = "length"
            case "stop" | "repetition":
                reason = "stop"
            case other:
                raise TransientEngineError(f"vLLM ended the request by itself: {other}")
        return Choice("".join(self._texts), tuple(self._token_ids), reason)


def translated(error: Exception, engine: Launched) -> EngineError:
    """Say in the port's terms what vLLM raised."""
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    if isinstance(error, EngineError):
        return error
    if isinstance(error, EngineDeadError) or engine.is_dead:  # whatever came of that
        return engine.died()
    if isinstance(error, EngineGenerateError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(error).strip() or type(error).__name__
    if isinstance(error, VLLMClientError | ValueError | TypeError):
        return RequestError(f"vLLM refuses the request: {text}")
    return TransientEngineError(f"vLLM failed on the request: {text}")
