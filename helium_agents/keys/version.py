"""The version of an operator: a digest of everything in the user's code that decides its answer.

A version is the digest of a graph. Its nodes are the functions and classes of the operator's own
package that can be reached from its body by name; each node is its syntax tree, its defaults, and
the values of the constants that it names: globals, closure cells, attributes of the package's own
modules. Nodes are numbered in the order in which a walk from the root comes to them, and the walk
takes names in sorted order, so recursion ends, and nothing depends on the order of definition.

What counts:

- Functions and classes of the same package, wholly (`own_code` says what that is). A class brings
  its bases, methods, constants and schema; a method brings its class. Annotations do not count, but
  classes of the package that they name do, since methods of an argument may be called.
- Operators of any package, since they are part of the workflow; those with an explicit ``version=``
  by that alone.
- Functions, classes and modules of other packages by name only. Not by version of the distribution:
  a patch release of a dependency would forget every answer. Use ``version=`` where one matters.
- Loggers and locks, as such: they do not decide answers.

- Attributes of functions and classes, also those that were set from outside, and what
  `functools.singledispatch` dispatches to.

What is not seen: names that are computed (``globals()[name]``, ``getattr``), files that are read,
what an object of another package holds. A version is of the moment at which it is asked for: what
it was computed from is compared each time (`graph.watch`), and where it differs the version is
computed again. So a body that changes what it names has another version after each run.

What cannot be computed raises a `VersionError`: a guess would let old answers pass for new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from types import FunctionType
from typing import Any, Final

from blake3 import blake3

from helium_agents.errors import VersionError
from helium_agents.keys.describe import encoded, wrapped_in
from helium_agents.keys.encoder import Versions
from helium_agents.keys.own_code import counts_by_name, own_code_of
from helium_agents.keys.walk import Walk
from helium_agents.keys.watch import Watch

_MAX_PARTS: Final = 32
_BY_NAME: Final = frozenset(
    {"definition", "wrapper", "module", "elsewhere", "builtin", "without influence"}
)


class Version:
    """The version of a function or a class, at any moment.

    Keeps alive what the version was computed from, the function or class included.

    Args:
        definition: A class, a function, a `functools.partial`, a method, or an object with
            ``__wrapped__``; anything else is refused when the version is asked for.
    """

    def __init__(self, definition: Any) -> None:
        self._definition = definition
        self._watch: Watch | None = None
        self._digest = b""
        self._parts: Mapping[str, str] = {}
        self._refusal = ""

    def digest(self) -> bytes:
        """The digest of everything that the definition depends on now; 32 bytes.

        Raises:
            VersionError: It cannot be computed; the message says what is at fault.
        """
        self._update()
        return self._digest

    def parts(self) -> Mapping[str, str]:
        """What the version is made of, to say which part of it has changed.

        Short digests by name: ``module:qualname`` of a definition, ``NAME in module:qualname`` of a
        constant that it names. The first 32 that the walk came to, the root first.

        Raises:
            VersionError: As above.
        """
        self._update()
        return self._parts

    def _update(self) -> None:
        try:
            is_same = self._watch is not None and self._watch.is_same()
        except Exception:  # what attributes raise; computing it anew says which
            is_same = False
        if not is_same:
            self._compute()
        if self._refusal:
            raise VersionError(self._refusal)

    def _compute(self) -> None:
        definition = _unwrapped(self._definition)
        walk = Walk(_named_in(definition))
        self._refusal = ""
        try:
            self._describe(definition, walk)
        except RecursionError:  # not kept: it depends on how deep down it was asked for
            raise walk.refusal("names too long a chain of definitions") from None
        except VersionError as error:
            self._refusal = str(error)
        except Exception as error:
            self._refusal = str(walk.refusal(f"raised {type(error).__name__}"))
        self._watch = walk.watch

    def _describe(self, definition: Any, walk: Walk) -> None:
        root = walk.root
        is_class = isinstance(root, type)
        own = own_code_of(root.__module__ if is_class else root.__globals__.get("__name__", ""))
        description = walk.describe(definition, own)
        self._digest = _digest(encoded([description, *walk.nodes]))
        self._parts = _parts(walk)


_of_lasting = lru_cache(maxsize=1024)(Version)
_of_local = lru_cache(maxsize=64)(Version)


def _version_of(definition: Any) -> Version:
    """One of a few versions that are kept: they keep alive what they are of.

    What is local to a function is often local to a call, and may hold much.
    """
    is_local = "<" in getattr(definition, "__qualname__", "<partial>")
    return (_of_local if is_local else _of_lasting)(definition)


def function_version(function: Any) -> bytes:
    """The version of a function, or of the function inside an operator; 32 bytes.

    Args:
        function: A function, a `functools.partial`, a method, or an object with ``__wrapped__``.

    Raises:
        VersionError: It cannot be computed; the message says what is at fault.
    """
    return _version_of(_unwrapped(function)).digest()


def class_version(cls: type) -> bytes:
    """The version of a class, which counts where an instance is part of a key.

    A method's own version covers the class that it was written in; the instance may be of a
    subclass that overrides what the method calls. A class may say itself which version it is: with
    an attribute ``__helium_version__ = "1"`` of its own.

    Raises:
        VersionError: It cannot be computed; the message says what is at fault.
    """
    return _version_of(cls).digest()


def class_parts(cls: type) -> Mapping[str, str]:
    """What the version of a class is made of; see `Version.parts`."""
    return _version_of(cls).parts()


class CurrentVersions(Versions):
    """The versions of what one encoding meets; those of classes are looked up once.

    Half a digest tells the versions of one class apart, and is repeated with every instance. It is
    empty for classes that count by name.
    """

    def __missing__(self, cls: type) -> bytes:
        version = self[cls] = b"" if counts_by_name(cls) else class_version(cls)[:16]
        return version

    def of_function(self, function: FunctionType) -> bytes:
        """The version of a function."""
        return function_version(function)

    def of_operator(self, operator: Any) -> bytes:
        """The version of an object that says it."""
        version: bytes = operator.__helium_version__()
        return version


def _digest(data: bytes) -> bytes:
    return blake3(data).digest()


def _unwrapped(definition: Any) -> Any:
    """A class, a partial function, or the function itself, inside methods and operators."""
    while not isinstance(definition, type | FunctionType | partial):
        inner = getattr(definition, "__func__", None) or wrapped_in(definition)
        if inner is None:
            raise VersionError(f"a {type(definition).__name__} is not a function")
        definition = inner
    return definition


def _named_in(definition: Any) -> Any:
    """The function in partial functions, by which they are called in messages."""
    while not isinstance(definition, type | FunctionType):
        definition = _unwrapped(definition.func if isinstance(definition, partial) else definition)
    return definition


def _parts(walk: Walk) -> dict[str, str]:
    names = [f"{it.__module__}:{it.__qualname__}" for it in walk.definitions]
    parts: dict[str, str] = {}

    def add(name: str, description: Any) -> None:
        # numbers shift when another definition comes in between; names do not
        data = encoded([parts.get(name, ""), _with_names(description, names)])
        parts[name] = _digest(data).hex()[:8]

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
