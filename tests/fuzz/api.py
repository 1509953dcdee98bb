"""What the interpreter asks of whoever runs a program: the package, or the reference beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Protocol

from helium_agents import Ref, Session, gather, llm, operator, prompt, user
from helium_agents.authoring.operator import Operator


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

    def __init__(self, session: Session) -> None:
        self._session = session

    def ask(self, text: str, inputs: list[Any], **options: Any) -> Ref[Any]:
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


def _made(
    fn: Callable[..., Any], is_pure: bool, retries: int, timeout: float | None
) -> Operator[..., Any]:
    if not is_pure:
        return operator(retries=retries, timeout=timeout)(fn)
    return operator(pure=True, version="1", retries=retries, timeout=timeout)(fn)


_operator = lru_cache(maxsize=128)(_made)
