"""An item: one row of a `map` on its way."""

from __future__ import annotations

from typing import Any


class Item:
    """One row on its way.

    Args:
        index: Position in the input, from 0.
        row: The row.
        outer: The item that this one works for; `None` in a top-level map.
        rank: How many top-level items had been read in the session before the one that it is of.

    Attributes:
        digest: What identifies the row: its fingerprint, or its position where it has none.
        ended_s: When it had its outcome, which need not be durable yet; `None` before.
    """

    __slots__ = (
        "__weakref__", "_outermost", "digest", "ended_s", "index", "opened_s", "rank", "row",
    )  # fmt: skip

    digest: bytes

    def __init__(self, index: int, row: Any, outer: Item | None, rank: int = 0) -> None:
        self.index = index
        self.row = row
        self.rank: int = rank if outer is None else outer.rank
        self.opened_s: float | None = None
        self.ended_s: float | None = None
        # not `self` where there is no outer one: a cycle would keep the row until it is collected
        self._outermost = None if outer is None else outer.admitted

    @property
    def admitted(self) -> Item:
        """The top-level item that this one works for, or is."""
        return self._outermost or self

    @property
    def is_nested(self) -> bool:
        """Whether this item belongs to a map inside another item."""
        return self._outermost is not None
