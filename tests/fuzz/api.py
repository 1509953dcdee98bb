"""What the interpreter asks of whoever runs a program: the package, or the reference beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Protocol

from helium_agents import Ref, Session, gather, llm, operator, prompt, user
from helium_agents.authoring.operator import Operator
from helium_agents.errors import InvalidReply
from helium_agents.graph.reply_schema import reply_schema
from tests.fuzz.model import answer_to


class Api(Protocol):
    """Calls, by whoever makes them."""

    def ask(self, text: str, inputs: list[Any], **options: Any) -> Any:
        """`llm(...)` with a prompt of the text and the inputs, which are texts or Refs."""

    def operator(
        self,
        fn: Callable[..., Any],
        *,
        is_pure: bool = False,
        retries: int = 0,
        timeout: float | None = None,
    ) -> Any:
        """An operator of the function."""

    async def gather(self, *awaitables: Any, return_exceptions: bool = False) -> Any:
        """`gather(...)`."""

    def map(self, fn: Callable[[Any], Awaitable[Any]], rows: Any, **options: Any) -> Any:
        """`session.map(...)`."""

    def is_direct(self, ref: Any) -> bool:
        """Whether nothing of a Ref's awaiter is part of what computes it."""

    def ring(self, size: int) -> list[Any] | None:
        """What awaiting each of a ring of calls gives, where that is known beforehand."""


class Library:
    """The package."""

    def __init__(self, session: Session, guesses: str | None = None) -> None:
        self._session = session
        self._guesses = guesses

    def ask(self, text: str, inputs: list[Any], **options: Any) -> Ref[Any]:
        if self._guesses is not None and options.get("n", 1) == 1:
            options["predict"] = partial(guess_of, self._guesses, options)
        slots = {f"slot{number}": value for number, value in enumerate(inputs)}
        template = " ".join([text, *(f"{{{name}}}" for name in slots)])
        return llm(user(prompt(template, **slots) if slots else template), **options)

    def operator(
        self,
        fn: Callable[..., Any],
        *,
        is_pure: bool = False,
        retries: int = 0,
        timeout: float | None = None,
    ) -> Operator[..., Any]:
        make = _made if fn.__closure__ else _operator  # what closes over a run is not kept
        return make(fn, is_pure, retries, timeout)

    async def gather(self, *awaitables: Any, return_exceptions: bool = False) -> Any:
        return await gather(*awaitables, return_exceptions=return_exceptions)  # type: ignore[call-overload]

    def map(self, fn: Callable[[Any], Awaitable[Any]], rows: Any, **options: Any) -> Any:
        return self._session.map(fn, rows, **options)

    def is_direct(self, ref: Ref[Any]) -> bool:
        return ref.node.is_planned and not ref.node.inputs

    def ring(self, size: int) -> list[Any] | None:
        return None


def guess_of(kind: str, options: dict[str, Any], messages: Any) -> Any:
    """What a program predicts of a call: what the model will say, something else, or both."""
    schema = options.get("schema")
    asked = None if schema is None else reply_schema(schema)
    seed = options.get("seed") if options.get("temperature") else None
    text = answer_to(messages, seed, asked and asked.json_schema, is_draw=False)
    other = answer_to((*messages, messages[0]), seed, asked and asked.json_schema, is_draw=False)
    if kind == "mixed":
        kind = ("right", "wrong", "both", "none")[len(messages[-1].content) % 4]
    texts = {"right": [text], "wrong": [other], "both": [other, text], "none": []}[kind]
    try:
        return [(each if asked is None else asked.parse(each), 0.5) for each in texts]
    except InvalidReply:
        return None


def _made(
    fn: Callable[..., Any], is_pure: bool, retries: int, timeout: float | None
) -> Operator[..., Any]:
    if not is_pure:
        return operator(retries=retries, timeout=timeout)(fn)
    return operator(pure=True, version="1", retries=retries, timeout=timeout)(fn)


_operator = lru_cache(maxsize=128)(_made)
