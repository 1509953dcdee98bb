"""A remembered answer at the length that is asked: the same, cut, or not long enough."""

from __future__ import annotations

from helium_agents.engines.engine import Choice
from helium_agents.graph.llm_node import LlmNode
from helium_agents.runtime.fleet.fleet import Fleet
from helium_agents.runtime.record import Answer, AnswerRecord


def fit_answer(record: AnswerRecord, node: LlmNode, fleet: Fleet) -> Answer | None:
    """The recorded answer at the asked length, or `None` where it does not reach that far."""
    asked_max = node.call.sampling.max_tokens
    if record.max_tokens == asked_max:
        return record.answer
    fitted = []
    for choice in record.answer.choices:
        fit = fit_choice(choice, record.max_tokens, asked_max, fleet)
        if fit is None:
            return None
        fitted.append(fit)
    return Answer.of(tuple(fitted), record.answer.prompt_tokens)


def fit_choice(choice: Choice, max_tokens: int, asked_max: int, fleet: Fleet) -> Choice | None:
    """An answer of a call with `max_tokens` as that of the same call with `asked_max`."""
    if asked_max == max_tokens:
        return choice
    if len(choice.token_ids) > asked_max:
        return fleet.truncate(choice, asked_max)
    if choice.finish_reason == "stop":
        return choice
    return choice if len(choice.token_ids) == asked_max else None
