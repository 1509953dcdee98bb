"""Seven small instances, after the workflows of the Helium paper (section 7).

They keep the paper's shapes and prompt structure (which text comes first and who shares it) and
its published scale of this comparison: two to four agents, a batch of two to four, one worker,
8,192 tokens of KV cache. What the paper doesn't give, the lengths of documents and answers, is
drawn around the values written below, with a seed. A word counts as 1.3 tokens.
"""

from __future__ import annotations

import random

from benchmarks.scheduling.instance import Call, Instance, Segment

KV_CAPACITY_TOKENS = 8192
SPREAD = 0.4
"""Drawn lengths lie this far above or below their mean, uniformly."""


class Draft:
    """An instance in the making: gives calls their places and texts their lengths."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lengths: dict[str, int] = {}
        self.calls: list[Call] = []

    def fixed(self, key: str, num_tokens: int) -> Segment:
        """A text of the workflow's author."""
        return Segment(key, num_tokens)

    def drawn(self, key: str, mean_tokens: int) -> Segment:
        """A text of the batch: its length is drawn once for each key."""
        if key not in self._lengths:
            self._lengths[key] = self._draw(mean_tokens)
        return Segment(key, self._lengths[key])

    def call(
        self, operator: str, item: int, prompt: list[Segment], *, mean_output_tokens: int
    ) -> Segment:
        """Add a call; its answer, to be put into the prompts of others."""
        call = Call(operator, item, tuple(prompt), self._draw(mean_output_tokens))
        self.calls.append(call)
        return Segment(f"{call.name} said", call.output_tokens, len(self.calls) - 1)

    def _draw(self, mean_tokens: int) -> int:
        return round(mean_tokens * self._rng.uniform(1 - SPREAD, 1 + SPREAD))


def instances(seed: int) -> list[Instance]:
    """All seven, each drawn with a seed of its own that comes from this one."""

    def draft(name: str) -> Draft:
        return Draft(random.Random(f"{seed} {name}"))

    return [
        mapred(draft("mapred"), num_experts=3, batch=4),
        mapred_documents(
            draft("mapred, documents"), num_experts=2, num_documents=2, num_questions=2
        ),
        debate(draft("debate of 2"), num_agents=2, batch=4),
        debate(draft("debate of 4"), num_agents=4, batch=2),
        reflect(draft("reflect"), batch=4),
        iterative(draft("iterative"), num_steps=4, batch=3),
        parallel(draft("parallel"), num_roles=2, num_chunks=2, batch=2),
    ]


def mapred(draft: Draft, num_experts: int, batch: int) -> Instance:
    """Experts answer a question (MMLU), a summariser reads them; roles come last in the prompt."""
    for item in range(batch):
        question = draft.drawn(f"question {item}", 150)
        _experts_and_summariser(draft, item, [question], num_experts)
    return _instance("mapred", num_experts + 1, batch, draft)


def mapred_documents(
    draft: Draft, num_experts: int, num_documents: int, num_questions: int
) -> Instance:
    """The same over documents (TAT-QA), with several questions to each."""
    for item in range(num_documents * num_questions):
        document = draft.drawn(f"document {item // num_questions}", 500)
        question = draft.drawn(f"question {item}", 30)
        _experts_and_summariser(draft, item, [document, question], num_experts)
    return _instance("mapred, documents", num_experts + 1, num_documents * num_questions, draft)


def debate(draft: Draft, num_agents: int, batch: int) -> Instance:
    """Two rounds over a document and a question; the second continues each agent's history.

    After its own answer an agent reads the others' and is asked to revise.
    """
    for item in range(batch):
        asked = [draft.drawn(f"document {item}", 500), draft.drawn(f"question {item}", 30)]
        first = [
            draft.call(
                f"agent {agent}, round 1",
                item,
                [draft.fixed(f"agent {agent}: system", 25), *asked],
                mean_output_tokens=64,
            )
            for agent in range(num_agents)
        ]
        for agent in range(num_agents):
            history = [draft.fixed(f"agent {agent}: system", 25), *asked, first[agent]]
            others = [said for said in first if said != first[agent]]
            draft.call(
                f"agent {agent}, round 2",
                item,
                [*history, *others, draft.fixed("revise", 30)],
                mean_output_tokens=64,
            )
    return _instance(f"debate of {num_agents}", num_agents, batch, draft)


