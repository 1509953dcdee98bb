"""Who computes: the engine port, vLLM, and the scripted engine."""
