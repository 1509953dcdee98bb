"""What a definition names: each name followed to the definition or constant that it stands for."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from helium_agents.keys.versions.names import Name, imported_in, named_in
from helium_agents.keys.versions.own_code import OwnCode
from helium_agents.keys.versions.trail import Trail
from helium_agents.keys.versions.watch import UNBOUND, Watch

Description = tuple[Any, ...]

# These say where the code is, rather than what it does.
_PLACES = frozenset(
    {"__name__", "__file__", "__path__", "__package__", "__spec__", "__loader__", "__cached__"}
)
_BY_NAME = frozenset(
    {"definition", "wrapper", "module", "elsewhere", "builtin", "without influence"}
)


class NameFollower:
    """Follows names on a walk, without running code.

    Args:
        describe: Says what a value is, as plain data.
        nodes: Gets the constants that are named.
        watch: Is told of what was looked at.
        own: The code that counts as the root's own.
        trail: How the walk came here.
    """

    def __init__(
        self,
        describe: Callable[[Any], Description],
        nodes: dict[str, Description],
        watch: Watch,
        own: OwnCode,
        trail: Trail,
    ) -> None:
        self._describe = describe
        self._nodes = nodes
        self._watch = watch
        self._own = own
        self._trail = trail

    def follow(
        self,
        names: Iterable[Name],
        namespace: Mapping[str, Any],
        cells: Mapping[str, Any],
        of: str,
    ) -> list[Any]:
        """What a definition names, by label; constants become nodes."""
        found: dict[str, Any] = {}
        for chain, scope in sorted(names):
            with self._trail.named(chain[0]):
                depth, value = self._resolve(Name(chain, scope), namespace, cells)
            label = ".".join(chain[:depth])
            if not depth or label in found:
                continue
            with self._trail.named(label):
                if value is UNBOUND:
                    raise self._trail.refusal("which is not defined")
                found[label] = self._describe(value)
            if found[label][0] not in _BY_NAME:
                self._nodes[f"{label} in {of}"] = found[label]
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
            value = self._watch.look_up(namespace, chain[0])
            if value is UNBOUND:
                is_known = hasattr(builtins, chain[0]) or scope == "class"
                return (0, None) if is_known else (1, UNBOUND)
        depth = 1
        while isinstance(value, ModuleType) and self._own.has(value.__name__) and chain[depth:]:
            value = self._watch.look_up(vars(value), chain[depth])
            depth += 1
        return depth, value

    def find(self, namespace: Mapping[str, Any], path: tuple[str, ...]) -> Any:
        """What a dotted name stands for, through modules and classes, without running code."""
        value = self._watch.look_up(namespace, path[0])
        for name in path[1:]:
            is_namespace = isinstance(value, ModuleType | type)
            value = self._watch.look_up(vars(value), name) if is_namespace else UNBOUND
        return value

    def annotations(self, definition: Any, namespace: Mapping[str, Any], of: str) -> list[Any]:
        """Annotations, which may be read; what quoted ones name need not be there."""
        found: list[Any] = []
        for label, annotation in inspect.get_annotations(definition).items():
            with self._trail.named(label):
                found.append((label, self._describe(annotation)))
                if isinstance(annotation, str) and (code := _compiled(annotation)) is not None:
                    found.append(self.follow(named_in(code), namespace, {}, of))
        return found

    def imports(self, code: CodeType, namespace: Mapping[str, Any]) -> list[Any]:
        """What a body imports from the package for itself."""
        found = []
        for module, name in sorted(imported_in(code, namespace.get("__package__") or "")):
            if not self._own.has(module):
                continue
            with self._trail.named(f"{module}.{name}" if name else module):
                found_in = self._watch.look_up(sys.modules, module)
                value = self._watch.look_up(getattr(found_in, "__dict__", {}), name)
                if value is UNBOUND or isinstance(value, ModuleType):
                    raise self._trail.refusal(
                        "which it imports itself; import it at the top of the file"
                    )
                found.append((module, name, self._describe(value)))
        return found

    def owner(self, function: FunctionType, namespace: Mapping[str, Any]) -> list[Any]:
        """The class that a method is written in: its other methods are reached through `self`."""
        owner, _, _ = function.__code__.co_qualname.rpartition(".")
        is_inside = f"{namespace.get('__name__', '')}:{owner}" in self._nodes
        if not owner or owner.endswith("<locals>") or is_inside:
            return []
        cls = self.find(namespace, tuple(owner.split(".")))
        if not isinstance(cls, type):  # inside a function, or replaced
            raise self._trail.refusal(
                f"which is a method of {owner}, and that is not found as a class"
            )
        return [self._describe(cls)]


def _compiled(annotation: str) -> CodeType | None:
    try:
        return compile(annotation, "<annotation>", "eval", dont_inherit=True)
    except SyntaxError:  # a text, and no type
        return None


def namespace_of(module: str) -> dict[str, Any]:
    """The names of a module that is imported; none of another."""
    return getattr(sys.modules.get(module), "__dict__", {})
