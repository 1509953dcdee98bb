"""What the exact simulator says beside what was measured, as tables."""

from __future__ import annotations

from benchmarks.harness.groups import OURS, Group
from benchmarks.harness.records import Record
from benchmarks.harness.tables import by_system, known, table


def prediction_tables(group: Group) -> list[str]:
    """Predicted ÷ measured, and the best schedule that a search finds; none without predictions."""
    predicted = {r.system for r in group.records.values() if r.predicted_s is not None}
    if not predicted:
        return []
    return [
        *by_system(
            group,
            "Predicted ÷ measured time (the exact simulator, at the engine's own step cost)",
            [system for system in group.systems if system in predicted],
            lambda record: known(record.predicted_s, lambda s: f"{s / record.median_s:.2f}"),
        ),
        *_best_table(group),
    ]


def _best_table(group: Group) -> list[str]:
    rows = [
        [
            row[0],
            known(record.predicted_s, "{:.2f}".format),
            known(record.best_simulated_s, "{:.2f}".format),
            _share(record),
            known(record.fits_s, "{:.2f}".format),
            record.best_simulated,
            record.choice,
        ]
        for row, record in group.of_system(OURS)
        if record.best_simulated_s is not None
    ]
    if not rows:
        return []
    header = ["workload", "ours, s", "best, s", "best ÷ ours", "fits, s", "best is", "ours chose"]
    title = "Simulated: ours, the best schedule that a search finds, and ours where all fits"
    return [f"**{title}**", table(header, rows)]


def _share(record: Record) -> str:
    if record.predicted_s is None or record.best_simulated_s is None:
        return ""
    return f"{record.best_simulated_s / record.predicted_s:.2f}"
