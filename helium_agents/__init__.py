"""Multi-agent LLM workflows as query plans: nothing is computed twice."""

from helium_agents.authoring.gather import gather
from helium_agents.authoring.images import image
from helium_agents.authoring.llm import llm
from helium_agents.authoring.messages import (
    Message,
    Prompt,
    assistant,
    prompt,
    system,
    tool,
    user,
)
from helium_agents.authoring.operator import Operator, operator
from helium_agents.authoring.tools import agent_loop, run_tools
from helium_agents.engines.openai import OpenAIServer
from helium_agents.engines.replicas import Replicas
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import HeliumError, ItemError
from helium_agents.graph.image import Image
from helium_agents.graph.ref import Ref
from helium_agents.graph.reply import Choice, Reply
from helium_agents.graph.tool_call import ToolCall
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore
from helium_agents.optimizer.speculation_budget import Budget
from helium_agents.runtime.options import SessionOptions
from helium_agents.runtime.run import run
from helium_agents.runtime.session import Session

__all__ = [
    "VLLM",
    "Budget",
    "Choice",
    "HeliumError",
    "Image",
    "ItemError",
    "LmdbStore",
    "MemoryStore",
    "Message",
    "OpenAIServer",
    "Operator",
    "Prompt",
    "Ref",
    "Replicas",
    "Reply",
    "Session",
    "SessionOptions",
    "ToolCall",
    "agent_loop",
    "assistant",
    "gather",
    "image",
    "llm",
    "operator",
    "prompt",
    "run",
    "run_tools",
    "system",
    "tool",
    "user",
]
