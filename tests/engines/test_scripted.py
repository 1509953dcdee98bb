"""The scripted engine keeps the contract of a real one; its examples satisfy their schemas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from helium_agents.engines.engine import Capacity, ChatMessage, Choice, Delta, Request, Sampling
from helium_agents.engines.schema_example import example_json
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import EngineError, RequestError

CAPACITY = Capacity(1024, 16, 1024, 8)


def request(*texts: str, json_schema: str | None = None, **sampling: Any) -> Request:
    messages = tuple(ChatMessage("user", text) for text in texts or ("q",))
    return Request("id", messages, [1], Sampling(**sampling), json_schema)


async def text_of(engine: ScriptedEngine, *texts: str, **options: Any) -> str:
    return (await engine.complete(request(*texts, **options))).choices[0].text


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(capacity=CAPACITY)
    await engine.start()
    yield engine
    await engine.close()


# --- life ----------------------------------------------------------------------------------------


async def test_starting_and_closing() -> None:
    engine = ScriptedEngine(name="n", identity="i", capacity=CAPACITY)
    assert (engine.name, engine.identity(), engine.capacity) == ("n", "i", None)
    await asyncio.gather(engine.start(), engine.start())
    assert engine.is_started and engine.num_starts == 1
    assert engine.capacity == CAPACITY
    await engine.close()
    await engine.close()
    assert not engine.is_started and engine.capacity is None
    await engine.start()
    assert engine.num_starts == 2


async def test_asked_before_it_was_started() -> None:
    with pytest.raises(EngineError, match="before it was started"):
        await ScriptedEngine().complete(request())


async def test_counts(engine: ScriptedEngine) -> None:
    await asyncio.gather(*(engine.complete(request(text)) for text in "abc"))
    await engine.complete(request("d"))
    assert engine.num_requests == 4
    assert (engine.num_open, engine.most_open) == (0, 3)
    assert [r.messages[-1].content for r in engine.requests] == list("abcd")


async def test_keeps_requests_only_if_asked_to() -> None:
    engine = ScriptedEngine(keep_requests=False)
    await engine.start()
    await engine.complete(request())
    assert (engine.requests, engine.num_requests) == ([], 1)


async def test_cancelling_aborts() -> None:
    engine = ScriptedEngine(latency_s=60)
    await engine.start()
    task = asyncio.create_task(engine.complete(request()))
    await asyncio.sleep(0)
    assert engine.num_open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (engine.num_open, engine.aborted) == (0, ["id"])


# --- scripts -------------------------------------------------------------------------------------


async def test_a_mapping() -> None:
    engine = ScriptedEngine({"ping": "pong"})
    await engine.start()
    assert await text_of(engine, "first", "ping") == "pong"
    with pytest.raises(RequestError, match="no answer to 'pang'"):
        await engine.complete(request("pang"))


async def test_a_function_plain_or_async_or_failing() -> None:
    async def slow(asked: Request) -> str:
        await asyncio.sleep(0)
        return asked.messages[-1].content

    def failing(asked: Request) -> str:
        raise ValueError("the script's own")

    for script, expected in ((lambda asked: "plain", "plain"), (slow, "q")):
        engine = ScriptedEngine(script)
        await engine.start()
        assert await text_of(engine) == expected
    engine = ScriptedEngine(failing)
    await engine.start()
    with pytest.raises(ValueError, match="the script's own"):
        await engine.complete(request())
    assert engine.num_open == 0


async def test_by_default_the_whole_conversation_counts(engine: ScriptedEngine) -> None:
    questions = [("a", "b"), ("ab",), ("b",), ("a", "c"), ("b", "a")]
    assert len({await text_of(engine, *question) for question in questions}) == len(questions)
    assert await text_of(engine, "a", "b") == await text_of(engine, "a", "b")
    other_role = replace(request("b"), messages=(ChatMessage("system", "b"),))
    found = await engine.complete(other_role)
    assert found.choices[0].text != await text_of(engine, "b")


async def test_another_engine_says_the_same() -> None:
    texts = set()
    for _ in range(2):
        engine = ScriptedEngine()
        await engine.start()
        texts.add(await text_of(engine, "a"))
        texts.add(await text_of(engine, "a", temperature=1, seed=1))
    assert len(texts) == 2


# --- sampling ------------------------------------------------------------------------------------


async def test_draws(engine: ScriptedEngine) -> None:
    assert len({await text_of(engine, temperature=1) for _ in range(5)}) == 5
    seeded = {await text_of(engine, temperature=1, seed=seed) for seed in (1, 2, 1, 2)}
    assert len(seeded) == 2
    assert await text_of(engine) not in seeded


@pytest.mark.parametrize("options", [{"temperature": 1}, {"temperature": 1, "seed": 4}])
async def test_several_answers(engine: ScriptedEngine, options: dict[str, Any]) -> None:
    completion = await engine.complete(request(n=3, **options))
    assert len({choice.text for choice in completion.choices}) == 3


async def test_several_greedy_answers_are_the_same(engine: ScriptedEngine) -> None:
    completion = await engine.complete(request(n=3))
    assert len(completion.choices) == 3
    assert len(set(completion.choices)) == 1


async def test_limits_and_stop_strings() -> None:
    engine = ScriptedEngine(lambda asked: "one two  three four")
    await engine.start()

    async def choice(**options: Any) -> Choice:
        return (await engine.complete(request(**options))).choices[0]

    whole = await choice()
    assert (whole.text, whole.finish_reason, len(whole.token_ids)) == (
        "one two  three four",
        "stop",
        4,
    )
    assert await choice(max_tokens=4) == whole
    cut = await choice(max_tokens=3)
    assert (cut.text, cut.finish_reason) == ("one two  three", "length")
    assert cut.token_ids == whole.token_ids[:3]
    assert (await choice(stop=(" three",))).text == "one two "
    assert (await choice(stop=("four", "two"))).text == "one "
    both = await choice(stop=("four",), max_tokens=1)
    assert (both.text, both.finish_reason) == ("one", "length")


texts = st.text("ab \n", max_size=20)


@settings(max_examples=150, deadline=None)
@given(texts, st.integers(1, 9), st.integers(1, 9))
def test_cutting_is_the_same_as_asking_for_less(text: str, limit: int, shorter: int) -> None:
    async def main() -> None:
        engine = ScriptedEngine(lambda asked: text)
        await engine.start()
        long = (await engine.complete(request(max_tokens=limit))).choices[0]
        short = (await engine.complete(request(max_tokens=shorter))).choices[0]
        assert len(long.token_ids) <= limit
        assert text.startswith(long.text)
        if len(long.token_ids) > shorter:
            assert engine.truncate(long, shorter) == short
        await engine.close()
        assert engine.truncate(long, limit) == long, "works without a started engine"

    asyncio.run(main())


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(1, 9), st.sampled_from([(), ("b",), ("a b",)]))
def test_streamed_pieces_make_the_text(text: str, limit: int, stop: tuple[str, ...]) -> None:
    async def main() -> None:
        engine = ScriptedEngine(lambda asked: text)
        await engine.start()
        deltas: list[Delta] = []
        asked = request(max_tokens=limit, stop=stop, n=2)
        completion = await engine.complete(asked, deltas.append)
        for index, choice in enumerate(completion.choices):
            assert "".join(d.text for d in deltas if d.index == index) == choice.text
        assert (await engine.complete(asked)).choices == completion.choices

    asyncio.run(main())


# --- rendering -----------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "system"]), texts), min_size=1, max_size=4))
def test_rendering_keeps_prefixes(conversation: list[tuple[str, str]]) -> None:
    async def main() -> None:
        engine = ScriptedEngine()
        messages = [ChatMessage(*message) for message in conversation]
        whole = list(await engine.render(messages))
        parts = [list(await engine.render([message])) for message in messages]
        assert whole == [token for part in parts for token in part]
        assert all(parts), "each role is a token at least"
        assert all(0 <= token < 2**32 for token in whole)

    asyncio.run(main())


async def test_rendering_tells_roles_apart(engine: ScriptedEngine) -> None:
    user = await engine.render([ChatMessage("user", "a")])
    system = await engine.render([ChatMessage("system", "a")])
    assert user[0] != system[0]
    assert user[1:] == system[1:]
    assert len(user) == 2


# --- examples for schemas ------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    street: str = Field(min_length=3, max_length=5)
    number: int = Field(ge=1, le=3)


class Person(BaseModel):
    name: str
    age: Annotated[int, Field(gt=17, lt=20)]
    colour: Colour
    level: Level
    address: Address
    others: list[Address] = Field(min_length=2)
    nick: str | None = None
    kind: Literal["a", "b", 3] = "a"


class Tree(BaseModel):
    value: float
    left: Tree | None = None
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(min_length=20)


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pair: tuple[int, str]
    flags: dict[str, bool]


class Point(NamedTuple):
    x: int
    y: float


SCHEMAS: dict[str, Any] = {
    "Person": Person,
    "Tree": Tree,
    "Pets": Pets,
    "Colour": Colour,
    "Level": Level,
    "int": int,
    "float": Annotated[float, Field(gt=1, lt=1.5)],
    "bounded": Annotated[int, Field(ge=-3, le=-1)],
    "at most": Annotated[int, Field(le=-10)],
    "at most as number": Annotated[float, Field(le=-10)],
    "bool": bool,
    "str": str,
    "None": None,
    "long text": Annotated[str, Field(min_length=30)],
    "short text": Annotated[str, Field(max_length=2)],
    "list": list[int],
    "bounded list": Annotated[list[Colour], Field(min_length=2, max_length=3)],
    "empty list": Annotated[list[int], Field(max_length=0)],
    "set": set[int],
    "tuple": tuple[int, bool, str],
    "any tuple": tuple[int, ...],
    "named tuple": Point,
    "dict": dict[str, int],
    "Literal": Literal["a", "b"],
    "Optional": Optional[Person],  # noqa: UP045
    "Union": Union[int, list[str], Address],  # noqa: UP007
    "Any": Any,
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_examples_are_valid(name: str) -> None:
    adapter = TypeAdapter[Any](SCHEMAS[name])
    schema = json.dumps(adapter.json_schema())
    for seed in range(40):
        adapter.validate_json(example_json(schema, str(seed)))


def test_examples_depend_on_the_seed_alone() -> None:
    schema = json.dumps(TypeAdapter(Person).json_schema())
    assert example_json(schema, "1") == example_json(schema, "1")
    assert len({example_json(schema, str(seed)) for seed in range(20)}) > 10


async def test_a_request_with_a_schema(engine: ScriptedEngine) -> None:
    schema = json.dumps(TypeAdapter(Person).json_schema())
    text = await text_of(engine, json_schema=schema)
    assert Person.model_validate_json(text)
    assert await text_of(engine, json_schema=schema) == text
    others = {await text_of(engine, str(i), json_schema=schema) for i in range(10)}
    assert len(others) > 5, "it depends on the conversation"


def test_what_it_does_not_understand_is_documented() -> None:
    # formats are not understood: this is a text, not a date
    schema = json.dumps(TypeAdapter(date).json_schema())
    assert isinstance(json.loads(example_json(schema, "1")), str)


@pytest.mark.parametrize("text", [None, 3, b"x", ["a"]])
async def test_a_script_that_gives_no_text_is_told_so(text: Any) -> None:
    async def later(_: Request) -> Any:
        return text

    for script in (lambda _: text, later):
        engine = ScriptedEngine(script)
        await engine.start()
        with pytest.raises(TypeError, match="in place of text"):
            await engine.complete(request("q"))
    with pytest.raises(TypeError, match="script="):
        ScriptedEngine(3)  # type: ignore[arg-type]
