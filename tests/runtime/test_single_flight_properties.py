"""Single flight under random awaiting and cancelling, against a model."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from gate import ticks
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helium_agents import Ref, Session, llm, operator, prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import RefCancelled

NUM_REFS = 3
NUM_TASKS = 6


class Held:
    """A script whose requests wait until they are told to answer or to fail."""

    def __init__(self, clean_up_ticks: int) -> None:
        self.clean_up_ticks = clean_up_ticks
        self.open: list[asyncio.Future[None]] = []
        self.is_open = False
        self.answered: list[tuple[str, int]] = []

    async def __call__(self, request: Request) -> str:
        if not self.is_open:
            future = asyncio.get_running_loop().create_future()
            self.open.append(future)
            try:
                await future
            except asyncio.CancelledError:
                await ticks(self.clean_up_ticks)
                raise
            finally:
                self.open.remove(future)
        text = request.messages[-1].content
        self.answered.append((text, request.sampling.max_tokens))
        return text

    def answer(self) -> None:
        for future in self.open:
            if not future.done():
                future.set_result(None)

    def fail(self) -> None:
        for future in self.open:
            future.set_exception(KeyError("a"))


async def end_of(task: asyncio.Task[Any]) -> Any:
    """What a finished task came to: its text, its error's type, or "cancelled"."""
    assert task.done()
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return str(task.result()) if error is None else type(error)


def run_quietly(program: Coroutine[Any, Any, None]) -> None:
    """Run, and fail where a task is left or an error was heard of by the loop only."""

    async def main() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: problems.append(c))
        async with asyncio.timeout(60):
            await program
        assert problems == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


# --- one step at a time, against a model ----------------------------------------------------------


class Model:
    """What should have become of equal calls: several Refs, each awaited by any number of tasks."""

    def __init__(self, remembers: bool) -> None:
        self.remembers = remembers
        self.is_remembered = False
        self.outcomes: dict[int, Any] = {}  # by Ref
        self.waiting: dict[int, int] = {}  # tasks and the Refs that they wait for
        self.joined: set[int] = set()  # Refs that the request in flight is for
        self.ends: dict[int, Any] = {}  # of tasks
        self.num_requests = 0
        self.num_aborted = 0

    def ask(self, task: int, ref: int) -> None:
        if ref not in self.outcomes and self.is_remembered:
            self.outcomes[ref] = "a"
        if ref in self.outcomes:
            self.ends[task] = self.outcomes[ref]
            return
        self.num_requests += not self.waiting
        self.waiting[task] = ref
        self.joined.add(ref)

    def cancel(self, task: int) -> None:
        if task in self.waiting:
            del self.waiting[task]
            self.ends[task] = "cancelled"
            if not self.waiting:
                self.num_aborted += 1
                self.joined.clear()

    def settle(self, outcome: Any) -> None:
        if self.waiting and outcome == "a" and self.remembers:
            self.is_remembered = True
        self.outcomes |= dict.fromkeys(self.joined, outcome)
        self.ends |= dict.fromkeys(self.waiting, outcome)
        self.waiting.clear()
        self.joined.clear()


Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, NUM_REFS - 1)),
        st.tuples(st.just("cancel"), st.integers(0, NUM_TASKS - 1)),
        st.tuples(st.sampled_from(["answer", "fail"]), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.integers(0, 3), st.booleans())
def test_equal_calls_follow_the_model(
    steps: list[Step], clean_up_ticks: int, remembers: bool
) -> None:
    async def program() -> None:
        held = Held(clean_up_ticks)
        engine = ScriptedEngine(held)
        model = Model(remembers)
        tasks: list[asyncio.Task[Any]] = []
        async with Session(engine, memo_mode="read-write" if remembers else "off"):
            refs = [llm(user("a")) for _ in range(NUM_REFS)]
            for name, number in steps:
                if name == "ask":
                    model.ask(len(tasks), number)
                    tasks.append(asyncio.create_task(refs[number]))
                elif name == "cancel" and number < len(tasks):
                    model.cancel(number)
                    tasks[number].cancel()
                elif name == "answer":
                    model.settle("a")
                    held.answer()
                elif name == "fail":
                    model.settle(KeyError)
                    held.fail()
                await ticks(30)
                assert engine.num_requests == model.num_requests
                assert len(engine.aborted) == model.num_aborted
                assert engine.num_open == bool(model.waiting)
                done = {i for i, task in enumerate(tasks) if task.done()}
                assert done == model.ends.keys()
                assert {i: await end_of(tasks[i]) for i in done} == model.ends
            for task in tasks:
                task.cancel()
            await ticks(30)
            assert engine.num_open == 0

    run_quietly(program())


# --- many kinds of calls at once, at any speed ----------------------------------------------------


@operator(pure=True, version="1")
async def pure(text: Any) -> str:
    return (await llm(user(text))).text


