"""An engine without a model: vLLM's own scheduler in virtual time, each step at a modelled cost."""
