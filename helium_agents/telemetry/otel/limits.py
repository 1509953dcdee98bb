"""`Limits`: how many attributes a span may have and how long they may be, as `OTEL_*` says."""

from __future__ import annotations

from typing import NamedTuple

from helium_agents.telemetry.otel.attributes import Attribute, Attributes


class Limits(NamedTuple):
    """Of the attributes of a span; `None` where there is none.

    Args:
        most: How many.
        longest: Characters of a text.
    """

    most: int | None = None
    longest: int | None = None

    def apply(self, attributes: Attributes, num_before: int = 0) -> Attributes:
        """The first attributes that there is room for, and the beginnings of their texts.

        Args:
            attributes: What there is to say.
            num_before: How many the span has already.
        """
        kept = attributes
        if self.most is not None and num_before + len(attributes) > self.most:
            kept = dict(list(attributes.items())[: max(self.most - num_before, 0)])
        if self.longest is None:
            return kept
        return {name: self._cut(value) for name, value in kept.items()}

    def _cut(self, value: Attribute) -> Attribute:
        if isinstance(value, str):
            return value[: self.longest]
        if isinstance(value, bool | int | float):
            return value
        return [text[: self.longest] for text in value]
