"""The optimizer: apply the rules in order until nothing changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helium_agents.graph.plan import LogicalPlan, PlanError
from helium_agents.optimizer.rules import RULES, Rule


def optimize(
    plan: LogicalPlan, known: Mapping[bytes, Any], rules: Sequence[Rule] = RULES
) -> LogicalPlan:
    """Rewrite a plan without changing any answer.

    Args:
        plan: A valid plan.
        known: Looked-up answers by key; opaque.
        rules: Which rules, in which order. `()` is the plain program.

    Raises:
        PlanError: The rules do not converge; the message names those that keep changing the plan.
    """
    for _ in range(len(plan.nodes) + 2):
        before, changed = plan, []
        for rule in rules:
            rewritten = rule(plan, known)
            if rewritten is not plan:
                changed.append(getattr(rule, "__name__", repr(rule)))
                plan = rewritten
        if plan is before:
            return plan
    raise PlanError(f"the rules do not converge: {', '.join(changed)} keep changing the plan")
