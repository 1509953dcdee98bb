"""What a record becomes: the name, the kind and the attributes of a span."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from helium_agents.telemetry.otel import conventions as names
from helium_agents.telemetry.otel.records import (
    Agent,
    Answer,
    Chat,
    Ended,
    Row,
    Said,
    Sampled,
    Tool,
    Work,
    Workflow,
)

Attribute: TypeAlias = str | bool | int | float | Sequence[str]
Attributes: TypeAlias = dict[str, Attribute]
Kind = Literal["client", "internal"]


def started(work: Work) -> tuple[str, Kind, Attributes]:
    """The name of a span, its kind, and what is known of it when it begins."""
    match work:
        case Workflow():
            return _operation(names.INVOKE_WORKFLOW, work.name, _of_workflow(work))
        case Row():
            found: Attributes = {
                names.ROW_INDEX: work.index,
                names.OPENINFERENCE_KIND: names.CHAIN,
            }
            return f"row {work.workflow}", "internal", found
        case Agent():
            short = short_name(work.name)
            found = {names.AGENT_NAME: short, names.OPERATOR: work.name}
            return _operation(names.INVOKE_AGENT, short, found)
        case Tool():
            found = {
                names.TOOL_NAME: work.name,
                names.TOOL_CALL_ID: work.id,
                names.TOOL_TYPE: "function",
            }
            return _operation(names.EXECUTE_TOOL, work.name, found)
        case Chat():
            kind: Kind = "internal" if work.server is None else "client"
            return _operation(names.CHAT, work.model, _of_chat(work), kind)


def short_name(operator: str) -> str:
    """`flow:expert` is called `expert`, and what is defined in a function by its name there."""
    return operator.rpartition(":")[2].rpartition("<locals>.")[2]


def of_model(chat: Chat) -> Attributes:
    """Which model is asked, and where."""
    found: Attributes = {names.PROVIDER_NAME: chat.provider, names.REQUEST_MODEL: chat.model}
    if chat.server is not None:
        found[names.SERVER_ADDRESS], found[names.SERVER_PORT] = chat.server
    return found


def ended(work: Work, end: Ended) -> Attributes:
    """What is known of a span when it ends."""
    found: Attributes = {}
    if end.error is not None:
        kind, _ = end.error
        if kind:
            found[names.ERROR_TYPE] = kind
        else:
            found[names.INTERRUPTED] = True
    answer = end.answer
    if answer is None:
        return found
    found[names.SOURCE] = answer.source
    if answer.is_speculated:
        found[names.SPECULATED] = True
    if answer.calls_saved > 0:
        found[names.CALLS_SAVED] = answer.calls_saved
    if isinstance(work, Chat) and end.error is None:
        found.update(_of_tokens(answer))
        if answer.finish_reasons:
            found[names.FINISH_REASONS] = answer.finish_reasons
    if answer.said is not None:
        found[names.INPUT_MESSAGES] = _as_json(_asked(answer.said))
        found[names.OUTPUT_MESSAGES] = _as_json(_answered(answer.said, answer.finish_reasons))
    return found


def shared_with(trace: int, span: int) -> Attributes:
    """Whose answer a call shares: backends may drop the link that says so too."""
    return {names.SHARED_TRACE_ID: f"{trace:032x}", names.SHARED_SPAN_ID: f"{span:016x}"}


def failure_of(end: Ended) -> str | None:
    """What is said of a span that failed; `None` of others."""
    return None if end.error is None else end.error[1] or end.error[0]


def _operation(
    operation: str, name: str, found: Attributes, kind: Kind = "internal"
) -> tuple[str, Kind, Attributes]:
    found[names.OPERATION_NAME] = operation
    return f"{operation} {name}", kind, found


def _of_workflow(work: Workflow) -> Attributes:
    found: Attributes = {
        names.WORKFLOW_NAME: work.name,
        names.RUN_ID: work.run_id,
        names.OPENINFERENCE_KIND: names.CHAIN,
    }
    if work.num_rows is not None:
        found[names.NUM_ROWS] = work.num_rows
    return found


def _of_chat(work: Chat) -> Attributes:
    found = of_model(work)
    if work.operator:
        found[names.OPERATOR] = work.operator
    if work.sampled is not None:
        found.update(_of_sampling(work.sampled))
    return found


def _of_sampling(sampled: Sampled) -> Attributes:
    found: Attributes = {
        names.MAX_TOKENS: sampled.max_tokens,
        names.TEMPERATURE: float(sampled.temperature),
    }
    if sampled.top_p != 1.0:
        found[names.TOP_P] = float(sampled.top_p)
    if sampled.top_k:
        found[names.TOP_K] = sampled.top_k
    if sampled.n != 1:
        found[names.CHOICE_COUNT] = sampled.n
    if sampled.seed is not None:
        found[names.SEED] = sampled.seed
    if sampled.stop:
        found[names.STOP_SEQUENCES] = sampled.stop
    if sampled.presence_penalty:
        found[names.PRESENCE_PENALTY] = float(sampled.presence_penalty)
    if sampled.frequency_penalty:
        found[names.FREQUENCY_PENALTY] = float(sampled.frequency_penalty)
    return found


def _of_tokens(answer: Answer) -> Attributes:
    """Tokens that an engine computed are usage; those of other answers are saved, and none is."""
    if answer.source != "engine":
        return {
            names.INPUT_TOKENS_SAVED: answer.prompt_tokens,
            names.OUTPUT_TOKENS_SAVED: answer.output_tokens,
        }
    found: Attributes = {
        names.INPUT_TOKENS: answer.prompt_tokens,
        names.OUTPUT_TOKENS: answer.output_tokens,
        names.CACHE_READ_INPUT_TOKENS: answer.cached_tokens,
        names.NUM_ATTEMPTS: answer.num_attempts,
    }
    if answer.queued_s is not None:
        found[names.QUEUED_S] = answer.queued_s
    if answer.first_token_s is not None:
        found[names.TIME_TO_FIRST_CHUNK] = answer.first_token_s
    return found


def _asked(said: Said) -> list[Mapping[str, Any]]:
    return [
        {"role": role, "parts": [{"type": "text", "content": text}]} for role, text in said.messages
    ]


def _answered(said: Said, finish_reasons: Sequence[str]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for text, calls, reason in zip(said.texts, said.tool_calls, finish_reasons, strict=True):
        parts: list[Mapping[str, Any]] = [{"type": "text", "content": text}] if text else []
        parts += [{"type": "tool_call", "name": name, "arguments": args} for name, args in calls]
        found.append({"role": "assistant", "parts": parts, "finish_reason": reason})
    return found


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
