"""Operators: plain ones run like the functions they are, pure ones once for equal arguments."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import re
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import pytest

from helium_agents import Ref, Session, gather, llm, operator, run, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    EncodingError,
    ImpureCall,
    OffLoopCall,
    OperatorDefinitionError,
    RefCancelled,
    RefMisuse,
    SessionError,
)

pytestmark = pytest.mark.usefixtures("quiet_loop")

log: list[Any] = []
mood: ContextVar[str] = ContextVar("mood", default="calm")


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    log.clear()


@operator
async def double(number: int) -> int:
    """Two times."""
    log.append(number)
    return 2 * number


@operator
async def wait_for(event: asyncio.Event) -> str:
    log.append("begin")
    try:
        await event.wait()
        return "done"
    finally:
        await asyncio.sleep(0)
        log.append("end")


@operator(pure=True, version="1")
async def words(text: str, *, counts: Counter[str] | None = None) -> list[str]:
    log.append(text)
    await asyncio.sleep(0)
    return text.split()


@operator(pure=True, version="1")
async def total(numbers: list[int]) -> int:
    await asyncio.sleep(0)
    log.append(list(numbers))
    return sum(numbers)


# --- definition -----------------------------------------------------------------------------------


def test_an_operator_looks_like_its_function() -> None:
    assert double.__name__ == "double"
    assert double.__doc__ == "Two times."
    assert double.__module__ == __name__
    assert list(inspect.signature(double).parameters) == ["number"]


@dataclass(frozen=True)
class Team:
    name: str

    @operator
    async def greet(self, other: str) -> str:
        return f"{self.name} greets {other}"

    @operator(pure=True, version="1")
    async def motto(self, length: int) -> str:
        log.append(self.name)
        return self.name * length

    @staticmethod
    @operator
    async def size(number: int) -> int:
        return number

    @classmethod
    @operator
    async def made(cls, name: str) -> Team:
        return cls(name)


@pytest.mark.parametrize(
    "made", [double, words, Team.greet, Team("a").greet, Team("a").motto, Team.size]
)
def test_inspection_takes_operators_for_coroutine_functions(made: Callable[..., Any]) -> None:
    assert inspect.iscoroutinefunction(made)
    assert asyncio.iscoroutinefunction(made)
    assert inspect.iscoroutinefunction(functools.partial(made, 1))
    assert callable(made) and not inspect.isclass(made)


def test_generators_and_synchronous_functions_are_refused() -> None:
    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    def synchronous() -> Iterator[int]:
        yield 1

    for fn in (asynchronous, synchronous):
        for decorate in (operator, operator(pure=True)):
            with pytest.raises(OperatorDefinitionError, match=rf"{fn.__name__}.*generator"):
                decorate(fn)
    with pytest.raises(OperatorDefinitionError, match="async def"):
        operator(lambda: 1)
    with pytest.raises(TypeError, match="under @staticmethod"):
        operator(staticmethod(double))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retries", -1),
        ("retries", True),
        ("retries", 1.0),
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", math.nan),
        ("timeout", "3"),
        ("timeout", timedelta(seconds=3)),
        ("pure", "yes"),
        ("version", 1),
        ("version", ""),
        ("name", 3),
        ("name", ""),
    ],
)
def test_options_are_checked(name: str, value: Any) -> None:
    async def fn() -> None: ...

    with pytest.raises(OperatorDefinitionError, match=rf"fn.*{name}={re.escape(repr(value))}"):
        operator(**{name: value})(fn)


def test_what_is_no_function_is_refused_with_what_to_write_instead() -> None:
    async def fn(a: int, b: int) -> int:
        return a + b

    class Asked:
        async def __call__(self) -> None: ...

    for made, fix in (
        (functools.partial(fn, 1), r"partial\(operator\(fn\), \.\.\.\)"),
        (functools.partial(functools.partial(fn, 1), b=2), r"partial\(operator\(fn\)"),
        (Asked(), "__call__"),
        (Asked, "async def"),
        (double, "already an operator"),
        (Team("a").greet, "already an operator"),
        ("fn", "async def"),
        (3, "async def"),
    ):
        with pytest.raises(OperatorDefinitionError, match=fix):
            operator(made)


async def test_a_partial_of_an_operator_shares_with_the_whole_call(session: Session) -> None:
    half = functools.partial(operator(pure=True, version="1")(add), 1)
    other = functools.partial(operator(pure=True, version="1")(add), b=2)
    assert await gather(half(2), half(3), other(1), other(2)) == (3, 4, 3, 4)
    assert sorted(log) == [(1, 2), (1, 3), (2, 2)]


async def add(a: int, b: int = 0) -> int:
    log.append((a, b))
    return a + b


async def test_a_pure_operator_cannot_be_made_of_a_bound_method(session: Session) -> None:
    class Adder:
        def __init__(self, number: int) -> None:
            self.number = number

        async def add(self, other: int) -> int:
            return self.number + other

    with pytest.raises(OperatorDefinitionError, match=r"add.*bound.*@operator.*class"):
        operator(pure=True, version="1")(Adder(1).add)
    one, two = operator(Adder(1).add), operator(Adder(2).add)
    assert await gather(one(1), two(1)) == (2, 3)


async def test_a_pure_wrapper_is_called_as_it_was(session: Session) -> None:
    """Its key must not bind to the signature of what it wraps, which may be another."""

    def more(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(a: int, b: int = 10) -> Any:
            return await fn(a, b)

        return wrapper

    def given(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def wrapper(b: int) -> Any:
            return await fn(5, b)

        return wrapper

    for wrap, args, expected in ((more, (1,), 11), (given, (1,), 6)):
        assert await wrap(add)(*args) == expected
        assert await operator(pure=True, version="1")(wrap(add))(*args) == expected


# --- plain calls ----------------------------------------------------------------------------------


async def test_nothing_runs_until_it_is_awaited(session: Session) -> None:
    ref = double(2)
    await asyncio.sleep(0.01)
    assert log == []
    assert await ref == 4
    assert log == [2]


async def test_awaited_many_times_it_runs_once(session: Session) -> None:
    ref = double(2)
    assert [await ref, await ref, *await asyncio.gather(ref, ref)] == [4, 4, 4, 4]
    assert log == [2]


async def test_each_call_runs_for_itself(session: Session) -> None:
    assert await gather(double(2), double(2)) == (4, 4)
    assert log == [2, 2]


async def test_it_runs_in_the_task_of_its_first_awaiter(session: Session) -> None:
    @operator
    async def task_of() -> asyncio.Task[Any] | None:
        return asyncio.current_task()

    ref = task_of()
    assert await ref is asyncio.current_task()
    assert await asyncio.create_task(ref) is asyncio.current_task()
    task = asyncio.create_task(task_of())
    assert await task is task


async def test_context_variables_that_it_sets_are_seen_by_its_caller(session: Session) -> None:
    @operator
    async def cheer() -> None:
        mood.set("happy")

    await cheer()
    assert mood.get() == "happy"
    token = mood.set("sad")
    await gather(cheer(), cheer())  # in tasks of their own, as with asyncio.gather
    assert mood.get() == "sad"
    mood.reset(token)


async def test_its_finally_runs_before_its_caller_goes_on(session: Session) -> None:
    event = asyncio.Event()
    event.set()
    assert await wait_for(event) == "done"
    log.append("caller")
    assert log == ["begin", "end", "caller"]


async def test_a_second_awaiter_while_it_runs(session: Session) -> None:
    event = asyncio.Event()
    ref = wait_for(event)
    tasks = [asyncio.create_task(ref) for _ in range(3)]
    await asyncio.sleep(0)
    assert log == ["begin"]
    event.set()
    assert [await task for task in tasks] == ["done"] * 3
    assert log == ["begin", "end"]


async def test_its_first_awaiter_is_cancelled(session: Session) -> None:
    ref = wait_for(asyncio.Event())
    first, second = asyncio.create_task(ref), asyncio.create_task(ref)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(RefCancelled, match=r"wait_for\(\.\.\.\)"):
        await second
    with pytest.raises(RefCancelled):
        await ref
    assert first.cancelled()
    assert log == ["begin", "end"]


async def test_recursion(session: Session) -> None:
    @operator
    async def factorial(number: int) -> int:
        return 1 if number == 0 else number * await factorial(number - 1)

    assert await factorial(60) == functools.reduce(lambda a, b: a * b, range(1, 61))


async def test_it_cannot_await_itself(session: Session) -> None:
    refs: list[Ref[Any]] = []

    @operator
    async def ouroboros() -> Any:
        return await refs[0]

    refs.append(ouroboros())
    with pytest.raises(RefMisuse, match=r"ouroboros.*its own result"):
        await refs[0]


async def test_a_pure_operator_that_asks_for_itself_fails_rather_than_hangs(
    session: Session,
) -> None:
    @operator(pure=True, version="1")
    async def circular(number: int) -> int:
        return await circular(number)

    async with asyncio.timeout(60):
        with pytest.raises(RefMisuse, match="circular"):
            await circular(1)


async def test_methods(session: Session) -> None:
    red, blue = Team("red"), Team("blue")
    assert await gather(red.greet("a"), blue.greet("b"), Team.greet(red, "c")) == (
        "red greets a",
        "blue greets b",
        "red greets c",
    )
    assert await gather(red.motto(2), Team("red").motto(2), blue.motto(2)) == (
        "redred",
        "redred",
        "blueblue",
    )
    assert sorted(log) == ["blue", "red"]
    assert await Team.size(3) == await red.size(3) == 3
    assert await Team.made("green") == Team("green")


async def test_pure_methods_need_an_encodable_self(session: Session) -> None:
    class Opaque:
        @operator(pure=True, version="1")
        async def method(self) -> int:
            return 1

    with pytest.raises(EncodingError, match="method"):
        Opaque().method()


async def test_arguments_of_plain_operators_are_passed_as_they_are(session: Session) -> None:
    @operator
    async def add(numbers: list[int], other: Ref[int]) -> int:
        numbers.append(1)
        return await other

    numbers = [0]
    assert await add(numbers, double(2)) == 4
    assert numbers == [0, 1]


async def test_outside_a_session_operators_run_inline() -> None:
    assert await double(2) == 4
    assert await words("a b") == ["a", "b"]
    assert await double.defer(double(2)) == 8
    with pytest.raises(SessionError, match=r"needs a session.*helium_agents\.run"):
        await llm(user("a"))
    with pytest.raises(SessionError, match="needs a session"):
        double(2).start()


# --- un-awaited calls -----------------------------------------------------------------------------


async def caught_warnings(program: Callable[[], Any]) -> list[warnings.WarningMessage]:
    """What a program warns of that runs in a session."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with Session(ScriptedEngine()) as session:
            await program() if not inspect.signature(program).parameters else await program(session)
    return caught


