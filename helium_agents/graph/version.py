"""The version of an operator: a digest of everything in the user's code that decides its answer.

A version is the digest of a graph. Its nodes are the functions and classes of the operator's own
package that can be reached from its body by name; each node is its syntax tree, its defaults, and
the values of the constants that it names: globals, closure cells, attributes of the package's own
modules. Nodes are numbered in the order in which a walk from the root comes to them, and the walk
takes names in sorted order, so recursion ends, and nothing depends on the order of definition.

What counts:

- Functions and classes of the same package, wholly (`graph.home` says what that is). A class brings
  its bases, methods, constants and schema; a method brings its class. Annotations do not count, but
  classes of the package that they name do, since methods of an argument may be called.
- Operators of any package, since they are part of the workflow; those with an explicit ``version=``
  by that alone.
- Functions, classes and modules of other packages by name only. Not by version of the distribution:
  a patch release of a dependency would forget every answer. Use ``version=`` where one matters.
- Loggers and locks, as such: they do not decide answers.

What is not seen: names that are computed (``globals()[name]``, ``getattr``), files that are read,
what an object of another package holds. The version is computed once, when it is first needed;
later changes to globals and cells are not seen.

What cannot be computed raises a `VersionError`: a guess would let old answers pass for new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from helium_agents.errors import VersionError
from helium_agents.graph.encoding import digest
from helium_agents.graph.home import Home, home_of
from helium_agents.graph.walk import Walk, encoded, wrapped_in

_MAX_PARTS: Final = 32
_BY_NAME: Final = frozenset(
    {"definition", "wrapper", "module", "elsewhere", "builtin", "without influence"}
)


class _Version(NamedTuple):
    digest: bytes
    parts: Mapping[str, str]


_versions: WeakKeyDictionary[Any, _Version] = WeakKeyDictionary()


def function_version(function: Any) -> bytes:
    """The version of a function, or of the function inside an operator; 32 bytes.

    Args:
        function: A function, a method, or an object with ``__wrapped__``.

    Raises:
        VersionError: It cannot be computed; the message says what is at fault.
    """
    return _version(*_function(function)).digest


def class_version(cls: type) -> bytes:
    """The version of a class, for the key of a method that is called on an instance of it.

    A method's own version covers the class that it was written in; the instance may be of a
    subclass that overrides what the method calls.

    Raises:
        VersionError: It cannot be computed; the message says what is at fault.
    """
    return _version(cls, home_of(cls.__module__)).digest


def version_parts(definition: Any) -> Mapping[str, str]:
    """What the version of a function or class is made of, to say which part of it has changed.

    Short digests by name: ``module:qualname`` of a definition, ``NAME in module:qualname`` of a
    constant that it names. The first 32 that the walk came to, the root first.

    Raises:
        VersionError: The version cannot be computed.
    """
    if isinstance(definition, type):
        return _version(definition, home_of(definition.__module__)).parts
    return _version(*_function(definition)).parts


def _function(function: Any) -> tuple[FunctionType, Home]:
    """The function itself, inside methods and operators, and where it is at home."""
    while not isinstance(function, FunctionType):
        inner = getattr(function, "__func__", None) or wrapped_in(function)
        if inner is None:
            raise VersionError(f"{function!r} is not a function")
        function = inner
    return function, home_of(function.__globals__.get("__name__", ""))


def _version(root: Any, home: Home) -> _Version:
    version = _versions.get(root)
    if version is None:
        walk = Walk(f"{root.__module__}.{root.__qualname__}")
        try:
            description = walk.describe(root, home)
        except RecursionError:
            raise walk.refusal("names too long a chain of definitions") from None
        whole = digest(encoded([description, *walk.nodes]))
        version = _versions[root] = _Version(whole, _parts(walk))
    return version


def _parts(walk: Walk) -> dict[str, str]:
    names = [f"{it.__module__}:{it.__qualname__}" for it in walk.definitions]
    parts: dict[str, str] = {}

    def add(name: str, description: Any) -> None:
        # numbers shift when another definition comes in between; names do not
        data = encoded([parts.get(name, ""), _with_names(description, names)])
        parts[name] = digest(data).hex()[:8]

    for name, node in zip(names, walk.nodes, strict=True):
        if len(parts) >= _MAX_PARTS:
            break
        if node[0] == "function":
            kind, tokens, defaults, named, *others = node
            constants = [item for item in named if _is_constant(item[1])]
            for label, constant in constants:
                add(f"{label} in {name}", constant)
            node = kind, tokens, defaults, [it for it in named if it not in constants], *others
        add(name, node)
    return parts


def _is_constant(description: Any) -> bool:
    return description[0] not in _BY_NAME


def _with_names(description: Any, names: list[str]) -> Any:
    """A description in which definitions go by name instead of by number."""
    if type(description) in (tuple, list):
        if len(description) == 2 and description[0] == "definition":
            return "definition", names[description[1]]
        return [_with_names(item, names) for item in description]
    return description
