"""Results as SVG pictures, the same bytes for the same records.

They have no background, and all colours stand out from white and from near black alike (text by
4:1, marks by 3:1), so one file serves light and dark pages. Systems differ in colour and in marker;
the colours are those of Okabe and Ito (2008), which colour-blind people can tell apart, the light
ones darkened and two added.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from benchmarks.harness.groups import OURS, Group, groups
from benchmarks.harness.records import Record

GREY = "#747a82"
OURS_COLOUR = "#d55e00"
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#3a9bd5", "#bb8100", "#8a6fd1", "#6b7f1e")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">", "*")

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "helium_agents",
    "svg.fonttype": "path",  # looks the same wherever it is shown
    "font.size": 9,
    "axes.titlesize": 8,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}

_PANEL_WIDTH = 4.3
_MAX_RATIO = 3.0
"""Systems that take longer are written at the edge, or they would press all others together."""

_NUM_LINES = 5
_NUM_MOMENTS = 60

Look = Mapping[str, Any]
"""How a system is drawn: arguments of matplotlib."""


def write_plots(records: Sequence[Record], directory: Path) -> list[Path]:
    """Write the plots that there are records for; returns their files.

    Args:
        records: What `benchmarks.harness.records.read_records` gives.
        directory: Made if it is not there. Files of earlier plots are replaced, each whole.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(_STYLE):
        for name, plot in PLOTS.items():
            figure = plot(records)
            if figure is not None:
                paths.append(_save(figure, directory / f"{name}.svg"))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    unfinished = path.with_name(f".{path.name}.part")
    figure.savefig(unfinished, format="svg", metadata={"Date": None, "Creator": None})
    os.replace(unfinished, path)
    return path


# --- one dot for each workload and system ------------------------------------------------------


