"""The bounds against naive counts, against brute force, and against runs of a known engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stepped import Law, SteppedEngine

from benchmarks.harness.bounds import attainable_s, critical_path_s, physical_s, work
from benchmarks.harness.calibration import Calibration, calibrate
from benchmarks.harness.envelopes import Line
from benchmarks.harness.oracle import KnownCall
from helium_agents.engines.engine import Capacity, Request
from helium_agents.graph.sampling import Sampling

BLOCK = 4
CALIBRATION = Calibration(
    prefill=Line(2e-4, 1e-7),
    first_token_s=0.01,
    inter_token_s=0.004,
    steps=((1.0, 0.004), (4.0, 0.005), (64.0, 0.020)),
    unique_s=5e-7,
    shared_s=1e-7,
    max_batch=64,
    prefill_points=(),
    decode_points=(),
    seconds=0.0,
)


def call(prompt: Sequence[int], output: Sequence[int], inputs: Sequence[int] = ()) -> KnownCall:
    return KnownCall(0, 0, tuple(inputs), tuple(prompt), tuple(output))


@st.composite
def traces(draw: st.DrawFn, max_size: int = 8, is_distinct: bool = False) -> list[KnownCall]:
    """Calls over few tokens, so that they share prefixes, continue each other and repeat."""
    calls: list[KnownCall] = []
    for index in range(draw(st.integers(1, max_size))):
        inputs = (
            tuple(sorted(draw(st.sets(st.integers(0, index - 1), max_size=3)))) if index else ()
        )
        history: tuple[int, ...] = ()
        if inputs and draw(st.booleans()):  # goes on where one of its inputs ended
            source = calls[inputs[-1]]
            history = (*source.prompt_token_ids, *source.output_token_ids)
        prompt = (*history, *draw(st.lists(st.integers(0, 1), min_size=1, max_size=14)))
        if is_distinct:
            prompt = (*prompt, 100 + index)
        known = next((each for each in calls if each.prompt_token_ids == prompt), None)
        if known is not None:  # asked again: the same answer to the same inputs
            calls.append(call(prompt, known.output_token_ids, known.inputs))
        else:
            output = draw(st.lists(st.integers(0, 1), min_size=1, max_size=9))
            calls.append(call(prompt, output, inputs))
    return calls


# --- what has to be computed ---------------------------------------------------------------


def naive_prefill(calls: Sequence[KnownCall]) -> tuple[int, int]:
    """U and its positions, from the set of all prefixes that were computed before."""
    prefixes: set[tuple[int, ...]] = set()
    seen: set[tuple[int, ...]] = set()
    tokens = positions = 0
    for each in calls:
        prompt, output = tuple(each.prompt_token_ids), tuple(each.output_token_ids)
        if prompt in seen:
            continue
        seen.add(prompt)
        cached = 0
        while cached + BLOCK < len(prompt) and prompt[: cached + BLOCK] in prefixes:
            cached += BLOCK
        tokens += len(prompt) - cached
        positions += sum(range(cached, len(prompt)))
        computed = prompt + output[:-1]
        prefixes |= {computed[:end] for end in range(BLOCK, len(computed) + 1, BLOCK)}
    return tokens, positions


@given(traces())
def test_prefill_equals_a_naive_count(calls: list[KnownCall]) -> None:
    found = work(calls, BLOCK)
    assert (found.prefill_tokens, found.prefill_positions) == naive_prefill(calls)


@given(traces())
def test_decode_is_every_token_after_the_first_of_each_distinct_call(
    calls: list[KnownCall],
) -> None:
    distinct = {tuple(each.prompt_token_ids): each for each in calls}.values()
    places = [
        len(each.prompt_token_ids) + step
        for each in distinct
        for step in range(len(each.output_token_ids) - 1)
    ]
    found = work(calls, BLOCK)
    assert found.num_calls == len(distinct)
    assert found.decode_tokens == len(places)
    assert found.decode_positions == sum(places)
    assert 0 <= found.shared_positions <= found.decode_positions


def test_an_example_by_hand() -> None:
    system = list(range(8))
    calls = [
        call([*system, 50, 51], [60, 61, 62]),  # prefills 10, decodes 2
        call([*system, 70], [80, 81]),  # 8 of 9 are cached, decodes 1
        call([*system, 70], [80, 81]),  # asked again: nothing
        call([*system, 50, 51, 60, 61, 62, 90], [1, 1], (0,)),  # its history: 12 of 14 cached
    ]
    found = work(calls, BLOCK)
    assert found.num_calls == 3
    assert found.prefill_tokens == 10 + 1 + 2
    assert found.prefill_positions == sum(range(10)) + 8 + (12 + 13)
    assert found.decode_tokens == 2 + 1 + 1
    assert found.decode_positions == (10 + 11) + 9 + 14
    # The second call may run beside the first and the last, with which it has 8 tokens in common;
    # what the last has from the first alone is not shared, for it comes after it.
    assert found.shared_positions == 8 * 2 + 8 * 1 + 8 * 1
    assert found.chain_tokens == 2 + 1


def test_the_last_token_is_never_cached() -> None:
    prompt = list(range(2 * BLOCK))
    calls = [call(prompt, [1]), call([*prompt, 9], [1]), call(prompt[:BLOCK], [1])]
    assert work(calls, BLOCK).prefill_tokens == 2 * BLOCK + 1 + BLOCK


def test_an_answer_of_one_token_costs_no_decode() -> None:
    found = work([call([1, 2, 3], [4])], BLOCK)
    assert (found.decode_tokens, found.chain_tokens) == (0, 0)
    assert attainable_s([call([1, 2, 3], [4])], CALIBRATION) > 0


def test_nothing_takes_no_time() -> None:
    assert physical_s([], CALIBRATION) == attainable_s([], CALIBRATION) == 0.0


# --- the bounds ------------------------------------------------------------------------------


@given(traces(), st.data())
def test_adding_a_call_never_lowers_the_physical_bound(
    calls: list[KnownCall], data: st.DataObject
) -> None:
    more = data.draw(traces(max_size=1))[0]
    for known in calls:
        if known.prompt_token_ids == more.prompt_token_ids:
            more = call(known.prompt_token_ids, known.output_token_ids)
    place = data.draw(st.integers(0, len(calls)))
    if place < len(calls) and any(k.prompt_token_ids == more.prompt_token_ids for k in calls):
        place = len(calls)  # its equal needs others: the same call without them comes too late
    moved = [_shifted(each, place) for each in calls]
    added = [*moved[:place], more, *moved[place:]]
    if all(k.prompt_token_ids != more.prompt_token_ids for k in calls):
        assert critical_path_s(added, CALIBRATION) >= critical_path_s(calls, CALIBRATION) - 1e-12
        bound = physical_s(added, CALIBRATION, BLOCK)
        assert bound >= physical_s(calls, CALIBRATION, BLOCK) - 1e-12
    else:
        assert work(added, BLOCK).prefill_tokens == work(calls, BLOCK).prefill_tokens
        assert work(added, BLOCK).decode_tokens == work(calls, BLOCK).decode_tokens


def _shifted(each: KnownCall, place: int) -> KnownCall:
    """The call after another was put before the one at `place`."""
    inputs = [source + (source >= place) for source in each.inputs]
    return call(each.prompt_token_ids, each.output_token_ids, inputs)


@given(traces(is_distinct=True), traces(max_size=1))
def test_adding_a_call_of_its_own_never_lowers_the_attainable_bound(
    calls: list[KnownCall], others: list[KnownCall]
) -> None:
    """With a context of its own, for one that another call has too makes that one cheaper."""
    prompt = [7, *others[0].prompt_token_ids]
    more = call(prompt, others[0].output_token_ids)
    bound = attainable_s([*calls, more], CALIBRATION, BLOCK)
    assert bound >= attainable_s(calls, CALIBRATION, BLOCK) - 1e-12


@given(traces())
def test_the_attainable_bound_is_never_below_the_physical(calls: list[KnownCall]) -> None:
    physical = physical_s(calls, CALIBRATION, BLOCK)
    assert attainable_s(calls, CALIBRATION, BLOCK) >= physical
    assert physical >= critical_path_s(calls, CALIBRATION)


def test_more_calls_at_once_decode_at_a_better_rate() -> None:
    """The same tokens, once as a chain and once side by side."""
    chain = [call([1, index], range(101), (index - 1,) if index else ()) for index in range(64)]
    beside = [call([1, index], range(101)) for index in range(64)]
    assert work(chain).decode_tokens == work(beside).decode_tokens
    assert attainable_s(chain, CALIBRATION) >= 64 * 100 * 0.004
    assert attainable_s(beside, CALIBRATION) == pytest.approx(100 * 0.020, rel=0.2)


def test_two_uneven_calls_are_no_batch_of_two() -> None:
    """However they are scheduled, nearly all steps have one token."""
    calls = [call([1], range(1_001)), call([2], range(11))]
    assert attainable_s(calls, CALIBRATION) >= 1_000 * 0.004


# --- the critical path -----------------------------------------------------------------------


def brute_force(calls: Sequence[KnownCall]) -> float:
    """The longest of all chains, each of which is tried."""

    def longest(index: int) -> float:
        own_s = 0.01 + 0.004 * (len(calls[index].output_token_ids) - 1)
        return own_s + max((longest(source) for source in calls[index].inputs), default=0.0)

    return max(map(longest, range(len(calls))))


@given(traces(is_distinct=True))
def test_the_critical_path_equals_brute_force(calls: list[KnownCall]) -> None:
    assert critical_path_s(calls, CALIBRATION) == pytest.approx(brute_force(calls))


@given(traces())
def test_calls_asked_again_make_no_chain_longer(calls: list[KnownCall]) -> None:
    first = {tuple(c.prompt_token_ids): index for index, c in reversed(list(enumerate(calls)))}
    merged = [
        call(
            each.prompt_token_ids,
            each.output_token_ids,
            [first[tuple(calls[source].prompt_token_ids)] for source in each.inputs],
        )
        for each in calls
    ]
    assert critical_path_s(calls, CALIBRATION) == pytest.approx(brute_force(merged))


def test_an_equal_call_that_needs_less_answers_for_both() -> None:
    calls = [call([1], range(101)), call([2], range(51)), call([2], range(51), (0,))]
    assert critical_path_s(calls, CALIBRATION) == pytest.approx(0.01 + 100 * 0.004)


# --- against runs ----------------------------------------------------------------------------


def workload(seed: int, engine: SteppedEngine) -> list[KnownCall]:
    """Rows of two or three calls with shared system prompts, some of which go on as histories."""
    draw = random.Random(seed)
    systems = [draw.choices(range(100), k=draw.choice((10, 200, 600))) for _ in range(2)]
    calls: list[KnownCall] = []
    for _ in range(draw.choice((2, 12, 40))):
        own = draw.choices(range(100), k=draw.choice((5, 80, 300)))
        source: int | None = None
        for number in range(draw.choice((2, 3))):
            prompt = [*systems[number % 2], *own]
            if source is not None:
                known = calls[source]
                goes_on = draw.random() < 0.5
                answer = [*known.output_token_ids]
                prompt = [*known.prompt_token_ids, *answer, 7] if goes_on else [*prompt, *answer]
            output = engine.answer(prompt, draw.choice((16, 40)))
            calls.append(call(prompt, output, () if source is None else (source,)))
            if draw.random() < 0.7:
                source = len(calls) - 1
    return calls


async def run(calls: Sequence[KnownCall], engine: SteppedEngine) -> float:
    """Seconds that a greedy schedule takes: every call as soon as its inputs are there."""
    done = [asyncio.Event() for _ in calls]

    async def one(index: int) -> None:
        each = calls[index]
        for source in each.inputs:
            await done[source].wait()
        sampling = Sampling(max_tokens=len(each.output_token_ids))
        completion = await engine.complete(Request(str(index), (), each.prompt_token_ids, sampling))
        assert completion.choices[0].token_ids == each.output_token_ids
        done[index].set()

    await engine.reset_prefix_cache()
    start_s = engine.now
    await asyncio.gather(*map(one, range(len(calls))))
    return engine.now - start_s


@pytest.mark.parametrize("jitter", [0.0, 0.1])
async def test_no_run_of_a_known_engine_beats_its_bounds(jitter: float) -> None:
    """The engine's cache has no limit and it is asked early, so runs come close."""
    engine = SteppedEngine(Law(), Capacity(131_072, 32, 8_192, 64), jitter=jitter)
    await engine.start()
    calibration = await calibrate(engine, clock=engine.clock)
    shares = []
    for seed in range(25):
        calls = workload(seed, engine)
        seconds = await run(calls, engine)
        assert physical_s(calls, calibration) <= seconds
        share = attainable_s(calls, calibration) / seconds
        assert share <= 1.01
        shares.append(share)
    assert sorted(shares)[len(shares) // 2] > 0.75
