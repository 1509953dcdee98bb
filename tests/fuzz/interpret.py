"""Runs the blocks of random programs, by the package's public interface or by the reference."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from tests.fuzz.api import Api
from tests.fuzz.caught import CaughtErrors, is_own_end, token_of_handler
from tests.fuzz.model import FITTING, MARK, SCHEMAS, Odd, error_of
from tests.fuzz.program import (
    GREEDY,
    UNSEEDED,
    Ask,
    Await,
    Block,
    Call,
    Cancel,
    Chain,
    Cycle,
    Diamond,
    Expire,
    Fib,
    Leave,
    Make,
    Map,
    Op,
    OuterDraw,
    Pause,
    Raise,
    Step,
    Stream,
    Together,
    text_of,
)
from tests.fuzz.records import Loose, brief, digest, shown

LONG_S, SHORT_S = 3600.0, 0.02

bodies: dict[str, Block] = {}
"""The bodies of pure operators by their text, which is an argument of the call."""


@dataclass(eq=False)
class World:
    """One run of a program.

    Attributes:
        left: Tasks that nobody waited for before the session closed.
    """

    api: Api = field(init=False)
    caught: CaughtErrors = field(default_factory=CaughtErrors)
    left: list[asyncio.Task[Any]] = field(default_factory=list)
    outer_draws: dict[str, Any] = field(default_factory=dict)


_world: ContextVar[World] = ContextVar("_world")


class Scope:
    """The names that a block sees, its row, and where it is; nothing that could be encoded."""

    def __init__(self, names: dict[str, Any], row: str, where: str) -> None:
        self.names = names
        self.row = row
        self.where = where

    def inner(self, where: Any, *, row: str | None = None) -> Scope:
        """For a block inside: it sees these names, and makes its own."""
        row = self.row if row is None else row
        return Scope(dict(self.names), row, f"{self.where}/{where}")

    def refs(self, names: tuple[str, ...]) -> list[Any]:
        return [self.names[name] for name in names]


def new_world() -> World:
    """A world for what is run next in this context: before the session opens, which copies it."""
    world = World()
    _world.set(world)
    return world


async def run_program(api: Api, program: Block, row: str = "") -> Any:
    """Run a whole program in the world of this context; the record of what it gave.

    Args:
        api: Makes its calls.
        program: The program.
        row: What it is run for.
    """
    _world.get().api = api
    return await run_block(program, Scope({}, row, ""))


async def run_block(block: Block, scope: Scope) -> tuple[Any, ...]:
    """Do the steps of a block; the records of what they gave."""
    records = []
    for number, step in enumerate(block):
        run = _RUN[type(step)]
        record = await run(step, scope.inner(number) if type(step) not in _BINDS else scope)
        if record is not None:
            records.append(record)
    return tuple(records)


# --- records --------------------------------------------------------------------------------------


async def outcome(
    work: Callable[[], Awaitable[Any]], scope: Scope, *, is_direct: bool = False
) -> Any:
    """What awaiting gives or raises."""
    try:
        return shown(await work())
    except BaseException as error:
        if is_own_end(error):
            raise
        record = ("raised", shown(error))
        _world.get().caught.keep(error, scope.where, sys._getframe(), is_direct=is_direct)
        return record


def _keep_results(results: Any, scope: Scope) -> Any:
    """Results of a gather, of which some may be exceptions."""
    record = shown(results)
    for error in results:
        if isinstance(error, BaseException):
            _world.get().caught.keep(error, scope.where, None)
    return record


# --- calls ----------------------------------------------------------------------------------------


def _api() -> Api:
    return _world.get().api


async def _pure_body(text: str, *values: Any) -> str:
    scope = Scope({}, " ".join(map(brief, values)), f"pure {digest(text)[:4]}")
    return brief(await run_block(bodies[text], scope))


async def _plain_body(scope: Scope, body: Block, *values: Any) -> str:
    inner = scope.inner("op", row=" ".join([*filter(None, [scope.row]), *map(brief, values)]))
    return brief(await run_block(body, inner))


async def _pure_row(pair: tuple[str, str]) -> str:
    text, row = pair
    scope = Scope({}, row, f"pure row {digest(text)[:4]}")
    return brief(await run_block(bodies[text], scope))


async def _fib(n: int) -> str:
    if n < 2:
        return str((await _api().ask(f"leaf {n}", [], max_tokens=4, retries=2, timeout=None)).text)
    call = _api().operator(_fib, is_pure=True)
    return brief(await _api().gather(call(n - 1), call(n - 2)))


async def _ring(number: int, size: int) -> str:
    return str(await _api().operator(_ring, is_pure=True)((number + 1) % size, size))


async def _peek(name: str) -> str:
    return brief(await _world.get().outer_draws[name])


@cache
def _body_text(body: Block) -> str:
    text = "\n".join(text_of(body))
    bodies[text] = body
    return text


def forget_bodies() -> None:
    """Of earlier cases: mapped functions name them all, and their versions are asked for."""
    bodies.clear()
    _body_text.cache_clear()


async def _ref_of(call: Call, scope: Scope) -> Any:
    match call:
        case Ask():
            values = [brief(await ref) for ref in scope.refs(call.awaited)]
            return _ask(call, scope, values)
        case Op():
            make = _op(call.is_pure, call.retries, call.timeout)
            args = (_body_text(call.body),) if call.is_pure else (scope, call.body)
            inputs = scope.refs(call.inputs)
            return make.defer(*args, *inputs) if inputs else make(*args)
        case Fib():
            return _api().operator(_fib, is_pure=True)(call.n)
        case Chain():
            ref = _plain_ask(f"{call.text} 0")
            for number in range(1, call.length):
                ref = _plain_ask(f"{call.text} {number}", ref)
            return ref
        case Diamond():
            left, right = _plain_ask(f"{call.text} left"), _plain_ask(f"{call.text} right")
            for number in range(call.levels):
                left, right = (
                    _plain_ask(f"{call.text} {side} {number}", left, right)
                    for side in ("left", "right")
                )
            return _plain_ask(call.text, left, right)


def _op(is_pure: bool, retries: int = 0, timeout: float | None = None) -> Any:
    body = _pure_body if is_pure else _plain_body
    return _api().operator(body, is_pure=is_pure, retries=retries, timeout=timeout)


def _plain_ask(text: str, *inputs: Any) -> Any:
    return _api().ask(text, list(inputs), max_tokens=64, retries=2, timeout=None)


def _ask(call: Ask, scope: Scope, values: list[str]) -> Any:
    row = [scope.row] * (call.row_times if call.knows_row and scope.row else 0)
    options: dict[str, Any] = {"max_tokens": call.max_tokens, "retries": call.retries}
    if call.draw != GREEDY:
        options |= {"temperature": 1.0, "seed": None if call.draw == UNSEEDED else call.draw}
    if call.schema is not None:
        options["schema"] = SCHEMAS[call.schema]
    options |= {"share": call.share, "timeout": call.timeout, "n": call.n}
    return _api().ask(call.text, [*row, *scope.refs(call.slots), *values], **options)


# --- steps ----------------------------------------------------------------------------------------


async def _make(step: Make, scope: Scope) -> None:
    ref = await _ref_of(step.call, scope)
    scope.names[step.name] = ref.start() if step.is_started else ref


async def _await(step: Await, scope: Scope) -> Any:
    if step.in_handler:
        with token_of_handler() as handled:
            try:
                raise handled
            except type(handled):
                return await _await_all(step, scope)
    return await _await_all(step, scope)


async def _await_all(step: Await, scope: Scope) -> Any:
    refs = scope.refs(step.names)
    works = [partial(_value_of, ref, step.how) for ref in refs]
    match step.how:
        case "await" | "wait_for":
            if not step.catches:
                return tuple([shown(await work()) for work in works])
            directs = [step.how == "await" and _api().is_direct(ref) for ref in refs]
            return tuple(
                [
                    await outcome(work, scope, is_direct=is_direct)
                    for work, is_direct in zip(works, directs, strict=True)
                ]
            )
        case "tasks":
            return await _at_once(*(outcome(work, scope) for work in works))
        case "task_group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(outcome(work, scope)) for work in works]
            return tuple([task.result() for task in tasks])
    group_work = partial(_gathered, step.how, refs, scope)
    return await outcome(group_work, scope) if step.catches else await group_work()


async def _value_of(ref: Any, how: str) -> Any:
    return await (asyncio.wait_for(ref, LONG_S) if how == "wait_for" else ref)


async def _gathered(how: str, refs: list[Any], scope: Scope) -> Any:
    match how:
        case "gather":
            return shown(await _api().gather(*refs))
        case "gather_exceptions":
            return await _gathered_exceptions(refs, scope)
    return _keep_results(await asyncio.gather(*refs, return_exceptions=True), scope)


async def _gathered_exceptions(refs: list[Any], scope: Scope) -> Any:
    """Results and exceptions; whether `Odd` is a result or is raised is not promised."""
    try:
        results = await _api().gather(*refs, return_exceptions=True)
    except Odd as error:
        return Loose("Odd in gather", shown(error))
    record = _keep_results(results, scope)
    return Loose("Odd in gather", record) if any(isinstance(r, Odd) for r in results) else record


async def _stream(step: Stream, scope: Scope) -> Any:
    target = step.target
    ref = scope.names[target] if isinstance(target, str) else await _ref_of(target, scope)
    record = await outcome(partial(_read, ref, step), scope)
    if isinstance(target, Ask) and target.schema not in (None, *FITTING):
        return Loose("a stream", record)  # whether a reader of draws that do not fit gets another
    return record


async def _read(ref: Any, step: Stream) -> Any:
    stream, pieces = ref.stream(), []
    if step.take is None:
        return "".join([piece async for piece in stream])
    if step.closes:
        async with aclosing(stream):  # type: ignore[type-var]
            async for piece in stream:
                pieces.append(piece)
                if len(pieces) >= step.take:
                    break
    else:
        async for piece in stream:
            pieces.append(piece)
            if len(pieces) >= step.take:
                break
        del stream
    # how many pieces there are is not determined; and who leaves a draw alone, has another later
    read, text = (MARK.sub("~", text) for text in ("".join(pieces), (await ref).text))
    return text.startswith(read)


async def _together(step: Together, scope: Scope) -> Any:
    async def late(block: Block, ticks: int, number: int) -> Any:
        await _ticks(ticks)
        inner = scope.inner(number)
        return await outcome(partial(run_block, block, inner), inner)

    parts = zip(step.blocks, step.ticks, range(len(step.blocks)), strict=False)
    return await _at_once(*(late(*part) for part in parts))


async def _cancel(step: Cancel, scope: Scope) -> None:
    work = outcome(partial(run_block, step.block, scope), scope)
    task = asyncio.create_task(work)
    try:
        await _ticks(step.ticks)
    finally:
        await _end(task)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and see its end, although we are cancelled meanwhile or it was deaf once.

    `asyncio.wait_for` swallows the cancellation that comes as its call ends (fixed in 3.12).
    """
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        raise interruption


