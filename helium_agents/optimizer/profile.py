"""A profile: what the rows of a workflow asked before, from which one tells what others will ask.

Of each call site it keeps how long prompts and answers were, how often it was called in a row, and
what passed between the call and what came before it. Of few rows it keeps all calls: which were
answered before which was asked, and how much of their prompts is the same. So loops, branches and
fan-outs are in it as often as they occur. Prompts are kept as digests of their blocks, each with
all that comes before it, as vLLM's prefix cache names them; no text can be read from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from helium_agents.optimizer.distribution import Distribution
from helium_agents.optimizer.guesses import Histogram

BLOCK_TOKENS = 16
DIGEST_BYTES = 8

MOST_ROWS = 16
"""Of so many rows all calls are kept, and of the newest."""

MOST_TURNS = 32
"""Later calls of a site in a row count with the last of these."""

Runs = tuple[tuple[int, int], ...]
"""Blocks of a row in order, as ranges of their numbers."""


@dataclass(frozen=True, slots=True)
class SeenCall:
    """A call that was made.

    Args:
        site: Where: the operator in whose body, and what is called.
        inputs: The calls of the row that were answered before it was asked, by position, without
            those that these had waited for themselves.
        prompt_tokens: Of its prompt.
        output_tokens: Of its answer.
        prompt: The whole blocks of its prompt, as ranges of the row's blocks.
        answer: The further ones that its answer made whole.
        engine: Which of the session's engines it asked, from 0.
        pause_s: Seconds from the last answer of the row until it was asked.
    """

    site: str
    inputs: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    prompt: Runs = ()
    answer: Runs = ()
    engine: int = 0
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A row that has ended.

    Args:
        calls: What an engine computed for it, in the order in which it was asked.
        blocks: The digests of the blocks of its prompts and answers, one after another.
    """

    calls: tuple[SeenCall, ...]
    blocks: bytes = b""

    def digests(self) -> list[bytes]:
        """The digests, each."""
        step = DIGEST_BYTES
        return [self.blocks[at : at + step] for at in range(0, len(self.blocks), step)]


@dataclass(slots=True)
class Turn:
    """The calls that rows make to a site for the n-th time.

    Args:
        prompt_tokens: Of their prompts.
        output_tokens: Of their answers.
    """

    prompt_tokens: Distribution = field(default_factory=Distribution)
    output_tokens: Distribution = field(default_factory=Distribution)


@dataclass(slots=True)
class Site:
    """What is kept of a call site.

    Args:
        calls_per_row: Of rows that called it.
        pause_s: Between a call and what was answered before it: tools, and own computing.
        turns: Of the first call in a row, the second, and so on.
    """

    calls_per_row: Distribution = field(default_factory=Distribution)
    pause_s: Distribution = field(default_factory=Distribution)
    turns: list[Turn] = field(default_factory=list)

    def turn(self, number: int) -> Turn:
        """What is kept of the n-th call in a row, from 0."""
        number = min(number, MOST_TURNS - 1)
        while len(self.turns) <= number:
            self.turns.append(Turn())
        return self.turns[number]

    def all_turns(self) -> Turn:
        """All of them together."""
        found = Turn()
        for turn in self.turns:
            found.prompt_tokens.add_all(turn.prompt_tokens)
            found.output_tokens.add_all(turn.output_tokens)
        return found


@dataclass(slots=True)
class Profile:
    """What is known of a workflow on a model.

    Args:
        workflow: What a person calls it.
        model: What a person calls the model.
        sites: By what identifies them.
        calls: Of each row.
        declared_rows: Rows all calls of which were made before any was answered; of the newest
            that `calls` counts.
        pause_s: Seconds between calls, of all rows, in which nothing of the row was on an engine.
        service_s: Seconds in which something was.
        rows: The newest, the oldest first.
        answers: How often which closed answer came.
    """

    workflow: str = ""
    model: str = ""
    sites: dict[str, Site] = field(default_factory=dict)
    calls: Distribution = field(default_factory=Distribution)
    declared_rows: float = 0
    pause_s: float = 0.0
    service_s: float = 0.0
    rows: list[SeenRow] = field(default_factory=list)
    answers: Histogram = field(default_factory=Histogram)

    def site(self, name: str) -> Site:
        """What is kept of a call site."""
        found = self.sites.get(name)
        if found is None:
            found = self.sites[name] = Site()
        return found

    @property
    def num_rows(self) -> int:
        """Rows that it knows of; older ones count less."""
        return round(self.calls.number)

    @property
    def is_declared(self) -> bool:
        """Whether rows make all of their calls before any is answered, nine in ten of them."""
        return self.declared_rows >= 0.9 * self.calls.number

    @property
    def pause_share(self) -> float:
        """Of the time of rows: what they were away from the engine, from 0 to 1."""
        return self.pause_s / ((self.pause_s + self.service_s) or 1.0)

    def add_all(self, newer: Profile) -> None:
        """Take note of all that a newer one knows."""
        before = self.calls.number
        self.calls.add_all(newer.calls)
        kept = (self.calls.number - newer.calls.number) / before if before else 0.0
        self.declared_rows = self.declared_rows * kept + newer.declared_rows
        self.pause_s = self.pause_s * kept + newer.pause_s
        self.service_s = self.service_s * kept + newer.service_s
        for name, other in newer.sites.items():
            site = self.site(name)
            site.calls_per_row.add_all(other.calls_per_row)
            site.pause_s.add_all(other.pause_s)
            for number, turn in enumerate(other.turns):
                site.turn(number).prompt_tokens.add_all(turn.prompt_tokens)
                site.turn(number).output_tokens.add_all(turn.output_tokens)
        self.rows = [*self.rows, *newer.rows][-MOST_ROWS:]
        self.answers.add_all(newer.answers)


def held_share(rows: Sequence[SeenRow]) -> float:
    """Of the blocks of later prompts of rows: those that the same row had before, from 0 to 1."""
    num_blocks = num_held = 0
    for row in rows:
        num_known = 0
        for index, call in enumerate(row.calls):
            for start, stop in call.prompt:
                num_blocks += (stop - start) if index else 0
                num_held += max(0, min(stop, num_known) - start) if index else 0
            num_known = max([num_known, *(stop for _, stop in (*call.prompt, *call.answer))])
    return num_held / max(1, num_blocks)
