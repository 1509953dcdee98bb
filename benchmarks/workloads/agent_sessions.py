"""Agent sessions drawn from a seed: how long prompts, answers and tools of each turn are.

After `planning.md` of this project's design: 10 to 20 turns; a system prompt with the schemas of
tools, which all sessions share; 40 to 80 tokens an answer; tools of a lognormal time (sigma 1), one
in twenty of them ten seconds; 100 to 400 tokens of a tool's result.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

SYSTEM_TOKENS = 1536
_LONG_TOOL_S, _LONG_SHARE = 10.0, 0.05


@dataclass(frozen=True)
class Turn:
    """One turn of a session.

    Args:
        output_tokens: Of the answer.
        result_tokens: Of what the tool gives back.
        tool_s: How long the tool takes.
    """

    output_tokens: int
    result_tokens: int
    tool_s: float


@dataclass(frozen=True)
class AgentSession:
    """One agent's work; sizes in tokens.

    Args:
        number: Counts from 0.
        system_tokens: Shared by all sessions.
        task_tokens: Its own first prompt.
        turns: In order; after the last there is no tool.
    """

    number: int
    system_tokens: int
    task_tokens: int
    turns: tuple[Turn, ...]

    @property
    def own_tokens(self) -> int:
        """All that it computes itself."""
        grown = sum(turn.output_tokens + turn.result_tokens for turn in self.turns)
        return self.task_tokens + grown


def make_sessions(num_sessions: int, scale: int, tool_s: float, seed: int) -> list[AgentSession]:
    """Sessions whose sizes are divided by `scale`, with a median tool time in seconds."""
    rng = random.Random(seed)

    def size(low: int, high: int) -> int:
        return max(1, rng.randint(low, high) // scale)

    def turn() -> Turn:
        is_long = rng.random() < _LONG_SHARE
        seconds = _LONG_TOOL_S if is_long else tool_s * math.exp(rng.gauss(0, 1))
        return Turn(size(40, 80), size(100, 400), seconds)

    sessions = []
    for number in range(num_sessions):
        turns = tuple(turn() for _ in range(rng.randint(10, 20)))
        sessions.append(AgentSession(number, SYSTEM_TOKENS // scale, size(300, 1000), turns))
    return sessions


def make_arrivals(num_sessions: int, sessions_per_s: float, seed: int) -> Sequence[float]:
    """When sessions arrive, in seconds: a Poisson process."""
    rng = random.Random(seed + 7)
    arrival_s, arrivals_s = 0.0, []
    for _ in range(num_sessions):
        arrival_s += rng.expovariate(sessions_per_s)
        arrivals_s.append(arrival_s)
    return arrivals_s
