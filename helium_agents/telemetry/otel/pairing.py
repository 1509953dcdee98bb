"""`OpenSpans`: brings what a span began with together with what it ended with."""

from __future__ import annotations

from collections.abc import Iterator

from helium_agents.telemetry.otel.records import Began, Ended, Whole


class OpenSpans:
    """The spans that have begun and not ended."""

    def __init__(self) -> None:
        self._began: dict[int, tuple[Began, bool]] = {}

    def began(self, record: Began) -> None:
        """Keep what began."""
        self._began[record.span] = record, record.parent not in self._began

    def ended(self, record: Ended) -> Whole | None:
        """What has ended; `None` where its beginning was lost."""
        found = self._began.pop(record.span, None)
        if found is None:
            return None
        began, is_entry = found
        return Whole(began, record, is_entry)

    def end_all(self, end_ns: int, why: str) -> Iterator[Whole]:
        """End what is open, innermost first: nobody will tell of its end any more."""
        while self._began:
            span, (began, is_entry) = self._began.popitem()
            yield Whole(began, Ended(span, max(end_ns, began.start_ns), ("", why), None), is_entry)
