"""An engine with every ability: its own, or what stands for one that it lacks.

Abilities are optional, and found by their attributes. This is the only place that looks for them,
and its docstrings say what each one is, and what is lost without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from helium_agents.engines.engine import AnswersLast, Capacity, Choice, Engine
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.optimizer.step_window import StepWindow


class WholeEngine:
    """An engine as those see it who use one.

    Attributes:
        engine: As given.
        complete: The engine's own `complete`.
        render: Gives the token ids of a conversation in the model's own template, ready for the
            answer; one that `calls_tools` takes `Request.tools` too, where there are any. Without
            it there are none. Then no request is sent where its prefix is cached (replicas get
            equal shares), and a prompt's length is known only from `Completion.prompt_tokens`: a
            token budget reserves the answers alone, and may be exceeded by the prompts that are
            under way.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.complete = engine.complete
        self._own: Any = engine
        # `hasattr`, not `isinstance`, which sees nothing of what `__getattr__` passes on
        self._starts = all(hasattr(engine, name) for name in ("is_started", "start", "close"))
        self.render: Callable[..., Awaitable[Sequence[int]]] = getattr(engine, "render", _no_ids)
        self._truncates = hasattr(engine, "truncate")

    @property
    def is_started(self) -> bool:
        """Whether `start` has finished and `close` was not called since.

        An engine that died counts as started all the same: to start it again is the business of
        whoever finds it dead, to close it that of whoever started it first. One that lacks any of
        `is_started`, `start` and `close` is always ready.
        """
        return not self._starts or self._own.is_started

    async def start(self) -> None:
        """Load the model. Idempotent; concurrent calls wait for the same start.

        An engine that died is started anew. Sessions start one at the first request that the memo
        cannot answer.

        Raises:
            EngineStartError: The model does not load; the message says why and what to do.
        """
        if self._starts:
            await self._own.start()

    async def close(self) -> None:
        """Stop the engine and everything it started. Idempotent.

        Sessions never close one that they were given already started.
        """
        if self._starts:
            await self._own.close()

    @property
    def truncates(self) -> bool:
        """Whether it has `truncate`; without it an answer serves equal `max_tokens` only."""
        return self._truncates

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`, exactly as if it had been asked for so.

        Works without a started engine. `None` where that cannot be done exactly, as of an answer
        that is not only text.
        """
        if choice.reasoning is not None or choice.tool_calls:
            return None
        short: Choice | None = self._own.truncate(choice, max_tokens) if self._truncates else None
        return short

    @property
    def capacity(self) -> Capacity | None:
        """What the engine can hold; `None` before `start`, or where there is no limit.

        Without it every request is sent as soon as it is ready: nothing waits but by `max_open`.
        """
        return getattr(self._own, "capacity", None)

    @property
    def follows_schemas(self) -> bool:
        """Whether it constrains its answers to `Request.json_schema`.

        Without it `llm(..., schema=...)` raises `RequestError`.
        """
        return getattr(self._own, "follows_schemas", False)

    @property
    def calls_tools(self) -> bool:
        """Whether it tells its model of `Request.tools`, and gives its `Choice.tool_calls`.

        Without it `llm(..., tools=...)` raises `RequestError`, and so does a conversation that has
        calls of tools or their results in it.
        """
        return getattr(self._own, "calls_tools", False)

    @property
    def takes_images(self) -> bool:
        """Whether it shows its model the images of `Request.messages`.

        Without it a conversation with images raises `RequestError`. `render` gives no token ids of
        one: no prefix tells what it shares, and no plan counts on it.
        """
        return getattr(self._own, "takes_images", False)

    @property
    def takes_hints(self) -> bool:
        """Whether it takes `Request.hints`, as `engines.hinted_scheduler` describes them.

        Without it the cache of sessions that have ended stays as long as that of those which go on.
        """
        return getattr(self._own, "takes_hints", False)

    @property
    def cost(self) -> StepCost | None:
        """What a step takes; `None` before that is known.

        Without it schedules are not compared, and rows are all open.
        """
        return getattr(self._own, "cost", None)

    @property
    def tells_steps(self) -> bool:
        """Whether it has `step_windows`."""
        return hasattr(self._own, "step_windows")

    def step_windows(self, since_s: float) -> Sequence[StepWindow]:
        """What it computed lately, in the order of time; the last window may still grow.

        `since_s` leaves out windows that had ended by then; those of some minutes are there.
        Without it traces have what is worked out from the times of requests.
        """
        found: Sequence[StepWindow] = self._own.step_windows(since_s) if self.tells_steps else ()
        return found

    @property
    def provider(self) -> str:
        """What computes its answers, as OpenTelemetry's `gen_ai.provider.name` has it.

        Without it "custom".
        """
        return getattr(self._own, "provider", "custom")

    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port of the server that it asks; without it there is none."""
        return getattr(self._own, "server", None)

    @property
    def limits_memory(self) -> bool:
        """Whether it has `answers_last`."""
        return hasattr(self._own, "answers_last")

    @property
    def answers_last(self) -> AnswersLast:
        """How long its answers may be remembered; less than before once it has changed.

        Without it for good: an equal identity then means equal answers, whenever. Where they last
        a session, its equal calls share them, and nothing is written to the memo, the results of
        pure operators included.
        """
        return getattr(self._own, "answers_last", "for good")

    @property
    def state(self) -> str:
        """What requests wait for at the engine, in words; without it, or empty, for its work."""
        return getattr(self._own, "state", "")

    def identity_parts(self) -> dict[str, str]:
        """What `Engine.identity` digests, by name: the weights, the tokenizer, the dtype, ...

        Without it a person who wonders why a memo does not answer learns only that the model
        differs.
        """
        parts: dict[str, str] = {}
        if hasattr(self._own, "identity_parts"):
            parts = self._own.identity_parts()
        return parts


async def _no_ids(*_: Any) -> Sequence[int]:
    return ()
