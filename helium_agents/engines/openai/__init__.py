"""A server with the OpenAI API as an engine."""

from helium_agents.engines.openai.server import OpenAIServer

__all__ = ["OpenAIServer"]
