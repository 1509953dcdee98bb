"""The walk behind a version: from a body through all that it names, each described as plain data.

Constants are described by value, functions and classes of the same home by number, everything else
by name. `graph.version` says what counts and why.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import typing
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from helium_agents.errors import EncodingError, VersionError
from helium_agents.graph import definitions
from helium_agents.graph.definitions import Scope
from helium_agents.graph.encoder import ENCODERS, encode_class
from helium_agents.graph.home import Home, home_of
from helium_agents.graph.names import UNBOUND, Names
from helium_agents.graph.parts import RECORDS, class_name, shape_of

_ATOMS = frozenset({type(None), bool, int, float, str, bytes, bytearray, *RECORDS})
_SEQUENCES = frozenset({tuple, list, deque})
_SETS = frozenset({set, frozenset})
_MAPPINGS = frozenset({dict, MappingProxyType, OrderedDict, defaultdict})
_METHODS_IN_C = (
    MethodDescriptorType,
    WrapperDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
)
_WITHOUT_INFLUENCE = frozenset(
    {*(("logging", name) for name in ("Logger", "RootLogger", "LoggerAdapter"))}
    | {("asyncio.locks", name) for name in ("Lock", "Semaphore", "BoundedSemaphore")}
    | {("threading", name) for name in ("Semaphore", "BoundedSemaphore")}
    | {("_thread", name) for name in ("lock", "RLock")}
)


class Walk:
    """One walk from a root: describes values as plain data, functions and classes by number.

    Args:
        root: What the version is of, for messages.

    Attributes:
        definitions: The functions and classes that the walk came to, in order.
        nodes: What each of them is described as.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.nodes: list[Any] = []
        self.definitions: list[Any] = []  # alive: a temporary must not leave its id to another
        self._numbers: dict[int, int] = {}
        self._containers: list[int] = []
        self._trail: list[str] = []

    # --- values ----------------------------------------------------------------------------------

    def describe(self, value: Any, home: Home) -> tuple[Any, ...]:
        """What a value is, as plain data; equal for equal values in every process."""
        cls = type(value)
        if cls in _ATOMS:
            is_path = isinstance(value, PurePath)
            return ("path", home.relative(str(value))) if is_path else ("value", value)
        if isinstance(value, type) and typing.get_origin(value) is None:
            return self._class(value, home)
        if isinstance(value, FunctionType):
            return self._function(value, home)
        if isinstance(value, ModuleType):
            if home.has(value.__name__):
                raise self.refusal("which is a module, used as a value")
            return "module", value.__name__
        if id(value) in self._containers:
            return "cycle", len(self._containers) - self._containers.index(id(value))
        self._containers.append(id(value))
        try:
            return self._object(value, home)
        finally:
            self._containers.pop()

    def _all(self, values: Any, home: Home) -> list[Any]:
        return [self.describe(value, home) for value in values]

    def _object(self, value: Any, home: Home) -> tuple[Any, ...]:
        cls = type(value)
        if cls in _SEQUENCES:
            return cls.__name__, self._all(value, home)
        if cls in _SETS:
            # Sorted by what they are described as would number the definitions among them by
            # address; their own names are stable.
            return cls.__name__, self._all(sorted(value, key=_sort_key), home)
        if cls in _MAPPINGS:
            factory = getattr(value, "default_factory", None)
            items = [self._all(item, home) for item in value.items()]
            return cls.__name__, items, self.describe(factory, home)
        known = self._type_expression(value, home) or self._callable(value, home)
        if known is not None:
            return known
        if (cls.__module__, cls.__qualname__) in _WITHOUT_INFLUENCE:
            return ("without influence",)
        if cls is re.Pattern:
            return "pattern", self.describe(value.pattern, home), value.flags
        if cls is object or value is ... or value is NotImplemented:
            return "sentinel", cls.__name__
        shape = shape_of(cls)
        if shape is None:
            raise self.refusal(f"which is an object of type {'.'.join(class_name(cls))}")
        return "instance", self.describe(cls, home), self._all(shape.take_apart(value), home)

    def _callable(self, value: Any, home: Home) -> tuple[Any, ...] | None:
        """Callables that are neither plain functions nor classes."""
        if isinstance(value, MethodType):
            return (
                "method",
                self.describe(value.__func__, home),
                self.describe(value.__self__, home),
            )
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            is_plain = owner is None or isinstance(owner, ModuleType)
            module = value.__module__ if is_plain else self.describe(owner, home)
            return "builtin", module, value.__qualname__
        if isinstance(value, _METHODS_IN_C):
            return "builtin", value.__objclass__.__qualname__, value.__name__
        if type(value) is functools.partial:
            return "partial", self._all((value.func, value.args, value.keywords), home)
        inner, is_operator = wrapped_in(value), hasattr(type(value), "__helium_version__")
        if inner is None and not is_operator:
            return None
        version = getattr(value, "version", None)
        if inner is None:  # its version cannot lead back here, as that of a recursive operator does
            version = value.__helium_version__().hex()
        if isinstance(version, str):
            return "operator", value.__module__, value.__qualname__, version
        if is_operator:
            home = home_of(getattr(inner, "__globals__", {}).get("__name__", ""))
        return "wrapper", self.describe(inner, home)

    def _type_expression(self, value: Any, home: Home) -> tuple[Any, ...] | None:
        """``list[Answer]``, ``Answer | None``, a type variable, a special form of typing."""
        origin = typing.get_origin(value)
        if origin is typing.Annotated or (origin is None and type(value).__module__ == "typing"):
            text = repr(value)
            if " at 0x" in text:
                raise self.refusal(f"which is the type {text}")
            return "type", text
        if origin is None:
            return None
        return "type", self.describe(origin, home), self._all(typing.get_args(value), home)

    # --- definitions -----------------------------------------------------------------------------

    def _node(self, definition: Any, make: Callable[[], tuple[Any, ...]]) -> tuple[str, int]:
        """The number of a function or class, which is looked into the first time."""
        number = self._numbers.get(id(definition))
        if number is None:
            number = self._numbers[id(definition)] = len(self.nodes)
            self.definitions.append(definition)
            self.nodes.append(None)
            self.nodes[number] = make()
        return "definition", number

    def _function(
        self, function: FunctionType, home: Home, *, is_in_class: bool = False
    ) -> tuple[Any, ...]:
        # Not `__module__`: a wrapper made by another package's decorator has the module of what it
        # wraps.
        module = function.__globals__.get("__name__", "")
        if home.has(module):
            return self._node(
                function, lambda: self._look_into_function(function, home, is_in_class)
            )
        inner = wrapped_in(function)
        wrapped = () if inner is None else self.describe(inner, home)
        return "elsewhere", module, function.__code__.co_qualname, wrapped

    def _look_into_function(
        self, function: FunctionType, home: Home, is_in_class: bool
    ) -> tuple[Any, ...]:
        try:
            tree = definitions.find_function(function)
        except VersionError as error:
            raise self.refusal(f"which {error}") from None
        names = Names.of(function)
        with self._named("its default values"):
            defaults = self.describe((function.__defaults__, function.__kwdefaults__), home)
        return (
            "function",
            self._tokens(tree, names),
            defaults,
            self._follow(function.__code__, names, home),
            self._follow_annotations(tree, names, home),
            self._follow_imports(tree, names, home),
            [] if is_in_class else self._follow_owner(function, home),
        )

    def _tokens(self, tree: ast.AST, names: Names) -> list[Any]:
        return definitions.tree_tokens(tree, names.is_ours)

    def _class(self, cls: type, home: Home) -> tuple[Any, ...]:
        if not home.has(cls.__module__):
            return "elsewhere", *class_name(cls)
        return self._node(cls, lambda: self._look_into_class(cls, home))

    def _look_into_class(self, cls: Any, home: Home) -> tuple[Any, ...]:
        generic = getattr(cls, "__pydantic_generic_metadata__", None)
        if generic and generic["args"]:
            return "generic", self._all((generic["origin"], *generic["args"]), home)
        sources = definitions.find_class(cls)
        definition = _schema(cls)
        if not sources and definition is None:
            raise self.refusal("which is a class without source")
        names = Names(getattr(sys.modules.get(cls.__module__), "__dict__", {}), {})
        statements = [
            (
                self._tokens(source.node, names),
                self._follow(source.code, names, home),
                self._follow_annotations(source.node, names, home),
                self._follow_imports(source.node, names, home),
            )
            for source in sources
        ]
        bases = self._all((base for base in cls.__bases__ if base is not object), home)
        return (
            "class",
            definition,
            statements,
            [*bases, self.describe(type(cls), home)],
            self._members(cls, home),
        )

    def _members(self, cls: type, home: Home) -> list[Any]:
        """Methods, for their closures and defaults; constants, which the source may compute."""
        members: list[Any] = []
        for name, member in sorted(vars(cls).items()):
            written = [item for item in _functions_of(member) if not _is_generated(name, item)]
            for function in written:
                with self._named(f"{cls.__qualname__}.{name}"):
                    members.append((name, self._function(function, home, is_in_class=True)))
            if type(member) in _ATOMS | _SEQUENCES | _SETS | _MAPPINGS and name[:1] != "_":
                try:
                    members.append((name, self.describe(member, home)))
                except VersionError:
                    continue  # the text of the class still counts, and what it names
        return members

    # --- names -----------------------------------------------------------------------------------

    def _follow(self, code: CodeType, names: Names, home: Home) -> list[Any]:
        """What a body names, by label: constants by value, code by number."""
        chains = definitions.named_in_code(code)
        loaded = {chain[0] for chain, scope in chains if scope is Scope.CELL}
        chains |= {((name,), Scope.CELL) for name in names.cells if name not in loaded}
        found: dict[str, Any] = {}
        for chain, scope in sorted(chains, key=lambda item: (item[0], item[1].value)):
            depth, value = names.resolve(chain, scope, home)
            label = ".".join(chain[:depth])
            with self._named(label):
                if value is UNBOUND:
                    raise self.refusal("which is not defined")
                if depth and label not in found:
                    found[label] = self.describe(value, home)
                if chain[depth:] == ("__doc__",):
                    found[f"{label}.__doc__"] = ("value", str(value.__doc__))
        return sorted(found.items())

    def _follow_annotations(self, tree: ast.AST, names: Names, home: Home) -> list[Any]:
        """Classes of the package that annotations name; other annotations do not count."""
        found = []
        for chain in sorted(definitions.named_in_annotations(tree)):
            value = names.find(chain)
            is_ours = isinstance(value, type) and home.has(value.__module__)
            if is_ours or typing.get_args(value):
                with self._named(".".join(chain)):
                    found.append(self.describe(value, home))
        return found

    def _follow_imports(self, tree: ast.AST, names: Names, home: Home) -> list[Any]:
        """What a body imports from the package for itself."""
        found = []
        package = names.namespace.get("__package__") or ""
        for module, name in sorted(definitions.named_in_imports(tree, package)):
            if not home.has(module):
                continue
            with self._named(f"{module}.{name}" if name else module):
                value = vars(sys.modules.get(module, typing)).get(name, UNBOUND)
                if module not in sys.modules or value is UNBOUND or isinstance(value, ModuleType):
                    raise self.refusal("which it imports itself; import it at the top of the file")
                found.append((f"{module}.{name}", self.describe(value, home)))
        return found

    def _follow_owner(self, function: FunctionType, home: Home) -> list[Any]:
        """The class that a method is written in: its other methods are reached through `self`."""
        owner, _, _ = function.__code__.co_qualname.rpartition(".")
        if not owner or owner.endswith("<locals>"):
            return []
        if "<locals>" in owner:
            raise self.refusal("which is a method of a class inside a function")
        cls = Names(function.__globals__, {}).find(tuple(owner.split(".")))
        if not isinstance(cls, type):
            raise self.refusal(f"which is a method of {owner}, and that is no longer a class")
        return [self.describe(cls, home)]

    # --- messages --------------------------------------------------------------------------------

    @contextmanager
    def _named(self, label: str) -> Iterator[None]:
        self._trail.append(label)
        try:
            yield
        finally:
            self._trail.pop()

    def refusal(self, reason: str) -> VersionError:
        """The error that says how the walk came to what is at fault."""
        trail = "".join(f"names `{label}`, which " for label in self._trail)
        start = f"it {trail}".removesuffix(", which ") + f", {reason}" if trail else f"it {reason}"
        return VersionError(
            f"the version of {self.root} cannot be computed: {start}. Say which version it is, "
            'as in @operator(pure=True, version="1"), and count up when its answers change.'
        )


