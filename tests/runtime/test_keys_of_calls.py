"""What tells one call from another, through a session: classes, changes, odd arguments, results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from helium_agents import Session, operator
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EncodingError
from helium_agents.memo.memory import MemoryStore


@dataclass
class Sayer:
    x: int = 1

    def say(self) -> str:
        return ""


def _say_something_new(_: Sayer) -> str:
    return "new"


def _class_that_says(word: str) -> Any:
    @dataclass
    class Row:
        x: int = 1

        def say(self) -> str:
            return word

    return Row


_limit = 1
_table = {"a": 1}


@operator(pure=True)
async def limited(x: int) -> tuple[int, int]:
    return x * _limit, _table["a"]


@operator(pure=True)
async def said(row: Any) -> str:
    text: str = row.say()
    return text


async def test_same_named_classes_do_not_share_an_answer() -> None:
    first, second = _class_that_says("a"), _class_that_says("b")
    async with Session(ScriptedEngine()):
        assert [await said(first()), await said(second())] == ["a", "b"]
        assert await said(_class_that_says("a")()) == "a"


async def test_an_edit_of_a_method_forgets_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = MemoryStore()
    async with Session(ScriptedEngine(), memo=memo):
        assert await said(Sayer()) == ""
    monkeypatch.setattr(Sayer, "say", _say_something_new)
    async with Session(ScriptedEngine(), memo=memo):
        assert await said(Sayer()) == "new"


async def test_a_global_that_changed_gives_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = MemoryStore()
    for _ in range(2):
        async with Session(ScriptedEngine(), memo=memo):
            assert await limited(3) == (3, 1)
            with monkeypatch.context() as patch:
                patch.setitem(globals(), "_limit", 2)
                assert await limited(3) == (6, 1)
                patch.setitem(_table, "a", 2)
                assert await limited(3) == (6, 2)
            assert await limited(3) == (3, 1)


async def test_an_answer_of_names_that_changed_meanwhile_is_not_remembered() -> None:
    memo = MemoryStore()
    async with Session(ScriptedEngine(), memo=memo):
        call = limited(3)
        globals()["_limit"] = 2
        try:
            assert await call == (6, 1)  # as the plain program has it
        finally:
            globals()["_limit"] = 1
    async with Session(ScriptedEngine(), memo=memo):
        assert await limited(3) == (3, 1)


# --- any argument --------------------------------------------------------------------------------


class _Loud:
    def __getattr__(self, name: str) -> Any:
        raise OSError(name)

    def __repr__(self) -> str:
        raise OSError

    def __eq__(self, other: object) -> bool:
        raise OSError

    def __hash__(self) -> int:
        raise OSError


class _Closed:
    def __getattribute__(self, name: str) -> Any:
        raise OSError(name)


@dataclass
class _LoudData:
    x: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise OSError(name)
        return object.__getattribute__(self, name)


def _made_by_exec() -> Any:
    namespace: dict[str, Any] = {}
    exec("def nowhere():\n    return 1\nclass Kind:\n    pass", namespace)
    return [namespace["nowhere"], namespace["Kind"]()]


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _cycle() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


ODD: dict[str, Callable[[], Any]] = {
    "without source": _made_by_exec,
    "raises": _Loud,
    "raises for every name": _Closed,
    "raises in a list": lambda: [_Loud()],
    "data that raises": _LoudData,
    "deep": lambda: _nested(100_000),
    "cyclic": _cycle,
    "a generator": lambda: (number for number in [1]),
    "a lock in a dict": lambda: {"a": [threading.Lock()]},
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize("is_optimized", [True, False])
async def test_plain_operators_and_rows_take_anything(
    make: Callable[[], Any], is_optimized: bool
) -> None:
    @operator
    async def kind(thing: Any) -> str:
        return type(thing).__name__

    thing = make()
    async with Session(ScriptedEngine(), share=is_optimized) as session:
        expected = type(thing).__name__
        assert await kind(thing) == await kind.defer(thing) == expected
        assert await kind.defer(thing=thing) == expected
        assert [it async for it in session.map(kind, [thing, thing, 1])] == [expected] * 2 + ["int"]


async def test_a_ref_beside_a_cycle_is_replaced_by_its_value() -> None:
    @operator
    async def one() -> int:
        return 1

    @operator
    async def second(_: Any, number: int) -> int:
        return number

    async with Session(ScriptedEngine()):
        assert await second.defer(_cycle(), one()) == 1


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
async def test_a_pure_operator_names_the_argument_that_it_cannot_take(
    make: Callable[[], Any],
) -> None:
    @operator(pure=True, version="1")
    async def kind(number: int, thing: Any) -> str:
        raise AssertionError

    async with Session(ScriptedEngine()):
        with pytest.raises(EncodingError, match=r"kind\(...\) is pure.* thing") as error:
            kind(1, make())
        assert error.value.path.startswith("thing")


_hashes: list[int] = []


@dataclass(frozen=True)
class _Once:
    """Can be put into a dict once."""

    x: int = 1

    def __hash__(self) -> int:
        if _hashes:
            raise OSError
        _hashes.append(1)
        return 1


async def test_a_pure_operator_names_the_argument_that_cannot_be_copied() -> None:
    @operator(pure=True, version="1")
    async def kind(number: int, thing: Any) -> str:
        raise AssertionError

    async with Session(ScriptedEngine()):
        with pytest.raises(EncodingError, match=r"kind\(...\) is pure.* thing cannot be copied"):
            kind(1, {_Once(): [1]})


# --- results -------------------------------------------------------------------------------------


async def test_a_result_that_cannot_be_read_again_is_refused_with_the_reason() -> None:
    @operator(pure=True, version="1")
    async def give(what: str) -> Any:
        values = {"local": [_class_that_says("a")()], "function": [_nested], "operator": [limited]}
        return values[what]

    for options in ({"memo": MemoryStore()}, {"share": False}):
        async with Session(ScriptedEngine(), **options):  # type: ignore[arg-type]
            with pytest.raises(EncodingError, match=r"give\(...\) is pure.*\[0\].*no class"):
                await give("local")
            for what in ("function", "operator"):
                with pytest.raises(EncodingError, match=r"give\(...\).*\[0\].*cannot be read"):
                    await give(what)
