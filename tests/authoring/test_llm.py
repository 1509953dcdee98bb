"""`llm(...)`: a wrong argument is refused where it is given, and reaches no equal call."""

from __future__ import annotations

import copy
import enum
import json
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents import Session, gather, llm, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import HeliumError, InvalidReply, PromptError, RequestError

pytestmark = pytest.mark.usefixtures("quiet_loop")


class Size(enum.IntEnum):
    SMALL = 8


class Mark(enum.StrEnum):
    END = "END"


WRONG: list[tuple[str, Any, str]] = [
    ("timeout", timedelta(seconds=3), r"timedelta.*seconds"),
    ("timeout", Decimal(3), "Decimal"),
    ("timeout", "3", "str"),
    ("timeout", True, "bool"),
    ("timeout", 0, "above 0"),
    ("timeout", -1, "above 0"),
    ("timeout", math.nan, "finite"),
    ("timeout", math.inf, "finite"),
    ("timeout", 10**400, "finite"),
    ("retries", -1, "at least 0"),
    ("retries", True, "bool"),
    ("retries", 2.0, "float"),
    ("retries", None, "NoneType"),
    ("share", "no", "str"),
    ("share", 1, "True or False"),
    ("model", 3, "int"),
    ("max_tokens", 2.5, "float"),
    ("max_tokens", 2.0, "float"),
    ("max_tokens", True, "bool"),
    ("max_tokens", 2**300, "at most"),
    ("max_tokens", 0, "at least 1"),
    ("max_tokens", [1], "list"),
    ("max_tokens", None, "NoneType"),
    ("temperature", "1", "str"),
    ("temperature", math.nan, "finite"),
    ("temperature", math.inf, "finite"),
    ("temperature", 10**400, "finite"),
    ("temperature", True, "bool"),
    ("temperature", Decimal(1), "Decimal"),
    ("temperature", -0.1, "at least 0"),
    ("top_p", 0, r"\(0, 1\]"),
    ("top_p", math.nan, "finite"),
    ("top_k", 1.5, "float"),
    ("top_k", -1, "at least 0"),
    ("min_p", "0", "str"),
    ("presence_penalty", 3, r"\[-2, 2\]"),
    ("frequency_penalty", math.nan, "finite"),
    ("repetition_penalty", 0, "above 0"),
    ("seed", 1.5, "float"),
    ("seed", 2**80, "at most"),
    ("seed", -1, "at least 0"),
    ("seed", True, "bool"),
    ("n", 0, "at least 1"),
    ("n", 1.0, "float"),
    ("n", 2**40, "at most"),
    ("stop", [1], r"\(1,\)"),
    ("stop", ["a", None], "None"),
    ("stop", [["a"]], "list"),
    ("stop", "", "empty"),
    ("stop", ["a", ""], "empty"),
    ("stop", b"a", "bytes"),
    ("stop", {"a"}, "set"),
    ("stop", 3, "int"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
async def test_a_wrong_argument_is_refused_where_it_is_given(
    session: Session, name: str, value: Any, message: str
) -> None:
    with pytest.raises(RequestError, match=f"{name}=.*{message}"):
        llm(user("a"), **{name: value})
    assert (await llm(user("a"))).text == "a"


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
async def test_an_equal_right_call_before_does_not_hide_a_wrong_argument(
    session: Session, name: str, value: Any, message: str
) -> None:
    for right in (2, 1, 1.0, "a", ("a",)):
        try:
            llm(user("a"), **{name: right})
        except HeliumError:
            continue
    with pytest.raises(RequestError, match=f"{name}=.*{message}"):
        llm(user("a"), **{name: value})


async def test_no_stop_strings_can_be_written_in_three_ways(
    session: Session, engine: ScriptedEngine
) -> None:
    await gather(*(llm(user("a"), stop=stop) for stop in (None, (), [])))
    assert engine.num_requests == 1


async def test_subclasses_of_numbers_and_text_count_as_what_they_are(
    session: Session, engine: ScriptedEngine
) -> None:
    await gather(
        llm(user("a"), max_tokens=8, stop="END"),
        llm(user("a"), max_tokens=Size.SMALL, stop=[Mark.END]),
        llm(user("a"), max_tokens=8, stop=(Mark.END,), temperature=-0.0),
    )
    assert engine.num_requests == 1
    sampling = engine.requests[0].sampling
    assert (type(sampling.max_tokens), type(sampling.stop[0])) == (int, str)


async def test_a_short_timeout_is_fine(session: Session) -> None:
    assert (await llm(user("a"), timeout=60, retries=0, share=False, model=None)).text == "a"


# --- schema= --------------------------------------------------------------------------------------

NUMBER: dict[str, Any] = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
}


def saying(text: str) -> ScriptedEngine:
    return ScriptedEngine(lambda _: text)


async def test_a_schema_may_be_a_json_schema() -> None:
    engine = saying('{"number": 3}')
    async with Session(engine):
        reply = await llm(user("a"), schema=NUMBER)
        assert reply.parsed == {"number": 3}
        assert json.loads(engine.requests[0].json_schema or "") == NUMBER
        first, second = await gather(*(llm(user("a"), schema=dict(NUMBER)) for _ in range(2)))
        assert first.parsed == second.parsed and first.parsed is not second.parsed
        assert engine.num_requests == 1


async def test_a_json_schema_that_is_changed_after_the_call_changes_nothing() -> None:
    schema = copy.deepcopy(NUMBER)
    async with Session(saying('{"number": 3}')):
        ref = llm(user("a"), schema=schema)
        schema["properties"]["number"]["type"] = "string"
        assert (await ref).parsed == {"number": 3}
        with pytest.raises(InvalidReply, match="not of type 'string'"):
            await llm(user("a"), schema=schema)


async def test_a_scripted_engine_answers_a_json_schema_by_example() -> None:
    async with Session(ScriptedEngine()):
        assert isinstance((await llm(user("a"), schema=NUMBER)).parsed["number"], int)


async def test_a_wrong_json_schema_is_refused_where_it_is_given(session: Session) -> None:
    with pytest.raises(PromptError, match=r"schema=.*'nonsense'.*\$\.type"):
        llm(user("a"), schema={"type": "nonsense"})


async def test_a_union_parses_in_its_own_order() -> None:
    class A(BaseModel):
        x: int

    class B(BaseModel):
        x: int

    async with Session(saying('{"x": 3}')):
        assert type((await llm(user("a"), schema=A | B)).parsed) is A
        assert type((await llm(user("a"), schema=B | A)).parsed) is B


async def test_a_reply_that_was_cut_under_a_schema_says_so() -> None:
    async with Session(saying('{"number": 3 }')):
        for schema in (NUMBER, dict[str, int]):
            with pytest.raises(InvalidReply, match=r"llm\(user\('a'\)\) was cut at max_tokens=2,"):
                await llm(user("a"), schema=schema, max_tokens=2)