# --- small questions -----------------------------------------------------------------------------


def wrapped_in(value: Any) -> Any:
    """The function inside an operator or a decorated function."""
    for name in ("__helium_function__", "__wrapped__"):
        # Objects that answer to every name (proxies, mocks) do not have these.
        if inspect.getattr_static(value, name, None) is not None:
            inner = getattr(value, name)
            return inner if callable(inner) else None
    return None


def encoded(description: Any) -> bytes:
    """Canonical bytes of a description; unlike `encode`, without a word about operators."""
    return ENCODERS[type(description)](description, None)


def _sort_key(value: Any) -> str:
    """Sorts what may be in a set, where definitions go by name and data by encoding."""
    if isinstance(value, type | FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return encoded(value).hex()
    except EncodingError:
        return repr(value)


def _schema(cls: type) -> bytes | None:
    """What a class of data is, as a value: its JSON schema, members or fields."""
    try:
        return encode_class(cls)
    except EncodingError:
        return None


def _functions_of(member: Any) -> list[FunctionType]:
    """The functions in an attribute of a class: a method, a property, an operator."""
    candidates = [member]
    if isinstance(member, property):
        candidates = [member.fget, member.fset, member.fdel]
    elif isinstance(member, functools.cached_property):
        candidates = [member.func]
    elif not isinstance(member, type | FunctionType):
        candidates = [getattr(member, "__func__", None) or wrapped_in(member)]
    return [item for item in candidates if isinstance(item, FunctionType)]


def _is_generated(name: str, function: FunctionType) -> bool:
    """Whether the method was made from the fields of a class, as those of dataclasses are."""
    inner: Any = inspect.unwrap(function)
    filename = getattr(getattr(inner, "__code__", None), "co_filename", "")
    return name[:2] == "__" and filename[:1] == "<"