async def _expire(step: Expire, scope: Scope) -> Any:
    async def ask(timeout: float | None = None) -> Any:
        ref = _ask(step.ask, scope, [])
        match step.how:
            case "wait_for":
                return await asyncio.wait_for(ref, SHORT_S)
            case "timeout":
                async with asyncio.timeout(SHORT_S):
                    return await ref
            case "llm":
                return await ref
        make = _op(step.how == "pure", timeout=SHORT_S)
        body = (Make("a", step.ask), Await(("a",), catches=False))
        return await make(*((_body_text(body),) if step.how == "pure" else (scope, body)))

    return await outcome(ask, scope)


async def _pause(step: Pause, scope: Scope) -> None:
    extra = sum(scope.row.encode()) % 4 if step.by_row else 0
    if step.seconds:
        await asyncio.sleep(step.seconds * (1 + extra))
    await _ticks(step.ticks + extra)


async def _raise(step: Raise, scope: Scope) -> None:
    raise error_of(step.kind, step.text + f" {scope.row}" * step.knows_row)


async def _leave(step: Leave, scope: Scope) -> None:
    async def ask(ref: Any) -> Any:
        return await ref

    _world.get().left += [asyncio.create_task(ask(ref)) for ref in scope.refs(step.names)]


async def _outer_draw(step: OuterDraw, scope: Scope) -> Any:
    options = {"temperature": 1.0, "seed": None, "retries": 2, "timeout": None}
    draw = _api().ask(step.text, [], **options)
    _world.get().outer_draws[scope.where] = draw
    peek = _api().operator(_peek, is_pure=True)
    inside = await outcome(lambda: peek(scope.where), scope)
    return inside, await outcome(lambda: draw, scope)


