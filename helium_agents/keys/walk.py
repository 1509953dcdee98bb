"""The walk behind a version: from a body through all that it names, each described as plain data.

Functions and classes of the own code are nodes, described once and then by name; so is each
constant that a function names. Everything else is described where it stands: containers and
instances by what they hold, what is of other packages by name. Equal things have equal descriptions
in every process. `keys.version` says what counts and why.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import math
import sys
import typing
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
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

from helium_agents.errors import VersionError
from helium_agents.keys.encoder import ENCODERS, is_operator_class
from helium_agents.keys.members import held_in_wrapper, members_of
from helium_agents.keys.names import Name, imported_in, named_in
from helium_agents.keys.own_code import OwnCode
from helium_agents.keys.shapes import RECORDS, class_name, find_class, is_static, shape_of
from helium_agents.keys.watch import (
    UNBOUND,
    Watch,
    cell_contents,
    read_attributes,
    read_class,
    read_function,
    read_instance,
    read_mapping,
)

Description = tuple[Any, ...]

_ATOMS = frozenset({type(None), bool, int, float, str, bytes, bytearray, *RECORDS})
_SEQUENCES = frozenset({tuple, list, deque})
_SETS = frozenset({set, frozenset})
_MAPPINGS = frozenset({dict, MappingProxyType, OrderedDict, defaultdict})
_CACHE = type(functools.lru_cache(int))
_SENTINELS = (..., NotImplemented, PydanticUndefined, dataclasses.MISSING)
_SET_BY_WRAPPERS = frozenset(
    {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__helium_function__", "__dict__"}
    | {"__code__", "__defaults__", "__kwdefaults__", "__orig_class__"}
)
_SET_BY_DISPATCH = frozenset({"register", "dispatch", "registry", "_clear_cache"})
_WITHOUT_INFLUENCE = frozenset(
    {"logging.Logger", "logging.RootLogger", "logging.LoggerAdapter", "_thread.lock"}
    | {"_thread.RLock", "threading.Semaphore", "threading.BoundedSemaphore"}
    | {f"asyncio.locks.{name}" for name in ("Lock", "Semaphore", "BoundedSemaphore")}
)
# These say where the code is, rather than what it does.
_PLACES = frozenset(
    {"__name__", "__file__", "__path__", "__package__", "__spec__", "__loader__", "__cached__"}
)
_BY_NAME = frozenset(
    {"definition", "wrapper", "module", "elsewhere", "builtin", "without influence"}
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
        self._names: dict[int, str] = {}
        self._definitions: list[Any] = []  # alive: a temporary must not leave its id to another
        self._containers: list[int] = []
        self._trail: list[str] = []

    # --- values ----------------------------------------------------------------------------------

    def describe(self, value: Any) -> Description:
        """What a value is, as plain data."""
        self._left -= 1
        if self._left < 0:
            raise self.refusal("which leads to too many values")
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
                raise self.refusal("which is a module, used as a value")
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
            raise self.refusal(f"which is an object of type {'.'.join(class_name(cls))}")
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
                with self._named(name):
                    found.append((name, self.describe(attribute)))
        return found

    # --- definitions -----------------------------------------------------------------------------

    def _node(self, definition: Any, look_into: Callable[[Any, str], Description]) -> Description:
        """The name of a function or class, which is looked into the first time."""
        name = self._names.get(id(definition))
        if name is None:
            name = f"{definition.__module__}:{definition.__qualname__}"
            while name in self.nodes:
                name += "'"
            self._names[id(definition)] = name
            self._definitions.append(definition)
            self.nodes[name] = ()
            self.nodes[name] = look_into(definition, name)
        return "definition", name

    def _function(self, function: FunctionType) -> Description:
        # Not `__module__`: a wrapper made by another package's decorator has the module of what it
        # wraps.
        module = function.__globals__.get("__name__", "")
        is_imported = _namespace(module) is function.__globals__
        if self._own.has(module) or not is_imported:
            return self._node(function, self._look_into_function)
        path = tuple(function.__qualname__.split("."))
        if self._find(function.__globals__, path) is function:
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
        for name, contents in _cells(function).items():
            with self._named(name):
                held.append(self.describe(contents))
        return *made, held, self._attributes(function)

    def _look_into_function(self, function: FunctionType, name: str) -> Description:
        self.watch.add(function, read_function)
        code, namespace, cells = function.__code__, function.__globals__, _cells(function)
        with self._named("its default values"):
            defaults = self.describe((function.__defaults__, function.__kwdefaults__))
        names = named_in(code)
        loaded = {each.chain[0] for each in names if each.scope == "cell"}
        names |= {Name((each,), "cell") for each in cells if each not in loaded}
        return (
            "function",
            self._code(code),
            defaults,
            self._follow(names, namespace, cells, name),
            self._imports(code, namespace),
            self._annotations(function, namespace, name),
            self._owner(function, namespace),
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
            with self._named(f"{cls.__qualname__}.{label}"):
                members.append((label, self.describe(member)))
        annotations = self._annotations(cls, _namespace(cls.__module__), name)
        return "class", [*bases, self.describe(type(cls))], members, annotations

    def _owner(self, function: FunctionType, namespace: Mapping[str, Any]) -> list[Any]:
        """The class that a method is written in: its other methods are reached through `self`."""
        owner, _, _ = function.__code__.co_qualname.rpartition(".")
        is_inside = f"{namespace.get('__name__', '')}:{owner}" in self.nodes
        if not owner or owner.endswith("<locals>") or is_inside:
            return []
        cls = self._find(namespace, tuple(owner.split(".")))
        if not isinstance(cls, type):  # inside a function, or replaced
            raise self.refusal(f"which is a method of {owner}, and that is not found as a class")
        return [self.describe(cls)]

    # --- names -----------------------------------------------------------------------------------

    def _follow(
        self,
        names: Iterable[Name],
        namespace: Mapping[str, Any],
        cells: Mapping[str, Any],
        of: str,
    ) -> list[Any]:
        """What a definition names, by label; constants become nodes."""
        found: dict[str, Any] = {}
        for chain, scope in sorted(names):
            with self._named(chain[0]):
                depth, value = self._resolve(Name(chain, scope), namespace, cells)
            label = ".".join(chain[:depth])
            if not depth or label in found:
                continue
            with self._named(label):
                if value is UNBOUND:
                    raise self.refusal("which is not defined")
                found[label] = self.describe(value)
            if found[label][0] not in _BY_NAME:
                self.nodes[f"{label} in {of}"] = found[label]
                found[label] = ()
        return sorted(found.items())

    def _resolve(
        self, name: Name, namespace: Mapping[str, Any], cells: Mapping[str, Any]
    ) -> tuple[int, Any]:
        """How much of a dotted name is a constant or definition, and which one.

        Attributes are followed through modules of the package. The length is 0 for names that need
        no following: builtins, local variables, names of places.
        """
        chain, scope = name
        if scope == "cell":
            if chain[0] not in cells:
                return 0, None
            value = cells[chain[0]]
        elif chain[0] in _PLACES:
            return 0, None
        else:
            value = self.watch.look_up(namespace, chain[0])
            if value is UNBOUND:
                is_known = hasattr(builtins, chain[0]) or scope == "class"
                return (0, None) if is_known else (1, UNBOUND)
        depth = 1
        while isinstance(value, ModuleType) and self._own.has(value.__name__) and chain[depth:]:
            value = self.watch.look_up(vars(value), chain[depth])
            depth += 1
        return depth, value

    def _find(self, namespace: Mapping[str, Any], path: tuple[str, ...]) -> Any:
        """What a dotted name stands for, through modules and classes, without running code."""
        value = self.watch.look_up(namespace, path[0])
        for name in path[1:]:
            is_namespace = isinstance(value, ModuleType | type)
            value = self.watch.look_up(vars(value), name) if is_namespace else UNBOUND
        return value

    def _annotations(self, definition: Any, namespace: Mapping[str, Any], of: str) -> list[Any]:
        """Annotations, which may be read; what quoted ones name need not be there."""
        found: list[Any] = []
        for label, annotation in inspect.get_annotations(definition).items():
            with self._named(label):
                found.append((label, self.describe(annotation)))
                if isinstance(annotation, str) and (code := _compiled(annotation)) is not None:
                    found.append(self._follow(named_in(code), namespace, {}, of))
        return found

    def _imports(self, code: CodeType, namespace: Mapping[str, Any]) -> list[Any]:
        """What a body imports from the package for itself."""
        found = []
        for module, name in sorted(imported_in(code, namespace.get("__package__") or "")):
            if not self._own.has(module):
                continue
            with self._named(f"{module}.{name}" if name else module):
                found_in = self.watch.look_up(sys.modules, module)
                value = self.watch.look_up(getattr(found_in, "__dict__", {}), name)
                if value is UNBOUND or isinstance(value, ModuleType):
                    raise self.refusal("which it imports itself; import it at the top of the file")
                found.append((module, name, self.describe(value)))
        return found

    # --- messages --------------------------------------------------------------------------------

    @contextmanager
    def _named(self, label: str) -> Iterator[None]:
        """Say in messages that what is described inside is named so."""
        self._trail.append(label)
        try:
            yield
        except (VersionError, RecursionError):
            raise
        except Exception as error:  # of properties and metaclasses of the user's
            raise self.refusal(f"which raised {type(error).__name__}") from error
        finally:
            self._trail.pop()

    def refusal(self, reason: str) -> VersionError:
        """The error that says how the walk came to what is at fault."""
        trail = ", which ".join(f"names `{label}`" for label in self._trail)
        start = f"it {trail}, {reason}" if trail else f"it {reason.removeprefix('which ')}"
        advice = (
            'give the class `__helium_version__ = "1"`'
            if isinstance(self.root, type)
            else 'as in @operator(pure=True, version="1")'
        )
        return VersionError(
            f"the version of {self.root.__module__}.{self.root.__qualname__} cannot be computed: "
            f"{start}. Say which version it is, {advice}, and count up when its answers change."
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
    """Canonical bytes of a description; unlike `encode`, without versions of what is in it."""
    return ENCODERS[type(description)](description, defaultdict(bytes))


def _compiled(annotation: str) -> CodeType | None:
    try:
        return compile(annotation, "<annotation>", "eval", dont_inherit=True)
    except SyntaxError:  # a text, and no type
        return None


def _namespace(module: str) -> dict[str, Any]:
    return getattr(sys.modules.get(module), "__dict__", {})


def _cells(function: FunctionType) -> dict[str, Any]:
    contents = map(cell_contents, function.__closure__ or ())
    return dict(zip(function.__code__.co_freevars, contents, strict=True))


def _sort_key(value: Any) -> str:
    """Sorts what may be in a set: by name, since names of nodes depend on who comes first."""
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return encoded(value).hex()