async def test_a_call_that_was_never_awaited_is_warned_of_with_its_place() -> None:
    async def program() -> None:
        double(1)
        words("pure calls may be left")
        llm(user("model calls too"))
        Team("red").greet("a")
        double.defer(2)

    found = await caught_warnings(program)
    first_line = inspect.getsourcelines(program)[1]
    assert [(w.category, w.filename, w.lineno - first_line) for w in found] == [
        (RuntimeWarning, __file__, 1),
        (RuntimeWarning, __file__, 4),
        (RuntimeWarning, __file__, 5),
    ]
    assert "double(...)" in str(found[0].message) and "never awaited" in str(found[0].message)


async def test_calls_that_were_taken_care_of_are_not_warned_of() -> None:
    async def program() -> None:
        await double(1)
        double(2).start()
        double(3).close()
        task = asyncio.create_task(double(4))
        task.cancel()
        await asyncio.wait([task])
        await double.defer(double(5))

    assert await caught_warnings(program) == []


async def test_no_warning_where_the_program_failed() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ZeroDivisionError):
            async with Session(ScriptedEngine()):
                double(1)
                raise ZeroDivisionError
    assert caught == []


async def test_no_warning_after_a_failed_gather() -> None:
    @operator
    async def fail() -> None:
        raise KeyError

    async def program() -> None:
        with pytest.raises(KeyError):
            await gather(fail(), double(1), double(2))
        with pytest.raises(KeyError):
            await gather(double(1), fail(), wait_for(asyncio.Event()))

    assert await caught_warnings(program) == []


