"""Schedules, as pure functions of what stands ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from helium_agents.errors import SessionError
from helium_agents.optimizer.schedule import EverythingOpen, FewOpen, Schedule


@dataclass(frozen=True)
class Asked:
    name: str
    item: int | None = None
    depth: int = 0
    prompt_token_ids: tuple[int, ...] = ()


@dataclass
class Room:
    max_requests: int
    kv_tokens: int = 1024


@dataclass
class Queue:
    ready: list[Asked]
    running: list[Asked] = field(default_factory=list)
    open_items: list[int] = field(default_factory=list)
    room: Room | None = None
    is_stalled: bool = False


def order(schedule: Schedule, queue: Queue) -> str:
    """The names of those that go, while none ends."""
    names = ""
    while queue.ready and (chosen := schedule.choose(queue)) is not None:
        assert isinstance(chosen, Asked)
        queue.ready.remove(chosen)
        queue.running.append(chosen)
        if chosen.item is not None and chosen.item not in queue.open_items:
            queue.open_items.append(chosen.item)
        names += chosen.name
    return names


def of_items(*names: str) -> list[Asked]:
    """`A0` is call A of item 0; `A` is of none."""
    return [Asked(name[0], int(name[1:]) if name[1:] else None) for name in names]


def test_everything_goes_as_it_comes() -> None:
    assert order(EverythingOpen(), Queue(of_items("A2", "B0", "C1", "D"))) == "ABCD"


@pytest.mark.parametrize(("slots", "num_sent"), [(1, 9), (8, 16), (100, 125), (400, 400)])
def test_as_many_as_the_engine_has_slots_and_some_more(slots: int, num_sent: int) -> None:
    queue = Queue([Asked(".") for _ in range(400)], room=Room(slots))
    assert len(order(EverythingOpen(), queue)) == num_sent


def test_few_open_goes_on_with_what_is_open() -> None:
    queue = Queue(of_items("A0", "B1", "C2", "D0", "E1", "F"))
    assert order(FewOpen(2), queue) == "FADBE"
    assert [asked.name for asked in queue.ready] == ["C"]
    queue.open_items.remove(0)
    assert order(FewOpen(2), queue) == "C"


def test_the_next_item_is_the_one_of_the_lowest_rank() -> None:
    assert order(FewOpen(2), Queue(of_items("A7", "B3", "C5"))) == "BC"


def test_where_nothing_goes_on_something_is_opened() -> None:
    # the open items may be waiting for the one that is not
    queue = Queue(of_items("A5", "B4"), open_items=[0, 1])
    assert FewOpen(2).choose(queue) is None
    queue.is_stalled = True
    assert FewOpen(2).choose(queue) == queue.ready[1]


def test_few_open_heeds_the_slots_too() -> None:
    queue = Queue(of_items(*("A0",) * 20), room=Room(2))
    assert len(order(FewOpen(1), queue)) == 10


@pytest.mark.parametrize("max_open", [0, -1, 1.0, True, "2"])
def test_how_many_must_be_a_number(max_open: Any) -> None:
    with pytest.raises(SessionError, match="max_open"):
        FewOpen(max_open)
