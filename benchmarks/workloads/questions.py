"""Rows of the workloads that answer questions: from the data sets, or from stand-ins for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from agents_examples.rows import Document, MultipleChoice
from benchmarks.harness.workload import Inputs
from benchmarks.workloads import stand_ins

QUESTIONS_PER_DOCUMENT = 6

RowType = TypeVar("RowType", bound=BaseModel)


@dataclass(frozen=True)
class QuestionRow:
    """A question as it stands in prompts.

    Args:
        context: The document that it is about; empty where the question says all.
        question: With its choices, if it has any.
        is_distinct: Whether no two calls of the row may be equal.
    """

    context: str
    question: str
    is_distinct: bool = False

    def as_text(self) -> str:
        """The context, if any, and the question."""
        return f"{self.context}\n\nQuestion: {self.question}".lstrip()


def choice_rows(inputs: Inputs) -> list[QuestionRow]:
    """Questions with four choices (MMLU)."""
    read = _read(MultipleChoice, inputs.data, "mmlu.jsonl")
    if read is None:
        read = [stand_ins.multiple_choice(inputs.seed, item) for item in range(inputs.num_items)]
    if len(read) < inputs.num_items:
        raise ValueError(f"{inputs.num_items} items: mmlu.jsonl has {len(read)} questions")
    return [QuestionRow("", row.as_text(), inputs.is_distinct) for row in read[: inputs.num_items]]


def document_rows(inputs: Inputs, num_consecutive: int = 1) -> list[QuestionRow]:
    """Questions about documents (TAT-QA).

    Args:
        inputs: What to make rows from.
        num_consecutive: How many questions of a document come one after another. Once every
            document had its turn, the first one's next questions follow.
    """
    read = _read(Document, inputs.data, "tatqa.jsonl")
    rows: list[QuestionRow] = []
    for block in range(-(-inputs.num_items // num_consecutive)):
        if read is None:
            turn, found = 0, stand_ins.document(inputs.seed, block)
        else:
            turn, found = block // len(read), read[block % len(read)]
        first = turn * num_consecutive
        questions = found.questions[first : first + num_consecutive]
        if len(questions) < num_consecutive:
            raise ValueError(
                f"{inputs.num_items} items: document {found.id} of tatqa.jsonl has only "
                f"{len(found.questions)} questions, {first + num_consecutive} are needed"
            )
        context = found.as_text()
        rows += [QuestionRow(context, each.question, inputs.is_distinct) for each in questions]
    return rows[: inputs.num_items]


def _read(row_type: type[RowType], data: Path | None, name: str) -> list[RowType] | None:
    """The rows of a data set; `None` if it is not there.

    Raises:
        NotADirectoryError: `data` was given and is no directory.
        ValueError: The file is empty, or a line is not what it should be.
    """
    if data is None:
        return None
    if not data.is_dir():
        raise NotADirectoryError(
            f"{data} is no directory: name one with mmlu.jsonl and tatqa.jsonl, or none at all "
            f"for generated text"
        )
    path = data / name
    if not path.is_file():
        return None
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(row_type.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty")
    return rows
