"""Makes a failing case smaller, as long as it fails in the same way: step by step, greedily."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

from tests.fuzz.generate import RULE_NAMES
from tests.fuzz.program import (
    Ask,
    Await,
    Block,
    Cancel,
    Case,
    Config,
    Leave,
    Make,
    Map,
    Op,
    Step,
    Stream,
    Together,
)

Fails = Callable[[Case], bool]


def kind_of(problem: str) -> str:
    """What is wrong, apart from where: what stands before the colon."""
    return problem.partition(":")[0]


def shrink(case: Case, fails: Fails, most_s: float) -> Case:
    """A smaller case that fails too.

    Args:
        case: One that fails.
        fails: Whether a case does.
        most_s: Seconds to try.
    """
    end_s = time.monotonic() + most_s
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _smaller(case):
            if time.monotonic() > end_s:
                return case
            if smaller.program and fails(smaller):
                case, is_smaller = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    for size in (8, 4, 2):  # large pieces first
        for start in range(0, len(case.program), size):
            left = case.program[:start] + case.program[start + size :]
            yield replace(case, program=repaired(left))
    for program in _smaller_blocks(case.program):
        yield replace(case, program=repaired(program))
    for config in _simpler_fields(case.config, rules=RULE_NAMES):
        assert isinstance(config, Config)
        yield replace(case, config=config)


def _smaller_blocks(block: Block) -> Iterator[Block]:
    for i in range(len(block)):
        yield block[:i] + block[i + 1 :]
    for i, step in enumerate(block):
        for inner in _blocks_of(step):
            yield block[:i] + inner + block[i + 1 :]
    for i, step in enumerate(block):
        for simpler in _simpler(step):
            yield (*block[:i], simpler, *block[i + 1 :])


def _blocks_of(step: Step) -> tuple[Block, ...]:
    """The blocks that can stand in a step's place."""
    match step:
        case Together():
            return step.blocks
        case Cancel():
            return (step.block,)
        case Map():
            return (step.body,)
        case Make(call=Op() as op):
            return (op.body,)
    return ()


def _simpler(thing: Any) -> Iterator[Any]:
    """A step or call with a smaller part."""
    yield from _smaller_inside(thing)
    for name in ("rows", "names", "slots", "awaited", "inputs", "ticks"):
        parts = getattr(thing, name, ())
        if isinstance(parts, tuple):
            yield from (replace(thing, **{name: part}) for part in _shorter(parts))
    for name in ("length", "levels", "n"):
        number = getattr(thing, name, 1)
        if number > 1:
            yield replace(thing, **{name: number // 2})
            yield replace(thing, **{name: number - 1})
    yield from _simpler_fields(thing)


def _smaller_inside(thing: Any) -> Iterator[Any]:
    """A step or call with a smaller block."""
    match thing:
        case Together():
            for i, block in enumerate(thing.blocks):
                rest = thing.blocks[:i], thing.blocks[i + 1 :]
                yield replace(thing, blocks=rest[0] + rest[1])
                for smaller in _smaller_blocks(block):
                    yield replace(thing, blocks=(*rest[0], smaller, *rest[1]))
        case Cancel():
            for block in _smaller_blocks(thing.block):
                yield replace(thing, block=block)
        case Map() | Op():
            for body in _smaller_blocks(thing.body):
                yield replace(thing, body=body)
        case Make():
            for call in _simpler(thing.call):
                yield replace(thing, call=call)


def _shorter(parts: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    half = len(parts) // 2
    if half:
        yield parts[:half]
        yield parts[half:]
    if len(parts) > 1:
        yield from (parts[:i] + parts[i + 1 :] for i in range(len(parts)))


def _simpler_fields(thing: Any, **simplest: Any) -> Iterator[Any]:
    """The thing with one of its fields as it is by default."""
    for each in fields(thing):
        default = simplest.get(each.name, each.default)
        if default is not MISSING and getattr(thing, each.name) != default:
            yield replace(thing, **{each.name: default})


# --- names ----------------------------------------------------------------------------------------


def repaired(block: Block, known: frozenset[str] = frozenset()) -> Block:
    """The block without the names that nothing makes any more."""
    steps: list[Step] = []
    for step in block:
        fixed = _with_known(step, known)
        if fixed is None:
            continue
        steps.append(fixed)
        if isinstance(fixed, Make):
            known |= {fixed.name}
    return tuple(steps)


def _with_known(step: Step, known: frozenset[str]) -> Step | None:
    def kept(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name in known)

    match step:
        case Await() | Leave():
            names = kept(step.names)
            return replace(step, names=names) if names else None
        case Stream(target=Ask() as ask):
            return replace(step, target=_ask_with(ask, kept))
        case Stream():
            return step if step.target in known else None
        case Make(call=Ask() as ask):
            return replace(step, call=_ask_with(ask, kept))
        case Make(call=Op() as op):
            inner = frozenset() if op.is_pure else known
            return replace(
                step, call=replace(op, body=repaired(op.body, inner), inputs=kept(op.inputs))
            )
        case Together():
            return replace(step, blocks=tuple(repaired(block, known) for block in step.blocks))
        case Cancel():
            return replace(step, block=repaired(step.block, known))
        case Map():
            inner = frozenset() if step.fn == "pure" else known
            return replace(step, body=repaired(step.body, inner))
    return step


def _ask_with(ask: Ask, kept: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Ask:
    return replace(ask, slots=kept(ask.slots), awaited=kept(ask.awaited))