def time_plot(records: Sequence[Record]) -> Figure | None:
    """Time ÷ ours with its interval, a panel for each setting and variant."""

    def draw(axes: Axes, record: Record, y: float, look: Look) -> None:
        if record.ratio is None or record.ratio_low is None or record.ratio_high is None:
            return
        if record.ratio > _MAX_RATIO:
            text = f"{record.ratio:.3g} >"
            colour = look["color"]
            axes.text(_MAX_RATIO, y, text, ha="right", va="center", color=colour, fontsize=8)
            return
        errors = [[record.ratio - record.ratio_low], [record.ratio_high - record.ratio]]
        axes.errorbar(record.ratio, y, xerr=errors, linestyle="", elinewidth=1.2, **look)

    def finish(axes: Axes) -> None:
        axes.axvline(1, color=OURS_COLOUR, linewidth=1.2, zorder=1)
        axes.set_xscale("log")
        axes.set_xlim(min(axes.get_xlim()[0], 0.9), _MAX_RATIO)
        axes.xaxis.set_major_locator(LogLocator(subs=(0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("time ÷ ours (right of 1: ours is faster)")

    others = [record for record in records if record.system != OURS and record.ratio is not None]
    return _dot_plot(others, draw, finish)


def bound_plot(records: Sequence[Record]) -> Figure | None:
    """Attainable bound ÷ time, a panel for each setting and variant."""

    def draw(axes: Axes, record: Record, y: float, look: Look) -> None:
        axes.plot(record.attainable_s / record.median_s, y, linestyle="", **look)

    def finish(axes: Axes) -> None:
        axes.axvline(1, color=GREY, linewidth=1, linestyle="--", zorder=1)
        axes.set_xlim(0, 1.05)
        axes.set_xlabel("attainable bound ÷ time (1: cannot be faster)")

    return _dot_plot(records, draw, finish)


def hit_plot(records: Sequence[Record]) -> Figure | None:
    """Prefix hit rates, a panel for each setting and variant."""

    def draw(axes: Axes, record: Record, y: float, look: Look) -> None:
        axes.plot(100 * record.hit_rate, y, linestyle="", **look)

    def finish(axes: Axes) -> None:
        axes.set_xlim(0, 100)
        axes.set_xlabel("prefix hit rate: cached ÷ sent prompt tokens, %")

    return _dot_plot(records, draw, finish)


def _dot_plot(
    records: Sequence[Record],
    draw: Callable[[Axes, Record, float, Look], None],
    finish: Callable[[Axes], None],
) -> Figure | None:
    """Workloads from top to bottom, a dot for each system, one below the other.

    Ablations have tables only: with them no system could be told from another.
    """
    found = groups(_main_batches(_without_ablations(records)))
    if not found:
        return None
    looks = _looks(found)
    num_rows = max(len(group.rows) for group in found)
    figure, panels = _panels(len(found), num_rows * max(0.3, 0.07 * len(looks)))
    for axes, group in zip(panels, found, strict=True):
        for place, row in enumerate(group.rows):
            if place % 2 == 0:
                axes.axhspan(place - 0.5, place + 0.5, color=GREY, alpha=0.1, linewidth=0)
            for number, (system, look) in enumerate(looks.items()):
                record = group.records.get((row, system))
                if record is not None:
                    offset = (number - (len(looks) - 1) / 2) * 0.8 / len(looks)
                    draw(axes, record, place + offset, look)
        axes.set_yticks(range(len(group.rows)), [f"{name} x {n}" for name, n in group.rows])
        axes.set_ylim(len(group.rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title(_title(group), loc="left")
        finish(axes)
    _legend(figure, panels, looks)
    return figure


# --- over time and over size -------------------------------------------------------------------


def occupancy_plot(records: Sequence[Record]) -> Figure | None:
    """Requests in the engine's batch over time, a panel for each workload.

    Of the first setting and variant only, and of ours and the fastest others: more lines could
    not be told from each other.
    """
    found = groups(
        [record for record in _main_batches(_without_ablations(records)) if record.samples]
    )
    if not found:
        return None
    group = found[0]
    here = {system for _, system in group.records}
    looks = {system: look for system, look in _looks(found).items() if system in here}
    shown = sorted(looks, key=lambda system: (system != OURS, _time_beside_others(group, system)))
    looks = {system: look for system, look in looks.items() if system in shown[:_NUM_LINES]}
    figure, panels = _panels(len(group.rows), 1.5)
    for axes, row in zip(panels, group.rows, strict=True):
        for system, look in looks.items():
            record = group.records.get((row, system))
            if record is not None:
                times, running = _moments(record)
                line = {name: look[name] for name in ("color", "zorder")}
                axes.plot(times, running, **line)
                # The end of a run, which is what the lines are compared by.
                axes.plot(times[-1:], running[-1:], clip_on=False, **look)
        axes.set_title(f"{row[0]} x {row[1]}\n{_title(group)}", loc="left")
        axes.set_xlabel("time, s")
        axes.set_ylabel("requests in the batch")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.grid(axis="y")
    _legend(figure, panels, looks)
    return figure


def _time_beside_others(group: Group, system: str) -> float:
    """Its mean time relative to that of all systems, over the workloads that it was run on."""
    shares = []
    for row, record in group.of_system(system):
        of_row = [each.median_s for (place, _), each in group.records.items() if place == row]
        shares.append(record.median_s / fmean(of_row))
    return fmean(shares)


def _moments(record: Record) -> tuple[list[float], list[float]]:
    """Times and running requests, each the mean over a sixtieth of the run, and its end."""
    end_s = max(record.median_s, record.samples[-1].at_s)
    bins: dict[int, list[int]] = {}
    for sample in record.samples:
        number = min(int(sample.at_s / end_s * _NUM_MOMENTS), _NUM_MOMENTS - 1)
        bins.setdefault(number, []).append(sample.num_running)
    times = [(number + 0.5) * end_s / _NUM_MOMENTS for number in bins]
    running = [fmean(values) for values in bins.values()]
    return [*times, end_s], [*running, running[-1]]


def growth_plot(records: Sequence[Record]) -> Figure | None:
    """Time of a row over the batch, relative to the smallest batch.

    A panel for each workload that was measured with several batches. A level line is a cost that
    grows in proportion.
    """
    found = groups(_without_ablations(records))
    panels_of = [(group, name) for group in found for name in _measured_at_several_sizes(group)]
    if not panels_of:
        return None
    looks = {
        system: look
        for system, look in _looks(found).items()
        if any(len(_growth(group, name, system)) > 1 for group, name in panels_of)
    }
    figure, panels = _panels(len(panels_of), 2.2)
    for axes, (group, name) in zip(panels, panels_of, strict=True):
        for system, look in looks.items():
            points = _growth(group, name, system)
            if len(points) > 1:
                axes.plot([x for x, _ in points], [y for _, y in points], **look)
        axes.axhline(1, color=GREY, linestyle="--", linewidth=1, zorder=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.set_ylim(0, max(1.25, axes.get_ylim()[1]))
        axes.set_title(f"{name}\n{_title(group)}", loc="left")
        smallest = min(size for workload, size in group.rows if workload == name)
        axes.set_xlabel(f"batch (1x: {smallest} rows)")
        axes.set_ylabel("time of a row ÷ that at 1x")
        axes.grid()
    _legend(figure, panels, looks)
    return figure


def _growth(group: Group, name: str, system: str) -> list[tuple[float, float]]:
    """Batch and time of a row, relative to those of the smallest batch of all systems."""
    smallest = min(size for workload, size in group.rows if workload == name)
    of_system = {
        record.num_items: record.median_s / record.num_items
        for row, record in group.of_system(system)
        if row[0] == name
    }
    if smallest not in of_system:
        return []
    return [(size / smallest, time / of_system[smallest]) for size, time in of_system.items()]


def _measured_at_several_sizes(group: Group) -> Iterator[str]:
    for name in dict.fromkeys(name for name, _ in group.rows):
        if any(len(_growth(group, name, system)) > 1 for system in group.systems):
            yield name


PLOTS: Mapping[str, Callable[[Sequence[Record]], Figure | None]] = {
    "time": time_plot,
    "bound": bound_plot,
    "hits": hit_plot,
    "occupancy": occupancy_plot,
    "growth": growth_plot,
}
"""By the names of their files; each gives `None` where there is nothing to show."""


# --- what they have in common ------------------------------------------------------------------


def _without_ablations(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if not record.system.startswith(f"{OURS}-")]


def _main_batches(records: Sequence[Record]) -> list[Record]:
    """Of a workload measured with several batches the one that most systems ran, or the largest."""
    main = []
    for group in groups(records):
        sizes: dict[str, Counter[int]] = {}
        for (workload, size), _ in group.records:
            sizes.setdefault(workload, Counter())[size] += 1
        for ((workload, size), _), record in group.records.items():
            counts = sizes[workload]
            if size == max(counts, key=lambda each: (counts[each], each)):
                main.append(record)
    return main


def _looks(found: Sequence[Group]) -> dict[str, Look]:
    """All systems, ours first, with how they are drawn; ours always looks the same."""
    names = dict.fromkeys(name for group in found for name in group.systems)
    others = [name for name in names if name != OURS]
    looks: dict[str, Look] = {}
    if OURS in names:
        looks[OURS] = {"color": OURS_COLOUR, "marker": "o", "zorder": 4}
    for name, colour, marker in zip(others, cycle(COLOURS), cycle(_MARKERS), strict=False):
        looks[name] = {"color": colour, "marker": marker, "zorder": 3}
    return looks


def _title(group: Group) -> str:
    """Two lines, which are no wider than a panel."""
    return ", ".join(filter(None, (group.setting, group.variant))) + f"\n{group.engine}"


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of this height in inches, in one column or two."""
    num_columns = min(count, 2)
    num_rows = math.ceil(count / num_columns)
    figure = Figure(
        figsize=(num_columns * _PANEL_WIDTH, num_rows * (height + 0.9) + 0.4),
        layout="constrained",
    )
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    panels = [axes for row in grid for axes in row]
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _legend(figure: Figure, panels: Sequence[Axes], looks: Mapping[str, Look]) -> None:
    """Names of the systems above all panels."""
    handles = [
        panels[0].plot([], [], linestyle="", label=name, **look)[0] for name, look in looks.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=4 * min(len(panels), 2),
        handletextpad=0.1,
        columnspacing=1.2,
    )
