"""Rows of the workloads that read reviews: a product and chunks of reviews of it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.harness.workload import Inputs
from benchmarks.workloads.texts import prose, seeded

NUM_CHUNKS = 6

_MAKERS = ("Aldern", "Bevis", "Corvo", "Dunmore", "Elstra", "Fenwick", "Gorham", "Hallby")
_PRODUCTS = ("kettle", "lamp", "radio", "drill", "blender", "heater", "speaker", "camera")


@dataclass(frozen=True)
class ReviewRow:
    """A product, and its reviews in chunks."""

    product: str
    chunks: tuple[str, ...]


def review_rows(
    inputs: Inputs, workload: str, reviews_per_chunk: int, words: range
) -> list[ReviewRow]:
    """Products with `NUM_CHUNKS` chunks each.

    Args:
        inputs: What to make rows from.
        workload: Whose: each has reviews of its own.
        reviews_per_chunk: How many.
        words: How long a review may be.
    """
    return [
        _row(inputs.seed, workload, item, reviews_per_chunk, words)
        for item in range(inputs.num_items)
    ]


def _row(seed: int, workload: str, item: int, reviews_per_chunk: int, words: range) -> ReviewRow:
    draws = seeded(workload, seed, item)
    product = f"{draws.choice(_MAKERS)} {draws.choice(_PRODUCTS)} {100 + item}"
    chunks = tuple(
        "\n".join(
            f"- {prose('review', draws.choice(words), workload, seed, item, chunk, review)}"
            for review in range(reviews_per_chunk)
        )
        for chunk in range(NUM_CHUNKS)
    )
    return ReviewRow(product, chunks)
