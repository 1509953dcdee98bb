"""Reflection: an analyst drafts, a critic judges, and the draft is revised until it is approved.

    helium run agents_examples/reflection.py:reflect \
        --input agents_examples/data/documents.jsonl --output refined.jsonl

Or, for the first rows only: ``python -m agents_examples.reflection``.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from pydantic import BaseModel

from agents_examples.rows import Document, read_rows
from helium_agents import Session, assistant, gather, llm, operator, prompt, system, user

MAX_ROUNDS = 4

SETTING = "An analyst answers questions about a document, and a critic checks the answers."

DRAFT = "You are the analyst. Answer in one sentence, and say how you got there."

CRITICISE = """{question}

The analyst answered: {draft}

You are the critic. Check every figure against the document. Reply in JSON."""

REVISE = "The critic does not approve. Fault found: {fault}. Write your answer anew."


class Verdict(Enum):
    """Whether a draft will do."""

    APPROVE = "approve"
    REVISE = "revise"


class Fault(Enum):
    """What a critic can find fault with."""

    NONE = "none"
    FIGURE = "figure"
    CALCULATION = "calculation"
    UNIT = "unit"


class Critique(BaseModel):
    """A critic's reply. It has no free text, so that its length is known and it is never cut."""

    fault: Fault
    verdict: Verdict


class RefinedAnswer(BaseModel):
    """An answer, and how many drafts it took."""

    question: str
    answer: str
    num_rounds: int
    is_approved: bool


class RefinedAnswers(BaseModel):
    """The answers to all questions about a document."""

    id: str
    answers: list[RefinedAnswer]


@operator
async def reflect(document: Document) -> RefinedAnswers:
    """Answer all questions about a document; each takes as many rounds as it needs."""
    context = document.as_text()
    answers = await gather(*(refine(context, item.question) for item in document.questions))
    return RefinedAnswers(id=document.id, answers=list(answers))


@operator
async def refine(context: str, question: str) -> RefinedAnswer:
    """Draft and criticise until the critic approves, or four times."""
    opening = f"{context}\n\nQuestion: {question}"
    history = [system(SETTING), user(f"{opening}\n\n{DRAFT}")]
    num_rounds = 0
    while True:
        num_rounds += 1
        draft = llm(*history, max_tokens=48)
        # The draft need not be awaited here: the critic's call is planned while it is written.
        criticise = prompt(CRITICISE, question=opening, draft=draft)
        reply = await llm(system(SETTING), user(criticise), schema=Critique, max_tokens=64)
        is_approved = reply.parsed.verdict is Verdict.APPROVE
        if is_approved or num_rounds == MAX_ROUNDS:
            return RefinedAnswer(
                question=question,
                answer=(await draft).text,
                num_rounds=num_rounds,
                is_approved=is_approved,
            )
        # The analyst goes on with its own conversation, which the engine has read already.
        revise = prompt(REVISE, fault=reply.parsed.fault.value)
        history += [assistant(draft), user(revise)]


async def main() -> None:
    """Refine answers about the first bundled documents."""
    documents = read_rows(Document, "documents.jsonl")[:3]
    async with Session() as session:  # without an engine: a small model whose text means nothing
        async for refined in session.map(reflect, documents):
            print(refined.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    asyncio.run(main())
