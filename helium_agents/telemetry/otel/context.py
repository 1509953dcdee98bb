"""Trace contexts after the W3C: who calls us, and what we tell whom we call."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from msgspec import Struct

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Place(Struct, frozen=True, gc=False):
    """A span that others may be below of.

    Args:
        trace: The id of its trace, 16 bytes.
        span: Its id.
        is_sampled: Whether what belongs to it is recorded.
    """

    trace: bytes
    span: int
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        """As a header."""
        return f"00-{self.trace.hex()}-{self.span:016x}-{self.is_sampled:02x}"


def place_of(traceparent: str) -> Place | None:
    """What a header names; `None` where it is not valid."""
    found = _TRACEPARENT.fullmatch(traceparent.strip().lower())
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(span, 16):
        return None
    return Place(bytes.fromhex(trace), int(span, 16), bool(int(flags, 16) & 1))


def caller_of(environ: Mapping[str, str]) -> Place | None:
    """The span in which this code runs: the application's own, or whoever started the process."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            sampled = bool(context.trace_flags & 1)
            return Place(context.trace_id.to_bytes(16, "big"), context.span_id, sampled)
    return place_of(environ.get("TRACEPARENT", ""))
