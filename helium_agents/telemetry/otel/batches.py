"""`Batches`: collects spans until there are as many as are sent together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from helium_agents.telemetry.otel.records import Whole

_MOST_BYTES = 2 * 2**20


class BatchSizes(NamedTuple):
    """When a batch is sent, as `OTEL_BSP_*` says.

    Args:
        most: Most spans of one.
        delay_s: The longest that a span waits for others.
        num_waiting: How many batches may wait to be sent.
    """

    most: int
    delay_s: float
    num_waiting: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> BatchSizes:
        """What an environment says; what is no positive number there says nothing."""

        def number(name: str, default: int) -> int:
            text = environ.get(f"OTEL_BSP_{name}", "").strip()
            return int(text) if text.isdecimal() and int(text) else default

        most = number("MAX_EXPORT_BATCH_SIZE", 512)
        num_waiting = max(number("MAX_QUEUE_SIZE", 2048) // most, 1)
        return cls(most, number("SCHEDULE_DELAY", 5000) / 1e3, num_waiting)


class Batches:
    """Collects spans.

    Args:
        sizes: When a batch is complete.
        hand_over: Takes it then.
    """

    def __init__(self, sizes: BatchSizes, hand_over: Callable[[Sequence[Whole]], object]) -> None:
        self._sizes = sizes
        self._hand_over = hand_over
        self._batch: list[Whole] = []
        self._num_bytes, self._since_s = 0, 0.0

    def add(self, whole: Whole) -> None:
        """Take a span."""
        if not self._batch:
            self._num_bytes, self._since_s = 0, time.monotonic()
        self._batch.append(whole)
        if len(self._batch) >= self._sizes.most:
            self.flush()

    def look(self, num_bytes: int) -> None:
        """Hand over what has become large, or has waited long enough.

        Args:
            num_bytes: What the records took that came last; prompts and answers may be long.
        """
        self._num_bytes += num_bytes
        is_due = time.monotonic() - self._since_s >= self._sizes.delay_s
        if is_due or self._num_bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._hand_over(batch)
