"""What was expected of a traced run's operators when its schedule was chosen, beside what came."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from helium_agents.diagnose.analyze import OperatorRow, short_name
from helium_agents.optimizer.expected import ExpectedSite
from helium_agents.trace.run import TracedRun


@dataclass(frozen=True)
class Figures:
    """Of the model calls that are made in an operator's body.

    Args:
        calls_per_row: Calls of a row.
        prompt_tokens: Of a computed call, on average, like all below.
        cached_share: Of these, what the cache has, from 0 to 1; `None` where that is not known.
        output_tokens: Of its answer.
        engine_s: Seconds on the engine; `None` where that is not known.
    """

    calls_per_row: float
    prompt_tokens: float
    cached_share: float | None
    output_tokens: float
    engine_s: float | None


@dataclass(frozen=True)
class Expectation:
    """An operator.

    Args:
        operator: Its name.
        expected: What was expected, by the choice that looked at the most calls.
        actual: What came.
    """

    operator: str
    expected: Figures
    actual: Figures


def expectations(run: TracedRun, rows: Iterable[OperatorRow]) -> list[Expectation]:
    """What was expected of each operator, and what came; empty where nothing was chosen."""
    sites = _expected(run)
    actual: dict[str, list[OperatorRow]] = defaultdict(list)
    for row in rows:
        actual[row.path[-1] if row.path else ""].append(row)
    unknown = [site for site in sites if short_name(site.site) not in actual]
    if len(unknown) == 1 and "" in actual:  # a plain function of rows: no trace knows its name
        actual[short_name(unknown[0].site)] = actual.pop("")
    found = []
    for site in sites:
        name = short_name(site.site)
        seen = actual.get(name, ())
        if site.num_computed and any(row.num_computed for row in seen):
            expected = _expected_figures(site)
            found.append(Expectation(name, expected, _actual_figures(seen, len(run.items))))
    return found


def _expected(run: TracedRun) -> Sequence[ExpectedSite]:
    """By the choice that looked at the most calls: later ones may know of the rest alone."""
    best: Sequence[ExpectedSite] = ()
    for choice in run.choices:
        sites = [ExpectedSite(**each) for each in choice.get("expected", ())]
        if sum(site.num_calls for site in sites) >= sum(site.num_calls for site in best):
            best = sites or best
    return best


def _expected_figures(site: ExpectedSite) -> Figures:
    number, cached = site.num_computed, site.cached_tokens
    return Figures(
        calls_per_row=site.num_calls / max(1, site.num_rows),
        prompt_tokens=site.prompt_tokens / number,
        cached_share=None if cached is None else cached / max(1, site.prompt_tokens),
        output_tokens=site.output_tokens / number,
        engine_s=None if site.engine_s is None else site.engine_s / number,
    )


def _actual_figures(rows: Sequence[OperatorRow], num_items: int) -> Figures:
    number = sum(row.num_computed for row in rows)
    prompt_tokens = sum(row.prompt_tokens for row in rows)
    return Figures(
        calls_per_row=sum(row.num_calls for row in rows) / max(1, num_items),
        prompt_tokens=prompt_tokens / number,
        cached_share=sum(row.cached_tokens for row in rows) / max(1, prompt_tokens),
        output_tokens=sum(row.output_tokens for row in rows) / number,
        engine_s=sum(row.engine_s for row in rows) / number,
    )
