"""Map-reduce: experts answer a question, each from its own side, and a summariser merges them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import listed, texts_of
from benchmarks.workloads.questions import (
    QUESTIONS_PER_DOCUMENT,
    QuestionRow,
    choice_rows,
    document_rows,
)
from helium_agents import llm, operator, prompt, system, user

SYSTEM = (
    "Several experts answer the question below, each from a side of its own. Be brief and exact."
)

SUMMARISER = (
    "You merge what several experts answered into one answer, as brief and exact as theirs."
)

# The role comes last, so that a question's experts share all of the prompt but a sentence.
ROLES = (
    "As the {reader} fact finder, quote what the answer rests on, then answer.",
    "As the {reader} calculator, write down the one calculation that is needed, then answer.",
    "As the {reader} sceptic, name the trap in the question, then answer.",
    "As the {reader} teacher, explain the idea behind the question, then answer.",
    "As the {reader} examiner, rule out what cannot be right, then answer.",
    "As the {reader} auditor, check the units and the periods, then answer.",
    "As the {reader} editor, answer in as few words as possible.",
)

MERGE = """{question}

{answers}

Give the one answer that most of the experts support, and say in a sentence why."""

EXPERT_TOKENS, SUMMARY_TOKENS = 32, 48


@operator
async def map_reduce_once(row: QuestionRow) -> list[str]:
    """Ask every expert once."""
    return await _map_reduce(row, ("first",))


@operator
async def map_reduce_twice(row: QuestionRow) -> list[str]:
    """Ask every expert twice: the same one as published, or two that differ in a word."""
    return await _map_reduce(row, ("first", "second" if row.is_distinct else "first"))


async def _map_reduce(row: QuestionRow, readers: Sequence[str]) -> list[str]:
    roles = [role.format(reader=reader) for reader in readers for role in ROLES]
    experts = {
        f"Expert {number}": llm(
            system(SYSTEM), user(f"{row.as_text()}\n\n{role}"), max_tokens=EXPERT_TOKENS
        )
        for number, role in enumerate(roles, start=1)
    }
    merge = prompt(MERGE, question=row.question, answers=listed(experts))
    return await texts_of([llm(system(SUMMARISER), user(merge), max_tokens=SUMMARY_TOKENS)])


def _rows_of_documents(inputs: Inputs) -> list[QuestionRow]:
    return document_rows(inputs, QUESTIONS_PER_DOCUMENT)


WORKLOADS = (
    Workload("mapred-mmlu", map_reduce_twice, choice_rows, num_items=38, has_duplicates=True),
    Workload("mapred-tatqa", map_reduce_once, _rows_of_documents, num_items=60),
)
