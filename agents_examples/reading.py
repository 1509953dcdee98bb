"""How a text is put before a model, and the form in which it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from agents_examples.rows import Document
from agents_examples.worked import Worked
from helium_agents import Message, assistant, system, user

ANSWER = "Answer with words from the text."

MAX_TOKENS = 80
"""More than the longest answer in either form can have, so that none is ever cut."""


class Words(BaseModel):
    """An answer in words, of at most 60 characters that are a token each at worst."""

    answer: str = Field(pattern=r"^[ !#-\[\]-~]{1,60}$")


class Number(BaseModel):
    """An answer that is a whole number."""

    answer: int = Field(ge=0, le=1_000_000_000)


def form_of(question: str) -> type[Words] | type[Number]:
    """The form that decoding holds the answer to."""
    asked = question.lower()
    return Number if "how many" in asked or "how much" in asked else Words


def one_of(answers: Sequence[str | int]) -> dict[str, Any]:
    """The form of a choice among answers, as a JSON schema."""
    return {
        "type": "object",
        "properties": {"answer": {"enum": list(answers)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def as_lines(document: Document) -> str:
    """The document as the worked examples are written: sentences, then a line for each row."""
    rows = [f"{first}: {' | '.join(rest)}" for first, *rest in document.table]
    return "\n".join([" ".join(document.paragraphs), *rows])


def shown(examples: Sequence[Worked], template: str) -> list[Message]:
    """Worked examples as the conversation that came before.

    Args:
        examples: In the order in which they are shown.
        template: Of a question; with ``{text}``, ``{question}`` and perhaps ``{topic}``.
    """
    messages = [system(ANSWER)]
    for worked in examples:
        asked = template.format(topic=worked.topic, text=worked.text, question=worked.question)
        messages += [user(asked), assistant(as_json(worked.answer))]
    return messages


def as_json(value: str | int) -> str:
    """An answer as the forms write it."""
    return f'{{"answer":{value}}}' if isinstance(value, int) else f'{{"answer":"{value}"}}'
