"""What makes vLLM's own server have the engine that `VLLM` would have."""

from __future__ import annotations

import json

from helium_agents.engines.model_source import find_model
from helium_agents.engines.vllm.settings import Settings


def server_arguments(settings: Settings) -> list[str]:
    """Arguments of ``vllm serve``.

    Args:
        settings: Of the engine.
    """
    assert settings.model is not None
    # of itself vLLM's fingerprint may be another one after a restart with equal settings
    line = ["--fingerprint-mode", "none"]
    for name, value in settings.engine_arguments(find_model(settings.model)).items():
        option = f"--{name.replace('_', '-')}"
        if name in ("disable_log_stats", "use_tqdm_on_load"):
            continue
        if isinstance(value, bool):
            line.append(option if value else f"--no-{option[2:]}")
        else:
            line += [option, json.dumps(value) if isinstance(value, dict) else str(value)]
    return line
