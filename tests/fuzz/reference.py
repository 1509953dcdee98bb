"""What programs must give, by other code: a Ref is a task, and nothing is merged or remembered.

The plain program runs in the package itself, and may be wrong in the same way as the optimised one.
This is the meaning of a program and nothing else: no cancelling of what nobody wants any more, no
order of events, no limits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator
from contextvars import ContextVar
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from helium_agents import ItemError, Reply
from helium_agents.engines.engine import ChatMessage, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    CallTimeout,
    ImpureCall,
    InvalidReply,
    RefMisuse,
    TransientEngineError,
)
from helium_agents.graph.sampling import Sampling

_is_pure: ContextVar[bool] = ContextVar("_is_pure", default=False)


class Handle:
    """A call: computed once, when it is first wanted."""

    def __init__(
        self, tasks: list[asyncio.Task[Any]], work: Callable[[], Any], *, is_draw: bool = False
    ) -> None:
        self._tasks = tasks
        self._work = work
        self._is_draw = is_draw
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> Handle:
        if self._task is None:
            self._task = asyncio.create_task(self._work())
            self._tasks.append(self._task)
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value().__await__()

    async def _value(self) -> Any:
        if self._is_draw and _is_pure.get():
            raise ImpureCall("a draw in a pure operator")
        self.start()
        assert self._task is not None
        await asyncio.wait([self._task])
        error = self._task.exception()
        if error is not None:
            raise own_copy(error)
        return self._task.result()

    async def stream(self) -> AsyncIterator[str]:
        yield (await self).text


def own_copy(error: BaseException) -> BaseException:
    """An exception of the same kind for one awaiter alone."""
    copy = type(error).__new__(type(error))
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    if hasattr(error, "__notes__"):
        copy.__notes__ = list(error.__notes__)
    copy.__cause__ = error.__cause__
    return copy


class Reference:
    """Runs calls.

    Args:
        engine: What answers; started.
    """

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self.tasks: list[asyncio.Task[Any]] = []

    # --- models -----------------------------------------------------------------------------------

    def ask(self, text: str, inputs: list[Any], **options: Any) -> Handle:
        is_draw = options.get("temperature", 0) > 0 and options["seed"] is None
        if is_draw and _is_pure.get():
            raise ImpureCall("a draw in a pure operator")
        work = partial(self._answer, text, inputs, options)
        return Handle(self.tasks, work, is_draw=is_draw)

    async def _answer(self, text: str, inputs: list[Any], options: dict[str, Any]) -> Reply[Any]:
        names = ("max_tokens", "temperature", "seed", "n")
        sampling = {name: options[name] for name in names if name in options}
        texts = [_text_of(value) for value in await _values(inputs)]
        prompt = " ".join([text, *texts])
        work = self._attempts(prompt, sampling, options.get("schema"), options["retries"])
        return await _within(options["timeout"], work)

    async def _attempts(
        self, prompt: str, sampling: dict[str, Any], schema: Any, retries: int
    ) -> Reply[Any]:
        """Every attempt of a seeded draw has another seed; what does not fit is drawn anew."""
        adapter = None if schema is None else TypeAdapter(schema)
        json_schema = adapter and json.dumps(adapter.json_schema(), ensure_ascii=False)
        num_attempts = 1 if sampling.get("seed") is None else retries + 1
        for attempt in range(num_attempts):
            asked = dict(sampling)
            if asked.get("seed") is not None:
                asked["seed"] += attempt
            reply = await self._complete(prompt, Sampling(**asked), json_schema, retries)
            if adapter is None:
                return reply
            try:
                parsed = [adapter.validate_json(choice.text) for choice in reply.choices]
                return Reply(reply.choices, tuple(parsed))
            except ValidationError as error:
                if attempt == num_attempts - 1:
                    raise InvalidReply("it does not fit") from error
        raise AssertionError

    async def _complete(
        self, prompt: str, sampling: Sampling, json_schema: Any, retries: int
    ) -> Reply[None]:
        request = Request("", (ChatMessage("user", prompt),), [], sampling, json_schema)
        for attempt in range(retries + 1):
            try:
                return Reply((await self._engine.complete(request)).choices)
            except TransientEngineError:
                if attempt == retries:
                    raise
        raise AssertionError

    # --- operators --------------------------------------------------------------------------------

    def operator(
        self,
        fn: Callable[..., Any],
        *,
        is_pure: bool = False,
        retries: int = 0,
        timeout: float | None = None,
    ) -> Any:
        return _Operator(self.tasks, fn, is_pure, retries, timeout)

    async def gather(self, *awaitables: Any, return_exceptions: bool = False) -> Any:
        if not return_exceptions:
            return tuple(await _values(list(awaitables)))
        results: list[Any] = []
        for awaitable in awaitables:
            try:
                results.append(await awaitable)
            except Exception as error:
                results.append(error)
        return tuple(results)

    def map(self, fn: Callable[[Any], Awaitable[Any]], rows: Any, **options: Any) -> Any:
        return _Map(fn, rows, options["on_error"] == "collect")

    def is_direct(self, ref: Handle) -> bool:
        return False

    def ring(self, size: int) -> list[Any] | None:
        return [RefMisuse.__name__] * size


class _Operator:
    def __init__(
        self,
        tasks: list[asyncio.Task[Any]],
        fn: Callable[..., Any],
        is_pure: bool,
        retries: int,
        timeout: float | None,
    ) -> None:
        self._tasks = tasks
        self._fn = fn
        self._is_pure = is_pure
        self._retries = retries
        self._timeout = timeout

    def __call__(self, *args: Any) -> Handle:
        if _is_pure.get() and not self._is_pure:
            raise ImpureCall("a plain operator in a pure one")
        return Handle(self._tasks, partial(self._run, args))

    defer = __call__

    async def _run(self, args: tuple[Any, ...]) -> Any:
        args = tuple(await _values(list(args)))
        if self._is_pure:
            _is_pure.set(True)
        return await _within(self._timeout, self._attempts(args))

    async def _attempts(self, args: tuple[Any, ...]) -> Any:
        for attempt in range(self._retries + 1):
            try:
                return await self._fn(*args)
            except (TransientEngineError, InvalidReply):
                if attempt == self._retries:
                    raise
        raise AssertionError


class _Map:
    """The results of a map, one item after another."""

    def __init__(self, fn: Callable[[Any], Awaitable[Any]], rows: Any, collects: bool) -> None:
        self._fn = fn
        self._rows = rows
        self._collects = collects
        self._results = self.indexed()

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return (await anext(self._results))[1]

    async def __aenter__(self) -> _Map:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._results.aclose()  # type: ignore[attr-defined]

    async def indexed(self) -> AsyncIterator[tuple[int, Any]]:
        index = 0
        async for row in _each(self._rows):
            try:
                value = await self._fn(row)
            except Exception as error:
                if not self._collects:
                    text = repr(row)
                    text = text if len(text) <= 200 else text[:197] + "..."
                    error.add_note(f"in item {index}: {text}")
                    raise
                value = ItemError(index, row, error)
            yield index, value
            index += 1


async def _each(rows: Any) -> AsyncIterator[Any]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def _values(values: list[Any]) -> list[Any]:
    """The values of handles, begun at once; the first failure in their order is raised."""
    for value in values:
        if isinstance(value, Handle):
            value.start()
    return [await value if isinstance(value, Handle) else value for value in values]


async def _within(timeout: float | None, work: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(timeout) as scope:
            return await work
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise CallTimeout("it did not finish in time") from error


def _text_of(value: Any) -> str:
    return value.text if isinstance(value, Reply) else str(value)