async def test_no_warning_after_a_break() -> None:
    @operator
    async def item(number: int) -> int:
        first, second = double(number), double(number)
        if number:
            await asyncio.Event().wait()  # until the break
        return await first + await second

    async def program(session: Session) -> None:
        async for _ in session.map(item, range(5)):
            break

    assert await caught_warnings(program) == []


async def test_no_warning_of_what_a_failed_call_had_made() -> None:
    @operator
    async def fail(number: int) -> int:
        first, second = double(number), double(number)
        await first
        raise KeyError(await second if number < 0 else number)

    async def program(session: Session) -> None:
        async for _ in session.map(fail, range(5), on_error="collect"):
            pass

    assert await caught_warnings(program) == []


# --- off the loop ---------------------------------------------------------------------------------


def test_a_call_in_a_synchronous_program_is_refused() -> None:
    for call in (lambda: double(1), lambda: words("a"), lambda: words.defer("a")):
        with pytest.raises(OffLoopCall, match=r"helium_agents\.run\((double|words), \.\.\.\)"):
            call()
    with pytest.raises(RuntimeError, match="llm"):
        llm(user("a"))


async def test_a_call_in_a_thread_is_refused(session: Session) -> None:
    loop = asyncio.get_running_loop()
    for call in (lambda: double(1), lambda: words("a"), lambda: llm(user("a"))):
        with pytest.raises(OffLoopCall, match="thread"):
            await asyncio.to_thread(call)
        with pytest.raises(OffLoopCall):
            await loop.run_in_executor(None, call)
        with pytest.raises(OffLoopCall):
            await anyio.to_thread.run_sync(call)
    errors: list[BaseException] = []

    def target() -> None:
        try:
            double(1)
        except OffLoopCall as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(errors) == 1


