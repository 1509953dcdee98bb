"""A request in vLLM's terms, and what vLLM makes of it in the port's."""

from __future__ import annotations

from collections.abc import Sequence
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
        extra_args=request.hints,
        structured_outputs=StructuredOutputsParams(json=schema) if schema is not None else None,
        output_kind=RequestOutputKind.DELTA if is_streamed else RequestOutputKind.FINAL_ONLY,
    )


def choice_of(pieces: Sequence[CompletionOutput]) -> Choice:
    """One answer from its pieces, one of which says why it ended."""
    reasons: dict[str | None, FinishReason] = {
        "length": "length", "stop": "stop", "repetition": "stop"
    }  # fmt: skip
    reason = next((piece.finish_reason for piece in pieces if piece.finish_reason), None)
    if reason not in reasons:
        raise TransientEngineError(f"vLLM ended the request by itself: {reason}")
    token_ids = tuple(token_id for piece in pieces for token_id in piece.token_ids)
    return Choice("".join(piece.text for piece in pieces), token_ids, reasons[reason])


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
