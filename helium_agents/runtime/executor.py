"""The executor: computes one flight, from resolved inputs to an answer that is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import lru_cache, partial
from itertools import count
from typing import Any

from pydantic import TypeAdapter, ValidationError

from helium_agents.engines.engine import ChatMessage, Completion, Request
from helium_agents.errors import (
    EncodingError,
    InvalidReply,
    PromptError,
    RefCancelled,
    TransientEngineError,
)
from helium_agents.graph.concurrently import values_of
from helium_agents.graph.encoding import encode
from helium_agents.graph.freeze import freeze
from helium_agents.graph.inline import run_body, value_of
from helium_agents.graph.node import Failure, LlmNode, Node, OperatorNode, Outcome, Part, Value
from helium_agents.graph.ref import LEAK_MARK
from helium_agents.graph.reply import Choice, Reply
from helium_agents.graph.values import as_text
from helium_agents.runtime.engine_pool import EnginePool
from helium_agents.runtime.fleet import Fleet
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.recall import (
    Found,
    Recall,
    describe,
    fit_choice,
    is_memorable,
    record_key,
)
from helium_agents.runtime.record import Answer
from helium_agents.runtime.single_flight import Flight, Flights
from helium_agents.runtime.token_budget import TokenBudget
from helium_agents.telemetry.events import CallSettled, Observer, Source

FIRST_BACKOFF_S = 0.1
"""Wait before the first retry of a transient engine error; it doubles each time."""


class Executor:
    """Runs flights and settles their nodes.

    Args:
        engines: The session's engines.
        flights: The table of running flights.
        recall: What is remembered, or `None`.
        shares: Whether a call may join an equal one in flight.
        budget: The session's token budget.
        touch: Tells admission which tokens an item's call holds in the KV cache; whether it cares.
        finish: Told when the work of a flight's task is about to end.
        emit: Takes events.
    """

    planner: Planner  # set by the session: the two know each other

    def __init__(
        self,
        *,
        engines: EnginePool,
        flights: Flights,
        recall: Recall | None,
        shares: bool,
        budget: TokenBudget,
        touch: Callable[[Any, Sequence[int]], bool],
        finish: Callable[[asyncio.Task[None]], None],
        emit: Observer,
    ) -> None:
        self._engines = engines
        self._flights = flights
        self._recall = recall
        self._shares = shares
        self._budget = budget
        self._touch = touch
        self._finish = finish
        self._emit = emit
        self._request_ids = count()

    def settle_known(self, flight: Flight, found: Found) -> None:
        """Give a flight that has not begun a remembered answer."""
        self._credit(flight, "memo")
        self._land(flight, Value(found.value))

    def fail(self, flight: Flight, error: Exception) -> None:
        """Give a flight that has not begun the error that kept it from being planned."""
        self._land(flight, Failure(error, error.__traceback__))

    def compute(self, flight: Flight) -> Coroutine[Any, Any, None]:
        """Compute a flight's answer and settle it."""
        return self._fly(flight, self._answer)

    def derive(self, flight: Flight, longer: Flight) -> Coroutine[Any, Any, None]:
        """Cut a flight's answer from that of the same call with more tokens, and settle it."""
        return self._fly(flight, partial(self._cut, longer))

    # --- settling ------------------------------------------------------------------------------

    async def _fly(
        self, flight: Flight, answer: Callable[[Flight], Awaitable[tuple[Any, int]]]
    ) -> None:
        cached_tokens = 0
        try:
            value, cached_tokens = await answer(flight)
            raw: Outcome = Value(value)
        except asyncio.CancelledError:
            return  # see `end`
        except Exception as error:
            raw = Failure(error, error.__traceback__)
            await self._flights.leave_inputs(flight)  # as in `gather`, nothing is left running
        if flight.waiters or not isinstance(raw, Failure):
            self._land(flight, raw, cached_tokens)
        assert flight.task is not None
        self._finish(flight.task)

    def end(self, flight: Flight) -> None:
        """The flight's task has ended, perhaps by being cancelled, even before it began."""
        if flight.waiters:
            message = f"{describe(flight.node)} was cancelled while it was being computed"
            self._land(flight, Failure(RefCancelled(message), None))
        self._flights.release(flight)

    def _land(self, flight: Flight, raw: Outcome, cached_tokens: int = 0) -> None:
        """Settle the flight's nodes and wake everybody who waits."""
        self._flights.forget(flight)
        end_s = asyncio.get_running_loop().time()
        answer = raw.value if isinstance(raw, Value) and isinstance(raw.value, Answer) else None
        for node, source in flight.nodes:
            if node.flight is not flight and node.flight is not None:
                continue  # was abandoned, and then asked again: that is another computation
            outcome = _deliver(node, raw)
            node.settle(outcome)
            is_llm = isinstance(node, LlmNode)
            self._emit(
                CallSettled(
                    kind="llm" if is_llm else "operator",
                    label=node.label,
                    source="body" if source == "engine" and not is_llm else source,
                    prompt_tokens=answer.prompt_tokens if answer else 0,
                    cached_tokens=cached_tokens if source == "engine" else 0,
                    output_tokens=answer.output_tokens if answer else 0,
                    error=outcome.exception if isinstance(outcome, Failure) else None,
                    start_s=flight.start_s,
                    end_s=end_s,
                )
            )
        if flight.stream is not None:
            flight.stream.close(answer.choices[0].text if answer else None)
        flight.land(raw)

    def _credit(self, flight: Flight, source: Source) -> None:
        """What was to be computed came from elsewhere."""
        flight.nodes = [(node, source if s == "engine" else s) for node, s in flight.nodes]

    # --- computing -----------------------------------------------------------------------------

    async def _answer(self, flight: Flight) -> tuple[Any, int]:
        """The raw answer, and how many of its prompt tokens were cached."""
        asked = node = flight.node
        if node.inputs:
            node = _with_inputs(node, await values_of(map(value_of, node.inputs)))
            if self._shares:
                elsewhere = await self._answered_elsewhere(flight, asked, node)
                if elsewhere is not None:
                    return elsewhere.value, 0
        cached_tokens, fits = 0, True
        recall = self._recall
        if recall is not None:
            recall.check_may_compute(node)
        if isinstance(node, LlmNode):
            value, cached_tokens, fits = await self._ask(flight, node)
        else:
            value = await self._run(flight, node)
        if fits and recall is not None:
            is_first = (
                self._flights.is_unknown(flight) and self._flights.get(record_key(node)) is flight
            )
            recall.keep(node, asked, value, is_first=is_first)
        return value, cached_tokens

    async def _answered_elsewhere(self, flight: Flight, asked: Node, node: Node) -> Found | None:
        """The answer of a call whose inputs have just become known, if it is known or in flight."""
        if asked.is_drawn:
            found = None if self._recall is None else self._recall.look_up_drawn(node, asked)
            if found is not None:
                self._credit(flight, "memo")
            return found
        if not is_memorable(asked):
            return None
        found = self.planner.put_in_known(node)
        if found is not None:
            self._credit(flight, "memo")
        else:
            running = self._flights.get(node.key)
            if running is None or running is flight:
                self._flights.register_late(flight, node.key)
                return None
            waiter = flight.hold(running, flight.admit)
            await waiter.future
            assert waiter.flight.raw is not None
            found = Found(waiter.flight.raw.get())
            self._credit(flight, "joined")
        if self._recall is not None:
            self._recall.keep(node, asked, found.value)
        return found

    async def _cut(self, longer: Flight, flight: Flight) -> tuple[Any, int]:
        """The answer as a prefix of a longer one.

        Where the longer call fails (it may be too long for the model) or its answer cannot be cut
        exactly, the call is computed for itself, as the plain program does.
        """
        node, source = flight.node, longer.node
        assert isinstance(node, LlmNode) and isinstance(source, LlmNode)
        (hold,) = flight.holds
        await hold.future
        raw = hold.flight.raw
        if isinstance(raw, Value):
            max_tokens, asked_max = (n.call.sampling.max_tokens for n in (source, node))
            engine = self._engines.engine(node.call.model)
            choice = fit_choice(raw.value.choices[0], max_tokens, asked_max, engine)
            if choice is not None:
                self._credit(flight, "prefix")
                return Answer((choice,), raw.value.prompt_tokens), 0
        return await self._answer(flight)

    async def _run(self, flight: Flight, node: Node) -> Any:
        """Run a pure operator's body."""
        assert isinstance(node, OperatorNode)
        value = await run_body(node, node.frame.item, on_attempt=flight.admit)
        try:
            encode(value)
        except EncodingError as error:
            raise EncodingError(
                f"{node.label}(...) is pure, so its result is shared and remembered, but {error}",
                error.path,
            ) from None
        return value

    async def _ask(self, flight: Flight, node: LlmNode) -> tuple[Answer, int, bool]:
        """Ask the engine, again where it may help.

        Returns the answer, how many of its prompt tokens were cached, and whether the answer fits
        the schema. One that does not may still fit that of an equal call: each call parses it.
        """
        call = node.call
        fleet = self._engines.fleet(call.model)
        messages = tuple([ChatMessage(role, _joined(parts)) for role, parts in call.messages])
        prompt = await fleet.render(messages)
        for attempt in range(call.retries + 1):
            is_last = attempt == call.retries
            try:
                completion = await self._request(flight, fleet, node, messages, prompt)
            except TransientEngineError:
                if is_last:
                    raise
                await asyncio.sleep(FIRST_BACKOFF_S * 2**attempt)
                continue
            answer = Answer(completion.choices, len(prompt))
            if call.schema is None:
                return answer, completion.cached_tokens, True
            try:
                _parse(node, answer.choices)
            except Exception as error:
                draws_again = not (is_last or call.sampling.is_greedy or flight.stream is not None)
                if not draws_again or not isinstance(error, InvalidReply):
                    return answer, completion.cached_tokens, False
                node = node.with_attempt(attempt + 1)
            else:
                return answer, completion.cached_tokens, True
        raise AssertionError("unreachable")

    async def _request(
        self,
        flight: Flight,
        fleet: Fleet,
        node: LlmNode,
        messages: tuple[ChatMessage, ...],
        prompt: Sequence[int],
    ) -> Completion:
        sampling, item, num_prompt = node.call.sampling, node.frame.item, len(prompt)
        request = Request(
            f"helium-{next(self._request_ids)}", messages, prompt, sampling, node.call.json_schema
        )
        budget, used_tokens = self._budget, 0
        most_tokens = num_prompt + sampling.n * sampling.max_tokens
        if not budget.try_reserve(most_tokens):
            await budget.reserve(most_tokens)
        try:
            flight.admit()
            is_counted = self._touch(item, prompt)
            # Across deaths of the engine: the reservation is kept, a retry needs no new one.
            completion = await fleet.complete(request, flight.listen, partial(describe, node))
            used_tokens = num_prompt
            for choice in completion.choices:
                used_tokens += len(choice.token_ids)
                if is_counted:
                    self._touch(item, [*prompt, *choice.token_ids])
        finally:
            budget.release(most_tokens, used_tokens=used_tokens)
        return completion


