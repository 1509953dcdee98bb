"""The plots: what they show, that they repeat, and that light and dark pages can show them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from recorded import record, some_records

pytest.importorskip("matplotlib")

from benchmarks.harness import plots


def drawn(figure: plots.Figure | None) -> dict[str, list[float]]:
    """What is drawn in the first panel: x values by colour."""
    assert figure is not None
    found: dict[str, list[float]] = {}
    for line in figure.axes[0].lines:
        found.setdefault(str(line.get_color()), []).extend(map(float, line.get_xdata()))
    return found


def test_all_are_written_for_a_whole_run(tmp_path: Path) -> None:
    paths = plots.write_plots(some_records(), tmp_path / "plots")
    assert [path.name for path in paths] == [
        *("time.svg", "bound.svg", "hits.svg", "occupancy.svg", "growth.svg")
    ]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(
        path.name for path in paths
    )
    for path in paths:
        root = ET.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert path.stat().st_size < 300_000


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    first = plots.write_plots(some_records(), tmp_path / "first")
    second = plots.write_plots(some_records(), tmp_path / "second")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert b"<dc:date>" not in one.read_bytes()


def test_only_what_there_are_records_for(tmp_path: Path) -> None:
    assert plots.write_plots([], tmp_path) == []
    alone = record("raw", ratio=None, ratio_low=None, ratio_high=None, samples=[])
    assert [path.stem for path in plots.write_plots([alone], tmp_path)] == ["bound", "hits"]


def test_systems_of_other_groups_are_in_no_line_over_time() -> None:
    other = record("lease", (1.25,) * 7, setting="fits")
    assert plots.occupancy_plot([record("ours"), record("raw", (1.25,) * 7), other]) is not None


def test_dots_are_where_the_numbers_are() -> None:
    records = [record("ours"), record("raw", (1.25,) * 7, cached_tokens=60_000)]
    raw = plots.COLOURS[0]
    assert 1.25 in drawn(plots.time_plot(records))[raw]
    bounds = drawn(plots.bound_plot(records))
    assert bounds[plots.OURS_COLOUR] == [pytest.approx(0.8)]
    assert bounds[raw] == [pytest.approx(0.64)]
    assert drawn(plots.hit_plot(records))[raw] == [50.0]


def test_a_very_slow_system_is_written_at_the_edge() -> None:
    figure = plots.time_plot([record("ours"), record("querywise", (20.5,) * 7)])
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["20.5 >"]
    assert figure.axes[0].get_xlim()[1] == pytest.approx(3.0)


def test_a_system_looks_the_same_in_all_plots() -> None:
    records = [
        record("ours"),
        *(record(name, (1.1,) * 7) for name in ("raw", "lspf", "opwise")),
        record("ours", num_items=64),
        record("lspf", num_items=64),
    ]
    colours = {plots.OURS_COLOUR, plots.COLOURS[1]}
    growth = drawn(plots.growth_plot(records))
    assert colours <= set(growth)
    assert plots.COLOURS[0] not in growth  # raw was measured with one batch only
    assert {*colours, plots.COLOURS[0]} <= set(drawn(plots.hit_plot(records)))


def test_growth_is_per_row() -> None:
    figure = plots.growth_plot(
        [
            record("ours", num_items=8, median_s=2.0),
            record("ours", num_items=32, median_s=12.0),
        ]
    )
    assert figure is not None
    line = next(each for each in figure.axes[0].lines if each.get_color() == plots.OURS_COLOUR)
    assert list(line.get_xdata()) == [1, 4]
    assert list(line.get_ydata()) == [1, pytest.approx(1.5)]


def test_of_several_batches_the_dots_show_the_one_that_most_systems_ran() -> None:
    figure = plots.bound_plot(some_records())
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["debate x 32", "trading x 4"]


def luminance(colour: str) -> float:
    """Of a colour as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", ["#ffffff", "#0d1117"])
@pytest.mark.parametrize("colour", [plots.GREY, plots.OURS_COLOUR, *plots.COLOURS])
def test_colours_stand_out_from_light_and_dark_pages(colour: str, page: str) -> None:
    darker, lighter = sorted((luminance(colour), luminance(page)))
    assert (lighter + 0.05) / (darker + 0.05) >= (4 if colour == plots.GREY else 3)
