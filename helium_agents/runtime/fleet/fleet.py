"""A model's engines as one that does not die: a request goes to one of them and outlives it.

When an engine dies, every request that was open on it is asked again, there or on a replica. Any of
them may be to blame, so one that was open at two deaths runs alone from then on. Should the engine
die of that too, the request is poison: it fails, and the others go on.

A death by a kill from outside is weaker evidence: such a one convicts nobody until a request has
seen `DEATHS_BY_KILL` of them, so that an operator's (or a test's) `kill -9` at an unlucky moment
costs no row, while one that makes the kernel kill the engine every time is found all the same.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from helium_agents.engines.engine import (
    AnswersLast,
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Engine,
    Request,
    shortest,
)
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import EngineDied, EngineStartError, PoisonRequest, RequestError
from helium_agents.graph.llm_node import LlmCall, LlmNode, describe
from helium_agents.graph.outcome import copy_error
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.runtime.fleet.router import Router
from helium_agents.runtime.fleet.supervised_engine import Spawn, SupervisedEngine
from helium_agents.telemetry.events import Observer

DEATHS_IN_COMPANY = 2
"""After so many deaths a request runs alone."""

DEATHS_BY_KILL = 6
"""After so many deaths a request that ran alone is poison even if all of them were kills."""


def chat_of(call: LlmCall) -> tuple[ChatMessage, ...]:
    """A conversation whose inputs are known, as an engine gets it."""
    messages = [ChatMessage(role, "".join(map(str, parts))) for role, parts in call.messages]
    if not call.beside:  # nearly always
        return tuple(messages)
    pairs = zip(messages, call.beside, strict=True)
    return tuple([ChatMessage(each.role, each.content, *(more or ())) for each, more in pairs])


class Fleet:
    """The engines of one model, and what they are able to do, which the first of them says.

    Args:
        engines: One, or replicas of it.
        spawn: Starts a task that the session owns.
        emit: Takes events.

    Attributes:
        name: What a person calls the model.
        first: The engine that says what all of them are able to do.
        identity: Its part of keys; empty until `identify`.
        made_of: What the identity is made of, by name, if the engine says so.
        truncates: Whether answers can be cut.
        limits_memory: Whether answers may not be remembered for good.
        takes_hints: Whether they are told what of their caches is of use.
        capacity: What those that are started hold together; `None` before, and where there is no
            limit.
    """

    def __init__(self, engines: Sequence[Engine], *, spawn: Spawn, emit: Observer) -> None:
        self.name = engines[0].name
        self.identity = b""
        self.made_of: dict[str, str] = {}
        self.capacity: Capacity | None = None
        self._engines = [WholeEngine(engine) for engine in engines]
        self.first = self._engines[0]
        self.truncates = self.first.truncates
        self.takes_hints = all(engine.takes_hints for engine in self._engines)
        self.limits_memory = any(engine.limits_memory for engine in self._engines)
        self._router = Router(len(engines))
        self._all: list[SupervisedEngine] = []
        for index, engine in enumerate(self._engines):
            label = engine.engine.name
            if len(engines) > 1:
                label += f" (replica {index + 1} of {len(engines)})"
            on_up = partial(self._note_up, index)
            supervised = SupervisedEngine(
                engine, self.name, label, spawn=spawn, on_up=on_up, emit=emit
            )
            self._all.append(supervised)
        self._live = dict(enumerate(self._all))  # without those that were given up

    # --- the model -----------------------------------------------------------------------------

    def identify(self) -> None:
        """Find out which model it is; large weights take a while.

        Raises:
            EngineStartError: The engines differ, so that an answer would depend on who gave it.
        """
        identities = {each.engine.identity() for each in self._engines}
        if len(identities) > 1:
            raise EngineStartError(
                f"the replicas of {self.name!r} have {len(identities)} identities: give all of "
                "them the same model, dtype and arguments"
            )
        self.identity = identities.pop().encode()
        self.made_of = self.first.identity_parts()

    @property
    def answers_last(self) -> AnswersLast:
        """How long answers may be remembered: as long as the least certain engine says."""
        return shortest(engine.answers_last for engine in self._engines)

    @property
    def num_engines(self) -> int:
        """How many of them there are, those included that were given up."""
        return len(self._all)

    def _note_up(self, index: int) -> None:
        """An engine has come up: its cache is empty, and it says what it holds."""
        self._router.forget(index)
        started = [engine.capacity for engine in self._engines if engine.is_started]
        capacities = [capacity for capacity in started if capacity is not None]
        if not capacities or len(capacities) < len(started):
            self.capacity = None
            return
        self.capacity = Capacity(
            kv_tokens=sum(capacity.kv_tokens for capacity in capacities),
            block_tokens=max(capacity.block_tokens for capacity in capacities),
            max_model_tokens=min(capacity.max_model_tokens for capacity in capacities),
            max_requests=sum(capacity.max_requests for capacity in capacities),
            max_batched_tokens=min(capacity.max_batched_tokens for capacity in capacities),
        )

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`; `None` where the engine can't do that exactly."""
        return self.first.truncate(choice, max_tokens)

    @property
    def cost(self) -> StepCost | None:
        """What a step of one of them takes, where the first says so."""
        return self.first.cost

    # --- requests ------------------------------------------------------------------------------

    async def prepare(self, node: LlmNode) -> Request:
        """A request for a call's answer; who makes it gives it an id, and says for whom.

        Raises:
            RequestError: There are tools or images in it, and the engine knows nothing of them.
            EngineStartError: No engine starts.
            EngineDied: The engine dies again and again.
        """
        call = node.call
        tools, messages = call.tools, chat_of(call)
        schemas = () if tools is None else tools.schemas
        return Request(
            "",
            messages,
            await self.render(messages, schemas),
            call.sampling,
            call.json_schema,
            model=call.model,
            describe=partial(describe, node),
            tools=schemas,
            tool_choice="auto" if tools is None else tools.choice,
        )

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> Sequence[int]:
        """Token ids of the conversation in the model's own template; none if it tells none."""
        special = [each for each in messages if each.images or each.tool_calls or each.tool_call_id]
        if tools or special:
            self._check_takes(special, tools)
        asked = (messages, tools) if tools else (messages,)
        while True:
            running = self._running() or await self._started()
            engine = next(iter(running.values()))
            try:
                return await engine.engine.render(*asked)
            except Exception:
                if not engine.was_closed():
                    raise

    def _check_takes(self, special: Sequence[ChatMessage], tools: Sequence[dict[str, Any]]) -> None:
        """Refuse tools and images that the engine knows nothing of."""
        is_about_tools = tools or any([m.tool_calls or m.tool_call_id for m in special])
        if is_about_tools and not self.first.calls_tools:
            raise RequestError(
                f"llm(tools=...): the engine of {self.name!r} calls no tools (it has no "
                "calls_tools): tell the model of them in the prompt, or use an engine that does"
            )
        if any([message.images for message in special]) and not self.first.takes_images:
            raise RequestError(
                f"image(...): the engine of {self.name!r} takes no images (it has no "
                "takes_images): use one whose model was trained to see them"
            )

    async def complete(self, request: Request) -> Completion:
        """Compute a request, on another engine or again where one died of whatever.

        Raises:
            RequestError: It asks for what the engine is not able to do.
            PoisonRequest: It killed its engine.
            EngineStartError: No engine starts.
            EngineDied: The engine dies again and again.
        """
        if request.json_schema is not None and not self.first.follows_schemas:
            raise RequestError(
                f"llm(schema=...): the engine of {self.name!r} does not follow schemas (it has no "
                "follows_schemas): ask for the form in the prompt, or use an engine that does"
            )
        num_deaths = 0
        while True:
            running = self._running() or await self._started()
            is_alone = num_deaths >= DEATHS_IN_COMPANY
            is_only = len(self._all) == 1
            with nullcontext(0) if is_only else self._router.routed(request, running) as index:
                engine = running[index]
                try:
                    completion = await engine.complete(request, is_alone=is_alone)
                except EngineDied as error:
                    if request.is_guess:
                        raise  # it may be to blame, and nobody has asked for it
                    num_deaths += 1
                    is_proven = not error.was_killed or num_deaths >= DEATHS_BY_KILL
                    if is_alone and is_proven and engine.end is None:
                        raise _poison(request.describe(), num_deaths, error) from error
                    completion = None
                    request = replace(request, request_id=f"{request.request_id}-again")
            if completion is not None:
                return completion

    def open(self) -> None:
        """The session begins to use the engines."""
        for engine in self._all:
            engine.open()

    async def close(self) -> None:
        """The session ends: stop the engines that sessions have started and none uses any more."""
        await asyncio.gather(*(engine.close() for engine in self._all))

    @property
    def is_up(self) -> bool:
        """Whether one of the engines runs, so that nobody waits for a start."""
        return bool(self._running())

    @property
    def num_deaths(self) -> int:
        """How often its engines have died in this session."""
        return sum(engine.num_deaths for engine in self._all)

    @property
    def states(self) -> list[str]:
        """What each engine is doing, in words."""
        return [engine.state for engine in self._all]

    def _running(self) -> dict[int, SupervisedEngine]:
        """The engines that run, by index; the others are on their way."""
        running = {}
        for index, engine in self._live.items():
            if engine.is_up:
                running[index] = engine
        return running

    async def _started(self) -> dict[int, SupervisedEngine]:
        """Wait until an engine runs."""
        while True:
            for engine in self._live.values():
                engine.begin()
            running = self._running()
            if running:
                return running
            self._drop_ended()
            starts = [
                engine.starting for engine in self._live.values() if engine.starting is not None
            ]
            if starts:
                await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)

    def _drop_ended(self) -> None:
        """Go on without the replicas that will not be started again, if any is left."""
        ends = {index: engine.end for index, engine in self._live.items() if engine.end is not None}
        if len(ends) == len(self._live):
            raise copy_error(next(iter(ends.values())))  # each call raises one of its own
        for index, end in ends.items():
            label = self._live.pop(index).label
            message = f"engine {label!r} is given up, the others go on: {end}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def _poison(name: str, num_deaths: int, error: EngineDied) -> PoisonRequest:
    return PoisonRequest(
        f"{name} kills its engine: it was open at {num_deaths} deaths, alone at the last. {error}"
    )
