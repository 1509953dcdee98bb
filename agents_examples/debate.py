"""A debate: three agents answer, read each other, and answer again; a judge decides.

    helium run agents_examples/debate.py:debate \
        --input agents_examples/data/questions.jsonl --output rulings.jsonl

Or, for the first rows only: ``python -m agents_examples.debate``.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from pydantic import BaseModel

from agents_examples.rows import MultipleChoice, read_rows
from helium_agents import Session, assistant, llm, operator, prompt, system, user

SETTING = "Agents debate which choice of a multiple-choice question is right. Be brief."

AGENTS = (
    "Recall the facts that the question rests on, then choose.",
    "Rule out the choices that cannot be right, then choose among the others.",
    "Assume that the question sets a trap; name it, then choose.",
)

REVISE = """The other agents answered:
- {one}
- {other}

Take from them what is right, and revise your answer."""

JUDGE = """{question}

Three agents debated, and ended with:
- {first}
- {second}
- {third}

Which choice is right?"""


class Letter(Enum):
    """The choices."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"


class Ruling(BaseModel):
    """What the judge decided, and whether it is right."""

    question: str
    answer: Letter
    is_right: bool


@operator
async def debate(row: MultipleChoice) -> Ruling:
    """Hold a debate of two rounds about a question."""
    question = row.as_text()
    # The question comes before what makes the agents differ, so that it is read once for all.
    openings = [(system(SETTING), user(f"{question}\n\n{agent}")) for agent in AGENTS]
    firsts = [llm(*opening, max_tokens=32) for opening in openings]
    seconds = []
    for opening, own in zip(openings, firsts, strict=True):
        one, other = (first for first in firsts if first is not own)
        # The agent goes on with its own conversation: its answer is what it said before.
        history = (*opening, assistant(own))
        seconds.append(llm(*history, user(prompt(REVISE, one=one, other=other)), max_tokens=32))
    first, second, third = seconds
    verdict = prompt(JUDGE, question=question, first=first, second=second, third=third)
    # Only this await makes anything run, and by now all seven calls are known.
    reply = await llm(system(SETTING), user(verdict), schema=Letter, max_tokens=8)
    letter = reply.parsed
    return Ruling(question=row.question, answer=letter, is_right=letter.value == row.answer)


async def main() -> None:
    """Debate the first bundled questions."""
    questions = read_rows(MultipleChoice, "questions.jsonl")[:3]
    async with Session() as session:  # without an engine: a small model whose text means nothing
        async for ruling in session.map(debate, questions):
            print(ruling.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    asyncio.run(main())
