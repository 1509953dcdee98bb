"""What every call must be answered, known without an engine.

The benchmarks' engines answer by a digest of the prompt's tokens (`benchmarks.harness.digest`). So
the plain program's results can be computed here, token for token, and with them what a workload
asks for: how large its working set is, and what the bounds are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from transformers import AutoTokenizer

from benchmarks.harness.calls import CallGraph
from benchmarks.harness.digest import Vocabulary
from benchmarks.harness.model import ModelShape, model_directory
from helium_agents.engines.engine import ChatMessage


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A call of the plain program with its answer.

    Args:
        item: The row's number.
        index: The call's number within its row.
        inputs: Positions in the list of known calls of those whose answers this one needs; they
            are earlier in the list.
        prompt_token_ids: The prompt.
        output_token_ids: The answer, its end token included where it ended by itself.
        pause_s: How long a tool runs before it, once its inputs are there.
    """

    item: int
    index: int
    inputs: tuple[int, ...]
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    pause_s: float = 0.0


@dataclass(frozen=True)
class Known:
    """All calls of a batch.

    Args:
        calls: Row by row.
        results: What the workflow returns, for every row.
    """

    calls: list[KnownCall]
    results: list[list[str]]


def unanswered(calls: Sequence[KnownCall], earlier: Iterable[KnownCall]) -> list[KnownCall]:
    """The calls whose answers are not known from earlier ones; nobody must compute the others."""
    answered = {tuple(call.prompt_token_ids): len(call.output_token_ids) for call in earlier}
    positions: dict[int, int] = {}
    left: list[KnownCall] = []
    for position, call in enumerate(calls):
        if answered.get(tuple(call.prompt_token_ids), -1) < len(call.output_token_ids):
            positions[position] = len(left)
            inputs = tuple(positions[source] for source in call.inputs if source in positions)
            left.append(replace(call, inputs=inputs))
    return left


class Oracle:
    """Answers as an engine of the benchmarks does, without one."""

    def __init__(self, shape: ModelShape) -> None:
        directory = model_directory(shape)
        self._vocabulary = Vocabulary.read(directory)
        self._tokenizer = AutoTokenizer.from_pretrained(str(directory))

    def prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a conversation."""
        token_ids: list[int] = self._tokenizer.apply_chat_template(
            [message._asdict() for message in messages],
            add_generation_prompt=True,
            return_dict=False,
        )
        return token_ids

    def text(self, token_ids: Iterable[int]) -> str:
        """The text of an answer."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text

    def run(self, graphs: Sequence[CallGraph], arrivals_s: Sequence[float] = ()) -> Known:
        """Answer all calls of a batch, whose rows may arrive late."""
        calls: list[KnownCall] = []
        results = []
        for item, graph in enumerate(graphs):
            first = len(calls)
            texts: list[str] = []
            for index, call in enumerate(graph.calls):
                prompt = self.prompt(call.conversation(texts))
                answer = self._vocabulary.answer(prompt, call.max_tokens)
                texts.append(self.text(answer))
                inputs = tuple(first + source for source in call.inputs)
                arrival_s = arrivals_s[item] if arrivals_s and not inputs else 0.0
                pause_s = arrival_s + call.pause_s
                calls.append(KnownCall(item, index, inputs, prompt, answer, pause_s))
            results.append([texts[index] for index in graph.outputs])
        return Known(calls, results)