def make_refs() -> list[tuple[Ref[Any], str]]:
    """Calls that share requests and inputs in many ways, with their values."""
    draft = llm(user("a b c"))
    return [
        (draft, "a b c"),
        (llm(user("a b c")), "a b c"),
        (llm(user("a b c"), max_tokens=2), "a b"),
        (llm(user(prompt("{x} d", x=draft))), "a b c d"),
        (llm(user("a b c d")), "a b c d"),
        (llm(user(prompt("{x} d", x=llm(user("a b c")))), max_tokens=1), "a"),
        (pure("a b c"), "a b c"),
        (pure.defer(draft), "a b c"),
        (pure.defer(pure("a b c d")), "a b c d"),
        (llm(user(pure("a b c")), timeout=9), "a b c"),
    ]


Move = tuple[int, int, int]
moves = st.lists(
    st.tuples(
        st.integers(0, 9),  # which call
        st.one_of(st.none(), st.integers(0, 30)),  # ticks after which its task is cancelled
        st.integers(0, 6),  # ticks before the next move
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(moves, st.integers(0, 4), st.integers(0, 40), st.booleans())
@example([(0, None, 5), (0, None, 6), (3, None, 6), (8, None, 0)], 0, 18, True)  # once asked twice
@example([(7, None, 4), (8, 7, 6), (0, 11, 3), (8, 17, 0)], 2, 27, True)  # ran beside itself
def test_whoever_stays_gets_the_answer_and_nothing_is_left(
    moves: list[tuple[int, int | None, int]], clean_up_ticks: int, open_at: int, shares: bool
) -> None:
    async def program() -> None:
        held = Held(clean_up_ticks)
        engine = ScriptedEngine(held)
        options: dict[str, Any] = {} if shares else {"share": False, "rules": ()}

        async def open_later() -> None:
            await ticks(open_at)
            held.is_open = True
            held.answer()

        async def cancel_later(task: asyncio.Task[Any], num_ticks: int) -> None:
            await ticks(num_ticks)
            task.cancel()

        async with Session(engine, **options):
            refs = make_refs()
            others = [asyncio.create_task(open_later())]
            tasks = []
            for number, cancel_after, pause in moves:
                task = asyncio.create_task(refs[number][0])
                tasks.append((task, refs[number][1], cancel_after))
                if cancel_after is not None:
                    others.append(asyncio.create_task(cancel_later(task, cancel_after)))
                await ticks(pause)
            await asyncio.wait([task for task, _, _ in tasks])
            await asyncio.wait(others)
            for task, value, cancel_after in tasks:
                end = await end_of(task)
                allowed = {value} | ({"cancelled"} if cancel_after is not None else set())
                assert end in allowed, (end, allowed)
            await ticks(30)
            assert engine.num_open == 0
            assert engine.num_requests == len(held.answered) + len(engine.aborted)
            if shares:
                assert len(held.answered) == len(set(held.answered))  # nothing twice
            for ref, value in refs:  # what was abandoned can be asked again
                assert str(await ref) == value

    run_quietly(program())


@settings(max_examples=60, deadline=None)
@given(moves, st.integers(0, 4), st.integers(0, 40))
def test_closing_the_session_ends_everything(
    moves: list[tuple[int, int | None, int]], clean_up_ticks: int, open_at: int
) -> None:
    async def program() -> None:
        held = Held(clean_up_ticks)
        engine = ScriptedEngine(held)
        tasks = []
        async with Session(engine):
            refs = make_refs()
            for position, (number, _, pause) in enumerate(moves):
                tasks.append(asyncio.create_task(refs[number][0]))
                if position == open_at % len(moves):
                    held.is_open = True
                    held.answer()
                await ticks(pause)
            await ticks(2)
        await asyncio.wait(tasks)
        assert engine.num_open == 0
        assert engine.num_requests == len(held.answered) + len(engine.aborted)

    run_quietly(program())


# --- a plain operator and its awaiters ------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 12),
)
def test_a_plain_call_belongs_to_its_first_awaiter(
    awaiters: list[tuple[int, bool]], open_at: int
) -> None:
    async def program() -> None:
        log: list[str] = []
        gate = asyncio.Event()

        @operator
        async def body() -> str:
            log.append("begin")
            try:
                await gate.wait()
                return "value"
            finally:
                log.append("end")

        async with Session(ScriptedEngine()):
            ref = body()
            tasks = []
            for pause, _ in awaiters:
                tasks.append(asyncio.create_task(ref))
                await ticks(pause)
            await ticks(1)
            for task, (_, is_cancelled) in zip(tasks, awaiters, strict=True):
                if is_cancelled:
                    task.cancel()
            await ticks(open_at)
            gate.set()
            await asyncio.wait(tasks)
            first_is_cancelled = awaiters[0][1]
            for task, (_, is_cancelled) in zip(tasks, awaiters, strict=True):
                rest = RefCancelled if first_is_cancelled else "value"
                assert await end_of(task) == ("cancelled" if is_cancelled else rest)
            assert log == ["begin", "end"]
            if first_is_cancelled:
                with pytest.raises(RefCancelled):
                    await ref
            else:
                assert await ref == "value"

    run_quietly(program())
