"""vLLM, in processes on this machine, as an engine."""

from helium_agents.engines.vllm.engine import VLLM

__all__ = ["VLLM"]
