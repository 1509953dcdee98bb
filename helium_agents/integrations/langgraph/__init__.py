"""LangGraph and LangChain: a chat model, graphs whose batches are planned, and caches.

It needs ``helium_agents[langgraph]``.
"""

from helium_agents.integrations.langgraph.cache import HeliumCache, HeliumModelCache
from helium_agents.integrations.langgraph.chat import ChatHelium
from helium_agents.integrations.langgraph.planned import PlannedGraph, planned

__all__ = ["ChatHelium", "HeliumCache", "HeliumModelCache", "PlannedGraph", "planned"]