async def test_a_call_in_a_thread_with_another_loop_is_refused(session: Session) -> None:
    async def elsewhere() -> int:
        return await double(1)

    with pytest.raises(SessionError, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))


async def test_a_ref_in_a_thread_with_another_loop_is_refused(session: Session) -> None:
    async def elsewhere(ref: Ref[Any]) -> Any:
        return await ref

    for ref in (double(1), words("a")):
        with pytest.raises(SessionError, match="another event loop"):
            await asyncio.to_thread(lambda ref=ref: asyncio.run(elsewhere(ref)))
        await ref


# --- pure calls -----------------------------------------------------------------------------------


async def test_the_body_runs_once_for_equal_calls(session: Session) -> None:
    refs = [words("a b") for _ in range(5)]
    assert await gather(*refs) == (["a", "b"],) * 5
    assert await words(text="a b", counts=None) == ["a", "b"]  # as later, and spelt differently
    assert log == ["a b"]
    assert session.summary.operators_by_source["body"] == 1
    assert await words("a  b") == ["a", "b"]
    assert log == ["a b", "a  b"]


async def test_without_sharing_every_call_runs(engine: ScriptedEngine) -> None:
    async with Session(engine, share=False, rules=()):
        refs = [words("a b") for _ in range(3)]
        await gather(*refs, *refs)
    assert log == ["a b"] * 3


async def test_arguments_are_frozen_when_the_call_is_made(session: Session) -> None:
    numbers = [1, 2]
    ref = total(numbers)
    numbers.append(3)
    other = total(numbers)
    numbers.clear()
    assert await gather(ref, other) == (3, 6)
    assert sorted(log) == [[1, 2], [1, 2, 3]]


async def test_arguments_are_frozen_without_a_session_too() -> None:
    numbers = [1, 2]
    ref = total(numbers)
    numbers.append(3)
    assert await ref == 3


async def test_nested_arguments_are_frozen(session: Session) -> None:
    @dataclass
    class Row:
        tags: dict[str, list[str]] = field(default_factory=dict)

    @operator(pure=True, version="1")
    async def tags(row: dict[str, Any]) -> str:
        return str(row)

    row = {"a": [{"b": [1]}], "c": Row({"d": ["e"]}).tags}
    expected = str(row)
    ref = tags(row)
    row["a"][0]["b"].append(2)
    row["c"]["d"].append("f")
    assert await ref == expected


async def test_a_body_that_changes_its_arguments_harms_nobody(session: Session) -> None:
    @operator(pure=True, version="1", retries=0)
    async def pop(numbers: list[int]) -> int:
        return numbers.pop()

    numbers = [1, 2]
    assert [await pop(numbers), await pop(numbers), await pop([1, 2])] == [2, 2, 2]
    assert numbers == [1, 2]


