"""The walk behind a version: from a body through all that it names, each described as plain data.

Functions and classes of the own code are nodes, described once and then by name; so is each
constant that a function names. Everything else is described where it stands: containers and
instances by what they hold, what is of other packages by name. Equal things have equal descriptions
in every process. `keys.versions.version` says what counts and why.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import typing
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

from pydantic_core import PydanticUndefined

from helium_agents.keys.class_names import class_name, find_class
from helium_agents.keys.encoder import ENCODERS, is_operator_class
from helium_agents.keys.kept import KEPT
from helium_agents.keys.shapes import RECORDS, is_static, shape_of
from helium_agents.keys.versions.follow import Description, NameFollower, namespace_of
from helium_agents.keys.versions.members import held_in_wrapper, members_of, wrapped_in
from helium_agents.keys.versions.names import Name, named_in
from helium_agents.keys.versions.own_code import OwnCode
from helium_agents.keys.versions.trail import Trail
from helium_agents.keys.versions.watch import (
    Watch,
    cells_of,
    read_attributes,
    read_class,
    read_function,
    read_instance,
    read_mapping,
)

_ATOMS = frozenset({type(None), bool, int, float, str, bytes, bytearray, *RECORDS})
_SEQUENCES = frozenset({tuple, list, deque})
_SETS = frozenset({set, frozenset})
_MAPPINGS = frozenset({dict, MappingProxyType, OrderedDict, defaultdict})
_CACHE = type(functools.lru_cache(int))
_SENTINELS = (..., NotImplemented, PydanticUndefined, dataclasses.MISSING)
_SET_BY_WRAPPERS = frozenset(
    {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__helium_function__", "__dict__"}
    | {"__code__", "__defaults__", "__kwdefaults__", "__orig_class__", KEPT}
)
_SET_BY_DISPATCH = frozenset({"register", "dispatch", "registry", "_clear_cache"})
_WITHOUT_INFLUENCE = frozenset(
    {"logging.Logger", "logging.RootLogger", "logging.LoggerAdapter", "_thread.lock"}
    | {"_thread.RLock", "threading.Semaphore", "threading.BoundedSemaphore"}
    | {f"asyncio.locks.{name}" for name in ("Lock", "Semaphore", "BoundedSemaphore")}
)


class Walk:
    """One walk from a root.

    Args:
        root: The function or class that the version is of; its package is the own code.
        most_values: Refuse to look at more.

    Attributes:
        nodes: What each definition and constant on the way is described as, by name, in the order
            in which the walk came to them: ``module:qualname`` of a definition, ``NAME in
            module:qualname`` of a constant that it names.
        watch: What everything was described from.
        trail: How the walk came to where it is, for errors.
    """

    def __init__(self, root: Any, most_values: int | None = None) -> None:
        self.root = root
        self._left = math.inf if most_values is None else most_values
        self.nodes: dict[str, Description] = {}
        self.watch = Watch()
        self._own = OwnCode()
        if isinstance(root, type):
            self._own.add(root.__module__)
        else:  # another package's decorator may have wrapped it
            self._own.add(inspect.unwrap(root).__globals__.get("__name__", ""))
        self._node_names: dict[int, str] = {}
        self._definitions: list[Any] = []  # alive: a temporary must not leave its id to another
        self._containers: list[int] = []
        self.trail = Trail(root)
        self._names = NameFollower(self.describe, self.nodes, self.watch, self._own, self.trail)

    # --- values ----------------------------------------------------------------------------------

    def describe(self, value: Any) -> Description:
        """What a value is, as plain data."""
        self._left -= 1
        if self._left < 0:
            raise self.trail.refusal("which leads to too many values")
        cls = type(value)
        if cls in _ATOMS:
            if cls is bytearray:
                self.watch.add(value, tuple)
            return "value", value
        if isinstance(value, type) and typing.get_origin(value) is None:
            return self._class(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, ModuleType):
            if self._own.has(value.__name__):
                raise self.trail.refusal("which is a module, used as a value")
            return "module", value.__name__
        if id(value) in self._containers:
            return "cycle", len(self._containers) - self._containers.index(id(value))
        self._containers.append(id(value))
        try:
            return self._object(value)
        finally:
            self._containers.pop()

    def _all(self, values: Iterable[Any]) -> list[Any]:
        return [self.describe(value) for value in values]

    def _object(self, value: Any) -> Description:
        cls = type(value)
        if cls in _SEQUENCES:
            if cls is not tuple:
                self.watch.add(value, tuple)
            return cls.__name__, self._all(value)
        if cls in _SETS:
            self.watch.add(value, tuple)
            return cls.__name__, self._all(sorted(value, key=_sort_key))
        if cls in _MAPPINGS:
            self.watch.add(value, read_mapping)
            items = [self._all(item) for item in value.items()]
            return cls.__name__, items, self.describe(getattr(value, "default_factory", None))
        if (origin := typing.get_origin(value)) is not None:  # list[Answer], Answer | None
            return "type", self.describe(origin), self._all(typing.get_args(value))
        if cls.__module__ == "typing":  # a type variable, a special form
            return "type", repr(value)
        if (found := self._callable(value)) is not None:
            return found
        if (held := held_in_wrapper(value)) is not None:
            return "holder", cls.__name__, self._all(held)
        if f"{cls.__module__}.{cls.__qualname__}" in _WITHOUT_INFLUENCE:
            return ("without influence",)
        if cls is object or any(value is sentinel for sentinel in _SENTINELS):
            return "sentinel", cls.__name__
        shape = shape_of(cls)
        if shape is None:
            raise self.trail.refusal(f"which is an object of type {'.'.join(class_name(cls))}")
        self.watch.add(value, read_instance)
        return "instance", self.describe(cls), self._all(shape.take_apart(value))

    def _callable(self, value: Any) -> Description | None:
        """Callables that are neither plain functions nor classes."""
        if isinstance(value, MethodType):
            return "method", self._all((value.__func__, value.__self__))
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            is_plain = owner is None or isinstance(owner, ModuleType)
            module = value.__module__ if is_plain else self.describe(owner)
            return "builtin", module, value.__qualname__
        if type(value).__module__ == "builtins" and hasattr(value, "__objclass__"):  # in C
            return "builtin", value.__objclass__.__qualname__, value.__name__
        if is_operator_class(type(value)):
            return self._operator(value)
        if type(value) is _CACHE:
            return "wrapper", self.describe(value.__wrapped__), self._attributes(value)
        return None

    def _operator(self, value: Any) -> Description:
        inner, version = wrapped_in(value), getattr(value, "version", None)
        if inner is None:  # its version cannot lead back here, as that of a recursive operator does
            version = value.__helium_version__().hex()
        self._own.add(getattr(inner, "__globals__", {}).get("__name__", ""))
        attributes = self._attributes(value, but=("body", "version"))
        if isinstance(version, str):
            return "operator", value.__module__, value.__qualname__, version, attributes
        return "wrapper", self.describe(inner), attributes

    def _attributes(self, value: Any, but: Collection[str] = ()) -> list[Any]:
        """What was set on a function from outside, beside what its decorators set."""
        self.watch.add(value, read_attributes)
        known = {*_SET_BY_WRAPPERS, *but}
        found = []
        for name, attribute in sorted(vars(value).items()):
            if name not in known and not (but and name[:1] == "_"):
                with self.trail.named(name):
                    found.append((name, self.describe(attribute)))
        return found

    # --- definitions -----------------------------------------------------------------------------

    def _node(self, definition: Any, look_into: Callable[[Any, str], Description]) -> Description:
        """The name of a function or class, which is looked into the first time."""
        name = self._node_names.get(id(definition))
        if name is None:
            name = f"{definition.__module__}:{definition.__qualname__}"
            while name in self.nodes:
                name += "'"
            self._node_names[id(definition)] = name
            self._definitions.append(definition)
            self.nodes[name] = ()
            self.nodes[name] = look_into(definition, name)
        return "definition", name

    def _function(self, function: FunctionType) -> Description:
        # Not `__module__`: another package's wrapper has the module of what it wraps.
        module = function.__globals__.get("__name__", "")
        is_imported = namespace_of(module) is function.__globals__
        if self._own.has(module) or not is_imported:
            return self._node(function, self._look_into_function)
        path = tuple(function.__qualname__.split("."))
        if self._names.find(function.__globals__, path) is function:
            return "elsewhere", module, function.__code__.co_qualname
        return self._node(function, self._look_into_wrapper)

    def _look_into_wrapper(self, function: FunctionType, _: str) -> Description:
        """What a function holds that another package's decorator made."""
        self.watch.add(function, read_function)
        made = "elsewhere", function.__globals__["__name__"], function.__code__.co_qualname
        registry = vars(function).get("registry")
        if type(registry) is MappingProxyType and function.__globals__ is vars(functools):
            # of `singledispatch`, whose cells hold a cache as well
            self.watch.add(registry, read_mapping)
            implementations = sorted(registry.items(), key=lambda item: _sort_key(item[0]))
            found = [self._all(item) for item in implementations]
            return *made, found, self._attributes(function, but=_SET_BY_DISPATCH)
        held = [self.describe(function.__wrapped__)] if hasattr(function, "__wrapped__") else []
        for name, contents in cells_of(function).items():
            with self.trail.named(name):
                held.append(self.describe(contents))
        return *made, held, self._attributes(function)

    def _look_into_function(self, function: FunctionType, name: str) -> Description:
        self.watch.add(function, read_function)
        code, namespace, cells = function.__code__, function.__globals__, cells_of(function)
        with self.trail.named("its default values"):
            defaults = self.describe((function.__defaults__, function.__kwdefaults__))
        names = named_in(code)
        loaded = {each.chain[0] for each in names if each.scope == "cell"}
        names |= {Name((each,), "cell") for each in cells if each not in loaded}
        return (
            "function",
            self._code(code),
            defaults,
            self._names.follow(names, namespace, cells, name),
            self._names.imports(code, namespace),
            self._names.annotations(function, namespace, name),
            self._names.owner(function, namespace),
            self._attributes(function),
        )

    def _code(self, code: CodeType) -> list[Any]:
        """All of a code but where it stands."""
        consts = [
            self._code(const) if isinstance(const, CodeType) else self.describe(const)
            for const in code.co_consts
        ]
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        tables = code.co_code, code.co_exceptiontable, code.co_flags
        return [code.co_name, consts, names, counts, tables]

    def _class(self, cls: type) -> Description:
        is_own = not is_static(cls) and self._own.has(cls.__module__)
        if is_static(cls) or (not is_own and find_class(*class_name(cls)) is cls):
            return "elsewhere", *class_name(cls)
        return self._node(cls, self._look_into_class)  # of the own code, or made by a call

    def _look_into_class(self, cls: type, name: str) -> Description:
        self.watch.add(cls, read_class)
        explicit = vars(cls).get("__helium_version__")
        if isinstance(explicit, str):
            return "class", *class_name(cls), explicit
        bases = self._all(base for base in cls.__bases__ if base is not object)
        members = []
        for label, member in members_of(cls, self._own):
            with self.trail.named(f"{cls.__qualname__}.{label}"):
                members.append((label, self.describe(member)))
        annotations = self._names.annotations(cls, namespace_of(cls.__module__), name)
        return "class", [*bases, self.describe(type(cls))], members, annotations


def encoded(description: Any) -> bytes:
    """Canonical bytes of a description; unlike `encode`, without versions of what is in it."""
    return ENCODERS[type(description)](description, defaultdict(bytes))


def _sort_key(value: Any) -> str:
    """Sorts what may be in a set: by name, since names of nodes depend on who comes first."""
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return encoded(value).hex()
