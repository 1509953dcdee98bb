"""LangChain's own tests of chat models, on the scripted engine: all of them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="pip install -r requirements/langgraph.txt")

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from helium_agents import ToolCall
from helium_agents.engines.engine import Request
from helium_agents.engines.schema_example import example_json
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.integrations.langgraph import ChatHelium

pytestmark = pytest.mark.filterwarnings("ignore:.*beta.*", "ignore::DeprecationWarning")


def sensible(request: Request) -> str | ScriptedReply:
    """Calls the tool that it is told of, once, and understands what these tests ask."""
    if request.tools and request.tool_choice != "none" and request.messages[-1].role != "tool":
        function = request.tools[0]["function"]
        known = {
            "input": 3,
            "a": 3,
            "b": 4,
            "customer_name": "你好啊集团 こんにちは",
            "location": "here",
        }
        wanted = function["parameters"].get("properties", {})
        given = {name: known.get(name, "x") for name in wanted}
        return ScriptedReply(tool_calls=[ToolCall(function["name"], given)])
    if request.json_schema is not None:
        return example_json(request.json_schema, "1")
    return f"You said {request.messages[-1].content[:40]}"


class _Common:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatHelium


class TestUnit(_Common, ChatModelUnitTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": ScriptedEngine()}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        params = super().standard_chat_model_params
        del params["api_key"]  # an engine has one where it needs it: here it is refused
        return params


class TestIntegration(_Common, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"engine": ScriptedEngine(sensible), "max_tokens": 100}

    @property
    def supports_json_mode(self) -> bool:
        return True