async def _cycle(step: Cycle, scope: Scope) -> Any:
    known = _api().ring(step.size)
    if known is not None:
        return tuple(known)
    refs: list[Any] = []

    async def link(number: int) -> str:
        next_ref = refs[(number + 1) % step.size]
        return str(await (_plain_ask("ring", next_ref) if step.kind == "input" else next_ref))

    for number in range(step.size):
        if step.kind == "pure":
            refs.append(_api().operator(_ring, is_pure=True)(number, step.size))
        else:
            refs.append(_api().operator(link)(number))

    async def kind_of(ref: Any, inner: Scope) -> Any:
        """Only the type: which member closes the ring, and so is named first, is not determined."""
        record = await outcome(lambda: ref, inner)
        return getattr(record[1], "promised", record) if record[0] == "raised" else record

    if not step.at_once:
        return tuple([await kind_of(ref, scope) for ref in refs])
    return await _at_once(*(kind_of(ref, scope) for ref in refs))


# --- maps -----------------------------------------------------------------------------------------


async def _map(step: Map, scope: Scope) -> Any:
    results: list[Any] = []

    async def item(row: Any) -> Any:
        inner = scope.inner(f"item {row}", row=row if isinstance(row, str) else row[1])
        return await run_block(step.body, inner)

    fn: Any = item
    if step.fn == "operator":
        fn = _api().operator(item)
    elif step.fn == "pure":
        fn = _api().operator(_pure_row, is_pure=True)
    rows: Any = [f"r{row}" for row in step.rows]
    if step.fn == "pure":
        rows = [(_body_text(step.body), row) for row in rows]
    source = rows if step.source == "list" else _rows(step, rows)
    if step.source == "async generator":
        source = _late_rows(_rows(step, rows))
    options: dict[str, Any] = {"ordered": step.is_ordered, "on_error": step.on_error}
    mapped = _api().map(fn, source, read_ahead=step.read_ahead, **options)
    ending = await outcome(partial(_consume, step, mapped, results), scope)
    errors = [value for _, value in results if isinstance(value, BaseException)]
    record = tuple((index, shown(value)) for index, value in results)
    _keep_results(errors, scope)
    if not step.is_ordered:
        record = tuple(sorted(record)) if step.stop_after is None else (len(record),)
    return "map", record, ending


