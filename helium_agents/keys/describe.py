"""Describes values as plain data: containers and instances by what they hold, the rest by name.

Equal values have equal descriptions in every process. What a function or a class is described as is
left to `graph.walk`, which looks into them.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
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

from helium_agents.errors import VersionError
from helium_agents.keys.encoder import BY_NAME, ENCODERS, is_operator_class
from helium_agents.keys.members import held_in_wrapper
from helium_agents.keys.own_code import OwnCode, own_code_of
from helium_agents.keys.shapes import RECORDS, class_name, shape_of
from helium_agents.keys.watch import Watch

Description = tuple[Any, ...]

_ATOMS = frozenset({type(None), bool, int, float, str, bytes, bytearray, *RECORDS})
_SEQUENCES = frozenset({tuple, list, deque})
_SETS = frozenset({set, frozenset})
_MAPPINGS = frozenset({dict, MappingProxyType, OrderedDict, defaultdict})
_CONTAINERS = _SEQUENCES | _SETS | _MAPPINGS
_METHODS_IN_C = (
    MethodDescriptorType,
    WrapperDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
)
_CACHE = type(functools.lru_cache(int))
_SET_BY_WRAPPERS = frozenset(
    {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "__helium_function__", "__dict__"}
    | {"__code__", "__defaults__", "__kwdefaults__", "__orig_class__"}
)
_WITHOUT_INFLUENCE = frozenset(
    {*(("logging", name) for name in ("Logger", "RootLogger", "LoggerAdapter"))}
    | {("asyncio.locks", name) for name in ("Lock", "Semaphore", "BoundedSemaphore")}
    | {("threading", name) for name in ("Semaphore", "BoundedSemaphore")}
    | {("_thread", name) for name in ("lock", "RLock")}
)


class Describer:
    """Describes values, and remembers what they were described from.

    Args:
        root: What is described in the end, for messages.

    Attributes:
        watch: What values were described from.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.watch = Watch()
        self._containers: list[int] = []
        self._trail: list[str] = []

    def describe_function(self, function: FunctionType, own: OwnCode) -> Description:
        """What a function is."""
        raise NotImplementedError

    def describe_class(self, cls: type, own: OwnCode) -> Description:
        """What a class is."""
        raise NotImplementedError

    # --- values ----------------------------------------------------------------------------------

    def describe(self, value: Any, own: OwnCode) -> Description:
        """What a value is, as plain data; equal for equal values in every process."""
        cls = type(value)
        if cls in _ATOMS:
            if cls is bytearray:
                self.watch.add(value)
            is_path = isinstance(value, PurePath)
            return ("path", own.relative(str(value))) if is_path else ("value", value)
        if isinstance(value, type) and typing.get_origin(value) is None:
            return self.describe_class(value, own)
        if isinstance(value, FunctionType):
            return self.describe_function(value, own)
        if isinstance(value, ModuleType):
            if own.has(value.__name__):
                raise self.refusal("which is a module, used as a value")
            return "module", value.__name__
        if id(value) in self._containers:
            return "cycle", len(self._containers) - self._containers.index(id(value))
        self._containers.append(id(value))
        try:
            return self._object(value, own)
        finally:
            self._containers.pop()

    def all(self, values: Iterable[Any], own: OwnCode) -> list[Any]:
        """Descriptions of several values."""
        return [self.describe(value, own) for value in values]

    def _object(self, value: Any, own: OwnCode) -> Description:
        cls = type(value)
        if cls in _CONTAINERS:
            self.watch.add(value)
        if cls in _SEQUENCES:
            return cls.__name__, self.all(value, own)
        if cls in _SETS:
            # Sorted by what they are described as would number the definitions among them by
            # address; their own names are stable.
            return cls.__name__, self.all(sorted(value, key=sort_key), own)
        if cls in _MAPPINGS:
            factory = getattr(value, "default_factory", None)
            items = [self.all(item, own) for item in value.items()]
            return cls.__name__, items, self.describe(factory, own)
        known = self._type_expression(value, own) or self._callable(value, own)
        if known is not None:
            return known
        if (cls.__module__, cls.__qualname__) in _WITHOUT_INFLUENCE:
            return ("without influence",)
        if cls is re.Pattern:
            return "pattern", self.describe(value.pattern, own), value.flags
        if cls is object or value is ... or value is NotImplemented:
            return "sentinel", cls.__name__
        shape = shape_of(cls)
        if shape is None:
            raise self.refusal(f"which is an object of type {'.'.join(class_name(cls))}")
        self.watch.add(value)
        return "instance", self.describe(cls, own), self.all(shape.take_apart(value), own)

    def _callable(self, value: Any, own: OwnCode) -> Description | None:
        """Callables that are neither plain functions nor classes, and what classes hold."""
        if isinstance(value, MethodType):
            return "method", self.all((value.__func__, value.__self__), own)
        if isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            is_plain = owner is None or isinstance(owner, ModuleType)
            module = value.__module__ if is_plain else self.describe(owner, own)
            return "builtin", module, value.__qualname__
        if isinstance(value, _METHODS_IN_C):
            return "builtin", value.__objclass__.__qualname__, value.__name__
        held = held_in_wrapper(value)
        if held is not None:
            return "holder", type(value).__name__, self.all(held, own)
        if is_operator_class(type(value)):
            return self._operator(value)
        if type(value) is _CACHE:
            inner = self.describe(value.__wrapped__, own)
            return "wrapper", inner, self.attributes(value, own)
        return None

    def _operator(self, value: Any) -> Description:
        inner, version = wrapped_in(value), getattr(value, "version", None)
        if inner is None:  # its version cannot lead back here, as that of a recursive operator does
            version = value.__helium_version__().hex()
        own = own_code_of(getattr(inner, "__globals__", {}).get("__name__", ""))
        attributes = self.attributes(value, own, but=("body", "version"))
        if isinstance(version, str):
            return "operator", value.__module__, value.__qualname__, version, attributes
        return "wrapper", self.describe(inner, own), attributes

    def attributes(self, value: Any, own: OwnCode, but: Collection[str] = ()) -> list[Any]:
        """What was set on a function from outside, beside what its decorators set."""
        self.watch.add(value)
        known = {*_SET_BY_WRAPPERS, *but}
        found = []
        for name, attribute in sorted(vars(value).items()):
            if name not in known and not (but and name[:1] == "_"):
                with self.named(name):
                    found.append((name, self.describe(attribute, own)))
        return found

    def _type_expression(self, value: Any, own: OwnCode) -> Description | None:
        """``list[Answer]``, ``Answer | None``, a type variable, a special form of typing."""
        origin = typing.get_origin(value)
        if origin is typing.Annotated or (origin is None and type(value).__module__ == "typing"):
            text = repr(value)
            if " at 0x" in text:
                raise self.refusal(f"which is the type {text}")
            return "type", text
        if origin is None:
            return None
        return "type", self.describe(origin, own), self.all(typing.get_args(value), own)

    # --- messages --------------------------------------------------------------------------------

    @contextmanager
    def named(self, label: str) -> Iterator[None]:
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
    return ENCODERS[type(description)](description, BY_NAME)


def sort_key(value: Any) -> str:
    """Sorts what may be in a set, where definitions go by name and data by encoding."""
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return encoded(value).hex()
