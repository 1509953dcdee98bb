"""Reflection: an analyst answers, two critics read one after the other, the analyst revises."""

from __future__ import annotations

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import listed, texts_of
from benchmarks.workloads.questions import QUESTIONS_PER_DOCUMENT, QuestionRow, document_rows
from benchmarks.workloads.texts import briefing
from helium_agents import assistant, llm, operator, prompt, system, user

SYSTEM_WORDS = 100

ANALYST = briefing(
    "You are a financial analyst. You answer questions about documents that hold a table and text.",
    SYSTEM_WORDS,
)
EXTRACTION_CRITIC = briefing(
    "You are a critic of extraction. You check whether an analyst took the right figures from a "
    "document.",
    SYSTEM_WORDS,
)
CALCULATION_CRITIC = briefing(
    "You are a critic of calculation. You check whether an analyst did the right sums with the "
    "figures of a document.",
    SYSTEM_WORDS,
)

TASK = "Answer the question about the document below, and say from which figures."
CHECK_EXTRACTION = "Say which figures of the answer to the question below are not in the document."
CHECK_CALCULATION = "Say which steps of the answer to the question below are wrong, and why."

ASKED = """{task}

{question}"""

CRITICISED = """{task}

{question}

{earlier}"""

REVISE = """Two critics have read your answer.
{remarks}

Answer the question anew. Accept what they are right in."""

ANSWER_TOKENS = 48


@operator
async def reflect(row: QuestionRow) -> list[str]:
    """Answer, be criticised twice, and answer again; every step needs the one before."""
    question = row.as_text()
    opening = (system(ANALYST), user(prompt(ASKED, task=TASK, question=question)))
    draft = llm(*opening, max_tokens=ANSWER_TOKENS)
    answers = {"The analyst": draft}
    for name, briefed, task in (
        ("The critic of extraction", EXTRACTION_CRITIC, CHECK_EXTRACTION),
        ("The critic of calculation", CALCULATION_CRITIC, CHECK_CALCULATION),
    ):
        content = prompt(CRITICISED, task=task, question=question, earlier=listed(answers))
        answers[name] = llm(system(briefed), user(content), max_tokens=ANSWER_TOKENS)
    del answers["The analyst"]  # it is its own history
    remarks = user(prompt(REVISE, remarks=listed(answers)))
    return await texts_of([llm(*opening, assistant(draft), remarks, max_tokens=ANSWER_TOKENS)])


def _rows(inputs: Inputs) -> list[QuestionRow]:
    return document_rows(inputs, QUESTIONS_PER_DOCUMENT)


WORKLOADS = (Workload("reflect", reflect, _rows, num_items=60),)
