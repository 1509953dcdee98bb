"""Iterative summary: six steps, each of which works a chunk of reviews into the summary so far."""

from __future__ import annotations

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import Answer, texts_of
from benchmarks.workloads.reviews import ReviewRow, review_rows
from benchmarks.workloads.texts import briefing
from helium_agents import llm, operator, prompt, system, user

SYSTEM = "You summarise reviews of products."

INSTRUCTION = briefing(
    "Below are a summary of the reviews that you have read so far, and further reviews of the "
    "same product. Write a new summary that takes all of them into account.",
    125,
)

STEP = """{instruction}

Product: {product}

Summary so far: {summary}

Further reviews:
{chunk}"""

NO_SUMMARY = "There is none yet, these are the first reviews."

REVIEWS_PER_CHUNK, REVIEW_WORDS = 10, range(14, 33)
SUMMARY_TOKENS = 48


@operator
async def summarise_step_by_step(row: ReviewRow) -> list[str]:
    """Summarise all chunks, one after another."""
    summary: str | Answer = NO_SUMMARY
    for chunk in row.chunks:
        step = prompt(
            STEP, instruction=INSTRUCTION, product=row.product, summary=summary, chunk=chunk
        )
        summary = last = llm(system(SYSTEM), user(step), max_tokens=SUMMARY_TOKENS)
    return await texts_of([last])


def _rows(inputs: Inputs) -> list[ReviewRow]:
    return review_rows(inputs, "iterative", REVIEWS_PER_CHUNK, REVIEW_WORDS)


WORKLOADS = (Workload("iterative", summarise_step_by_step, _rows, num_items=17),)
