"""The rows that the examples work on, and the bundled files of them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

DATA = Path(__file__).parent / "data"

RowType = TypeVar("RowType", bound=BaseModel)


class Question(BaseModel):
    """A question about a document, with the true answer."""

    id: str
    question: str
    answer: str | int | float | list[str]
    scale: str  # "thousand", "percent", ...; empty where the answer stands for itself

    def true_answer(self) -> str:
        """The true answer as text."""
        return ", ".join(self.answer) if isinstance(self.answer, list) else str(self.answer)


class Document(BaseModel):
    """A table with the text around it, and questions about both (the shape of TAT-QA)."""

    id: str
    table: list[list[str]]
    paragraphs: list[str]
    questions: list[Question]

    def as_text(self) -> str:
        """The document as it stands in a prompt: the table line by line, then the paragraphs."""
        lines = [" | ".join(cells) for cells in self.table]
        return "\n".join([*lines, "", *self.paragraphs])


class MultipleChoice(BaseModel):
    """A question with four choices, of which `answer` ("A" to "D") is right (the shape of MMLU)."""

    subject: str
    question: str
    choices: list[str]
    answer: str

    def as_text(self) -> str:
        """The question as it stands in a prompt, with a letter before each choice."""
        choices = [f"{letter}. {text}" for letter, text in zip("ABCD", self.choices, strict=True)]
        return "\n".join([self.question, *choices])


def read_rows(row_type: type[RowType], name: str) -> list[RowType]:
    """The rows of a bundled file, one JSON object a line."""
    text = (DATA / name).read_text(encoding="utf-8")
    return [row_type.model_validate_json(line) for line in text.splitlines()]