async def test_results_are_independent_copies(session: Session) -> None:
    refs = [words("a b"), words("a b")]
    first, second = await gather(*refs)
    assert first == second and first is not second
    first.append("c")
    assert second == ["a", "b"]
    assert await words("a b") == ["a", "b"]
    assert await refs[1] == ["a", "b"]


async def test_a_result_that_its_body_keeps_is_copied(session: Session) -> None:
    kept = ["a"]

    @operator(pure=True, version="1")
    async def keep() -> list[str]:
        return kept

    value = await keep()
    kept.append("b")
    assert value == ["a"]
    assert await keep() == ["a"]


async def test_results_must_be_encodable(session: Session) -> None:
    @operator(pure=True, version="1")
    async def opaque() -> object:
        return [object()]

    with pytest.raises(EncodingError, match=r"opaque.*\[0\]"):
        await opaque()


async def test_arguments_must_be_encodable(session: Session) -> None:
    with pytest.raises(EncodingError, match=r"words.*text"):
        words(object())
    assert log == []


async def test_wrong_arguments_are_refused_at_the_call(session: Session) -> None:
    with pytest.raises(TypeError, match="text"):
        words()


async def test_its_body_runs_in_the_context_of_the_session(engine: ScriptedEngine) -> None:
    @operator(pure=True, version="1")
    async def feel(number: int) -> str:
        before = mood.get()
        mood.set("odd")
        return before

    mood.set("calm")
    async with Session(engine):
        mood.set("hectic")
        assert await feel(1) == "calm"
        assert await asyncio.create_task(feel(2)) == "calm"
        assert await feel.defer(feel(3)) == "calm"
        assert mood.get() == "hectic"
    mood.set("calm")


async def test_its_body_runs_in_a_task_of_the_session(session: Session) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    @operator(pure=True, version="1")
    async def task_of() -> None:
        tasks.append(asyncio.current_task())

    await task_of()
    assert tasks != [asyncio.current_task()]


# --- purity ---------------------------------------------------------------------------------------


async def impure_operator() -> None:
    await double(1)


async def impure_deferred() -> None:
    await double.defer(1)


async def unseeded_sample() -> None:
    await llm(user("a"), temperature=1.0)


async def session_inside() -> None:
    async with Session(ScriptedEngine()):
        pass


async def impure_in_a_task() -> None:
    await asyncio.create_task(asyncio.wait_for(double(1), 1))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (impure_operator, r"double\(\.\.\.\) is not pure.*pure=True"),
        (impure_deferred, r"double\(\.\.\.\) is not pure"),
        (unseeded_sample, "seed="),
        (session_inside, "session"),
        (impure_in_a_task, "double"),
    ],
)
async def test_pure_bodies_may_not_be_impure(
    engine: ScriptedEngine, body: Callable[[], Any], message: str
) -> None:
    pure = operator(pure=True, version="1")(body)
    with pytest.raises(ImpureCall, match=message):  # also where nothing is shared
        await pure()
    async with Session(engine):
        with pytest.raises(ImpureCall, match=message):
            await pure()
    async with Session(engine, share=False, rules=()):
        with pytest.raises(ImpureCall, match=message):
            await pure()
    assert log == []
    assert engine.num_requests == 0


async def test_a_map_inside_a_pure_operator_is_pure_too(session: Session) -> None:
    async def mapped() -> list[int]:
        return [number async for number in session.map(double, [1])]

    with pytest.raises(ImpureCall, match="double"):
        await operator(pure=True, version="1")(mapped)()
    assert log == []


async def test_what_is_deterministic_may_be_asked_in_pure_operators(session: Session) -> None:
    @operator(pure=True, version="1")
    async def pure() -> list[str]:
        replies = await gather(llm(user("a")), llm(user("b"), temperature=1.0, seed=1))
        return [*(reply.text for reply in replies), *await words("c d")]

    assert await pure() == ["a", "b", "c", "d"]


async def test_a_pure_call_inside_a_plain_one_inside_a_pure_one_is_refused(
    session: Session,
) -> None:
    @operator
    async def plain() -> list[str]:
        return await words("a")

    @operator(pure=True, version="1")
    async def pure() -> list[str]:
        return await plain()

    assert await plain() == ["a"]
    with pytest.raises(ImpureCall, match=r"plain.*pure"):
        await pure()


