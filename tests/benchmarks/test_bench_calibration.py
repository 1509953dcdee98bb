"""The calibration against an engine whose law is known, and its fits against their definition."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stepped import Law, SteppedEngine

from benchmarks.harness.calibration import Calibration, best_of, calibrate
from benchmarks.harness.envelopes import lower_envelope, lower_hull, on_hull
from helium_agents.engines.engine import Capacity

CAPACITY = Capacity(kv_tokens=16_384, block_tokens=32, max_model_tokens=8_192, max_requests=64)
LAW = Law()
POINTS = st.lists(
    st.tuples(st.integers(0, 4_000).map(float), st.floats(1e-6, 1e-2)), min_size=1, max_size=12
)


async def measured(
    law: Law = LAW, capacity: Capacity = CAPACITY, jitter: float = 0.0
) -> Calibration:
    engine = SteppedEngine(law, capacity, jitter=jitter)
    await engine.start()
    return await calibrate(engine, clock=engine.clock)


async def test_it_finds_the_law() -> None:
    found = await measured()
    assert found.prefill.base_s == pytest.approx(LAW.prefill_s, rel=0.01)
    assert found.prefill.slope_s == pytest.approx(LAW.prefill_position_s, rel=0.02)
    assert found.first_token_s == pytest.approx(
        LAW.idle_s + LAW.step_s + 8 * LAW.prefill_s, rel=0.01
    )
    assert found.inter_token_s == pytest.approx(LAW.step_s + LAW.decode_s, rel=0.01)
    assert found.unique_s == pytest.approx(LAW.unique_s, rel=0.02)
    assert found.shared_s == pytest.approx(LAW.shared_s, rel=0.05)
    for batch in (1, 4, 16, 50, 64):
        step_s = found.decode_s(batch, batch, unique_positions=0, shared_positions=0)
        assert step_s == pytest.approx(LAW.step_s + batch * LAW.decode_s, rel=0.02)


async def test_context_has_its_price() -> None:
    found = await measured()
    bare_s = found.decode_s(16, 16, unique_positions=0, shared_positions=0)
    unique_s = found.decode_s(16, 16, unique_positions=16 * 900, shared_positions=0)
    shared_s = found.decode_s(16, 16, unique_positions=16 * 100, shared_positions=16 * 800)
    assert unique_s - bare_s == pytest.approx(16 * 900 * LAW.unique_s, rel=0.02)
    assert shared_s - bare_s == pytest.approx(
        16 * (100 * LAW.unique_s + 800 * LAW.shared_s), rel=0.05
    )


@pytest.mark.parametrize("jitter", [0.05, 0.3])
async def test_a_noisy_engine_is_not_taken_for_a_slow_one(jitter: float) -> None:
    quiet, noisy = await measured(), await measured(jitter=jitter)
    assert noisy.prefill.base_s <= quiet.prefill.base_s * (1 + jitter / 2)
    assert noisy.prefill.base_s >= quiet.prefill.base_s * (1 - jitter / 2)
    for batch in (1, 16, 64):
        expected = quiet.decode_s(batch, 1, unique_positions=0, shared_positions=0)
        found = noisy.decode_s(batch, 1, unique_positions=0, shared_positions=0)
        assert expected * (1 - jitter) <= found <= expected * (1 + jitter)


async def test_no_measured_point_lies_below_what_is_fitted() -> None:
    found = await measured(jitter=0.1)
    assert len(found.prefill_points) == 6  # five lengths, and one behind a cached prefix
    assert max(point.cached_tokens for point in found.prefill_points) == 2_048
    for point in found.prefill_points:
        assert found.prefill.total(1, point.position) <= point.token_s * (1 + 1e-9)
    assert len({round(point.batch) for point in found.decode_points}) >= 5
    for point in found.decode_points:
        kind = "shared_positions" if point.is_shared else "unique_positions"
        positions = {"unique_positions": 0, "shared_positions": 0, kind: point.position}
        assert found.decode_s(point.batch, 1, **positions) <= point.token_s * (1 + 1e-9)


async def test_it_keeps_to_its_budget_and_leaves_no_trace() -> None:
    engine = SteppedEngine(LAW, CAPACITY)
    await engine.start()
    found = await calibrate(engine, clock=engine.clock)
    assert 20 < found.seconds <= 25.1
    assert engine.now == pytest.approx(found.seconds)
    assert engine.num_resets == 2
    assert not engine._blocks


@pytest.mark.parametrize(
    "capacity",
    [
        Capacity(kv_tokens=4_096, block_tokens=32, max_model_tokens=4_096, max_requests=8),
        Capacity(kv_tokens=131_072, block_tokens=32, max_model_tokens=8_192, max_requests=64),
        Capacity(kv_tokens=500_000, block_tokens=16, max_model_tokens=40_960, max_requests=256),
        Capacity(kv_tokens=1_024, block_tokens=32, max_model_tokens=512, max_requests=4),
    ],
)
async def test_engines_of_other_sizes(capacity: Capacity) -> None:
    found = await measured(capacity=capacity)
    assert found.prefill.base_s == pytest.approx(LAW.prefill_s, rel=0.03)
    largest = found.decode_s(
        found.max_batch, found.max_batch, unique_positions=0, shared_positions=0
    )
    assert found.max_batch == capacity.max_requests
    assert largest == pytest.approx(LAW.step_s + found.max_batch * LAW.decode_s, rel=0.06)
    assert found.unique_s == pytest.approx(LAW.unique_s, rel=0.1)


async def test_it_is_json() -> None:
    found = await measured()
    again = json.loads(json.dumps(asdict(found)))
    assert again["prefill"] == {"base_s": found.prefill.base_s, "slope_s": found.prefill.slope_s}
    assert len(again["decode_points"]) == len(found.decode_points)


async def test_the_best_of_two_is_nowhere_slower() -> None:
    first, second = await measured(jitter=0.2), await measured(replace(LAW, prefill_s=1.5e-4))
    best = best_of([first, second])
    for each in (first, second):
        assert best.first_token_s <= each.first_token_s
        assert best.inter_token_s <= each.inter_token_s
        for point in each.prefill_points:
            assert best.prefill.total(1, point.position) <= point.token_s * (1 + 1e-9)
    with pytest.raises(ValueError, match="no calibrations"):
        best_of([])


async def test_an_engine_that_is_not_started() -> None:
    engine = SteppedEngine(LAW, CAPACITY)
    with pytest.raises(ValueError, match="must be started"):
        await calibrate(engine, clock=engine.clock)


async def test_an_engine_that_says_too_little() -> None:
    engine = SteppedEngine(LAW, CAPACITY)
    engine.answer = lambda prompt, max_tokens: (7, 7)  # type: ignore[method-assign]
    await engine.start()
    with pytest.raises(ValueError, match="more than 4 tokens"):
        await calibrate(engine, clock=engine.clock)


@given(POINTS)
def test_the_envelope_is_below_all_points_and_touches_one(
    points: list[tuple[float, float]],
) -> None:
    line = lower_envelope(points)
    gaps = [y - line.total(1, x) for x, y in points]
    assert min(gaps) == pytest.approx(0, abs=1e-12)
    assert line.base_s >= 0
    assert line.slope_s >= 0


@given(POINTS, st.floats(0, 1e-2), st.floats(0, 1e-5))
def test_no_other_line_below_all_points_is_closer(
    points: list[tuple[float, float]], base_s: float, slope_s: float
) -> None:
    line = lower_envelope(points)
    lowered = base_s + min(y - base_s - slope_s * x for x, y in points)
    if lowered >= 0:
        other = sum(lowered + slope_s * x for x, _ in points)
        assert sum(line.total(1, x) for x, _ in points) >= other * (1 - 1e-9)


@given(POINTS)
def test_the_hull_is_convex_below_all_points_and_made_of_them(
    points: list[tuple[float, float]],
) -> None:
    hull = lower_hull(points)
    assert set(hull) <= set(points)
    assert [x for x, _ in hull] == sorted({x for x, _ in hull})
    assert (hull[0][0], hull[-1][0]) == (min(points)[0], max(points)[0])
    for x, y in points:
        for (x1, y1), (x2, y2) in itertools.pairwise(hull):
            if x1 <= x <= x2:
                assert y >= y1 + (y2 - y1) * (x - x1) / (x2 - x1) - 1e-12
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.pairwise(hull)]
    assert all(first < second + 1e-12 for first, second in itertools.pairwise(slopes))


def test_the_hull_goes_on_as_it_rose() -> None:
    hull = ((2.0, 4.0), (10.0, 12.0), (10.1, 13.0))
    assert on_hull(hull, 1) == 2.0  # before it: in proportion
    assert on_hull(hull, 6) == 8.0
    assert on_hull(hull, 20) == pytest.approx(13 + 9.9 * 9 / 8.1)  # not as steeply as its last edge
    assert on_hull(((4.0, 2.0),), 8) == 4.0
