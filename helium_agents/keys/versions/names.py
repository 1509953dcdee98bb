"""Which names a compiled code takes from elsewhere, and which modules it imports for itself.

Read from the code rather than from a syntax tree: it is what runs, it is there where no source is,
and the compiler has settled in it what is local.
"""

from __future__ import annotations

import dis
import importlib.util
from collections.abc import Iterator
from types import CodeType
from typing import Literal, NamedTuple

Scope = Literal["global", "cell", "class"]
"""Where a code looks for a name: in its module; in the variables of an enclosing function, which
may itself be inside the code; in the class body that is being run, and then in its module."""

_SCOPES: dict[str, Scope] = {
    "LOAD_GLOBAL": "global",
    "LOAD_DEREF": "cell",
    "LOAD_CLASSDEREF": "cell",
    "LOAD_FROM_DICT_OR_DEREF": "cell",
    "LOAD_NAME": "class",
    "LOAD_FROM_DICT_OR_GLOBALS": "class",
}


class Name(NamedTuple):
    """A dotted name: ``prompts.SYSTEM`` is ``("prompts", "SYSTEM")``."""

    chain: tuple[str, ...]
    scope: Scope


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """The code and every code inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from nested_codes(const)


def named_in(code: CodeType) -> set[Name]:
    """Names that a code takes from elsewhere, with the attributes that it takes of them."""
    found = set()
    for part in nested_codes(code):
        name: Name | None = None
        for instruction in dis.get_instructions(part):
            if instruction.opname == "EXTENDED_ARG":
                continue
            if name is not None and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                name = Name((*name.chain, instruction.argval), name.scope)
                continue
            if name is not None:
                found.add(name)
            scope = _SCOPES.get(instruction.opname)
            name = None if scope is None else Name((instruction.argval,), scope)
    return found


def imported_in(code: CodeType, package: str) -> set[tuple[str, str]]:
    """Modules that a body imports, and what it takes from them; "" is the module itself."""
    found: set[tuple[str, str]] = set()
    for part in nested_codes(code):
        instructions = [
            each for each in dis.get_instructions(part) if each.opname != "EXTENDED_ARG"
        ]
        for at, instruction in enumerate(instructions):
            if instruction.opname == "IMPORT_NAME":  # after its level and what it takes
                level, taken = instructions[at - 2].argval, instructions[at - 1].argval
                name = "." * level + instruction.argval
                module = importlib.util.resolve_name(name, package) if level else name
                found |= {(module, each) for each in taken or ("",)}
    return found
