"""The file in which an engine's scheduler tells of its steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from helium_agents.engines.step_report import _NUM_WINDOWS, ReportWriter, StepReport
from helium_agents.optimizer.step_cost import STEP_COSTS, Step
from helium_agents.optimizer.step_sums import NUM_SUMS, StepSums
from helium_agents.optimizer.step_window import StepWindow


def window(begin_s: float, end_s: float) -> StepWindow:
    return StepWindow(begin_s, end_s, 2.0, 1.0, 0.5, 10, 2)


def test_half_of_it_is_none() -> None:
    report = StepReport()
    with open(report.path, "wb") as file:
        file.write(b"\x00" * 40)
    assert report.read() is None
    writer = ReportWriter(report.path)
    writer.write_sums(StepSums([3.0] * NUM_SUMS))
    writer.add_window(window(1, 2))
    content = bytearray(Path(report.path).read_bytes())
    content[0] = content[-1] = 7  # the first and the last byte of what is told twice
    Path(report.path).write_bytes(content)
    assert report.read() is None and report.windows(0.0) == []
    report.close()


def test_a_cost_is_corrected_again_when_there_are_a_sixteenth_more_steps() -> None:
    report, cost, sums = StepReport(), STEP_COSTS["cpu-small"], StepSums()
    writer = ReportWriter(report.path)
    assert report.corrected(cost) == cost, "nothing is told yet"

    def told(num_steps: int) -> None:
        while sums.num_steps < num_steps:
            sums.add(Step(8, 800), 2 * cost.seconds(Step(8, 800)))
        writer.write_sums(sums)

    told(160)
    first = report.corrected(cost)
    assert first == sums.corrected(cost) != cost
    told(169)
    assert report.corrected(cost) is first
    told(170)
    assert report.corrected(cost) == sums.corrected(cost) != first
    other = STEP_COSTS["cpu-medium"]
    assert report.corrected(other) == sums.corrected(other)
    report.close()


def test_it_keeps_the_last_windows_and_closes_twice() -> None:
    report = StepReport()
    writer = ReportWriter(report.path)
    for number in range(1, _NUM_WINDOWS + 11):
        writer.add_window(window(number, number + 0.5))
    found = report.windows(0.0)
    assert len(found) == _NUM_WINDOWS
    assert (found[0].begin_s, found[-1].begin_s) == (11, _NUM_WINDOWS + 10)
    assert report.windows(found[-3].end_s) == found[-2:]
    report.close()
    report.close()
    assert report.read() is None and report.windows(0.0) == [] and report.times_of(1) is None


def test_steps_that_end_together_are_one_window() -> None:
    report = StepReport()
    writer = ReportWriter(report.path)
    for number in range(5):
        writer.add_window(window(1.01 + 0.01 * number, 1.02 + 0.01 * number))
    (found,) = report.windows(0.0)
    assert found == pytest.approx(StepWindow(1.01, 1.06, 2, 1, 0.5, 50, 10))
    report.close()
