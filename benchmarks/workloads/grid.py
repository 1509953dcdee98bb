"""The sensitivity grid: map-reduce and debate at six sizes of prompts and answers.

The published sizes (Helium, arXiv 2603.16104, section 7) are divided by `SCALE`, so that prompts
and answers keep their proportions and the largest call fits a small engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.conversation import listed, texts_of, two_rounds
from benchmarks.workloads.debate import OPENINGS
from benchmarks.workloads.mapred import ROLES
from benchmarks.workloads.texts import briefing, prose
from helium_agents import llm, operator, prompt, system, user

SCALE = 4

WORDS_PER_TOKEN = {"rule": 0.74, "filing": 0.6, "news": 0.6}
"""Of generated text by kind, with the tokenizer of the random model."""


@dataclass(frozen=True)
class Size:
    """How long the parts of a query are, in tokens as published."""

    system: int
    context: int
    question: int
    answer: int


SIZES = {
    "p1": Size(1024, 128, 128, 64),
    "p2": Size(1024, 512, 512, 256),
    "p3": Size(1024, 1024, 1024, 512),
    "p4": Size(2048, 256, 256, 128),
    "p5": Size(2048, 1024, 1024, 512),
    "p6": Size(2048, 2048, 2048, 1024),
}

# Batches whose distinct working set is about 48k tokens.
NUM_MAPRED = {"p1": 92, "p2": 32, "p3": 20, "p4": 53, "p5": 19, "p6": 11}
NUM_DEBATE = {"p1": 98, "p2": 30, "p3": 17, "p4": 53, "p5": 16, "p6": 9}

MERGE = """{question}

{answers}

Merge the answers into one."""

REVISE = """The others answered:
{others}

Revise your answer."""


@dataclass(frozen=True)
class GridRow:
    """A query of a size (a key of `SIZES`)."""

    size: str
    context: str
    question: str

    def as_text(self) -> str:
        """Context and question."""
        return f"{self.context}\n\n{self.question}"


@operator
async def map_reduce(row: GridRow) -> list[str]:
    """Seven experts, who share all but a sentence, and a summariser."""
    max_tokens = SIZES[row.size].answer // SCALE
    setting = system(_briefing(row.size, "Experts answer questions, each from a side of its own."))
    experts = {
        f"Expert {number}": llm(setting, user(f"{row.as_text()}\n\n{role}"), max_tokens=max_tokens)
        for number, role in enumerate(ROLES, start=1)
    }
    merge = user(prompt(MERGE, question=row.question, answers=listed(experts)))
    return await texts_of([llm(setting, merge, max_tokens=max_tokens)])


@operator
async def debate(row: GridRow) -> list[str]:
    """Three agents, each with a system prompt of its own, in two rounds."""
    openings = {
        name: (system(_briefing(row.size, opening)), user(row.as_text()))
        for name, opening in OPENINGS.items()
    }
    _, lasts = two_rounds(openings, REVISE, SIZES[row.size].answer // SCALE)
    return await texts_of(lasts.values())


@cache
def _briefing(size: str, opening: str) -> str:
    return briefing(opening, _num_words("rule", SIZES[size].system))


def _num_words(kind: str, published_tokens: int) -> int:
    return round(published_tokens / SCALE * WORDS_PER_TOKEN[kind])


def _rows(size: str, inputs: Inputs) -> list[GridRow]:
    context = _num_words("filing", SIZES[size].context)
    question = _num_words("news", SIZES[size].question)
    return [
        GridRow(
            size,
            prose("filing", context, "grid", inputs.seed, item),
            prose("news", question, "grid", inputs.seed, item),
        )
        for item in range(inputs.num_items)
    ]


WORKLOADS = tuple(
    Workload(f"grid-{family}-{size}", workflow, partial(_rows, size), num_items[size])
    for family, workflow, num_items in (
        ("mapred", map_reduce, NUM_MAPRED),
        ("debate", debate, NUM_DEBATE),
    )
    for size in SIZES
)