async def _consume(step: Map, mapped: Any, results: list[Any]) -> str:
    number = 0
    if step.leaves_by == "with":
        async with mapped:
            async for value in mapped:
                results.append((number, value))
                number += 1
                if number == step.stop_after:
                    return "stopped"
        return "read"
    pairs = mapped.indexed()
    async for pair in pairs:
        results.append(pair)
        if len(results) == step.stop_after:
            if step.leaves_by == "aclose":
                await mapped.aclose()
                await pairs.aclose()
            return "stopped"
    return "read"


def _rows(step: Map, rows: list[Any]) -> Iterator[Any]:
    for number, row in enumerate(rows):
        if number == step.fails_at:
            raise error_of(step.error, "source")
        yield row


async def _late_rows(rows: Iterator[Any]) -> AsyncIterator[Any]:
    for number, row in enumerate(rows):
        await _ticks(number % 3)
        yield row


async def _at_once(*works: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """The results of coroutines that do not fail, each in a task of its own."""
    async with asyncio.TaskGroup() as group:  # `asyncio.gather` would leave them when cancelled
        tasks = [group.create_task(work) for work in works]
    return tuple([task.result() for task in tasks])


async def _ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


_RUN: dict[type, Callable[[Any, Scope], Awaitable[Any]]] = {
    Make: _make, Await: _await, Stream: _stream, Together: _together, Cancel: _cancel,
    Expire: _expire, Map: _map, Pause: _pause, Raise: _raise, Cycle: _cycle,
    OuterDraw: _outer_draw, Leave: _leave,
}  # fmt: skip
_BINDS = (Make,)
"""Steps that give the block a name."""

assert set(_RUN) == set(Step.__args__)
