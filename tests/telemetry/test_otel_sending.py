"""Spans are sent in batches of a bounded size, and a batch that fails is counted."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import msgspec
import pytest

from helium_agents.telemetry.otel import batches
from helium_agents.telemetry.otel.batches import Batches, BatchSizes
from helium_agents.telemetry.otel.records import Agent, Began, Ended, Told, Whole
from helium_agents.telemetry.otel.sending import Outcome, Reporter, Sender

SPAN = Whole(Began(1, 0, bytes(16), 1, Agent("flow:f")), Ended(1, 2, None, None), True)


@pytest.mark.parametrize(
    ("most", "delay", "queue", "sizes"),
    [
        ("", "", "", (512, 5.0, 4)),
        ("100", "250", "50", (100, 0.25, 1)),
        ("none", "-1", "0", (512, 5.0, 4)),
    ],
)
def test_the_environment_says_when_a_batch_is_sent(
    most: str, delay: str, queue: str, sizes: tuple[int, float, int]
) -> None:
    environ = {
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": most,
        "OTEL_BSP_SCHEDULE_DELAY": delay,
        "OTEL_BSP_MAX_QUEUE_SIZE": queue,
    }
    assert BatchSizes.of(environ) == sizes


def test_a_batch_is_sent_when_it_is_large_or_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(batches.time, "monotonic", lambda: now_s)
    sent: list[int] = []
    collected = Batches(BatchSizes(3, 5.0, 1), lambda batch: sent.append(len(batch)))
    for _ in range(4):
        collected.add(SPAN)
    collected.look(100)
    assert sent == [3]
    now_s += 5.0
    collected.look(0)
    assert sent == [3, 1]
    collected.add(SPAN)
    collected.look(2**20)
    assert sent == [3, 1]
    collected.look(2**20)
    collected.flush()
    assert sent == [3, 1, 1]


class Failing:
    """Fails on its first batch, and says that the second is taken in part."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def export(self, spans: Sequence[Whole]) -> Outcome:
        self.sizes.append(len(spans))
        if len(self.sizes) == 1:
            raise RuntimeError("it is broken")
        return Outcome(1, "too old")


def test_a_batch_that_fails_is_counted_and_the_next_is_sent() -> None:
    reading, writing = os.pipe()
    exporter = Failing()
    sender = Sender(exporter, Reporter(writing), 1)
    assert sender.put([SPAN] * 4, lambda: False)
    assert sender.put([SPAN] * 3, lambda: False)
    sender.finish(lambda: False)
    told = [msgspec.json.decode(line, type=Told) for line in os.read(reading, 2**16).splitlines()]
    assert exporter.sizes == [4, 3]
    assert [(each.delivered, each.lost, each.trouble) for each in told] == [
        (0, 4, "RuntimeError: it is broken"), (2, 5, "too old"),
    ]  # fmt: skip
    os.close(reading)
    os.close(writing)


def test_who_waits_for_an_exporter_may_give_up() -> None:
    goes_on = threading.Event()

    class Hanging:
        def export(self, spans: Sequence[Whole]) -> Outcome:
            goes_on.wait(60)
            return Outcome(0)

    reading, writing = os.pipe()
    sender = Sender(Hanging(), Reporter(writing), 1)
    for _ in range(2):  # one is under way, and one waits
        assert sender.put([SPAN], lambda: False)
    looks = iter([False, False, True])
    assert not sender.put([SPAN], lambda: next(looks))
    sender.finish(lambda: True)
    assert b"did not answer in time" in os.read(reading, 2**16)
    goes_on.set()
    sender.finish(lambda: False)
    os.close(reading)
    os.close(writing)
