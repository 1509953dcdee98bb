"""Tools: an agent that does not see its document looks things up in it, and calculates.

    helium run agents_examples/tools.py:investigate --model Qwen/Qwen3-8B \
        --input agents_examples/data/documents.jsonl --output found.jsonl

Or, for the first rows only: ``python -m agents_examples.tools Qwen/Qwen3-8B``. It takes a model
that was trained to call tools, which the one that needs no name was not.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Literal

from pydantic import BaseModel

from agents_examples.rows import Document, read_rows
from helium_agents import Session, agent_loop, gather, operator, system, user

ROLE = "Look up what you need in the document. Then answer in as few words as you can."


class FoundAnswer(BaseModel):
    """An answer to one question."""

    question: str
    answer: str


class FoundAnswers(BaseModel):
    """The answers to all questions about a document."""

    id: str
    answers: list[FoundAnswer]


@operator(pure=True)
async def search(text: str, word: str) -> str:
    """The lines of a text that have a word in them; asked again, nobody searches again."""
    lines = [line for line in text.splitlines() if word.casefold() in line.casefold()]
    return "\n".join(lines) or f"nothing about {word}"


def calculate(first: float, operation: Literal["+", "-", "*", "/"], second: float) -> float:
    """Calculate."""
    match operation:
        case "+":
            return first + second
        case "-":
            return first - second
        case "*":
            return first * second
        case "/":
            return first / second  # a division by zero is told to the model


@operator
async def investigate(document: Document) -> FoundAnswers:
    """Answer all questions about a document, all at once."""
    text = document.as_text()

    async def look_up(word: str) -> str:
        """Find the lines of the document that have a word in them."""
        return await search(text, word)

    async def find(question: str) -> FoundAnswer:
        reply = await agent_loop(
            system(ROLE), user(question), tools=[look_up, calculate], max_turns=6, max_tokens=512
        )
        return FoundAnswer(question=question, answer=reply.text)

    answers = await gather(*(find(item.question) for item in document.questions))
    return FoundAnswers(id=document.id, answers=list(answers))


async def main(model: str) -> None:
    """Answer questions about the first bundled documents."""
    async with Session(model) as session:
        async for found in session.map(investigate, read_rows(Document, "documents.jsonl")[:3]):
            print(found.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m agents_examples.tools MODEL, for example Qwen/Qwen3-8B")
    asyncio.run(main(sys.argv[1]))
