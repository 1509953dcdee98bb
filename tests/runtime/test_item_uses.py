"""What is known of the items that use an engine."""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterator

import pytest

from helium_agents.engines.engine import Completion, Request
from helium_agents.graph.sampling import Sampling
from helium_agents.optimizer.schedule import ItemUse, Turn
from helium_agents.runtime.dispatch.item_uses import ItemUses


def request(item: int | None, *prompt: int, max_tokens: int = 4) -> Request:
    return Request(f"{item}/{len(prompt)}", (), prompt, Sampling(max_tokens), item=item)


def done(output_tokens: int, cached_tokens: int = 0) -> Completion:
    return Completion((), cached_tokens, output_tokens=output_tokens)


def test_a_session_grows_from_turn_to_turn() -> None:
    uses = ItemUses()
    first, second, third = (request(1, *range(n)) for n in (10, 16, 30))
    uses.begin(first, 0.0)
    assert uses.items[1] == ItemUse(14, 4)
    uses.end(first, done(2), now_s=5.0)
    assert uses.items[1] == ItemUse(12, 4, paused_s=5.0)
    uses.begin(second, 0.0)
    assert uses.items[1] == ItemUse(20, 6.0)
    uses.end(second, done(3), 6.0)
    uses.begin(third, 0.0)
    assert uses.items[1].growth_tokens == 10.0
    assert uses.growth_tokens == 10.0
    uses.forget(1)
    assert uses.items == {}
    uses.end(third, done(1), 7.0)
    assert uses.items == {}


def test_what_requests_of_one_item_share_counts_once() -> None:
    uses = ItemUses()
    one, two = request(1, 1, 2, 3, 4), request(1, 1, 2, 9)
    uses.begin(one, 0.0)
    uses.begin(two, 0.0)
    assert uses.items[1].tokens == 8 + 5
    uses.end(one, done(1), 0.0)
    assert uses.items[1].tokens == 7
    assert uses.items[1].paused_s is None


class Read(UserList[int]):
    """A prompt that counts how often all of it is read."""

    num_reads = 0

    def __iter__(self) -> Iterator[int]:
        self.num_reads += 1
        return iter(self.data)


def test_a_prompt_is_read_no_more_often_where_more_of_its_item_run() -> None:
    """A row that asked thousands of questions at once stopped the event loop for minutes."""

    def num_reads(num_running: int) -> int:
        uses = ItemUses()
        prompts = [Read([1, 2, 3, number]) for number in range(num_running)]
        requests = [Request("", (), prompt, Sampling(4), item=1) for prompt in prompts]
        for each in requests:
            uses.begin(each, 0.0)
        assert uses.items[1].tokens == 3 + num_running * (1 + 4)
        for each in requests:
            uses.end(each, done(1), 1.0)
        assert uses.items[1].tokens == 5
        return max(prompt.num_reads for prompt in prompts[1:])

    assert 0 < num_reads(50) == num_reads(3)


def test_what_all_items_share_at_their_beginning() -> None:
    uses = ItemUses()
    uses.begin(request(1, 1, 2, 3, 4), 0.0)
    assert uses.shared_tokens == 0, "with one, nobody can tell"
    uses.begin(request(2, 1, 2, 3, 5), 0.0)
    assert uses.shared_tokens == 3
    uses.begin(request(3, 1, 2, 7), 0.0)
    assert uses.shared_tokens == 2
    uses.begin(request(None, 8), 0.0)
    assert uses.shared_tokens == 2


def test_a_request_that_gets_another_item_on_its_way_ends_for_the_first() -> None:
    uses = ItemUses()
    moved = request(2, 1, 2)
    uses.begin(moved, 0.0)
    moved.item = 1
    uses.end(moved, done(1), 3.0)
    assert uses.items == {2: ItemUse(3, 4, paused_s=3.0)}


def test_an_engine_is_told_who_asks_and_who_has_ended_with_what_others_share() -> None:
    uses = ItemUses()
    one, two, three = request(1, 1, 2, 3, 4), request(2, 1, 2, 9), request(2, 1, 2, 9, 9)
    for each in (one, two):
        uses.begin(each, 0.0)
    names = [uses.hints(each)["helium_session"] for each in (one, two)]
    assert len(set(names)) == 2
    uses.end(one, done(1), 0.0)
    uses.forget(1)
    uses.begin(three, 0.0)
    assert uses.hints(three) == {
        "helium_session": names[1], "helium_ended": [names[0]], "helium_kept_tokens": [2],
    }  # fmt: skip
    assert "helium_ended" not in uses.hints(three), "once"
    assert ItemUses()._name(1) != names[0], "another session is another name"


def test_how_long_agents_are_away() -> None:
    uses = ItemUses()
    prompt = list(range(100))
    for number in range(17):
        assert uses.usual_turn is None, "of fifteen turns nobody can tell"
        asked = request(1, *prompt)
        uses.come(asked, 1, 4.0 * number)  # the tool takes 2 s of 4
        uses.begin(asked, 4.0 * number + 1.0)  # and what stands ready and waits is not away
        uses.end(asked, done(2), 4.0 * number + 2.0)
        prompt += range(10)
    assert uses.usual_turn == Turn(service_s=1.0, answer_tokens=2.0, pause_s=2.0)
    assert uses.usual_turn.pause_share == 2 / 3


def test_turns_are_those_only_that_go_on_where_one_ended() -> None:
    uses = ItemUses()
    first, failed = request(1, 1, 2, 3), request(2, 1, 2, 3)
    for item, asked in ((1, first), (2, failed)):
        uses.come(asked, item, 0.0)
        uses.begin(asked, 0.0)
    early = request(1, 1, 2, 3, 4)
    uses.come(early, 1, 0.5)
    uses.end(first, done(1), 1.0)
    uses.end(failed, None, 1.0)
    uses.come(request(1, 7, 8, 9, 9), 1, 2.0)
    uses.come(request(2, 1, 2, 3, 4), 2, 2.0)
    assert not uses.turns
    uses.come(request(1, 1, 2, 3, 5), 1, 3.0)
    uses.come(request(1, 1, 2, 3, 6), 1, 4.0)
    assert list(uses.turns) == [Turn(1.0, 1, 2.0)], "of two at once the first"
    uses.forget(1)
    uses.come(request(1, 1, 2, 3, 5), 1, 5.0)
    assert len(uses.turns) == 1


def test_what_is_sent_has_a_place() -> None:
    uses = ItemUses()
    first, second = request(1, 1, 2), request(1, 1, 2, 3)
    uses.begin(first, 0.0)
    uses.end(first, done(1), 1.0)
    uses.items[1].has_place = False
    uses.begin(second, 2.0)
    assert uses.items[1].has_place


@pytest.mark.parametrize(("begins_s", "ends_s"), [(0.5, 1.5), (1.2, 1.8), (1.5, None)])
def test_what_passes_at_another_model_is_no_pause(begins_s: float, ends_s: float | None) -> None:
    uses, other = ItemUses(), ItemUses()
    asked, elsewhere = request(1, 1, 2, 3), request(1, 5)
    uses.begin(asked, 0.0)
    other.begin(elsewhere, begins_s)
    uses.end(asked, done(1), 1.0)
    if ends_s is not None:
        other.end(elsewhere, done(1), ends_s)
    uses.come(request(1, 1, 2, 3, 4), 1, 2.0, [other])
    assert not uses.turns
    uses.come(request(1, 1, 2, 3, 4), 1, 2.0)
    assert len(uses.turns) == 1
