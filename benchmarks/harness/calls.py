"""The calls of a row as a graph, which every system executes in its own way.

A workflow is run once without an engine: it makes its calls, whose messages name the calls whose
answers they need, and awaits some of them. That is recorded. So a workload is written once, as an
ordinary workflow, and no system has a copy of it.

A workflow may also await an answer, `pause` for a tool, and ask again with the answer in its
prompt: an awaited answer is a placeholder, which is found again in later prompts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from helium_agents.engines.engine import ChatMessage, Choice
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.models import NO_MODELS
from helium_agents.graph.node import Node
from helium_agents.graph.reply import Reply
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import Frame, entered, entered_frame


@dataclass(frozen=True)
class Call:
    """One model call of a row.

    Args:
        messages: Pairs of a role and its content's parts: texts, and numbers of calls whose
            answers stand there.
        max_tokens: Most tokens of the answer.
        pause_s: How long a tool runs before it, once the answers are there that it needs.
    """

    messages: tuple[tuple[str, tuple[str | int, ...]], ...]
    max_tokens: int
    pause_s: float = 0.0

    @property
    def inputs(self) -> tuple[int, ...]:
        """The calls whose answers this one needs, each once, in order of their first use."""
        parts = (part for _, parts in self.messages for part in parts)
        return tuple(dict.fromkeys(part for part in parts if isinstance(part, int)))

    def conversation(self, texts: Mapping[int, str] | Sequence[str]) -> tuple[ChatMessage, ...]:
        """The messages, with the answers of earlier calls in their places."""
        return tuple(
            ChatMessage(role, "".join(p if isinstance(p, str) else texts[p] for p in parts))
            for role, parts in self.messages
        )


@dataclass(frozen=True)
class CallGraph:
    """The calls of a row, each after those that it needs, and which of them are its result."""

    calls: tuple[Call, ...]
    outputs: tuple[int, ...]


async def pause(seconds: float) -> None:
    """What a workflow awaits in place of a tool: it waits, or is noted where calls are recorded."""
    frame = entered_frame()
    if frame is not None and isinstance(frame.runner, _Recorder):
        frame.runner.pause_s += seconds
    else:
        await asyncio.sleep(seconds)


async def call_graph(workflow: Callable[[Any], Awaitable[Sequence[str]]], row: Any) -> CallGraph:
    """Record what a workflow asks for a row.

    Raises:
        ValueError: The workflow awaited an answer and then made a call that does not contain it, so
            that nothing shows what that call waits for; or it asked for something other than greedy
            text.
    """
    recorder = _Recorder()
    with entered(Frame(recorder, level=("benchmark",))):
        texts = await workflow(row)
    graph = CallGraph(tuple(recorder.calls), tuple(recorder.outputs))
    if list(texts) != [_placeholder(index) for index in graph.outputs]:
        raise ValueError(f"{workflow}: it must return the texts that it awaits, in that order")
    return graph


def _placeholder(index: int) -> str:
    return f"<answer of call {index}>"


_PLACEHOLDER = re.compile(r"<answer of call (\d+)>")


def _parts(text: str) -> Iterator[str | int]:
    """A text's parts: what stands between placeholders, and the calls that these are of."""
    for position, part in enumerate(_PLACEHOLDER.split(text)):
        if position % 2:
            yield int(part)
        elif part:
            yield part


class _Recorder:
    """Stands for a session; a `Runner` of `helium_agents.graph.trace`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.outputs: list[int] = []
        self.models = NO_MODELS
        self.pause_s = 0.0
        self._indices: dict[Node, int] = {}

    def on_created(self, node: Node) -> None:
        if not isinstance(node, LlmNode):
            return
        sampling = node.call.sampling
        if not sampling.is_greedy or sampling.n != 1 or node.call.json_schema is not None:
            raise ValueError("only one greedy answer without a schema can be asked of every system")
        sources = [self._indices[source] for source in node.inputs]
        self._indices[node] = len(self.calls)
        messages = tuple(
            (
                role,
                tuple(
                    part
                    for segment in segments
                    for part in (
                        _parts(segment) if isinstance(segment, str) else (sources[segment.index],)
                    )
                ),
            )
            for role, segments in node.call.messages
        )
        call = Call(messages, sampling.max_tokens, self.pause_s)
        if self.outputs and self.outputs[-1] not in call.inputs:
            raise ValueError(
                "the workflow made a call after it had awaited another whose answer is not in its "
                "prompt"
            )
        self.calls.append(call)
        self.pause_s = 0.0

    async def wait(self, node: Node) -> Any:
        index = self._indices[node]
        self.outputs.append(index)
        return Reply((Choice(_placeholder(index), (), "stop"),))

    def running_tool(
        self, frame: Frame, call: ToolCall, *, is_operator: bool
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def on_awaited(self, node: Node) -> None: ...

    def on_ended(self, node: Node) -> None: ...

    def waiting(self) -> str:
        return "nothing waits: calls are only recorded"

    def on_effect(self) -> None:
        """Nothing is undone here."""

    def start(self, node: Node) -> None:
        raise ValueError("a workflow of the benchmarks must not start calls, only await them")

    def stream(self, node: Node) -> AsyncIterator[str]:
        raise ValueError("a workflow of the benchmarks must not stream")
