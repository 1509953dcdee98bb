"""The sink port: what takes the records of spans."""

from __future__ import annotations

from typing import Protocol

from helium_agents.telemetry.otel.context import Place
from helium_agents.telemetry.otel.records import Record


class Sink(Protocol):
    """Makes spans of records, or sends them to who does."""

    def put(self, record: Record) -> None:
        """Take a record; never waits and never raises."""
        ...

    def traceparent(self, place: Place) -> str:
        """What is told to whom is called on behalf of a span that has begun."""
        ...

    async def close(self, end_ns: int) -> tuple[int, str]:
        """See that all is sent that can be; how many spans were not, and why."""
        ...
