"""AgentScope over HTTP, as its users run it: an agent for each call, all rows at once.

An agent has its system prompt, is shown the conversation so far, and replies to the last message.
What agents would add to prompts by themselves (the time of day) is off, since all systems ask the
same; so is streaming, which nobody reads here and which costs.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness.calls import CallGraph
from benchmarks.harness.server import MODEL_NAME
from benchmarks.harness.system import Batch, GraphSystem, Results, run_graph, run_rows
from benchmarks.harness.testbed import Testbed
from helium_agents.engines.engine import ChatMessage


class AgentScope(GraphSystem):
    """An `Agent` per call."""

    uses_server = True
    runs_tools = True
    requirement = "agentscope"

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Make a model for each length of answer."""
        lengths = {call.max_tokens for graph in batch.graphs for call in graph.calls}
        self._models = {length: _model(bed, length) for length in lengths}

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""

        async def ask(messages: Any, max_tokens: int) -> str:
            return await _ask(messages, self._models[max_tokens], bed)

        async def row(graph: CallGraph) -> list[str]:
            return await run_graph(graph, ask)

        try:
            return await run_rows(batch, bed.server.log, row)
        finally:
            # Dropped with open connections, a client closes them late, by the numbers of their
            # files, which are the next client's by then: that one would wait for ever.
            for model in self._models.values():
                await model.client.close()


def _model(bed: Testbed, max_tokens: int) -> Any:
    from agentscope.credential import OpenAICredential
    from agentscope.model import OpenAIChatModel

    return OpenAIChatModel(
        credential=OpenAICredential(api_key="none", base_url=bed.server.url),
        model=MODEL_NAME,
        parameters=OpenAIChatModel.Parameters(temperature=0, max_tokens=max_tokens),
        stream=False,
        client_kwargs={"timeout": 600},
    )


async def _ask(messages: list[ChatMessage], model: Any, bed: Testbed) -> str:
    from agentscope.agent import Agent, InjectionConfig
    from agentscope.message import AssistantMsg, UserMsg

    first, *history = messages
    has_system = first.role == "system"
    agent = Agent(
        name="agent",
        system_prompt=first.content if has_system else "",
        model=model,
        injection_config=InjectionConfig(inject_runtime_state=False),
    )
    shown = [
        (AssistantMsg if message.role == "assistant" else UserMsg)(message.role, message.content)
        for message in (history if has_system else messages)
    ]
    await agent.observe(shown[:-1])
    log = bed.server.log
    start_s = log.now()
    reply = await agent.reply(shown[-1])
    usage = reply.usage
    log.add(start_s, usage.input_tokens, usage.cache_input_tokens, usage.output_tokens)
    text: str = reply.get_text_content()
    return text


SYSTEMS = (AgentScope("agentscope"),)
