"""What is forecast of declared rows, how it is simulated, and what is chosen by that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helium_agents.graph.plan import LogicalPlan
from helium_agents.graph.plan_node import PlanNode
from helium_agents.graph.values import Slot
from helium_agents.optimizer.choose_policy import choose_policy
from helium_agents.optimizer.forecast import Forecast, forecast
from helium_agents.optimizer.policy import AllOpen, AtMost, Peaks, PeaksFit
from helium_agents.optimizer.simulate import SimulatedRoom, held_tokens, simulate
from helium_agents.optimizer.step_cost import STEP_COSTS

COST = STEP_COSTS["cpu-medium"]


def ask(
    id_: int,
    item: int | None,
    *content: str | int,
    max_tokens: int = 32,
    role: str = "user",
    model: str | None = None,
) -> PlanNode:
    """A call; numbers are the calls whose answers stand there."""
    inputs = tuple(dict.fromkeys(each for each in content if isinstance(each, int)))
    parts = tuple(each if isinstance(each, str) else Slot(inputs.index(each)) for each in content)
    return PlanNode(
        id_, "llm", "llm", key=b"%d" % id_, inputs=inputs, max_tokens=max_tokens,
        messages=((role, parts),), model=model, item=item,
    )  # fmt: skip


def of(*nodes: PlanNode) -> Forecast:
    return forecast(
        LogicalPlan(nodes, ()),
        lambda node: node.max_tokens or 1,
        engine=lambda model: 1 if model == "other" else 0,
    )


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
        assert simulate(found, room).seconds == pytest.approx(expected, rel=0.1)

    def test_a_limit_helps_where_prefixes_do_not_fit_and_only_there(self) -> None:
        rows = debate(16)
        total = sum(rows.piece_tokens)
        tight, wide = (SimulatedRoom(tokens, 64, COST) for tokens in (total // 3, 2 * total))
        few, all_open = simulate(rows, tight, AtMost(4)), simulate(rows, tight)
        assert few.seconds < 0.9 * all_open.seconds
        few, all_open = simulate(rows, wide, AtMost(4)), simulate(rows, wide)
        assert few.seconds > all_open.seconds

    @given(
        st.integers(1, 9), st.integers(1, 9), st.integers(300, 9000), st.integers(1, 40),
        st.integers(1, 60),
    )  # fmt: skip
    @settings(deadline=None)
    def test_it_always_ends_and_takes_at_least_its_decoding(
        self, num_rows: int, limit: int, kv_tokens: int, slots: int, words: int
    ) -> None:
        room = SimulatedRoom(kv_tokens, slots, COST)
        seconds = simulate(debate(num_rows, words), room, AtMost(limit)).seconds
        assert seconds >= 2 * 32 * COST.step_s * 0.99

    def test_engines_of_two_models_go_side_by_side(self) -> None:
        both = of(
            ask(1, 0, "one " * 500, max_tokens=100),
            ask(2, 1, "two " * 500, max_tokens=100, model="other"),
        )
        quick = SimulatedRoom(8192, 64, COST)
        slow = replace(quick, cost=replace(COST, step_s=0.5))
        room = replace(quick, others=(slow,))
        alone = [
            simulate(Forecast([row], both.piece_tokens, [0]), room).seconds for row in both.rows
        ]
        assert alone[1] > 10 * alone[0]
        assert simulate(both, room).seconds == pytest.approx(max(alone))
        assert simulate(both, replace(slow, others=(quick,))).seconds > 10 * alone[0]

    def test_a_call_waits_for_that_of_another_engine(self) -> None:
        first, then = (ask(1, 0, "one " * 500), ask(2, 0, "two ", 1))
        room = SimulatedRoom(8192, 64, COST)
        run = simulate(of(first, then._replace(model="other")), replace(room, others=(room,)))
        before, after = sorted(run.calls, key=lambda each: each.begun_s)
        assert after.begun_s == pytest.approx(before.end_s)
        assert run.seconds == pytest.approx(simulate(of(first, then), room).seconds, rel=0.02)

    def test_a_call_that_comes_while_others_run_joins_their_batch(self) -> None:
        found = of(
            ask(1, 0, "long", max_tokens=100),
            ask(2, 1, "short", max_tokens=10, model="other"),
            ask(3, 1, "after ", 2, max_tokens=10),
        )
        room = SimulatedRoom(8192, 64, COST)
        run = simulate(found, replace(room, others=(room,)))
        ends = {each.call.question: each.end_s for each in run.calls}
        assert ends[b"3"] < 0.3 * ends[b"1"]

    def test_while_a_row_pauses_others_go_on(self) -> None:
        def rows(num_rows: int, pause_s: float) -> Forecast:
            found = of(
                *(ask(row, row, f"row {row} " * 50) for row in range(num_rows)),
                *(ask(100 + row, row, "go on ", row) for row in range(num_rows)),
            )
            paused = [(one, replace(two, pause_s=pause_s)) for one, two in found.rows]
            return replace(found, rows=paused)

        room = SimulatedRoom(8192, 64, COST)
        without = simulate(rows(1, 0.0), room).seconds
        assert simulate(rows(1, 3.0), room).seconds == pytest.approx(3.0 + without)
        assert simulate(rows(4, 3.0), room, AtMost(1)).seconds > 12.0
        assert simulate(rows(4, 3.0), room).seconds < 3.0 + 4 * without

    def test_what_no_call_needs_any_more_goes_first_where_the_engine_is_told(self) -> None:
        rows = debate(16)
        room = SimulatedRoom(sum(rows.piece_tokens) // 4, 64, COST)
        plain, told = (
            simulate(rows, replace(room, drops_unused=drops), AtMost(4)) for drops in (False, True)
        )
        assert told.seconds < plain.seconds

    def test_blocks_belong_to_the_piece_in_which_they_end(self) -> None:
        found = of(ask(1, 0, "a" * 400), ask(2, 0, "a" * 200 + "b" * 200))
        assert held_tokens(found, 1) == found.piece_tokens
        held = held_tokens(found, 16)
        for call in found.rows[0]:
            whole = sum(found.piece_tokens[piece] for piece in (*call.prompt, *call.answer))
            assert sum(held[piece] for piece in (*call.prompt, *call.answer)) == whole // 16 * 16


class TestPeaks:
    def test_a_rows_peak_is_what_runs_and_what_later_calls_begin_with(self) -> None:
        first = ask(1, 0, "a" * 400, max_tokens=10)
        aside = ask(2, 0, "b" * 800, max_tokens=10)
        last = ask(3, 0, "a" * 400, 1, 2, max_tokens=10)
        rows = of(first, aside, last)
        one, two, _ = rows.rows[0]
        (peak,) = Peaks(rows, rows.piece_tokens).pieces.values()
        assert peak == {*one.prompt, *one.answer, *two.prompt, *two.answer}
        chain = of(aside, ask(4, 0, "c" * 400, 2), ask(3, 0, "b" * 800, 4))
        (peak,) = Peaks(chain, chain.piece_tokens).pieces.values()
        one, two, three = chain.rows[0]
        assert peak >= {*two.prompt, *set(one.prompt) & set(three.prompt)}

    @given(st.sets(st.integers(0, 15)), st.sets(st.integers(0, 15)), st.integers(0, 20))
    @settings(deadline=None)
    def test_what_fits_depends_on_what_is_open_alone(
        self, before: set[int], open_items: set[int], item: int
    ) -> None:
        rows = debate(12, 20)  # the others are unknown
        peaks = Peaks(rows, rows.piece_tokens)
        room = sum(rows.piece_tokens) // 3
        asked, fresh = PeaksFit(peaks, room, 1.0), PeaksFit(peaks, room, 1.0)
        asked.may_open(0, before)
        assert asked.may_open(item, open_items) == fresh.may_open(item, open_items)

    def test_rows_are_open_while_their_peaks_fit(self) -> None:
        rows = debate(12)
        peaks = Peaks(rows, rows.piece_tokens)
        room = sum(rows.piece_tokens) // 3
        tight, loose = PeaksFit(peaks, room, 1.0), PeaksFit(peaks, room, 1.5)

        def num_open(policy: PeaksFit) -> int:
            return next(n for n in range(1, 13) if not policy.may_open(n, set(range(n))))

        assert 1 < num_open(tight) < num_open(loose) < 12
        assert PeaksFit(peaks, 1, 1.0).may_open(0, set()), "the first one always may"


class TestChoice:
    def test_nothing_is_chosen_where_all_fits_or_there_is_one_row(self) -> None:
        rows = debate(8)
        wide = SimulatedRoom(2 * sum(rows.piece_tokens), 64, COST)
        assert choose_policy(rows, wide).policy == AllOpen()
        assert choose_policy(debate(1), SimulatedRoom(512, 64, COST)).policy == AllOpen()
        assert choose_policy(rows, wide).explain() == "everything open"
        assert choose_policy(rows, wide).predicted_s is None

    def test_what_all_of_one_model_touch_is_held_against_its_own_engine(self) -> None:
        rows = debate(16)
        total = sum(rows.piece_tokens)
        tight, wide = (SimulatedRoom(tokens, 64, COST) for tokens in (total // 3, 2 * total))
        assert choose_policy(rows, replace(wide, others=(tight,))).compared == ()
        asked_first = choose_policy(rows, replace(tight, others=(wide,)))
        of_other = [[replace(call, engine=1) for call in row] for row in rows.rows]
        asked_other = choose_policy(replace(rows, rows=of_other), replace(wide, others=(tight,)))
        assert asked_first.explain() == asked_other.explain()
        assert asked_first.gain > 1
        alternating = [
            [replace(call, engine=index % 2) for index, call in enumerate(row)] for row in rows.rows
        ]
        both = replace(rows, rows=alternating)
        compared = choose_policy(both, replace(tight, others=(tight,))).compared
        assert {type(each.policy) for each in compared} == {AllOpen, AtMost}
        unlike = replace(tight, others=(replace(tight, num_engines=2),))
        assert choose_policy(both, unlike).compared == (), "nobody can simulate it"

    def test_a_policy_is_chosen_for_a_clear_gain_and_says_so(self) -> None:
        rows = debate(16)
        room = SimulatedRoom(sum(rows.piece_tokens) // 3, 64, COST)
        choice = choose_policy(rows, room)
        assert choice.policy != AllOpen()
        assert choice.gain >= 1.05
        assert choice.predicted_s == simulate(rows, room, choice.policy).seconds
        assert choice.explain().startswith(f"{choice.policy}: predicted to be {choice.gain:.2f}")
        assert all(str(each.policy) in choice.explain() for each in choice.compared)

    def test_what_is_expected_of_call_sites_goes_with_the_choice(self) -> None:
        nodes = [
            ask(10 * row + n, row, f"{n} of {row % 4} " * 200) for row in range(8) for n in (1, 2)
        ]
        # rows 4 and 0 ask the same
        nodes = [node._replace(key=b"%d" % (node.id % 40)) for node in nodes]
        plan = LogicalPlan(nodes, ())
        rows = forecast(plan, lambda _: 32, site=lambda node: f"expert {node.id % 10}")
        room = SimulatedRoom(sum(rows.piece_tokens) // 3, 64, COST)
        choice = choose_policy(rows, room)
        run = simulate(rows, room, choice.policy)
        assert [site.site for site in choice.expected] == ["expert 1", "expert 2"]
        for site in choice.expected:
            assert (site.num_rows, site.num_calls, site.num_computed) == (8, 8, 4)
            assert site.output_tokens == 32 * 4 and site.prompt_tokens > 4 * 200
            assert site.engine_s is not None and 0 < site.engine_s <= 4 * run.seconds
        cached = sum(site.cached_tokens or 0 for site in choice.expected)
        assert cached == sum(call.cached_tokens for call in run.calls)
        unsimulated = choose_policy(rows, SimulatedRoom(10**6, 64, COST)).expected
        assert [site.num_computed for site in unsimulated] == [4, 4]
        assert all(site.cached_tokens is site.engine_s is None for site in unsimulated)

    def test_not_where_the_engine_computes_prompts_in_no_time(self) -> None:
        rows, free = debate(16), replace(COST, prefill_s=0.0, position_s=0.0)
        room = SimulatedRoom(sum(rows.piece_tokens) // 3, 64, free)
        choice = choose_policy(rows, room)
        assert choice.policy == AllOpen()
        assert "no other is predicted" in choice.explain()

    def test_several_engines_have_more_open_and_are_simulated_as_one_with_its_share(self) -> None:
        rows, all_rows = debate(16), debate(32)
        room = SimulatedRoom(sum(rows.piece_tokens) // 3, 64, COST)
        one, two = choose_policy(rows, room), choose_policy(all_rows, replace(room, num_engines=2))
        assert two.gain == pytest.approx(one.gain, rel=0.1)
        limits = [each.policy.max_open for each in one.compared if isinstance(each.policy, AtMost)]
        doubled = [each.policy.max_open for each in two.compared if isinstance(each.policy, AtMost)]
        assert doubled == [2 * limit for limit in limits]
        wide = replace(room, kv_tokens=int(1.2 * sum(rows.piece_tokens)), num_engines=2)
        assert choose_policy(all_rows, wide).compared == (), "each holds its half"
