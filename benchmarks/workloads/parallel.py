"""Parallel summary: seven readers go through the chunks of reviews, and a writer merges them."""

from __future__ import annotations

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import Answer, listed, texts_of
from benchmarks.workloads.reviews import ReviewRow, review_rows
from benchmarks.workloads.texts import briefing
from helium_agents import llm, operator, prompt, system, user

ROLE_WORDS, WRITER_WORDS, INSTRUCTION_WORDS = 155, 190, 100

ROLES = {
    name: briefing(opening, ROLE_WORDS)
    for name, opening in {
        "Quality": "You read reviews of products for what they say about quality and wear.",
        "Price": "You read reviews of products for what they say about price and value.",
        "Use": "You read reviews of products for how and where people use them.",
        "Faults": "You read reviews of products for faults, breakage and returns.",
        "Service": "You read reviews of products for what they say about sellers and service.",
        "Praise": "You read reviews of products for what people like and would buy again.",
        "Comparison": "You read reviews of products for how they compare with other products.",
    }.items()
}

WRITER = briefing(
    "You write the final assessment of a product for people who think of buying it. Seven readers "
    "have gone through its reviews, each with one concern, and have handed you their summaries.",
    WRITER_WORDS,
)

INSTRUCTION = briefing(
    "Below is a part of the reviews of a product. Extract from it what belongs to your concern, "
    "as short notes, and leave out everything else.",
    INSTRUCTION_WORDS,
)

EXTRACT = """{instruction}

Product: {product}

Reviews:
{chunk}"""

SUMMARISE = """These are your notes on all parts of the reviews of the product {product}.

{notes}

Summarise them in a few sentences."""

WRITE = """Product: {product}

{summaries}

Write the assessment."""

REVIEWS_PER_CHUNK, REVIEW_WORDS = 3, range(12, 25)
NOTE_TOKENS, SUMMARY_TOKENS, ASSESSMENT_TOKENS = 16, 32, 64


@operator
async def assess(row: ReviewRow) -> list[str]:
    """Read everything in seven ways at once, and write one assessment."""
    summaries = {name: _summary(briefed, row) for name, briefed in ROLES.items()}
    write = prompt(WRITE, product=row.product, summaries=listed(summaries))
    return await texts_of([llm(system(WRITER), user(write), max_tokens=ASSESSMENT_TOKENS)])


def _summary(briefed: str, row: ReviewRow) -> Answer:
    """One reader's summary of the notes on all chunks."""
    notes = {}
    for number, chunk in enumerate(row.chunks, start=1):
        extract = prompt(EXTRACT, instruction=INSTRUCTION, product=row.product, chunk=chunk)
        notes[f"Part {number}"] = llm(system(briefed), user(extract), max_tokens=NOTE_TOKENS)
    summarise = prompt(SUMMARISE, product=row.product, notes=listed(notes))
    return llm(system(briefed), user(summarise), max_tokens=SUMMARY_TOKENS)


def _rows(inputs: Inputs) -> list[ReviewRow]:
    return review_rows(inputs, "parallel", REVIEWS_PER_CHUNK, REVIEW_WORDS)


WORKLOADS = (Workload("parallel", assess, _rows, num_items=7),)
