"""What a call cost, in LangChain's terms: who shares an answer is told of no tokens."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.ref import Ref
from helium_agents.graph.reply import Reply
from helium_agents.telemetry.events import CallSettled


class Told:
    """What is told of one call once it has ended.

    Args:
        ref: The call.
        model: What a person calls its model.
    """

    def __init__(self, ref: Ref[Any], model: str) -> None:
        self._model = model
        self._event: CallSettled | None = None
        if isinstance(ref.node, LlmNode):
            ref.node.on_settled = self._note

    def _note(self, event: CallSettled) -> None:
        self._event = event

    def usage(self) -> UsageMetadata:
        """The tokens that were computed for this call: none where another was, or before."""
        prompt = output = cached = 0
        event = self._event
        if event is not None and event.source == "engine":
            usage = event.usage
            prompt, output, cached = usage.prompt_tokens, usage.output_tokens, usage.cached_tokens
        return UsageMetadata(
            input_tokens=prompt,
            output_tokens=output,
            total_tokens=prompt + output,
            input_token_details=InputTokenDetails(cache_read=cached),
        )

    def metadata(self, reply: Reply[Any]) -> dict[str, Any]:
        """What LangChain calls response metadata; under `helium` what came for nothing."""
        saved: dict[str, Any] = {}
        event = self._event
        if event is not None:
            is_saved = event.source != "engine"
            saved = {
                "source": event.source,
                "saved_prompt_tokens": event.usage.prompt_tokens if is_saved else 0,
                "saved_output_tokens": event.usage.output_tokens if is_saved else 0,
            }
        reason = "tool_calls" if reply.tool_calls else reply.finish_reason
        return {"model_name": self._model, "finish_reason": reason, "helium": saved}
