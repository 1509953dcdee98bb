"""What the schedule expected of operators beside what came, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from helium_agents.cli.report import columns
from helium_agents.diagnose.expectations import Expectation
from helium_agents.telemetry.progress import duration


def expected_table(found: Sequence[Expectation]) -> str:
    """Each figure as expected and as it came; empty where nothing was expected."""
    if not found:
        return ""
    lines = [["expected → actual", "calls a row", "prompt", "cached", "output", "on engine"]]
    for each in found:
        expected, actual = each.expected, each.actual
        lines.append(
            [
                each.operator,
                _pair(expected.calls_per_row, actual.calls_per_row, "{:.3g}".format),
                _pair(expected.prompt_tokens, actual.prompt_tokens, "{:,.0f}".format),
                _pair(expected.cached_share, actual.cached_share, "{:.0%}".format),
                _pair(expected.output_tokens, actual.output_tokens, "{:,.0f}".format),
                _pair(expected.engine_s, actual.engine_s, duration),
            ]
        )
    return f"{columns(lines)}\nprompt, output: tokens of a computed call, on average\n"


def _pair(expected: float | None, actual: float | None, shown: Callable[[float], str]) -> str:
    return " → ".join("?" if each is None else shown(each) for each in (expected, actual))
