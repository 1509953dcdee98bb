"""Records: how answers lie in a store, as bytes.

A model's answer has a layout of its own, since reading one is what a remembered call costs; the
value of a pure operator is in the canonical encoding; an alias points to another key.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from xxhash import xxh32_intdigest

from helium_agents.engines.engine import Choice, FinishReason, WrittenCall
from helium_agents.errors import DecodingError
from helium_agents.keys.encoding import decode, encode

_ANSWER, _VALUE, _ALIAS = b"B", b"W", b"@"
_ANSWER_AND_MORE = b"C"
"""An answer that is not only text: in the canonical encoding there follows, of each choice, its
reasoning, and the names and arguments of its calls of tools."""

_ANSWER_WITHOUT_IDS = b"D"
"""The same, but before that how many output tokens a server counted, which gave no ids of them."""

_HEAD = struct.Struct("<cIQQH")  # kind, run, max_tokens, prompt tokens, number of choices
_VALUE_HEAD = struct.Struct("<cII")  # kind, run, model calls below
_CHOICE = struct.Struct("<BII")  # finish reason, bytes of text, number of token ids
_COUNT = struct.Struct("<Q")
_REASONS = ("stop", "length")


class Answer(NamedTuple):
    """A model call's answer as it is remembered."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    output_tokens: int
    """Of all choices together."""

    @classmethod
    def of(cls, choices: tuple[Choice, ...], prompt_tokens: int) -> Answer:
        """An answer with its tokens counted."""
        return cls(choices, prompt_tokens, sum([len(choice.token_ids) for choice in choices]))


@dataclass(slots=True)
class AnswerRecord:
    """An answer, the `max_tokens` that it was asked with, and the tag of the run that did."""

    answer: Answer
    max_tokens: int
    run: int


@dataclass(slots=True)
class ValueRecord:
    """The value of a pure operator, the model calls made for it, and the tag of the run."""

    value: Any
    calls_below: int
    run: int


@dataclass(slots=True)
class AliasRecord:
    """Where the record is."""

    key: bytes


Record = AnswerRecord | ValueRecord | AliasRecord


def run_tag(run_id: str) -> int:
    """What tells records of one run from those of others, in four bytes."""
    return xxh32_intdigest(run_id.encode())


def answer_record(answer: Answer, max_tokens: int, run: int) -> bytes:
    """The bytes of an answer."""
    has_more = any([each.tool_calls or each.reasoning is not None for each in answer.choices])
    kind = _ANSWER_AND_MORE if has_more else _ANSWER
    if answer.output_tokens and not any([each.token_ids for each in answer.choices]):
        kind = _ANSWER_WITHOUT_IDS
    parts = [_HEAD.pack(kind, run, max_tokens, answer.prompt_tokens, len(answer.choices))]
    for choice in answer.choices:
        text = choice.text.encode("utf-8", "surrogatepass")
        reason = _REASONS.index(choice.finish_reason)
        parts += (
            _CHOICE.pack(reason, len(text), len(choice.token_ids)),
            text,
            struct.pack(f"<{len(choice.token_ids)}I", *choice.token_ids),
        )
    if kind == _ANSWER_WITHOUT_IDS:
        parts.append(_COUNT.pack(answer.output_tokens))
    if kind != _ANSWER:
        parts.append(encode([_more(choice) for choice in answer.choices]))
    return b"".join(parts)


def _more(choice: Choice) -> tuple[str | None, list[tuple[str, str]]]:
    return choice.reasoning, [(call.name, call.arguments) for call in choice.tool_calls]


def _with_more(choice: Choice, more: tuple[str | None, list[tuple[str, str]]]) -> Choice:
    reasoning, calls = more
    return replace(
        choice, reasoning=reasoning, tool_calls=tuple(WrittenCall(*call) for call in calls)
    )


def value_record(value: Any, calls_below: int, run: int) -> bytes:
    """The bytes of a pure operator's value."""
    return _VALUE_HEAD.pack(_VALUE, run, calls_below) + encode(value)


def alias_record(key: bytes) -> bytes:
    """The bytes of an alias."""
    return _ALIAS + key


def alias_in(data: bytes) -> bytes | None:
    """The key that an alias points to; `None` for other records."""
    return data[1:] if data[:1] == _ALIAS else None


def calls_below_in(data: bytes) -> int:
    """The model calls that were made for a pure operator's value, without reading that."""
    if data[:1] != _VALUE or len(data) < _VALUE_HEAD.size:
        return 0
    calls_below: int = _VALUE_HEAD.unpack_from(data)[2]
    return calls_below


def max_tokens_in(data: bytes) -> int:
    """The `max_tokens` that an answer was asked with, without reading it; 0 of other records."""
    if data[:1] in (_VALUE, _ALIAS) or len(data) < _HEAD.size:
        return 0
    max_tokens: int = _HEAD.unpack_from(data)[2]
    return max_tokens


def read_record(data: bytes) -> Record:
    """What `answer_record`, `value_record` or `alias_record` wrote.

    Raises:
        DecodingError: The bytes are something else, or of a class that is not there.
    """
    kind = data[:1]
    if kind in (_ANSWER, _ANSWER_AND_MORE, _ANSWER_WITHOUT_IDS):
        try:
            return _read_answer(data)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise DecodingError(f"a damaged answer: {error}") from None
    if kind == _VALUE:
        if len(data) < _VALUE_HEAD.size:
            raise DecodingError("a damaged value: it is cut off")
        _, run, calls_below = _VALUE_HEAD.unpack_from(data)
        return ValueRecord(decode(data[_VALUE_HEAD.size :]), calls_below, run)
    if kind == _ALIAS:
        return AliasRecord(data[1:])
    raise DecodingError(f"no record begins with {kind!r}")


def _read_answer(data: bytes) -> AnswerRecord:
    _, run, max_tokens, prompt_tokens, num_choices = _HEAD.unpack_from(data)
    start, choices = _HEAD.size, []
    for _ in range(num_choices):
        reason, text_bytes, num_tokens = _CHOICE.unpack_from(data, start)
        start += _CHOICE.size
        text = data[start : start + text_bytes].decode("utf-8", "surrogatepass")
        start += text_bytes
        token_ids = struct.unpack_from(f"<{num_tokens}I", data, start)
        start += 4 * num_tokens
        choices.append(Choice(text, token_ids, cast("FinishReason", _REASONS[reason])))
    num_counted = 0
    if data[:1] == _ANSWER_WITHOUT_IDS:
        (num_counted,) = _COUNT.unpack_from(data, start)
        start += _COUNT.size
    if data[:1] != _ANSWER:
        choices = [*map(_with_more, choices, decode(data[start:]))]
    elif start != len(data):
        raise DecodingError("a damaged answer: its length is wrong")
    answer = Answer.of(tuple(choices), prompt_tokens)
    if num_counted:
        answer = answer._replace(output_tokens=num_counted)
    return AnswerRecord(answer, max_tokens, run)