def reflect(draft: Draft, batch: int) -> Instance:
    """Analyst, extraction critic, calculation critic, and the analyst again: strictly serial."""
    for item in range(batch):
        asked = [draft.drawn(f"document {item}", 500), draft.drawn(f"question {item}", 30)]

        def opening(agent: str, asked: list[Segment] = asked) -> list[Segment]:
            texts = [draft.fixed(f"{agent}: system", 130), draft.fixed(f"{agent}: instruction", 40)]
            return [*texts, *asked]

        analysis = draft.call("analyst", item, opening("analyst"), mean_output_tokens=96)
        extraction = draft.call(
            "extraction critic",
            item,
            [*opening("extraction critic"), analysis],
            mean_output_tokens=48,
        )
        calculation = draft.call(
            "calculation critic",
            item,
            [*opening("calculation critic"), analysis, extraction],
            mean_output_tokens=48,
        )
        draft.call(
            "analyst, revised",
            item,
            [*opening("analyst"), analysis, extraction, calculation, draft.fixed("revise", 30)],
            mean_output_tokens=96,
        )
    return _instance("reflect", 3, batch, draft)


def iterative(draft: Draft, num_steps: int, batch: int) -> Instance:
    """A chain of summaries, each of the one before and a further chunk of ten reviews.

    Every step counts as an agent, as in the paper; they share system prompt and instruction.
    """
    for item in range(batch):
        summary: list[Segment] = []
        for step in range(num_steps):
            said = draft.call(
                f"step {step}",
                item,
                [
                    draft.fixed("system", 7),
                    draft.fixed("instruction", 163),
                    *summary,
                    draft.drawn(f"chunk {item}.{step}", 800),
                ],
                mean_output_tokens=96,
            )
            summary = [said]
    return _instance("iterative", num_steps, batch, draft)


def parallel(draft: Draft, num_roles: int, num_chunks: int, batch: int) -> Instance:
    """Roles extract from every chunk and summarise what they found; a writer reads that."""
    for item in range(batch):
        description = draft.drawn(f"item {item}", 60)
        summaries = []
        for role in range(num_roles):
            system = draft.fixed(f"role {role}: system", 208)
            extracts = [
                draft.call(
                    f"role {role}, chunk {chunk}",
                    item,
                    [
                        system,
                        draft.fixed("extract: instruction", 130),
                        description,
                        draft.drawn(f"chunk {item}.{chunk}", 500),
                    ],
                    mean_output_tokens=64,
                )
                for chunk in range(num_chunks)
            ]
            summaries.append(
                draft.call(
                    f"role {role}, summary",
                    item,
                    [system, draft.fixed("summary: instruction", 130), description, *extracts],
                    mean_output_tokens=64,
                )
            )
        draft.call(
            "writer",
            item,
            [draft.fixed("writer: system", 247), description, *summaries],
            mean_output_tokens=128,
        )
    return _instance("parallel", num_roles + 1, batch, draft)


def _experts_and_summariser(
    draft: Draft, item: int, asked: list[Segment], num_experts: int
) -> None:
    views = [
        draft.call(
            f"expert {expert}",
            item,
            [draft.fixed("experts: system", 23), *asked, draft.fixed(f"role {expert}", 20)],
            mean_output_tokens=64,
        )
        for expert in range(num_experts)
    ]
    draft.call(
        "summariser",
        item,
        [draft.fixed("summariser: system", 23), asked[-1], *views],
        mean_output_tokens=64,
    )


def _instance(name: str, num_agents: int, batch: int, draft: Draft) -> Instance:
    return Instance(name, num_agents, batch, KV_CAPACITY_TOKENS, tuple(draft.calls))
