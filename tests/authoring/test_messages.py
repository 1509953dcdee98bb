"""Messages and prompts: text is text, Refs are slots, and a Ref never passes for text."""

from __future__ import annotations

import asyncio
import doctest
import subprocess
import sys
import weakref
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents import (
    Message,
    Prompt,
    Ref,
    Session,
    assistant,
    gather,
    llm,
    operator,
    prompt,
    system,
    user,
)
from helium_agents.authoring import messages
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import HeliumError, PromptError, RefMisuse, SessionError

pytestmark = pytest.mark.usefixtures("quiet_loop")


@operator
async def words(text: str) -> list[str]:
    return text.split()


@operator
async def upper(text: str) -> str:
    return text.upper()


def conversations(engine: ScriptedEngine) -> list[list[tuple[str, str]]]:
    return [[message[:2] for message in request.messages] for request in engine.requests]


# --- prompts --------------------------------------------------------------------------------------


def test_a_prompt_without_refs_is_text() -> None:
    made = prompt("{a} and {b}, {{c}}, {a}", a="{salt}", b=3)
    assert str(made) == "{salt} and 3, {c}, {salt}"
    assert str(prompt("")) == ""
    assert str(prompt("{x}", x=made)) == str(made)
    assert str(prompt("{x}{y}", x=1.5, y=Decimal("2.50"))) == "1.52.50"


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z_0-9]{0,5}", fullmatch=True), st.text(), max_size=4)
)
def test_values_are_taken_as_they_are(values: dict[str, str]) -> None:
    template = "|".join(f"{{{name}}}" for name in values)
    assert str(prompt(template, **values)) == "|".join(values.values())


@given(st.text())
def test_doubled_braces_stand_for_braces(text: str) -> None:
    assert str(prompt(text.replace("{", "{{").replace("}", "}}"))) == text


@pytest.mark.parametrize(
    ("template", "values", "message"),
    [
        ("{a} {b}", {"a": 1}, r"slot \{b\}.*no value"),
        ("{a}", {"a": 1, "b": 2, "c": 3}, "no slot for b, c"),
        ("{", {}, "malformed.*{{"),
        ("a } b", {}, "malformed"),
        ("{}", {}, "not a plain name"),
        ("{0}", {}, "not a plain name"),
        ("{a:>3}", {"a": 1}, "not a plain name.*format the value"),
        ("{a!r}", {"a": 1}, "not a plain name"),
        ("{a.b}", {"a": 1}, "not a plain name"),
        ("{a[0]}", {"a": 1}, "not a plain name"),
        ("{a}", {"a": ["b"]}, r"slot \{a\}.*list.*string first"),
        ("{a}", {"a": None}, "NoneType"),
        ("{a}", {"a": True}, "bool"),
        ("{a}", {"a": b"b"}, "bytes"),
    ],
)
def test_malformed_prompts(template: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        prompt(template, **values)


async def test_slots_of_refs_are_filled_with_their_values(
    session: Session, engine: ScriptedEngine
) -> None:
    draft, count = llm(user("{draft}")), upper("x")
    made = prompt("1 {draft} 2 {count}{draft}", draft=draft, count=count)
    reply = await llm(system(made), user(prompt("{p}!", p=made)), assistant(draft), user(count))
    assert reply.text == "X"
    assert conversations(engine)[1] == [
        ("system", "1 {draft} 2 X{draft}"),
        ("user", "1 {draft} 2 X{draft}!"),
        ("assistant", "{draft}"),
        ("user", "X"),
    ]
    assert engine.num_requests == 2


async def test_the_same_conversation_however_it_was_composed(
    session: Session, engine: ScriptedEngine
) -> None:
    draft = llm(user("draft"))
    await gather(
        llm(user(prompt("a {x} b", x=draft))),
        llm(user(prompt("{y}{x} b", y="a ", x=draft))),
        llm(user(prompt("{z}", z=prompt("{y} {x} {w}", y="a", x=draft, w="b")))),
        llm(user("a draft b")),
        llm(user(f"a {await draft} b")),
    )
    assert engine.num_requests == 2
    assert session.summary.num_computed == 2


async def test_a_value_without_text_is_refused(session: Session) -> None:
    with pytest.raises(PromptError, match=r"words\(\.\.\.\).*list"):
        await llm(user(words("a b")))


@pytest.mark.parametrize("content", [["b"], None, True, b"b", {"a": 1}, llm, object()])
def test_content_without_text_is_refused_where_the_message_is_made(content: Any) -> None:
    for make in (system, user, assistant, lambda content: Message("user", content)):
        with pytest.raises(PromptError, match=rf"message is a {type(content).__name__}.*string"):
            make(content)


@pytest.mark.parametrize("role", ["robot", "", "User", None, 3, ["user"]])
def test_a_message_of_another_role_is_refused(role: Any) -> None:
    with pytest.raises(PromptError, match=r"role=.*system, user, assistant or tool"):
        Message(role, "a")


@pytest.mark.parametrize("template", [3, None, b"a", ["a"], Prompt(("a",))])
def test_a_template_must_be_text(template: Any) -> None:
    with pytest.raises(PromptError, match=r"template=.*text"):
        prompt(template)


@pytest.mark.parametrize("parts", ["ab", (3,), [("a",)], None])
def test_a_prompt_is_made_of_texts_and_refs(parts: Any) -> None:
    with pytest.raises(PromptError, match=r"parts=.*prompt"):
        Prompt(parts)


async def test_numbers_and_text_like_values_are_content(
    session: Session, engine: ScriptedEngine
) -> None:
    reply = await llm(user("a"))
    await llm(system(3), user(2.5), assistant(reply), user(Decimal("1.0")))  # type: ignore
    assert [text for _, text in conversations(engine)[1]] == ["3", "2.5", "a", "1.0"]


async def test_messages_must_be_messages(session: Session) -> None:
    with pytest.raises(PromptError, match=r"message 1 of llm.*str.*user\(\.\.\.\)"):
        llm(user("a"), "b")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="at least one message"):
        llm()


