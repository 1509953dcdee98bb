"""Debate: three agents answer a question about a document, read each other, and answer again.

The sizes are those at which a cache of 16k tokens thrashes although no prompt is long: a long
system prompt for each agent, a document of its own for each row.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import texts_of, two_rounds
from benchmarks.workloads.questions import QuestionRow, document_rows
from benchmarks.workloads.texts import briefing
from helium_agents import operator, system, user

SYSTEM_WORDS = 380  # about 512 tokens
CONTEXT_CHARACTERS = 440  # about 256 tokens

OPENINGS = {
    "The reader": "You read documents closely and answer from what they say, word by word.",
    "The calculator": "You work on the tables of documents and answer by calculation.",
    "The sceptic": "You look for what others overlook in documents and answer with caution.",
}

AGENTS = {name: briefing(opening, SYSTEM_WORDS) for name, opening in OPENINGS.items()}

REVISE = """The other agents answered:
{others}

Take from them what is right, drop what is wrong, and revise your answer."""

ANSWER_TOKENS = 32


@operator
async def debate(row: QuestionRow) -> list[str]:
    """Hold the debate; the agents' last answers."""
    openings = {name: (system(text), user(row.as_text())) for name, text in AGENTS.items()}
    _, lasts = two_rounds(openings, REVISE, ANSWER_TOKENS)
    return await texts_of(lasts.values())


def _rows(inputs: Inputs) -> list[QuestionRow]:
    return [_with_excerpt(row) for row in document_rows(inputs)]


def _with_excerpt(row: QuestionRow) -> QuestionRow:
    """With no more of the document than the debate's shape allows, whole words only."""
    if len(row.context) <= CONTEXT_CHARACTERS:
        return row
    return replace(row, context=row.context[:CONTEXT_CHARACTERS].rsplit(maxsplit=1)[0])


WORKLOADS = (Workload("debate", debate, _rows, num_items=32),)
