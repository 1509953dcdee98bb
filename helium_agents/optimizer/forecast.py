"""A forecast: what the calls of some rows will ask, as far as they were declared.

A call whose inputs are not known yet is known all the same: its prompt is text with places for
answers in it. So it can be told before anything runs which calls share how much of their prompts,
and that is what schedules differ in. Lengths are guesses: of text by its characters, of answers by
what is known of them, or else by their limit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import PlanNode
from helium_agents.optimizer.prefix_tree import PrefixTree
from helium_agents.optimizer.text_lengths import HEADER_TOKENS, TextLengths

_USUAL = TextLengths()

_UNKNOWN_TOKENS = 64
"""Of a text of which nothing is known."""

_FIRST_SYMBOL = 0x110000
"""Symbols below are characters."""


@dataclass(frozen=True, slots=True)
class ForecastCall:
    """A call that will be made.

    Args:
        inputs: The calls of its row that it needs, by position.
        prompt: The pieces of its prompt, in order; equal numbers are equal text after equal text.
        answer: The pieces that its answer adds, as far as a later prompt contains them.
        prompt_tokens: Of the whole prompt.
        output_tokens: Of the answer.
        question: Equal for calls that are computed once.
        site: Where it is made: the operator in whose body.
        engine: Which of the session's engines it asks, from 0.
        pause_s: Seconds from when its inputs are answered until it is asked.
    """

    inputs: tuple[int, ...]
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    question: Hashable
    site: str = ""
    engine: int = 0
    pause_s: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """What rows will ask.

    Args:
        rows: The calls of each, inputs first.
        piece_tokens: Tokens of each piece.
        items: The item of each row; as rows are begun in order, they rise.
    """

    rows: Sequence[Sequence[ForecastCall]]
    piece_tokens: Sequence[int]
    items: Sequence[int]

    @property
    def engines(self) -> list[int]:
        """The engines that are asked."""
        return sorted({call.engine for row in self.rows for call in row})

    def touched_tokens(self, engine: int) -> int:
        """Tokens of the pieces that are computed on an engine."""
        calls = [call for row in self.rows for call in row if call.engine == engine]
        touched = {piece for call in calls for piece in (*call.prompt, *call.answer)}
        return sum(self.piece_tokens[piece] for piece in touched)


def forecast(
    plan: LogicalPlan,
    output_tokens: Callable[[PlanNode], int],
    lengths: TextLengths = _USUAL,
    site: Callable[[PlanNode], str] = lambda _: "",
    engine: Callable[[str | None], int] = lambda _: 0,
) -> Forecast:
    """What a plan's model calls will ask, row by row.

    Args:
        plan: Calls, inputs first; those without an item are left out.
        output_tokens: How long an answer will be.
        lengths: Characters of a token.
        site: Where a call is made.
        engine: Which engine a model has.
    """
    calls = [n for n in plan.nodes.values() if n.kind == "llm" and n.item is not None]
    symbols = _Symbols(output_tokens)
    tree = PrefixTree()
    sequences: dict[int, array[int]] = {}
    for node in calls:
        sequence = sequences[node.id] = symbols.prompt(node)
        tree.insert(sequence, node.item)
        tree.insert(sequence + symbols.answer(node), node.item)
    pieces = _Pieces(tree, symbols)
    paths = [
        (pieces.of(sequences[node.id], node.item),
         pieces.of(sequences[node.id] + symbols.answer(node), node.item))
        for node in calls
    ]  # fmt: skip
    rows: dict[int, list[ForecastCall]] = {}
    places: dict[int, tuple[int | None, int]] = {}
    piece_tokens = pieces.tokens(len({node.item for node in calls}), lengths)
    for node, (prompt, whole) in zip(calls, paths, strict=True):
        assert node.item is not None
        row = rows.setdefault(node.item, [])
        inputs = {places[i][1] for i in node.inputs if i in places and places[i][0] == node.item}
        places[node.id] = node.item, len(row)
        row.append(
            ForecastCall(
                inputs=tuple(sorted(inputs)),
                prompt=prompt,
                answer=whole[len(prompt) :],
                prompt_tokens=sum(piece_tokens[piece] for piece in prompt),
                output_tokens=max(1, output_tokens(node)),
                question=node.key or node.id,
                site=site(node),
                engine=engine(node.model),
            )
        )
    items = sorted(rows)
    return Forecast([rows[item] for item in items], piece_tokens, items)


class _Pieces:
    """The edges of a prefix tree, numbered from 0."""

    def __init__(self, tree: PrefixTree, symbols: _Symbols) -> None:
        self._tree = tree
        self._symbols = symbols
        self._numbers: dict[int, int] = {}
        self._sizes: list[tuple[int, float]] = []  # characters, and tokens of all else
        self._items: list[set[int | None]] = []

    def of(self, sequence: array[int], item: int | None) -> tuple[int, ...]:
        """The pieces of a sequence of an item, in order."""
        found = []
        for edge, symbols in self._tree.edges(sequence):
            number = self._numbers.get(edge)
            if number is None:
                number = self._numbers[edge] = len(self._sizes)
                self._sizes.append(self._symbols.size_of(symbols))
                self._items.append(set())
            self._items[number].add(item)
            found.append(number)
        return tuple(found)

    def tokens(self, num_items: int, lengths: TextLengths) -> list[int]:
        """Tokens of each piece, to the nearest whole number."""
        found = []
        for (num_characters, tokens), items in zip(self._sizes, self._items, strict=True):
            is_common = 2 * len(items) >= num_items
            ratio = lengths.common if is_common else lengths.own
            found.append(max(1, round(tokens + num_characters / ratio)))
        return found


class _Symbols:
    """Prompts as sequences of numbers: a character each, one for an answer, one for a role."""

    def __init__(self, output_tokens: Callable[[PlanNode], int]) -> None:
        self._output_tokens = output_tokens
        self._tokens: list[float] = []
        self._roles: dict[str, int] = {}
        self._answers: dict[Hashable, int] = {}

    def prompt(self, node: PlanNode) -> array[int]:
        """The symbols of a prompt, up to where its answer begins."""
        found = array("I")
        for role, segments in node.messages:
            found.append(self._role(role))
            for segment in segments:
                if isinstance(segment, str):
                    found.frombytes(segment.encode("utf-32-le", "surrogatepass"))
                else:
                    found.append(self._answer_of(node.inputs[segment.index]))
        found.append(self._role("assistant"))
        return found

    def answer(self, node: PlanNode) -> array[int]:
        """The symbol of a call's answer; equal calls have equal answers."""
        question = node.key or node.id
        if question not in self._answers:
            self._answers[question] = self._add(self._output_tokens(node))
        self._answers[node.id] = self._answers[question]
        return array("I", [self._answers[question]])

    def _answer_of(self, id_: int) -> int:
        if id_ not in self._answers:  # that of an operator, or of a call of another plan
            self._answers[id_] = self._add(_UNKNOWN_TOKENS)
        return self._answers[id_]

    def size_of(self, symbols: array[int]) -> tuple[int, float]:
        """The characters of a piece, and the tokens of what else is in it."""
        others = [symbol for symbol in symbols if symbol >= _FIRST_SYMBOL]
        tokens = sum(self._tokens[symbol - _FIRST_SYMBOL] for symbol in others)
        return len(symbols) - len(others), tokens

    def _role(self, role: str) -> int:
        if role not in self._roles:
            self._roles[role] = self._add(HEADER_TOKENS)
        return self._roles[role]

    def _add(self, tokens: float) -> int:
        self._tokens.append(tokens)
        return _FIRST_SYMBOL + len(self._tokens) - 1
