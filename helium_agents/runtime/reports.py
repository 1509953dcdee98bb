"""What is told of bodies, tools and requests, where anybody but the summary observes."""

from __future__ import annotations

from dataclasses import asdict

from helium_agents.engines.engine import Capacity, Completion, Request
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.fleet.fleet import Fleet
from helium_agents.runtime.operator_calls import operator_around, operator_call
from helium_agents.runtime.waiting import RunningTool
from helium_agents.telemetry.events import (
    BodyBegan,
    BodyEnded,
    EngineDescribed,
    Observer,
    RequestAnswered,
    RequestBegan,
    ToolEnded,
)


class Reports:
    """Emits these events."""

    def __init__(self, emit: Observer, engines: EnginePool) -> None:
        self._emit = emit
        self._engines = engines
        self._described: dict[Fleet, tuple[Capacity | None, StepCost | None]] = {}

    def body_began(self, node: OperatorNode) -> None:
        """The body of an operator runs."""
        self._emit(BodyBegan(operator_call(node), _rank_of(node)))

    def body_ended(self, node: Node, error: BaseException | None) -> None:
        """The body of a plain operator has ended."""
        self._emit(BodyEnded(node.number, error))

    def tool_ended(self, tool: RunningTool, error: BaseException | None, now_s: float) -> None:
        """A tool has ended."""
        frame, call = tool.frame, tool.call
        self._emit(
            ToolEnded(
                name=call.name,
                call_id=call.id,
                arguments=call.text,
                begun_s=tool.since_s,
                ended_s=now_s,
                error=error,
                body=operator_around(frame),
                item=None if frame.item is None else frame.item.rank,
            )
        )

    def request_began(self, node: LlmNode) -> dict[str, str]:
        """An engine is about to be asked; gives what is to be sent along over HTTP."""
        headers = dict[str, str]()
        call, body = node.call, operator_around(node.frame)
        model = self._engines[call.model].name
        rank = _rank_of(node)
        self._emit(RequestBegan(node.number, body, rank, model, call.sampling, headers))
        return headers

    def request_answered(self, request: Request, completion: Completion) -> None:
        """What an engine has answered, and what it is able to do where that is news."""
        fleet = self._engines[request.model]
        described = fleet.capacity, fleet.cost
        if self._described.get(fleet) != described:
            self._described[fleet] = described
            capacity, cost = (None if each is None else asdict(each) for each in described)
            self._emit(EngineDescribed(fleet.name, fleet.num_engines, capacity, cost))
        choices = completion.choices
        self._emit(
            RequestAnswered(
                request.request_id,
                fleet.name,
                [message[:2] for message in request.messages],
                request.prompt_token_ids,
                request.max_tokens,
                [choice.text for choice in choices],
                [choice.token_ids for choice in choices],
                [choice.finish_reason for choice in choices],
                [choice.tool_calls for choice in choices],
            )
        )


def _rank_of(node: Node) -> int | None:
    """The top-level item that a call was made for; `None` outside of any."""
    item = node.frame.item
    return None if item is None else item.rank
