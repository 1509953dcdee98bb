"""What a function defines while it handles a request goes with it, as does all that it holds."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents import Session, llm, operator, user
from helium_agents.engines.scripted import ScriptedEngine


class Documents(list[str]):
    """Something large, to which references may be weak."""


Handler = Callable[[Session, Documents], Awaitable[Any]]
"""Returns what it has defined."""


async def ask(documents: Documents, at: int) -> str:
    return (await llm(user(f"{at}: {documents[at]}"), max_tokens=4)).text


async def an_operator(session: Session, documents: Documents) -> Any:
    @operator
    async def answer(at: int) -> str:
        return await ask(documents, at)

    await answer(1)
    return answer


async def a_mapped_function(session: Session, documents: Documents) -> Any:
    async def answer(at: int) -> str:
        return await ask(documents, at)

    assert len([each async for each in session.map(answer, range(3))]) == 3
    return answer


async def a_pure_operator_of_its_own_version(session: Session, documents: Documents) -> Any:
    @operator(pure=True, version="1")
    async def answer(at: int) -> str:
        return await ask(documents, at)

    await answer(1)
    return answer


async def a_pure_operator(session: Session, documents: Documents) -> Any:
    texts = tuple(documents)

    @operator(pure=True)
    async def answer(at: int) -> str:
        return texts[at] if at else await answer(at + 1)

    await answer(0)
    return answer


async def a_class_in_an_argument(session: Session, documents: Documents) -> Any:
    @dataclass
    class Row:
        at: int

        def text(self) -> str:
            return f"{len(documents)}"

    Row.__helium_version__ = "1"  # type: ignore[attr-defined]
    await length_of(Row(1))
    return Row


async def a_function_in_an_argument(session: Session, documents: Documents) -> Any:
    def shorten(text: str, most: int = len(documents)) -> str:
        return text[:most]

    await length_of(shorten)
    return shorten


async def a_tool(session: Session, documents: Documents) -> Any:
    def look_up(at: int) -> str:
        """A document."""
        return documents[at]

    await llm(user("Which?"), tools=[look_up], tool_choice="required")
    return look_up


async def a_schema(session: Session, documents: Documents) -> Any:
    class Place(BaseModel):
        at: int

        def text(self) -> str:
            return documents[self.at]

    for schema in (Place, list[Place], Place | None):
        await llm(user("Which?"), schema=schema)
    return Place


@operator(pure=True, version="1")
async def length_of(value: object) -> int:
    return len(str(value))


HANDLERS: list[Handler] = [
    an_operator,
    a_mapped_function,
    a_pure_operator_of_its_own_version,
    a_pure_operator,
    a_class_in_an_argument,
    a_function_in_an_argument,
    a_tool,
    a_schema,
]


async def handle(handler: Handler, memo: Path | None) -> list[weakref.ref[Any]]:
    documents = Documents("abc")
    async with Session(ScriptedEngine(), memo=memo) as session:
        defined = await handler(session, documents)
    return [weakref.ref(each) for each in (documents, session, defined)]


@pytest.mark.parametrize("is_remembered", [False, True])
@pytest.mark.parametrize("handler", HANDLERS)
async def test_nothing_outlives_its_request(
    handler: Handler, is_remembered: bool, tmp_path: Path
) -> None:
    found = await handle(handler, tmp_path / "memo" if is_remembered else None)
    gc.collect()
    assert [each() for each in found] == [None, None, None]