# --- a Ref is not its value -----------------------------------------------------------------------

FIXES = r"await ref.*prompt\(.*defer"


async def test_refs_are_no_text_and_no_truth_values(session: Session) -> None:
    ref = upper("a")
    with pytest.raises(RefMisuse, match=rf"upper.*text.*{FIXES}"):
        str(ref)
    for use in (
        lambda: f"{ref}",
        lambda: f"{ref:>10}",
        lambda: "{}".format(ref),  # noqa: UP032
        lambda: "%s" % ref,  # noqa: UP031
        lambda: "".join(map(str, [ref])),
    ):
        with pytest.raises(RefMisuse, match=FIXES):
            use()
    for use in (lambda: bool(ref), lambda: not ref, lambda: ref and 1, lambda: all([ref])):
        with pytest.raises(RefMisuse, match=f"truth value.*{FIXES}"):
            use()
    await ref


async def test_refs_are_no_sequences(session: Session) -> None:
    ref = words("a b")
    for use in (lambda: list(ref), lambda: [*ref], lambda: dict.fromkeys(ref)):  # type: ignore
        with pytest.raises(RefMisuse, match=FIXES):
            use()
    for use in (lambda: len(ref), lambda: ref[0], lambda: "a" in ref, lambda: ref + ref):  # type: ignore
        with pytest.raises(TypeError):
            use()
    assert await ref == ["a", "b"]


async def test_refs_are_not_compared_with_what_may_be_their_values(session: Session) -> None:
    ref, other = upper("a"), upper("a")
    for use in (
        lambda: ref == "A",
        lambda: ref == "A",
        lambda: ref != "A",
        lambda: ref == None,  # noqa: E711
        lambda: [ref] == ["A"],
        lambda: "A" in [ref],
        lambda: ref in ["A"],
        lambda: {"a": ref} == {"a": "A"},
    ):
        with pytest.raises(RefMisuse, match=f"compared.*{FIXES}"):
            use()
    with pytest.raises(TypeError):
        _ = ref < "A"  # type: ignore[operator]
    assert ref == ref and ref != other and ref in [other, ref] and [ref] == [ref]
    assert {ref: 1}[ref] == 1 and weakref.WeakKeyDictionary({ref: 1})[ref] == 1
    assert len(weakref.WeakSet([ref, other, ref])) == len({ref, other, ref}) == 2
    assert await gather(ref, other) == ("A", "A")


async def test_refs_compare_by_identity_under_asyncio(session: Session) -> None:
    refs = [upper(letter) for letter in "abc"]
    assert await asyncio.gather(*refs, refs[0]) == ["A", "B", "C", "A"]
    done, _ = await asyncio.wait([asyncio.ensure_future(ref) for ref in refs])
    assert {task.result() for task in done} == {"A", "B", "C"}
    assert sorted([await each for each in asyncio.as_completed(refs)]) == ["A", "B", "C"]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ref) for ref in refs]  # type: ignore[arg-type]
    assert [task.result() for task in tasks] == ["A", "B", "C"]
    assert await asyncio.wait_for(refs[0], 1) == "A"


