"""Stand-ins for the data sets, of equal shape: documents with a table, and choices of four.

They are used where the data are not there, so that every workload runs without a download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from agents_examples.rows import Document, MultipleChoice, Question
from benchmarks.workloads.texts import Seed, prose, seeded

_YEARS = ("2019", "2018", "2017")

_LINES = (
    "Revenue",
    "Cost of sales",
    "Research and development",
    "Selling expenses",
    "Other income",
    "Interest expense",
    "Income taxes",
    "Trade receivables",
    "Inventories",
    "Property and equipment",
    "Deferred tax assets",
    "Long-term debt",
    "Lease liabilities",
    "Pension obligations",
)

_PROBLEMS: tuple[tuple[str, Callable[[int, int, int], int]], ...] = (
    (
        "A shop sells {a} lamps at {b} dollars each, and tools for {c} dollars. "
        "How many dollars does it take in?",
        lambda a, b, c: a * b + c,
    ),
    (
        "A train of {a} coaches with {b} seats each is full, and {c} people wait for the next one. "
        "How many people are there in all?",
        lambda a, b, c: a * b + c,
    ),
    (
        "A fund pays {a} dollars a month for {b} months and {c} dollars at the end. "
        "How many dollars does it pay in all?",
        lambda a, b, c: a * b + c,
    ),
    (
        "Of {c} patients in a trial {a} took a drug. Each of the others had {b} visits. "
        "How many visits were there?",
        lambda a, b, c: (c - a) * b,
    ),
)


def document(*seed: Seed) -> Document:
    """A financial table, paragraphs around it, and six questions about the table."""
    draws = seeded("document", *seed)
    lines = draws.sample(_LINES, draws.randint(4, 9))
    figures = {line: [draws.randint(120, 98_000) for _ in _YEARS] for line in lines}
    table = [["In thousands of dollars", *_YEARS]]
    table += [[line, *(f"{figure:,}" for figure in row)] for line, row in figures.items()]
    lengths = [draws.randint(30, 90) for _ in range(draws.randint(1, 5))]
    return Document(
        id="-".join(str(part) for part in seed),
        table=table,
        paragraphs=[prose("filing", n, *seed, index) for index, n in enumerate(lengths)],
        questions=list(_questions(figures, draws)),
    )


def _questions(figures: dict[str, list[int]], draws: Random) -> Iterator[Question]:
    lines = draws.sample(list(figures), 4)
    for index, line in enumerate(lines[:3]):
        year = draws.randrange(len(_YEARS))
        text = f"What was the amount of {line.lower()} in {_YEARS[year]}?"
        yield _question(index, text, figures[line][year])
    for index, line in enumerate(lines[1:3], start=3):
        now, before = figures[line][:2]
        text = f"What was the change in {line.lower()} from {_YEARS[1]} to {_YEARS[0]}?"
        yield _question(index, text, now - before)
    text = f"What was the average amount of {lines[3].lower()} over the three years?"
    yield _question(5, text, round(sum(figures[lines[3]]) / len(_YEARS), 2))


def _question(index: int, text: str, answer: float) -> Question:
    return Question(id=str(index), question=text, answer=answer, scale="thousand")


def multiple_choice(*seed: Seed) -> MultipleChoice:
    """A problem in words with four choices, some with a longer story before it."""
    draws = seeded("choice", *seed)
    template, solve = draws.choice(_PROBLEMS)
    a, b, c = draws.randint(3, 40), draws.randint(5, 60), draws.randint(100, 900)
    right = solve(a, b, c)
    wrong = draws.sample([right + step for step in range(-90, 91, 10) if step], 3)
    choices = draws.sample([right, *wrong], 4)
    story = prose("news", draws.choice((10, 20, 30, 80)), *seed)
    return MultipleChoice(
        subject="word_problems",
        question=f"{story} {template.format(a=a, b=b, c=c)}",
        choices=[f"{choice:,}" for choice in choices],
        answer="ABCD"[choices.index(right)],
    )
