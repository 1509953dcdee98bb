"""What a forecast expects of each call site, to be held against what comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from helium_agents.optimizer.forecast import Forecast, ForecastCall
from helium_agents.optimizer.simulate import SimulatedCall


@dataclass(slots=True)
class ExpectedSite:
    """The calls that some rows are expected to make in an operator's body.

    Args:
        site: The operator's qualified name.
        num_rows: How many rows were looked at.
        num_calls: Calls that they make.
        num_computed: Those that an engine computes, equal ones once.
        prompt_tokens: Of the computed ones, like all below.
        output_tokens: Of their answers.
        cached_tokens: Of their prompts, what the cache has; `None` where nothing was simulated.
        engine_s: Seconds from when they are begun until they are answered; `None` likewise.
    """

    site: str
    num_rows: int
    num_calls: int = 0
    num_computed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    engine_s: float | None = None


def expected_sites(
    forecast: Forecast, simulated: Iterable[SimulatedCall] = ()
) -> tuple[ExpectedSite, ...]:
    """What is expected of each call site, in the order in which rows come to them.

    Args:
        forecast: The rows.
        simulated: Their computed calls under the policy that was chosen; none if there was nothing
            to choose.
    """
    sites: dict[str, ExpectedSite] = {}
    computed: dict[object, ForecastCall] = {}
    for row in forecast.rows:
        for call in row:
            site = sites.get(call.site)
            if site is None:
                site = sites[call.site] = ExpectedSite(call.site, len(forecast.rows))
            site.num_calls += 1
            computed.setdefault(call.question, call)
    for call in computed.values():
        site = sites[call.site]
        site.num_computed += 1
        site.prompt_tokens += call.prompt_tokens
        site.output_tokens += call.output_tokens
    for each in simulated:
        site = sites[each.call.site]
        site.cached_tokens = (site.cached_tokens or 0) + each.cached_tokens
        site.engine_s = (site.engine_s or 0.0) + each.end_s - each.begun_s
    return tuple(sites.values())
