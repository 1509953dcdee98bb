"""What rows will ask of which nothing is known yet: copies of rows that were seen.

What most of the seen rows have in common at the beginning of their prompts (instructions, examples)
the copies have in common too. What only some of them share (a document, say) stays shared within
one round of copies; what is a row's own is each copy's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from helium_agents.optimizer.forecast import Forecast, ForecastCall
from helium_agents.optimizer.profile import BLOCK_TOKENS, SeenRow

_OF_ALL, _OF_ROUND, _OF_COPY = range(3)


def predict(rows: Sequence[SeenRow], items: Sequence[int]) -> Forecast:
    """A forecast of rows that have not begun.

    Args:
        rows: Seen ones, at least one.
        items: The rows to be predicted.
    """
    templates = _templates(rows)
    numbers: dict[tuple[bytes, int], int] = {}
    piece_tokens: list[int] = []

    def new(tokens: int) -> int:
        piece_tokens.append(tokens)
        return len(piece_tokens) - 1

    def number(piece: _Piece, copy: int) -> int:
        which = (0, copy // len(rows), copy)[piece.scope]
        found = numbers.get((piece.digest, which))
        if found is None:
            found = numbers[piece.digest, which] = new(piece.tokens)
        return found

    predicted: list[list[ForecastCall]] = []
    for copy in range(len(items)):
        row, template = rows[copy % len(rows)], templates[copy % len(rows)]
        calls: list[ForecastCall] = []
        for index, (call, (prompt, answer)) in enumerate(zip(row.calls, template, strict=True)):
            pieces = [number(piece, copy) for piece in prompt]
            tail = call.prompt_tokens - sum(piece.tokens for piece in prompt)
            if tail > 0 or not pieces:
                pieces.append(new(max(1, tail)))
            calls.append(
                ForecastCall(
                    inputs=call.inputs,
                    prompt=tuple(pieces),
                    answer=tuple([number(piece, copy) for piece in answer]),
                    prompt_tokens=max(1, call.prompt_tokens),
                    output_tokens=max(1, call.output_tokens),
                    question=(copy, index),
                    site=call.site,
                    engine=call.engine,
                    pause_s=call.pause_s,
                )
            )
        predicted.append(calls)
    return Forecast(predicted, piece_tokens, items)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Blocks that all have the same users, so that they are cached and used together.

    Args:
        digest: Of the first block.
        tokens: Of all.
        scope: Which copies have it in common.
    """

    digest: bytes
    tokens: int
    scope: int


_Template = list[tuple[list[_Piece], list[_Piece]]]
"""For each call of a row the pieces of its prompt, and those that its answer adds."""


def _templates(rows: Sequence[SeenRow]) -> list[_Template]:
    digests = [row.digests() for row in rows]
    num_rows = Counter(digest for each in digests for digest in set(each))
    users: Counter[bytes] = Counter()  # a number that is the same for the same users
    for row, (seen, of_row) in enumerate(zip(rows, digests, strict=True)):
        for index, call in enumerate(seen.calls):
            for part, runs in enumerate((call.prompt, call.answer)):
                for block in _blocks(runs):
                    users[of_row[block]] ^= hash((row, index, part))
    pieces: dict[bytes, _Piece] = {}

    def cut(blocks: Sequence[bytes]) -> list[_Piece]:
        found: list[_Piece] = []
        start = 0
        for end in range(1, len(blocks) + 1):
            if end == len(blocks) or users[blocks[end]] != users[blocks[start]]:
                digest = blocks[start]
                if digest not in pieces:
                    scope = _scope(num_rows[digest], len(rows))
                    pieces[digest] = _Piece(digest, (end - start) * BLOCK_TOKENS, scope)
                found.append(pieces[digest])
                start = end
        return found

    return [
        [
            (
                cut([of_row[block] for block in _blocks(call.prompt)]),
                cut([of_row[block] for block in _blocks(call.answer)]),
            )
            for call in row.calls
        ]
        for row, of_row in zip(rows, digests, strict=True)
    ]


def _scope(num_with: int, num_rows: int) -> int:
    if num_with < 2:
        return _OF_COPY
    return _OF_ALL if 2 * num_with > num_rows else _OF_ROUND


def _blocks(runs: Sequence[tuple[int, int]]) -> Iterator[int]:
    for start, stop in runs:
        yield from range(start, stop)
