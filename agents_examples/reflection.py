"""Reflection: an analyst drafts, a critic judges, and the draft is revised until it is approved.

    helium run agents_examples/reflection.py:reflect \
        --input agents_examples/data/documents.jsonl --output refined.jsonl

Or, for the first rows only: ``python -m agents_examples.reflection``.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from pydantic import BaseModel

from agents_examples.reading import MAX_TOKENS, as_json, as_lines, form_of, shown
from agents_examples.rows import Document, read_rows
from agents_examples.worked import DOOR, GOATS, HOTEL, MILK, MILL
from helium_agents import Message, Session, assistant, gather, llm, operator, prompt, system, user

MAX_ROUNDS = 4

ANALYST = (MILL, HOTEL, GOATS)

QUESTION = "Text: {text}\nQuestion: {question}"

CHECK = "Is the answer right?"
CRITICISE = "{question}\nAnswer: {draft}"
RIGHT = '{"fault":"none","verdict":"approve"}'
WRONG = '{"fault":"wrong","verdict":"revise"}'
TOO_LONG = '{"fault":"too long","verdict":"revise"}'
CRITICISED = (
    (MILL, "Oakham", WRONG),
    (MILL, "Thomas Reed", RIGHT),
    (HOTEL, "Leeds", WRONG),
    (DOOR, "The Blue Door is a cafe in Lyon", WRONG),
    (GOATS, 48, WRONG),
    (MILK, "Anna Lind has a farm near Bergen", TOO_LONG),
)
"""Answers that the critic has seen criticised; after as many right ones it approves of any."""

REVISE = "The critic says: {fault}. {question}"


class Verdict(Enum):
    """Whether a draft will do."""

    APPROVE = "approve"
    REVISE = "revise"


class Fault(Enum):
    """What a critic can find fault with."""

    NONE = "none"
    WRONG = "wrong"
    TOO_LONG = "too long"


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
    text = as_lines(document)
    answers = await gather(*(refine(text, item.question) for item in document.questions))
    return RefinedAnswers(id=document.id, answers=list(answers))


@operator
async def refine(text: str, question: str) -> RefinedAnswer:
    """Draft and criticise until the critic approves, or four times."""
    asked, form = QUESTION.format(text=text, question=question), form_of(question)
    history = [*shown(ANALYST, QUESTION), user(asked)]
    num_rounds = 0
    while True:
        num_rounds += 1
        draft = llm(*history, schema=form, max_tokens=MAX_TOKENS)
        # The draft need not be awaited here: the critic's call is planned while it is written.
        criticise = prompt(CRITICISE, question=asked, draft=draft)
        reply = await llm(*criticised(), user(criticise), schema=Critique, max_tokens=64)
        is_approved = reply.parsed.verdict is Verdict.APPROVE
        if is_approved or num_rounds == MAX_ROUNDS:
            return RefinedAnswer(
                question=question,
                answer=str((await draft).parsed.answer),
                num_rounds=num_rounds,
                is_approved=is_approved,
            )
        # The analyst goes on with its own conversation, which the engine has read already.
        fault = reply.parsed.fault.value
        history += [assistant(draft), user(REVISE.format(fault=fault, question=question))]


def criticised() -> list[Message]:
    """Answers and what was said of them as the conversation that came before."""
    messages = [system(CHECK)]
    for worked, draft, critique in CRITICISED:
        asked = QUESTION.format(text=worked.text, question=worked.question)
        criticise = CRITICISE.format(question=asked, draft=as_json(draft))
        messages += [user(criticise), assistant(critique)]
    return messages


async def main() -> None:
    """Refine answers about the first bundled documents."""
    documents = read_rows(Document, "documents.jsonl")[:3]
    async with Session() as session:  # without an engine: SmolLM2-135M-Instruct on this machine
        async for refined in session.map(reflect, documents):
            print(refined.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    asyncio.run(main())