def _joined(parts: tuple[Part, ...]) -> str:
    """The text of a message whose slots are filled: nearly always one piece."""
    return "".join(map(str, parts)) if len(parts) > 1 else str(parts[0])


def _with_inputs(node: Node, values: list[Any]) -> Node:
    if isinstance(node, LlmNode):
        texts = tuple(map(_text_of, values, node.inputs))
        return node.with_values(texts)
    assert isinstance(node, OperatorNode)
    return node.with_values(tuple(values))


def _text_of(value: Any, source: Node) -> str:
    text = as_text(value, f"the value of {source.label}(...) in a prompt")
    if LEAK_MARK in text:
        raise PromptError(
            f"the value of {source.label}(...) in a prompt contains the representation of a Ref "
            f"instead of its value: await it in {source.label}"
        )
    return text


def _deliver(node: Node, raw: Outcome) -> Outcome:
    """The outcome of one node: its own copy of what is shared."""
    if isinstance(raw, Failure):
        return raw
    if not isinstance(node, LlmNode):
        return Value(freeze(raw.value))
    try:
        return Value(Reply(raw.value.choices, _parse(node, raw.value.choices)))
    except Exception as error:  # it does not fit, or a validator of the schema failed
        return Failure(error, error.__traceback__)


@lru_cache(maxsize=256)
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _parse(node: LlmNode, choices: tuple[Choice, ...]) -> tuple[Any, ...]:
    schema = node.call.schema
    if schema is None:
        return ()
    adapter = _adapter(schema)
    try:
        return tuple(adapter.validate_json(choice.text) for choice in choices)
    except ValidationError as error:
        hint = (
            f" because it was cut at max_tokens={node.call.sampling.max_tokens} (raise that)"
            if any(choice.finish_reason == "length" for choice in choices)
            else ""
        )
        raise InvalidReply(
            f"the reply to {describe(node)} does not fit schema={schema!r}{hint}: {error}"
        ) from error
