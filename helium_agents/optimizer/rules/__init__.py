"""One plan rule per file; the file is named after its function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from helium_agents.graph.plan import LogicalPlan
from helium_agents.optimizer.rules.drop_unneeded import drop_unneeded
from helium_agents.optimizer.rules.merge_identical import merge_identical
from helium_agents.optimizer.rules.substitute_known import substitute_known
from helium_agents.optimizer.rules.subsume_shorter import subsume_shorter

Rule = Callable[[LogicalPlan, Mapping[bytes, Any]], LogicalPlan]
"""A rewrite of a plan that changes no answer, given what is known by key."""

RULES: tuple[Rule, ...] = (substitute_known, merge_identical, subsume_shorter, drop_unneeded)
"""All rules, in the order in which they are applied."""

__all__ = [
    "RULES",
    "Rule",
    "drop_unneeded",
    "merge_identical",
    "substitute_known",
    "subsume_shorter",
]
