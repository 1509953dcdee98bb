"""The version of an operator: a digest of everything in the user's code that decides its answer.

A version is the digest of a walk (`walk`) over functions and classes as they are in memory:
from the root to whatever can be reached by name in the operator's own package. It is sound rather
than precise: whatever a body may use changes it, and so may what turns out not to matter (a
docstring, an annotation, another Python). Model calls hold no versions, so all that costs is
another run of a pure body.

What counts:

- Functions of the same package (`own_code` says what that is): their compiled code without
  its place in the file, defaults, annotations, attributes, and what the code names: globals,
  closure cells, attributes of the package's own modules. A method brings its class.
- Classes of the same package: their bases and all attributes, methods and fields.
- Operators of any package, since they are part of the workflow; those with an explicit ``version=``
  by that alone.
- Functions, classes and modules of other packages by name only. Not by version of the distribution:
  a patch release of a dependency would forget every answer. Use ``version=`` where one matters.
- Loggers and locks, as such: they do not decide answers.

What is not seen: names that are computed (``globals()[name]``, ``getattr``), files that are read,
what an object of another package holds. A version is of the moment at which it is asked for: what
it was computed from is compared each time (`watch`), and where it differs the version is
computed again. So a body that changes what it names has another version after each run.

What cannot be computed raises a `VersionError`: a guess would let old answers pass for new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import islice
from types import FunctionType
from typing import Any, Final

from blake3 import blake3

from helium_agents.errors import VersionError
from helium_agents.keys.kept import kept_on
from helium_agents.keys.versions.members import wrapped_in
from helium_agents.keys.versions.own_code import counts_by_name
from helium_agents.keys.versions.walk import Walk, encoded
from helium_agents.keys.versions.watch import Watch

_MAX_PARTS: Final = 32


class Version:
    """The version of a function or a class, at any moment.

    Keeps alive what the version was computed from, the function or class included.

    Args:
        definition: A class, a function, a `functools.partial`, a method, or an object with
            ``__wrapped__``; anything else is refused when the version is asked for.
        most_values: Refuse to look at more, which takes a few microseconds each; all by default.
    """

    def __init__(self, definition: Any, most_values: int | None = None) -> None:
        self._definition = definition
        self._most_values = most_values
        self._watch: Watch | None = None
        self._digest = b""
        self._parts: Mapping[str, str] = {}

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
            self._watch = None
            self._compute()

    def _compute(self) -> None:
        root = definition = _unwrapped(self._definition)
        while isinstance(root, partial):
            root = _unwrapped(root.func)
        walk = Walk(root, self._most_values)
        try:
            described = encoded(walk.describe(definition))
            nodes = {name: _digest(encoded(node)) for name, node in walk.nodes.items()}
        except RecursionError:
            raise walk.trail.refusal("names too long a chain of definitions") from None
        except VersionError:
            raise
        except Exception as error:
            raise walk.trail.refusal(f"raised {type(error).__name__}") from error
        self._digest = _digest(encoded([described, [*nodes.items()]]))
        self._parts = {name: node.hex()[:8] for name, node in islice(nodes.items(), _MAX_PARTS)}
        self._watch = walk.watch


def version_of(definition: Any, most_values: int | None = None) -> Version:
    """The version of a class, or of a function or what holds one; see `Version`.

    That of a class counts where an instance is part of a key: a method's own version covers the
    class that it was written in, but the instance may be of a subclass that overrides what the
    method calls. A class may say itself which version it is: with an attribute
    ``__helium_version__ = "1"`` of its own. It is kept as long as the class or function.

    Raises:
        VersionError: It is none of these.
    """
    definition = _unwrapped(definition)
    if isinstance(definition, partial):
        return Version(definition, most_values)
    kept = kept_on(definition)
    version: Version | None = kept.get((Version, most_values))
    if version is None:
        version = kept[Version, most_values] = Version(definition, most_values)
    return version


def code_version(definition: Any) -> bytes:
    """The digest of `version_of`; 32 bytes.

    Raises:
        VersionError: It cannot be computed; the message says what is at fault.
    """
    return version_of(definition).digest()


class CurrentVersions(dict[Any, bytes]):
    """The versions of the functions and classes that one encoding meets, each looked up once.

    Half a digest tells the versions of one name apart, and is repeated with every instance. It is
    empty for classes that count by name.
    """

    def __missing__(self, definition: Any) -> bytes:
        is_named = isinstance(definition, type) and counts_by_name(definition)
        version = self[definition] = b"" if is_named else code_version(definition)[:16]
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
