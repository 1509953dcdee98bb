"""Map-reduce question answering: readers answer from a document, and an editor decides.

    helium run agents_examples/document_qa.py:answer \
        --input agents_examples/data/documents.jsonl --output answers.jsonl

Or, for the first rows only: ``python -m agents_examples.document_qa``.

The prompts are made for a model of 135 million parameters: one short task each, worked examples in
place of rules, and answers in a form that decoding is held to.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from agents_examples.reading import MAX_TOKENS, Words, as_json, as_lines, form_of, one_of, shown
from agents_examples.rows import Document, read_rows
from agents_examples.worked import DOOR, GOATS, HOTEL, MILK, MILL, SHIPS, SWANS
from helium_agents import Session, assistant, gather, llm, operator, prompt, system, user

READERS = {
    "first": (MILL, HOTEL, GOATS),
    "second": (MILL, HOTEL, GOATS, MILK),
    "third": (MILL, SWANS, GOATS, HOTEL),
}
"""The worked examples that each reader has seen."""

EDITOR = (DOOR, MILL, MILK, GOATS)

QUESTION = "Text about {topic}: {text}\nQuestion: {question}"

SAY_TOPIC = "Say what the text is about."
TOPICS = (MILL, HOTEL, GOATS, DOOR, SWANS, SHIPS)


class QuestionAnswer(BaseModel):
    """A question, and what the readers and the editor made of it."""

    question: str
    answer: str


class DocumentAnswers(BaseModel):
    """The answers to all questions about a document."""

    id: str
    answers: list[QuestionAnswer]


@operator
async def answer(document: Document) -> DocumentAnswers:
    """Answer all questions about a document, at once."""
    text = as_lines(document)
    questions = [question.question for question in document.questions]
    answers = await gather(*(answer_question(text, question) for question in questions))
    return DocumentAnswers(
        id=document.id,
        answers=[
            QuestionAnswer(question=question, answer=text)
            for question, text in zip(questions, answers, strict=True)
        ],
    )


@operator
async def answer_question(text: str, question: str) -> str:
    """Ask every reader, and where they disagree the editor."""
    # No word of the question is in this call: all questions about a document share its answer. It
    # is not awaited either. It goes into the prompts as it is, so that all four calls are part of
    # the plan before any of them has run.
    topic = find_topic(text)
    asked = prompt(QUESTION, topic=topic, text=text, question=question)
    form = form_of(question)
    # What is the same for all documents comes first, then what is the same for all questions about
    # one: each reader's examples are computed once, and the document once for each reader.
    views = await gather(
        *(
            llm(*shown(worked, QUESTION), user(asked), schema=form, max_tokens=MAX_TOKENS)
            for worked in READERS.values()
        )
    )
    answers = list(dict.fromkeys(view.parsed.answer for view in views))
    if len(answers) == 1:
        return str(answers[0])
    reply = await llm(
        *shown(EDITOR, QUESTION), user(asked), schema=one_of(answers), max_tokens=MAX_TOKENS
    )
    return str(reply.parsed["answer"])


@operator
async def find_topic(text: str) -> str:
    """What a text is about, in two words or so."""
    examples = [
        message
        for worked in TOPICS
        for message in (user(f"Text: {worked.text}"), assistant(as_json(worked.topic)))
    ]
    asked = user(f"Text: {text}")
    reply = await llm(system(SAY_TOPIC), *examples, asked, schema=Words, max_tokens=MAX_TOKENS)
    return reply.parsed.answer


async def main() -> None:
    """Answer the questions about the first bundled documents."""
    documents = read_rows(Document, "documents.jsonl")[:3]
    async with Session() as session:  # without an engine: SmolLM2-135M-Instruct on this machine
        async for answers in session.map(answer, documents):
            print(answers.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    asyncio.run(main())