async def test_refs_have_no_attributes_of_their_values(session: Session) -> None:
    ref = llm(user("a"))
    with pytest.raises(RefMisuse, match=r"\.text is an attribute.*\(await llm\(\.\.\.\)\)\.text"):
        _ = ref.text  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = ref.text  # type: ignore[attr-defined]
    assert not hasattr(ref, "text")
    assert not hasattr(ref, "_private") and not hasattr(ref, "__len__")
    assert getattr(ref, "text", "default") == "default"
    assert (await ref).text == "a"


async def test_refs_say_what_they_are(session: Session) -> None:
    ref = upper("a")
    assert "upper" in repr(ref) and "pending" in repr(ref)
    await ref
    assert "value" in repr(ref)
    other = upper("a")
    await other
    assert len({ref, ref, other}) == 2  # hashable, by identity


async def test_prompts_of_unfinished_calls_are_no_text(session: Session) -> None:
    made = prompt("a {x}", x=llm(user("b")))
    assert isinstance(made, Prompt)
    with pytest.raises(RefMisuse, match=FIXES):
        str(made)


@pytest.mark.parametrize("make", [lambda ref: f"{ref!r}", lambda ref: f"see {[ref]}", repr])
async def test_leaked_representations_are_found(session: Session, make: Any) -> None:
    ref = llm(user("a"))
    for content in (make(ref), prompt("x {y}", y=make(ref)), prompt(make(ref).replace("{", "{{"))):
        with pytest.raises(PromptError, match=r"representation of a Ref.*await it.*prompt\("):
            llm(system("a"), user(content))


async def test_representations_that_leak_through_a_value_are_found(
    session: Session, engine: ScriptedEngine
) -> None:
    @operator
    async def leaky() -> str:
        return f"see {[llm(user('a'))]}"

    with pytest.raises(PromptError, match="representation of a Ref"):
        await llm(user(prompt("{x}", x=leaky())))
    assert engine.num_requests == 0


async def test_text_about_refs_can_be_asked(session: Session, engine: ScriptedEngine) -> None:
    """Also the representation of a Ref, as somebody quotes it from another program."""
    command = [sys.executable, "-c", OTHER_PROGRAM]
    quoted = (await asyncio.to_thread(subprocess.check_output, command, text=True)).strip()
    assert quoted.startswith("<helium_agents Ref ")
    for text in (quoted, "what is <helium_agents Ref of?", "<helium_agents Ref ", quoted * 2):
        assert (await llm(user(text))).text == text
        assert (await llm(user(prompt("{x}", x=upper(text))))).text == text.upper()


OTHER_PROGRAM = """
import asyncio
from helium_agents import operator
@operator
async def upper(): ...
async def main():
    ref = upper()
    print(repr(ref))
    ref.close()
asyncio.run(main())
"""


# --- Refs and sessions ----------------------------------------------------------------------------


async def test_a_ref_of_another_session_is_no_input(session: Session) -> None:
    outer = llm(user("a"))
    async with Session(ScriptedEngine()):
        for use in (
            lambda: llm(user(outer)),
            lambda: llm(user(prompt("{x}", x=outer))),
            lambda: upper.defer(outer),
        ):
            with pytest.raises(SessionError, match="another session"):
                use()
    assert (await outer).text == "a"


async def test_a_ref_from_outside_any_session_is_no_input(engine: ScriptedEngine) -> None:
    outside = upper("a")
    async with Session(engine):
        with pytest.raises(HeliumError):
            await llm(user(outside))
    assert await outside == "A"


async def test_waiting_for_inputs_does_not_serialise_them(
    session: Session, engine: ScriptedEngine
) -> None:
    inputs = [llm(user(letter)) for letter in "abcd"]
    slots = {f"x{number}": ref for number, ref in enumerate(inputs)}
    await llm(user(prompt("{x0}{x1}{x2}{x3}", **slots)))
    assert engine.most_open == 4


def test_a_ref_is_a_coroutine_by_its_type() -> None:
    from collections.abc import Awaitable, Coroutine

    assert issubclass(Ref, Coroutine) and issubclass(Ref, Awaitable)


def test_the_docstrings_examples_run() -> None:
    result = doctest.testmod(messages)
    assert result.attempted and not result.failed
