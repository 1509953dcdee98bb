"""LangGraph and LangChain: a chat model, graphs whose batches are planned, caches.

It needs ``helium_agents[langgraph]``.
"""

try:
    from helium_agents.integrations.langgraph.cache import HeliumCache, HeliumModelCache
    from helium_agents.integrations.langgraph.cached_node import cached_node
    from helium_agents.integrations.langgraph.chat import ChatHelium
    from helium_agents.integrations.langgraph.planned import PlannedGraph, planned
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"helium_agents.integrations.langgraph needs {error.name}: "
        "pip install 'helium_agents[langgraph]'",
        name=error.name,
    ) from error

__all__ = [
    "ChatHelium", "HeliumCache", "HeliumModelCache", "PlannedGraph", "cached_node", "planned",
]  # fmt: skip