# --- Refs as arguments ----------------------------------------------------------------------------


async def test_pure_operators_refuse_refs(session: Session) -> None:
    ref = words("a")
    for call in (
        lambda: words(ref),
        lambda: words(text=ref),
        lambda: total([1, ref]),
        lambda: total([{"a": (ref,)}]),
    ):
        with pytest.raises(RefMisuse, match=r"was given the Ref of words.*\.defer"):
            call()


async def test_defer_hands_over_the_values(session: Session) -> None:
    @operator(pure=True, version="1")
    async def nested(value: Any, *, named: Any = None) -> list[Any]:
        return [value, named]

    one, two = total([1]), total([2])
    assert await nested.defer(one) == [1, None]
    assert await nested.defer([one, (two, {"a": one})], named={"b": [two]}) == [
        [1, (2, {"a": 1})],
        {"b": [2]},
    ]
    assert await double.defer(two) == 4
    assert await double.defer(number=double(2)) == 8
    assert await nested.defer(double(3)) == [6, None]  # a plain call's value


async def test_a_deferred_call_equals_the_direct_one(session: Session) -> None:
    first = await total.defer([total([1, 2]), 4])
    second = await total([3, 4])
    assert first == second == 7
    assert log.count([3, 4]) == 1


async def test_an_input_runs_once_however_often_it_is_used(session: Session) -> None:
    one = double(1)
    assert await gather(total.defer([one, one]), total.defer([one]), one) == (4, 2, 2)
    assert log.count(1) == 1


async def test_a_deferred_call_whose_input_is_awaited_elsewhere_too(session: Session) -> None:
    event = asyncio.Event()
    ref = wait_for(event)
    task = asyncio.create_task(words.defer(ref))
    other = asyncio.create_task(ref)
    await asyncio.sleep(0.005)
    event.set()
    assert await task == ["done"]
    assert await other == "done"


async def test_a_failed_input_fails_the_deferred_call(session: Session) -> None:
    @operator
    async def fail() -> str:
        raise KeyError("x")

    ref = fail()
    for deferred in (words.defer(ref), double.defer(ref)):
        with pytest.raises(KeyError, match="x"):
            await deferred
    assert log == []


async def test_frozen_inside_deferred_calls(session: Session) -> None:
    numbers = [1]
    ref = total.defer([total([1]), *numbers])
    late = total.defer(numbers)
    numbers.append(5)
    assert await ref == 2
    assert await late == 1


# --- odd arguments --------------------------------------------------------------------------------


def odd_arguments() -> list[Any]:
    """A list in itself, and a dict in itself."""
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    keyed: dict[str, Any] = {}
    keyed["self"] = keyed
    return [cyclic, keyed]


async def test_pure_operators_refuse_arguments_that_contain_themselves(session: Session) -> None:
    for odd in odd_arguments():
        with pytest.raises(EncodingError, match=r"total.*contains itself"):
            total(odd)


async def test_plain_operators_take_arguments_that_contain_themselves(session: Session) -> None:
    @operator
    async def first(value: Any) -> Any:
        return value

    for odd in odd_arguments():
        assert await first(odd) is odd


async def test_defer_refuses_a_ref_inside_an_argument_that_contains_itself(
    session: Session,
) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    ref = words("a")
    for odd in (*odd_arguments(), deep):
        for deferred in (double, total):
            with pytest.raises(EncodingError, match=rf"{deferred.__name__}\.defer.*itself"):
                deferred.defer([odd, ref])
    await ref


async def test_one_list_in_many_places_is_looked_into_once(session: Session) -> None:
    tower: list[Any] = [words("a")]
    for _ in range(60):
        tower = [tower, tower]
    with pytest.raises(RefMisuse, match="was given the Ref of words"):
        total(tower)


# --- run ------------------------------------------------------------------------------------------


def test_run_calls_an_operator_from_a_synchronous_program(engine: ScriptedEngine) -> None:
    @operator
    async def ask(text: str) -> str:
        return (await llm(user(text))).text

    assert run(ask, "a", engine=engine) == "a"
    assert not engine.is_started


async def test_run_inside_a_loop_is_refused(engine: ScriptedEngine) -> None:
    with pytest.raises(SessionError, match="synchronous"):
        run(double, 1, engine=engine)
