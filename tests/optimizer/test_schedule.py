"""Schedules, as pure functions of what stands ready."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from helium_agents.errors import SessionError
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.schedule import (
    EverythingOpen,
    FewOpen,
    ItemUse,
    Schedule,
    Turn,
    item_of,
)
from helium_agents.optimizer.step_cost import StepCost


@dataclass(frozen=True)
class Asked:
    name: str
    item: int | None = None
    depth: int = 0
    prompt_token_ids: tuple[int, ...] = ()
    max_tokens: int = 0


@dataclass
class Room:
    max_requests: int
    kv_tokens: int = 1024


@dataclass(eq=False)
class Queue:
    ready: list[Asked]
    running: list[Asked] = field(default_factory=list)
    open_items: set[int] = field(default_factory=set)
    room: Room | None = None
    is_stalled: bool = False
    num_engines: int = 1
    items: dict[int, ItemUse] = field(default_factory=dict)
    shared_tokens: int = 0
    growth_tokens: float = 0.0
    turns: list[Turn] = field(default_factory=list)
    cost: StepCost | None = None
    token_s: float | None = None
    now_s: float = 0.0

    def prefill_seconds(self, num_tokens: float, start: float) -> float | None:
        return None if self.token_s is None else self.token_s * num_tokens

    @property
    def usual_turn(self) -> Turn | None:
        return self.turns[0] if self.turns else None

    @property
    def ready_of_open(self) -> list[Asked]:
        begun = self.open_items | set(self.items)
        return [asked for asked in self.ready if asked.item is None or asked.item in begun]

    @property
    def next_item(self) -> Asked | None:
        others = [asked for asked in self.ready if asked not in self.ready_of_open]
        return min(others, key=item_of, default=None)


def order(schedule: Schedule, queue: Queue) -> str:
    """The names of those that go, while none ends."""
    names = ""
    while queue.ready and (chosen := schedule.choose(queue)) is not None:
        assert isinstance(chosen, Asked)
        queue.ready.remove(chosen)
        queue.running.append(chosen)
        if chosen.item is not None:
            queue.open_items.add(chosen.item)
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
    queue = Queue(of_items("A5", "B4"), open_items={0, 1})
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


# --- agents that come back -----------------------------------------------------------------------


def turn(name: str, item: int, prompt_tokens: int, max_tokens: int = 10) -> Asked:
    return Asked(name, item, prompt_token_ids=(0,) * prompt_tokens, max_tokens=max_tokens)


def park(*ready: Asked, **state: Any) -> Queue:
    """A queue of an engine with 100 tokens, on which something runs."""
    return Queue([*ready], [Asked("-", 99)], room=Room(64, 100), **state)


def test_new_sessions_begin_while_all_fit() -> None:
    queue = park(turn("A", 0, 40), items={5: ItemUse(30, 10)})
    assert Park().choose(queue) is queue.ready[0], "40 and 50 of 100"
    queue.items[6] = ItemUse(20, 0)
    assert Park().choose(queue) is None
    queue.shared_tokens = 20
    assert Park().choose(queue) is queue.ready[0], "20 less each, and 80 to share"


def test_one_that_has_begun_goes_on_whatever_younger_ones_hold() -> None:
    held = {3: ItemUse(50, 10, paused_s=0.0), 5: ItemUse(90, 0)}
    assert Park().choose(park(turn("A", 3, 60), items=held)) is not None
    held = {3: ItemUse(50, 10, paused_s=0.0), 2: ItemUse(90, 0)}
    assert Park().choose(park(turn("A", 3, 60), items=held)) is None, "an older one"


def test_a_new_session_waits_behind_an_older_one_that_waits() -> None:
    queue = park(turn("A", 1, 95), turn("B", 2, 5), items={})
    assert Park().choose(queue) is None


def test_who_is_away_for_longer_than_its_cache_is_worth_loses_its_place() -> None:
    held = {1: ItemUse(80, 0, paused_s=2.0)}
    queue = park(turn("B", 2, 30), items=held, token_s=0.05, now_s=6.0)
    assert Park().choose(queue) is None
    assert Park().look_again_s(queue) == 7.0, "0.05 s a token, 100 tokens"
    queue.now_s = 7.0
    assert Park().choose(queue) is queue.ready[0]
    assert Park().look_again_s(queue) is None


def test_of_several_engines_each_holds_what_is_shared() -> None:
    queue = park(turn("A", 1, 60), items={0: ItemUse(60, 0)}, shared_tokens=20, token_s=0.05)
    assert Park().choose(queue) is None, "40 and 50 of 80"
    queue.room = Room(64, 200)
    queue.num_engines = 2
    assert Park().choose(queue) is queue.ready[0], "of 160"
    queue.ready[0] = turn("A", 1, 150)
    assert Park().choose(queue) is None
    queue.items[0].paused_s, queue.now_s = 0.0, 4.9
    assert Park().look_again_s(queue) == 5.0, "0.05 s a token, 100 tokens each"


def test_with_nothing_under_way_the_oldest_goes_whatever_is_held() -> None:
    queue = Queue([turn("B", 2, 90), turn("A", 1, 90)], room=Room(64, 100))
    queue.items[0] = ItemUse(90, 0, paused_s=0.0)
    assert Park().choose(queue) is queue.ready[1]


def test_what_is_of_no_item_goes_at_once() -> None:
    queue = park(turn("A", 1, 99), Asked("B"), items={0: ItemUse(90, 0)})
    assert Park().choose(queue) is queue.ready[1]


def test_what_does_not_fit_loses_its_place_and_comes_in_when_it_fits_beside_all() -> None:
    items = {1: ItemUse(20, 10), 2: ItemUse(30, 10), 3: ItemUse(40, 10, paused_s=0.0)}
    queue = park(turn("C", 3, 40), items=items)
    assert Park().choose(queue) is None, "30, 40 and 50 of 100"
    assert [use.has_place for use in items.values()] == [True, True, False]
    items[4] = ItemUse(5, 0, paused_s=0.0)
    items[1].tokens = 0
    assert Park().choose(queue) is None, "10, 40 and 5, and 50 without a place"
    del items[4]
    assert Park().choose(queue) is queue.ready[0]


TURN = Turn(service_s=1.0, answer_tokens=5, pause_s=0.0)
COST = StepCost(step_s=0.04, decode_s=0.0, context_s=0.0, prefill_s=0.01, position_s=0.0)


@pytest.mark.parametrize(
    ("cost", "turn", "num_turns"),
    [
        (COST, TURN, 1),  # 10 tokens take 0.1 s again, and 5 steps of 0.04 s are shared by two
        (replace(COST, prefill_s=0.04), TURN, 4),
        (replace(COST, prefill_s=0.03), TURN, 3),
        (replace(COST, step_s=0.02), TURN, 2),
        (replace(COST, prefill_s=1.0), TURN, 4),
        (replace(COST, position_s=0.0008), TURN, 2),  # 125 positions, from 7.5 to 17.5
        (replace(COST, prefill_s=0.04), TURN._replace(pause_s=1.0), 2),  # one of the two
        (None, TURN, 1),
        (replace(COST, prefill_s=0.04), None, 1),
        (replace(COST, step_s=0.0), TURN, 1),
    ],
)
def test_room_is_kept_for_more_turns_where_they_cost_more_than_a_fuller_batch_brings(
    cost: StepCost | None, turn: Turn | None, num_turns: int
) -> None:
    holders = {1: ItemUse(10, 10), 2: ItemUse(5, 10)}
    asked = Asked("A", 3, prompt_token_ids=(0,) * 10, max_tokens=1)
    queue = park(asked, items=holders, growth_tokens=10.0, cost=cost, turns=[turn] if turn else [])
    assert queue.room is not None
    queue.room.kv_tokens = 25 + 3 * 10 * num_turns
    assert Park().choose(queue) is queue.ready[0]
    queue.room.kv_tokens -= 1
    assert Park().choose(queue) is None


def parked(num_items: int, cost: StepCost | None = COST, pause_s: float = 0.0) -> Queue:
    """Sessions of 40 tokens, of which two fit."""
    turn = TURN._replace(pause_s=pause_s)
    items = {number: ItemUse(40, 10) for number in range(num_items)}
    return park(items=items, growth_tokens=10.0, cost=cost, turns=[turn])


def rate(num_sessions: int, work_s: float) -> float:
    """By halving: the more turns a second, the longer each of them takes."""
    low, high = 0.0, 1.0 / work_s
    for _ in range(60):
        middle = (low + high) / 2
        takes_s = 1.0 + 0.2 / (1.0 - middle * work_s)
        low, high = (middle, high) if middle * takes_s < num_sessions else (low, middle)
    return low


def test_what_parking_brings_is_what_is_not_computed_again_less_what_batches_lose() -> None:
    # Two fit. A turn has 0.1 s of prompt, 0.4 s more if what its session had is lost; an answer
    # has 5 steps of 0.04 s. All the time is the engine's: 1 / r is what n share, and what each has.
    assert Park().gain(parked(4)) == pytest.approx((0.5 + 0.2 / 4) / (0.1 + 0.2 / 2))
    assert Park().gain(parked(2)) == pytest.approx(1.0), "both fit"
    assert Park().gain(parked(3)) == pytest.approx((0.1 + 0.4 * 2 / 3 + 0.2 / 3) / 0.2), "the half"
    assert Park().gain(parked(4, replace(COST, prefill_s=0.0))) == pytest.approx(0.5)
    # who is away for a second, as long as its part of the cache is worth, keeps its place for it
    assert Park().gain(parked(4, pause_s=1.0)) == pytest.approx(rate(2, 0.1) / rate(4, 0.5))
    # who is away for a minute gives it up, and what it had is lost whatever the others do
    assert Park().gain(parked(4, pause_s=60.0)) == pytest.approx(1.0, rel=0.02)
    assert Park().gain(parked(4, None)) == math.inf
    waiting = parked(2)
    waiting.ready += [turn("A", 7, 40), turn("B", 8, 40), Asked("C")]
    assert Park().gain(waiting) == Park().gain(parked(4)), "with everything open they are, too"
    two_engines = parked(8)
    two_engines.num_engines, two_engines.room = 2, Room(64, 200)
    assert Park().gain(two_engines) == pytest.approx(Park().gain(parked(4)))


def test_it_parks_once_agents_that_pause_will_not_fit_and_until_they_pause_no_more() -> None:
    schedule = Adaptive()
    queue = park(turn("A", 1, 99), items={0: ItemUse(80, 10)})

    def parks(tokens: int, pause_share: float) -> bool:
        queue.items[0].tokens = tokens
        queue.turns = [Turn(1.0 - pause_share, 5, pause_share)]
        is_sent = schedule.choose(queue) is not None
        assert schedule.keeps_prefixes(queue) is not is_sent
        return not is_sent

    assert not parks(90, 0.5), "100 of 100"
    assert not parks(91, 0.01), "rows that never pause"
    assert parks(91, 0.1)
    assert parks(80, 0.1), "since it parks, they fit"
    assert not parks(91, 0.0)


def test_it_parks_where_that_brings_something() -> None:
    schedule, dear_steps = Adaptive(), replace(COST, step_s=0.4)

    def parks(cost: StepCost) -> bool:
        queue = parked(4, cost, pause_s=0.5)
        queue.ready.append(turn("A", 0, 50))
        schedule.choose(queue)
        return schedule.keeps_prefixes(queue)

    assert not parks(dear_steps), "fuller batches bring more"
    assert parks(COST)
    assert not parks(dear_steps)


def test_of_two_models_each_is_parked_by_what_its_own_agents_do() -> None:
    schedule = Adaptive()
    agents, others = parked(4, pause_s=0.5), Queue(of_items("A9"), room=Room(64, 100))
    agents.ready.append(turn("A", 0, 50))
    schedule.choose(agents)
    less = replace(COST, step_s=0.15)  # too little to begin with it, enough to go on
    assert 1.0 <= Park().gain(parked(4, less, pause_s=0.5)) < 1.1
    agents.cost = less
    for _ in range(2):
        assert schedule.choose(others) is others.ready[0]
        schedule.choose(agents)
        assert schedule.keeps_prefixes(agents)
        assert not schedule.keeps_prefixes(others)
