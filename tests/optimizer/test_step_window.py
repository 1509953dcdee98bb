"""Windows of steps are joined without losing what was computed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from helium_agents.optimizer.step_cost import Step
from helium_agents.optimizer.step_window import (
    EngineLoad,
    JoinedWindows,
    StepWindow,
    joined,
    window_of,
)


def test_joined_windows_have_means_over_all_of_the_time() -> None:
    one = window_of(Step(decodes=3, prefill_tokens=10), EngineLoad(4, 2, 0.5), 0.0, 1.0)
    other = window_of(Step(decodes=1), EngineLoad(2, 0, 0.25), 3.0, 4.0)
    assert joined(one, other) == StepWindow(0, 4, 1.5, 0.5, 0.1875, 10, 4), "between them: nothing"


def test_a_long_run_has_few_windows_and_all_tokens() -> None:
    windows, found = JoinedWindows(), []
    day_s = 24 * 3600
    for number in range(day_s):
        kept = windows.add(StepWindow(number, number + 1, 1, 0, 0, 5, number % 3))
        found += [kept] if kept is not None else []
    rest = windows.rest()
    assert rest is not None and windows.rest() is None
    found.append(rest)
    assert sum(window.prefill_tokens for window in found) == 5 * day_s
    assert sum(window.running * window.seconds for window in found) == pytest.approx(day_s)
    assert 4_000 < len(found) < 25_000
    assert found[0].seconds == 1 and 10 < found[-2].seconds < day_s / 4_000 + 1
    assert all(one.end_s <= other.begin_s for one, other in pairwise(found))
