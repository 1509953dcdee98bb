"""The engine of a session that names none: vLLM on the embedded model."""

from __future__ import annotations

from helium_agents.engines.engine import Engine


def default_engine() -> Engine:
    """Make vLLM on a small model made on this machine, whose text means nothing."""
    from helium_agents.engines.vllm import VLLM

    return VLLM()
