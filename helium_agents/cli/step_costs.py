"""`--model-cost`: what a step of an engine takes, by name or from a file."""

from __future__ import annotations

import json
from pathlib import Path

from helium_agents.errors import InputError, RequestError
from helium_agents.optimizer.step_cost import STEP_COSTS, StepCost


def step_cost(name: str) -> StepCost:
    """The cost of a name, or of a JSON file.

    Raises:
        InputError: It is neither.
    """
    if name in STEP_COSTS:
        return STEP_COSTS[name]
    if not name or not Path(name).exists():
        raise InputError(
            f"--model-cost {name}: there is no cost of that name ({', '.join(STEP_COSTS)}), and no "
            "such file"
        )
    try:
        return StepCost.from_dict(json.loads(Path(name).read_text("utf-8")))
    except (OSError, ValueError, TypeError, RequestError) as error:
        raise InputError(f"--model-cost {name}: {error}") from error
