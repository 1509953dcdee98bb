"""What is forecast of declared rows, how it is simulated, and what is chosen by that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents.graph.plan import LogicalPlan, PlanNode
from helium_agents.graph.values import Slot
from helium_agents.optimizer.choose_limit import choose_limit
from helium_agents.optimizer.forecast import Forecast, forecast
from helium_agents.optimizer.simulate import SimulatedRoom, simulate
from helium_agents.optimizer.step_cost import STEP_COSTS

COST = STEP_COSTS["cpu-medium"]


def ask(
    id_: int, item: int | None, *content: str | int, max_tokens: int = 32, role: str = "user"
) -> PlanNode:
    """A call; numbers are the calls whose answers stand there."""
    inputs = tuple(dict.fromkeys(each for each in content if isinstance(each, int)))
    parts = tuple(each if isinstance(each, str) else Slot(inputs.index(each)) for each in content)
    return PlanNode(
        id_, "llm", "llm", key=b"%d" % id_, inputs=inputs, max_tokens=max_tokens,
        messages=((role, parts),), item=item,
    )  # fmt: skip


def of(*nodes: PlanNode) -> Forecast:
    return forecast(LogicalPlan(nodes, ()), lambda node: node.max_tokens or 1)


def debate(num_rows: int, words: int = 300) -> Forecast:
    """Three agents with long prompts of their own, who read each other and go on."""
    nodes: list[PlanNode] = []
    for row in range(num_rows):
        openings = [
            ask(10 * row + agent, row, f"agent {agent} of row {row} " * words)
            for agent in (1, 2, 3)
        ]
        nodes += openings
        for agent, opening in enumerate(openings, 1):
            text = opening.messages[0][1][0]
            others = [node.id for node in openings if node is not opening]
            nodes.append(ask(10 * row + agent + 3, row, text, "They said:", *others))
    return of(*nodes)


class TestForecast:
    def test_prompts_share_what_they_have_in_common_at_their_beginning(self) -> None:
        found = of(ask(1, 0, "a" * 400), ask(2, 0, "a" * 200 + "b" * 200), ask(3, 1, "c" * 40))
        (first, second), (third,) = found.rows
        header, text = first.prompt[:2]
        assert second.prompt[:2] == (header, text)
        assert third.prompt[0] == header
        assert set(first.prompt) & set(third.prompt) == {header}
        assert found.piece_tokens[text] == 50, "four characters are a token"
        assert first.prompt_tokens == 100 + 2 * 4

    def test_an_answer_is_part_of_a_prompt_that_goes_on_after_it(self) -> None:
        first = PlanNode(
            1, "llm", "llm", key=b"1", max_tokens=32, messages=(("user", ("Hello",)),), item=0
        )
        messages = (("user", ("Hello",)), ("assistant", (Slot(0),)), ("user", ("More",)))
        second = PlanNode(
            2, "llm", "llm", key=b"2", inputs=(1,), max_tokens=32, messages=messages, item=0
        )
        ((one, two),) = of(first, second).rows
        assert two.prompt[: len(one.prompt) + len(one.answer)] == (*one.prompt, *one.answer)
        assert two.inputs == (0,)

    def test_calls_of_no_row_are_left_out_and_unknown_texts_are_guessed(self) -> None:
        found = of(ask(1, None, "x"), ask(2, 5, "read ", 1), ask(3, 5, "read ", 1))
        ((one, two),) = found.rows
        assert one.inputs == two.inputs == ()
        assert one.prompt == two.prompt
        assert one.prompt_tokens > 64


class TestSimulate:
    def test_one_call_takes_its_prompt_and_its_steps(self) -> None:
        found = of(ask(1, 0, "a" * 4000, max_tokens=100))
        (call,) = found.rows[0]
        room = SimulatedRoom(8192, 64, COST)
        expected = COST.prefill_seconds(call.prompt_tokens) + 100 * (COST.step_s + COST.decode_s)
        assert simulate(found, room) == pytest.approx(expected, rel=0.1)

    def test_a_limit_helps_where_prefixes_do_not_fit_and_only_there(self) -> None:
        rows = debate(16)
        total = sum(rows.piece_tokens)
        tight, wide = (SimulatedRoom(tokens, 64, COST) for tokens in (total // 3, 2 * total))
        assert simulate(rows, tight, 4) < 0.9 * simulate(rows, tight)
        assert simulate(rows, wide, 4) > simulate(rows, wide)

    @given(
        st.integers(1, 9), st.integers(1, 9), st.integers(300, 9000), st.integers(1, 40),
        st.integers(1, 60),
    )  # fmt: skip
    def test_it_always_ends_and_takes_at_least_its_decoding(
        self, num_rows: int, limit: int, kv_tokens: int, slots: int, words: int
    ) -> None:
        room = SimulatedRoom(kv_tokens, slots, COST)
        seconds = simulate(debate(num_rows, words), room, limit)
        assert seconds >= 2 * 32 * COST.step_s * 0.99


class TestChoice:
    def test_nothing_is_chosen_where_all_fits_or_there_is_one_row(self) -> None:
        rows = debate(8)
        wide = SimulatedRoom(2 * sum(rows.piece_tokens), 64, COST)
        assert choose_limit(rows, wide).max_open is None
        assert choose_limit(debate(1), SimulatedRoom(512, 64, COST)).max_open is None
        assert choose_limit(rows, wide).explain() == "everything open"

    def test_a_limit_is_chosen_for_a_clear_gain_and_says_so(self) -> None:
        rows = debate(16)
        choice = choose_limit(rows, SimulatedRoom(sum(rows.piece_tokens) // 3, 64, COST))
        assert choice.max_open is not None
        assert choice.gains[choice.max_open] >= 1.05
        assert choice.explain().startswith(f"{choice.max_open} rows open (predicted gain by")

    def test_not_where_the_engine_computes_prompts_in_no_time(self) -> None:
        rows, free = debate(16), replace(COST, prefill_s=0.0, position_s=0.0)
        room = SimulatedRoom(sum(rows.piece_tokens) // 3, 64, free)
        assert choose_limit(rows, room).max_open is None
