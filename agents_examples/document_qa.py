"""Map-reduce question answering: experts read a document, and their views become one answer.

    helium run agents_examples/document_qa.py:answer \
        --input agents_examples/data/documents.jsonl --output answers.jsonl

Or, for the first rows only: ``python -m agents_examples.document_qa``.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from agents_examples.rows import Document, read_rows
from helium_agents import Session, gather, llm, operator, prompt, system, user

SETTING = "Experts answer questions about a document: a table, then text. Be brief and exact."

EXPERTS = {
    "table": "You read tables. Quote the rows and columns that the question needs.",
    "text": "You read text. Quote the sentence that the question needs, or say there is none.",
    "arithmetic": "You calculate. Write down the one calculation needed, and its result.",
}

UNITS = "In which unit are the amounts of the table, and which periods does it cover?"

MERGE = """Question: {question}

Unit and periods: {units}
From the table: {table}
From the text: {text}
Calculated: {arithmetic}

Answer the question in a few words. Where the experts disagree, trust the table."""


class QuestionAnswer(BaseModel):
    """A question, and what the experts made of it."""

    question: str
    answer: str


class DocumentAnswers(BaseModel):
    """The answers to all questions about a document."""

    id: str
    answers: list[QuestionAnswer]


@operator
async def answer(document: Document) -> DocumentAnswers:
    """Answer all questions about a document, at once."""
    context = document.as_text()
    questions = [question.question for question in document.questions]
    texts = await gather(*(answer_question(context, question) for question in questions))
    return DocumentAnswers(
        id=document.id,
        answers=[
            QuestionAnswer(question=question, answer=text)
            for question, text in zip(questions, texts, strict=True)
        ],
    )


@operator
async def answer_question(context: str, question: str) -> str:
    """Ask every expert, and merge their views."""
    views = {name: ask_expert(task, context, question) for name, task in EXPERTS.items()}
    # No word of the question is in this call: all questions about a document share its answer.
    units = llm(system(SETTING), user(f"{context}\n\n{UNITS}"), max_tokens=24)
    # Nothing has been awaited yet. The views go into the prompt as they are, so that this call
    # is part of the plan before any of them is there.
    merge = prompt(MERGE, question=question, units=units, **views)
    reply = await llm(system(SETTING), user(merge), max_tokens=48)
    return reply.text


@operator(pure=True)
async def ask_expert(task: str, context: str, question: str) -> str:
    """One expert's view of a question; the same arguments are never asked twice."""
    # What the experts have in common comes first, so that they differ in the last sentence only
    # and the model reads the document once for all of them.
    content = f"{context}\n\nQuestion: {question}\n\n{task}"
    reply = await llm(system(SETTING), user(content), max_tokens=32)
    return reply.text


async def main() -> None:
    """Answer the questions about the first bundled documents."""
    documents = read_rows(Document, "documents.jsonl")[:3]
    async with Session() as session:  # without an engine: a small model whose text means nothing
        async for answers in session.map(answer, documents):
            print(answers.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    asyncio.run(main())
