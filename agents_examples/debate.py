"""A debate: three agents answer, read each other, and answer again; a judge decides.

    helium run agents_examples/debate.py:debate \
        --input agents_examples/data/questions.jsonl --output rulings.jsonl

Or, for the first rows only: ``python -m agents_examples.debate``.

The choices stand in no prompt: decoding is held to them. A small model that is shown a list of
choices takes the first or the last; one that can say nothing else says the likeliest.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import BaseModel

from agents_examples.reading import as_json, one_of
from agents_examples.rows import MultipleChoice, read_rows
from helium_agents import Message, Session, assistant, llm, operator, prompt, system, user

ANSWER = "Answer the question."

AGENTS = (
    (("What do we use to cut paper?", "Scissors"), ("What colour is grass?", "Green")),
    (("Which of these is a fruit?", "An apple"), ("What do we use to cut paper?", "Scissors")),
    (("What colour is grass?", "Green"), ("Where do fish live?", "In water")),
)
"""What each agent was asked before, and answered."""

REVISE = "{question}\nAnswers: {one}, {other}"

JUDGE = "{first}\n{second}\n{third}\n{question}"
JUDGED = ("What colour is grass?", ("Red", "Green", "Green"), "Green")
"""What the judge has seen judged: a question, three answers, and the right one."""


class Ruling(BaseModel):
    """What the judge decided, and whether it is right."""

    question: str
    answer: str
    is_right: bool


@operator
async def debate(row: MultipleChoice) -> Ruling:
    """Hold a debate of two rounds about a question."""
    form, question = one_of(row.choices), row.question
    options: dict[str, Any] = {"schema": form, "max_tokens": len(json.dumps(form))}
    # What an agent was shown is the same for all rows, so that it is read once for all.
    openings = [(*shown(examples), user(question)) for examples in AGENTS]
    firsts = [llm(*opening, **options) for opening in openings]
    seconds = []
    for opening, own in zip(openings, firsts, strict=True):
        one, other = (first for first in firsts if first is not own)
        # The agent goes on with its own conversation: its answer is what it said before.
        revise = prompt(REVISE, one=one, other=other, question=question)
        seconds.append(llm(*opening, assistant(own), user(revise), **options))
    first, second, third = seconds
    verdict = prompt(JUDGE, question=question, first=first, second=second, third=third)
    # Only this await makes anything run, and by now all seven calls are known.
    reply = await llm(*judged(), user(verdict), **options)
    answer = reply.parsed["answer"]
    is_right = answer == row.choices["ABCD".index(row.answer)]
    return Ruling(question=question, answer=answer, is_right=is_right)


def shown(examples: tuple[tuple[str, str], ...]) -> list[Message]:
    """Questions and answers as the conversation that came before."""
    messages = [system(ANSWER)]
    for question, answer in examples:
        messages += [user(question), assistant(as_json(answer))]
    return messages


def judged() -> list[Message]:
    """A debate and its end as the conversation that came before."""
    question, answers, answer = JUDGED
    first, second, third = map(as_json, answers)
    verdict = JUDGE.format(question=question, first=first, second=second, third=third)
    return [system(ANSWER), user(verdict), assistant(as_json(answer))]


async def main() -> None:
    """Debate the first bundled questions."""
    questions = read_rows(MultipleChoice, "questions.jsonl")[:3]
    async with Session() as session:  # without an engine: SmolLM2-135M-Instruct on this machine
        async for ruling in session.map(debate, questions):
            print(ruling.model_dump_json(indent=2))
        print(session.summary.as_dict())


if __name__ == "__main__":
    asyncio.run(main())
