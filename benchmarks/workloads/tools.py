"""Agents that call tools, turn after turn: the workload in which a KV cache is lost and won.

Each turn's prompt is the last one with the answer and a tool's result after it; while the tool
runs, others want the cache. Nothing of a turn is known before the one before it is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.calls import pause
from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads.agent_sessions import AgentSession, make_arrivals, make_sessions
from benchmarks.workloads.texts import SHORTEST_WORDS, prose
from helium_agents import assistant, llm, operator, system, user

SCALE = 6
"""By what published sizes are divided: 48 sessions then have a working set of 48k tokens."""

TOOL_S = 2.0
"""Median time of a tool, before it is scaled: by 0.15, unless the command line says otherwise."""

_WORDS_PER_TOKEN = 0.6
_KINDS = ("filing", "news", "market", "social", "review")


@dataclass(frozen=True)
class ToolTurn:
    """A turn as texts.

    Args:
        max_tokens: Of the answer.
        tool_s: How long the tool takes after it.
        result: What it gives back.
    """

    max_tokens: int
    tool_s: float
    result: str


@dataclass(frozen=True)
class AgentRow:
    """An agent's work.

    Args:
        instructions: The system prompt.
        task: The first prompt.
        turns: In order; the last one has no tool after it.
    """

    instructions: str
    task: str
    turns: tuple[ToolTurn, ...]


@operator
async def agent(row: AgentRow) -> list[str]:
    """Work on a task, turn by turn; what was said in each."""
    messages = [system(row.instructions), user(row.task)]
    texts: list[str] = []
    for turn in row.turns:
        if texts:
            last = row.turns[len(texts) - 1]
            await pause(last.tool_s)
            messages += [assistant(texts[-1]), user(last.result)]
        texts.append((await llm(*messages, max_tokens=turn.max_tokens)).text)
    return texts


def _rows(inputs: Inputs) -> list[AgentRow]:
    sessions = make_sessions(inputs.num_items, SCALE, TOOL_S, inputs.seed)
    return [_row(session, inputs) for session in sessions]


def _row(session: AgentSession, inputs: Inputs) -> AgentRow:
    seed = inputs.seed
    instructions = f"You work on tasks with tools. {_text('rule', session.system_tokens, seed)}"
    turns = tuple(
        ToolTurn(
            turn.output_tokens,
            turn.tool_s * inputs.tool_scale,
            _text(_KINDS[number % len(_KINDS)], turn.result_tokens, seed, session.number, number),
        )
        for number, turn in enumerate(session.turns)
    )
    task = f"Task {session.number}: {_text('filing', session.task_tokens, seed, session.number)}"
    return AgentRow(instructions, task, turns)


def _text(kind: str, num_tokens: int, *seed: int) -> str:
    return prose(kind, max(SHORTEST_WORDS, round(num_tokens * _WORDS_PER_TOKEN)), "tools", *seed)


def _arrivals(inputs: Inputs) -> Sequence[float]:
    return make_arrivals(inputs.num_items, inputs.rows_per_s, inputs.seed)


WORKLOADS = (
    Workload("tools", agent, _rows, num_items=48),
    Workload("tools-open", agent, _rows, num_items=96, arrivals=_arrivals),
)
