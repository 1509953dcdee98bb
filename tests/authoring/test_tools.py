"""Tools: told from signatures, called by models, checked, carried out, and remembered."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from helium_agents import (
    Session,
    ToolCall,
    agent_loop,
    assistant,
    gather,
    llm,
    operator,
    prompt,
    run_tools,
    tool,
    user,
)
from helium_agents.authoring.tool_schema import as_tool, tool_set
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply
from helium_agents.errors import (
    ImpureCall,
    InvalidReply,
    PromptError,
    RequestError,
    TokenBudgetExceeded,
)
from helium_agents.memo.memory import MemoryStore

pytestmark = pytest.mark.usefixtures("quiet_loop")


class Place(BaseModel):
    city: str
    country: str = "Italy"


def weather(place: Place, unit: Literal["C", "F"] = "C") -> str:
    """The weather.

    In degrees.
    """
    return f"20 {unit} in {place.city}, {place.country}"


async def add(first: int, second: Annotated[int, Field(description="Added to the first.")]) -> int:
    return first + second


NOTE = {
    "name": "note",
    "description": "Keep a note.",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
}


def calls(*asked: tuple[str, dict[str, Any]]) -> ScriptedReply:
    return ScriptedReply(tool_calls=[ToolCall(name, arguments) for name, arguments in asked])


def says(*answers: str | ScriptedReply) -> Callable[[Request], str | ScriptedReply]:
    """A script whose answer depends on how many results of tools there are."""

    def script(request: Request) -> str | ScriptedReply:
        return answers[sum(message.role == "assistant" for message in request.messages)]

    return script


# --- what the model is told ----------------------------------------------------------------------


def test_a_function_is_told_by_its_signature() -> None:
    told = as_tool(weather).as_json()["function"]
    assert told["name"] == "weather"
    assert told["description"] == "The weather.\n\nIn degrees."
    parameters = told["parameters"]
    assert list(parameters["properties"]) == ["place", "unit"]
    assert parameters["required"] == ["place"]
    assert parameters["properties"]["unit"]["enum"] == ["C", "F"]
    assert parameters["additionalProperties"] is False
    second = as_tool(add).parameters["properties"]["second"]
    assert second["description"] == "Added to the first."
    assert "description" not in as_tool(add).as_json()["function"]


def test_operators_methods_and_schemas_are_tools() -> None:
    class Shop:
        def __helium_version__(self) -> str:
            return "1"

        @operator
        async def price(self, item: str) -> str:
            return item

        def stock(self, item: str) -> str:
            return item

    shop = Shop()
    tools: list[Any] = [shop.price, shop.stock, operator(add), NOTE]
    tools.append({"type": "function", "function": NOTE | {"name": "other"}})
    found = tool_set(tools)
    assert [each.name for each in found.tools] == ["price", "stock", "add", "note", "other"]
    assert list(found.tools[0].parameters["properties"]) == ["item"]
    assert found.schemas[3]["function"] == NOTE


def unannotated(a) -> None:  # type: ignore[no-untyped-def]
    pass


def starred(*parts: str) -> None:
    pass


def odd(callback: Callable[[], int]) -> None:
    pass


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([unannotated], "auto", "'a' of the tool unannotated has no annotation"),
        ([starred], "auto", r"\*parts"),
        ([odd], "auto", "tool odd cannot be told"),
        ([], "auto", "at least one function"),
        ("weather", "auto", "at least one function"),
        ([3], "auto", "functions with annotated parameters"),
        ([{"name": ""}], "auto", "a JSON schema like"),
        ([weather, weather], "auto", "two of the name 'weather'"),
        ([weather], "add", "auto, none, required, weather"),
    ],
)
async def test_wrong_tools_are_refused(tools: Any, choice: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        llm(user("a"), tools=tools, tool_choice=choice)


async def test_tools_do_not_go_with_everything() -> None:
    with pytest.raises(RequestError, match="without tools="):
        llm(user("a"), tool_choice="required")
    with pytest.raises(RequestError, match="schema= does not go with tools="):
        llm(user("a"), tools=[add], schema=Place)  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="n=2"):
        llm(user("a"), tools=[add], n=2)


# --- what comes back -----------------------------------------------------------------------------


async def test_calls_are_read_as_the_function_wants_them() -> None:
    asked = calls(("weather", {"place": {"city": "Rome"}}), ("add", {"first": 1, "second": 2}))
    async with Session(ScriptedEngine(says(asked))):
        reply = await llm(user("a"), tools=[weather, add])
    assert reply.tool_calls == (
        ToolCall(
            "weather", {"place": Place(city="Rome")}, "call00000", '{"place":{"city":"Rome"}}'
        ),
        ToolCall("add", {"first": 1, "second": 2}, "call00001", '{"first":1,"second":2}'),
    )
    assert (reply.text, reply.reasoning) == ("", None)


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("add", {"first": "x", "second": 2}, "arguments of add do not fit: first: Input should be"),
        ("add", {"first": 1, "second": 2, "third": 3}, "third: Extra inputs"),
        ("sub", {}, "no tool 'sub': choose one of add, note"),
        ("note", {"text": 3}, "arguments of note do not fit"),
    ],
)
async def test_a_call_that_does_not_fit_says_so(
    name: str, arguments: dict[str, Any], error: str
) -> None:
    async with Session(ScriptedEngine(says(calls((name, arguments)), "x"))):
        reply = await llm(user("a"), tools=[add, NOTE])
        (call,) = reply.tool_calls
        assert error in str(call.error)
        assert call.arguments == arguments
        _, answer = await run_tools(reply, [add])
        assert str(answer.content).startswith("Error: ")
        with pytest.raises(InvalidReply, match=error):
            await run_tools(reply, [add], on_error="raise")


async def test_a_tool_that_must_be_called_is() -> None:
    async with Session(ScriptedEngine()):  # which by default calls with an example
        reply = await llm(user("a"), tools=[weather, add], tool_choice="add")
        assert [(call.name, call.error) for call in reply.tool_calls] == [("add", None)]
        reply = await llm(user("a"), tools=[weather, add], tool_choice="required")
        assert [call.error for call in reply.tool_calls] == [None]
        assert (await llm(user("a"), tools=[weather, add])).tool_calls == ()
    async with Session(ScriptedEngine({"a": "no"})):
        with pytest.raises(InvalidReply, match="calls no tool"):
            await llm(user("a"), tools=[add], tool_choice="required")
    async with Session(ScriptedEngine()):
        with pytest.raises(InvalidReply, match="larger max_tokens"):
            await llm(user("a"), tools=[add], tool_choice="add", max_tokens=1)


@pytest.mark.parametrize("choice", ["none", "note"])
async def test_a_call_that_the_choice_rules_out_is_none(choice: str) -> None:
    async with Session(ScriptedEngine(says(calls(("add", {"first": 1, "second": 2}))))):
        with pytest.raises(InvalidReply, match=f"calls add, which tool_choice='{choice}' rules"):
            await llm(user("a"), tools=[add, NOTE], tool_choice=choice)


async def test_reasoning_is_kept_apart_and_comes_back() -> None:
    memo = MemoryStore()
    for _ in range(2):
        engine = ScriptedEngine({"a": ScriptedReply("b", reasoning="hm"), "c": "d"})
        async with Session(engine, memo=memo):
            reply = await llm(user("a"))
            assert (reply.text, reply.reasoning) == ("b", "hm")
            assert (await llm(user("a"), assistant(reply), user("c"))).text == "d"
        asked = [request.messages[1].reasoning for request in engine.requests[1:]]
        assert asked == (["hm"] if engine.requests else [])


async def test_an_engine_that_calls_no_tools_says_so() -> None:
    class Plain(ScriptedEngine):
        calls_tools = False

    async with Session(Plain()):
        with pytest.raises(RequestError, match="calls no tools"):
            await llm(user("a"), tools=[add])
        with pytest.raises(RequestError, match="calls no tools"):
            await llm(user("a"), assistant("", [ToolCall("add", {})]))


# --- keys ----------------------------------------------------------------------------------------


async def keys_of(*asked: Any) -> list[bytes]:
    async with Session(ScriptedEngine()):
        return [make().node.key for make in asked]


async def test_all_that_the_model_is_told_is_in_the_key() -> None:
    call, other = ToolCall("add", {"first": 1}), ToolCall("add", {"first": 2})

    def ask(*messages: Any, **more: Any) -> Callable[[], Any]:
        return lambda: llm(user("a"), *messages, **more)

    different = [
        ask(),
        ask(tools=[add]),
        ask(tools=[weather]),
        ask(tools=[add, weather]),
        ask(tools=[weather, add]),
        ask(tools=[add], tool_choice="none"),
        ask(tools=[add], tool_choice="required"),
        ask(tools=[add], tool_choice="add"),
        ask(assistant("")),
        ask(assistant("", [call])),
        ask(assistant("", [other])),
        ask(assistant("", [call, other])),
        ask(assistant(""), tool("3", call)),
        ask(assistant("", [call]), tool("3", call)),
        ask(assistant("", [call]), tool("3", ToolCall("add", id="call00001"))),
        ask(assistant("", [call]), user("3")),
    ]
    keys = await keys_of(*different)
    assert len(set(keys)) == len(keys)
    assert await keys_of(*different) == keys


async def test_a_call_without_tools_has_the_key_that_it_had() -> None:
    (key,) = await keys_of(lambda: llm(user("a"), assistant("b"), user("c"), max_tokens=7))
    assert key.hex() == "66acc55737dd2045fd18d5eb44becbfa759bfd411366091a88ab33cc99eeeea1"


async def test_who_made_the_tool_decides_nothing() -> None:
    def add_too(
        first: int, second: Annotated[int, Field(description="Added to the first.")]
    ) -> int:
        return 0

    add_too.__name__ = "add"
    add_too.__annotations__ = add.__annotations__
    one, two = await keys_of(
        lambda: llm(user("a"), tools=[add]), lambda: llm(user("a"), tools=[add_too])
    )
    assert one == two


# --- conversations -------------------------------------------------------------------------------


async def test_a_conversation_with_calls_reaches_the_engine() -> None:
    engine = ScriptedEngine(says(calls(("add", {"first": 1, "second": 2})), "3"))
    async with Session(engine):
        history = [user("1 + 2?")]
        reply = await llm(*history, tools=[add])
        history += await run_tools(reply, [add])
        assert (await llm(*history, tools=[add])).text == "3"
    _, said, result = engine.requests[1].messages
    assert said.tool_calls == reply.tool_calls
    assert (result.role, result.content) == ("tool", "3")
    assert (result.tool_call_id, result.tool_name) == ("call00000", "add")
    assert engine.requests[1].tools[0]["function"]["name"] == "add"


async def test_a_result_may_be_a_ref() -> None:
    @operator
    async def late() -> str:
        return "late"

    engine = ScriptedEngine({"late": "x", "1 late": "y"})
    call = ToolCall("late")
    async with Session(engine):
        reply = await llm(user("a"), assistant("", [call]), tool(late(), call))
        assert reply.text == "x"
        said = tool(prompt("1 {it}", it=late()), call)
        assert (await llm(user("a"), assistant("", [call]), said)).text == "y"
    assert engine.requests[0].messages[1].tool_calls == (call,)


async def test_messages_about_tools_are_checked() -> None:
    with pytest.raises(PromptError, match="tool_calls"):
        assistant("", ["add"])  # type: ignore[list-item]
    with pytest.raises(PromptError, match="call="):
        tool("3", "call00000")  # type: ignore[arg-type]
    async with Session(ScriptedEngine()):
        with pytest.raises(PromptError, match="await it"):
            assistant(llm(user("a"), tools=[add]))


# --- carrying out --------------------------------------------------------------------------------


async def test_errors_of_tools_reach_the_model_or_raise() -> None:
    def fails(why: str) -> str:
        raise LookupError(why)

    engine = ScriptedEngine(says(calls(("fails", {"why": "no page"})), "sorry"))
    async with Session(engine):
        reply = await agent_loop(user("a"), tools=[fails])
        assert reply.text == "sorry"
        assert engine.requests[1].messages[2].content == "Error: LookupError: no page"
        with pytest.raises(LookupError, match="no page"):
            await agent_loop(user("a"), tools=[fails], on_error="raise")
    async with Session(ScriptedEngine()):
        with pytest.raises(RequestError, match="only a schema"):
            await run_tools(await llm(user("b"), tools=[NOTE], tool_choice="note"), [NOTE])


@operator
async def impure(why: str) -> str:
    return why


@operator(pure=True, version="1")
async def pure_agent(question: str) -> str:
    return (await agent_loop(user(question), tools=[impure])).text


async def test_errors_that_no_model_can_mend_are_raised() -> None:
    async def nested(why: str) -> str:
        return (await llm(user(why), max_tokens=5000)).text

    engine = ScriptedEngine(says(calls(("impure", {"why": "x"})), "told"))
    async with Session(engine, memo=MemoryStore()):
        for _ in range(2):  # nothing was remembered
            with pytest.raises(ImpureCall, match="impure"):
                await pure_agent("a")
    engine = ScriptedEngine(says(calls(("nested", {"why": "x"})), "told"))
    async with Session(engine, token_budget=2000):
        with pytest.raises(TokenBudgetExceeded):
            await agent_loop(user("a"), tools=[nested], max_tokens=50)
    assert engine.num_requests == 1


@pytest.mark.parametrize("max_turns", [0, -1, 2.5, True, "3"])
async def test_a_loop_has_a_whole_number_of_turns(max_turns: Any) -> None:
    async with Session(ScriptedEngine()):
        with pytest.raises(RequestError, match=r"max_turns=.*a whole number, at least 1"):
            await agent_loop(user("a"), tools=[add], max_turns=max_turns)


async def test_a_session_names_the_tools_that_run() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(page: str) -> str:
        begun.set()
        await may_end.wait()
        return page

    @operator
    async def agent(question: str) -> str:
        return (await agent_loop(user(question), tools=[slow])).text

    async with Session(ScriptedEngine(says(calls(("slow", {"page": "x"})), "y"))) as session:
        for ask in (agent, lambda question: agent_loop(user(question), tools=[slow])):
            begun.clear(), may_end.clear()
            asked = asyncio.ensure_future(gather(ask("a")))
            async with asyncio.timeout(60):
                await begun.wait()
            program, *below = session.waiting().splitlines()[2:]
            assert program == "  the program"
            assert below[-1].strip().startswith("the tool slow(page='x'): 0.0 s, its body runs")
            assert len(below) == (2 if ask is agent else 1)
            may_end.set()
            await asked
            assert "slow" not in session.waiting()


async def test_a_loop_of_six_turns_with_two_tools() -> None:
    def script(request: Request) -> str | ScriptedReply:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn == 5:
            return request.messages[-1].content
        if turn % 2:
            found = request.messages[-1].content.split()[0]
            return calls(("add", {"first": int(found), "second": turn}))
        return calls(("weather", {"place": {"city": f"city {turn}"}}))

    engine = ScriptedEngine(script)
    async with Session(engine) as session:
        reply = await agent_loop(user("How warm?"), tools=[weather, add])
        assert reply.text == "20 C in city 4, Italy"
        assert session.summary.num_computed == 6
    ids = [call.id for message in engine.requests[-1].messages for call in message.tool_calls]
    assert ids == [f"call{number:05d}" for number in range(5)]


async def test_the_last_turn_calls_no_tools() -> None:
    def script(request: Request) -> str | ScriptedReply:
        if request.tool_choice == "none":
            return "enough"
        return calls(("add", {"first": 1, "second": 2}))

    engine = ScriptedEngine(script)
    async with Session(engine):
        assert (await agent_loop(user("a"), tools=[add], max_turns=3)).text == "enough"
    assert engine.num_requests == 3


ran: list[str] = []


@operator(pure=True, version="1")
async def look_up(word: str) -> str:
    ran.append(word)
    return word.upper()


async def test_pure_tools_are_shared_and_others_run_for_each_call() -> None:
    def write(word: str) -> str:
        ran.append(word)
        return "done"

    twice = [("look_up", {"word": "a"})] * 2 + [("write", {"word": "b"})] * 2
    memo = MemoryStore()
    for runs in (["a", "b", "b"], ["b", "b"]):
        ran.clear()
        async with Session(ScriptedEngine(says(calls(*twice), "x")), memo=memo):
            assert (await agent_loop(user("a"), tools=[look_up, write])).text == "x"
        assert sorted(ran) == runs


PROGRAM = """
import asyncio, os, signal, sys
from helium_agents import LmdbStore, Session, ToolCall, agent_loop, operator, user
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply

@operator(pure=True, version="1")
async def look_up(word: str) -> str:
    print("looked up", word, flush=True)
    return word.upper()

async def script(request):
    turn = sum(message.role == "assistant" for message in request.messages)
    if turn == int(sys.argv[2]):
        await asyncio.sleep(1)  # what is done is stored at most 50 ms later
        os.kill(os.getpid(), signal.SIGKILL)
    if turn == 6:
        return "done"
    return ScriptedReply(tool_calls=[ToolCall("look_up", {"word": f"w{turn}"})])

async def main():
    async with Session(ScriptedEngine(script), memo=LmdbStore(sys.argv[1])) as session:
        print((await agent_loop(user("a"), tools=[look_up])).text, session.summary.num_computed)

asyncio.run(main())
"""


@pytest.mark.slow
def test_after_a_kill_no_pure_tool_runs_again(tmp_path: Path) -> None:
    memo = tmp_path / "memo"

    def run(dies_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(memo), str(dies_at)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ})

    killed = run(dies_at=4)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.split("\n")[:-1] == [f"looked up w{turn}" for turn in range(4)]
    resumed = run(dies_at=-1)
    assert resumed.stdout.splitlines() == ["looked up w4", "looked up w5", "done 3"]
