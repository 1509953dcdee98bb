"""A request in vLLM's terms, and what vLLM makes of it in the port's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from helium_agents.engines.engine import Choice, FinishReason, Request
from helium_agents.engines.reporting_scheduler import REQUEST_NUMBER
from helium_agents.engines.vllm.liveness import Launched
from helium_agents.errors import EngineError, RequestError, TransientEngineError
from helium_agents.graph.sampling import Sampling

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.outputs import CompletionOutput
    from vllm.sampling_params import SamplingParams


def sampling_params(
    request: Request,
    number: int,
    is_streamed: bool,
    asked: ChatCompletionRequest | None = None,
    *,
    makes_text: bool = True,
) -> SamplingParams:
    """How vLLM is to sample.

    Args:
        request: What is asked.
        number: By which the scheduler reports on it.
        is_streamed: Whether the text is wanted in pieces.
        asked: The request as vLLM's parsers of the answer have adjusted it.
        makes_text: Whether vLLM is to make the text from the tokens.
    """
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    schema = request.json_schema
    structure = StructuredOutputsParams(json=schema) if schema is not None else None
    more: dict[str, Any] = {}
    if asked is not None:
        structure = asked.structured_outputs or structure
        more["skip_special_tokens"] = asked.skip_special_tokens
    values = {name: getattr(request.sampling, name) for name in _PARAMETERS}
    return SamplingParams(
        **values | {"stop": list(request.sampling.stop)} | more,
        extra_args={REQUEST_NUMBER: number, **(request.hints or {})},
        structured_outputs=structure,
        detokenize=makes_text,
        output_kind=RequestOutputKind.DELTA if is_streamed else RequestOutputKind.FINAL_ONLY,
    )


_PARAMETERS = tuple(field.name for field in fields(Sampling) if field.init)
"""`Sampling` speaks vLLM's vocabulary, so that none can be forgotten here."""


def choice_of(
    pieces: Sequence[CompletionOutput], text_of: Callable[[Sequence[int]], str] | None = None
) -> Choice:
    """One answer from its pieces, one of which says why it ended.

    Args:
        pieces: Of vLLM.
        text_of: Makes the text of its tokens, where vLLM was not to.

    Raises:
        TransientEngineError: vLLM ended it by itself.
    """
    reasons: dict[str | None, FinishReason] = {
        "length": "length", "stop": "stop", "repetition": "stop"
    }  # fmt: skip
    reason = next((piece.finish_reason for piece in pieces if piece.finish_reason), None)
    if reason not in reasons:
        raise TransientEngineError(f"vLLM ended the request by itself: {reason}")
    token_ids = tuple(token_id for piece in pieces for token_id in piece.token_ids)
    if text_of is None:
        text = "".join(piece.text for piece in pieces)
    else:  # the token that ends an answer is no part of its text
        text = text_of(token_ids[:-1] if reason == "stop" else token_ids)
    return Choice(text, token_ids, reasons[reason])


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
