"""The walk behind a version: from a body through all that it names, each described as plain data.

Constants are described by value, functions and classes of the own code by number, everything else
by name. `keys.version` says what counts and why.
"""

from __future__ import annotations

import ast
import functools
import sys
import typing
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

from helium_agents.errors import EncodingError, VersionError
from helium_agents.keys import definitions
from helium_agents.keys.definitions import Scope
from helium_agents.keys.describe import Describer, Description, sort_key, wrapped_in
from helium_agents.keys.encoder import class_definition
from helium_agents.keys.members import annotated_fields_of, fields_of, is_of_library, members_of
from helium_agents.keys.names import Names
from helium_agents.keys.own_code import OwnCode, own_code_of
from helium_agents.keys.shapes import class_name, find_class, is_static
from helium_agents.keys.watch import UNBOUND, cell_contents

_SET_BY_DISPATCH = frozenset({"register", "dispatch", "registry", "_clear_cache"})


class Walk(Describer):
    """One walk from a root: describes functions and classes by number, and looks into them.

    Args:
        root: What the version is of.

    Attributes:
        definitions: The functions and classes that the walk came to, in order.
        nodes: What each of them is described as.
    """

    def __init__(self, root: Any) -> None:
        super().__init__(root)
        self.nodes: list[Any] = []
        self.definitions: list[Any] = []  # alive: a temporary must not leave its id to another
        self._numbers: dict[int, int] = {}

    # --- definitions -----------------------------------------------------------------------------

    def _node(self, definition: Any, make: Callable[[], Description]) -> tuple[str, int]:
        """The number of a function or class, which is looked into the first time."""
        number = self._numbers.get(id(definition))
        if number is None:
            number = self._numbers[id(definition)] = len(self.nodes)
            self.definitions.append(definition)
            self.nodes.append(None)
            self.nodes[number] = make()
        return "definition", number

    def describe_function(self, function: FunctionType, own: OwnCode) -> Description:
        """A number for a function of the own code, or one that no module has; else its name."""
        # Not `__module__`: a wrapper made by another package's decorator has the module of what it
        # wraps.
        module = function.__globals__.get("__name__", "")
        if own.has(module):
            return self._node(function, lambda: self._look_into_function(function, own))
        if not is_of_library(function, own):
            own = own_code_of(module)
            return self._node(function, lambda: self._look_into_function(function, own))
        name = "elsewhere", module, function.__code__.co_qualname
        path = tuple(function.__qualname__.split("."))
        if Names(function.__globals__, {}, self.watch).find(path) is function:
            return name
        return self._node(function, lambda: (*name, self._look_into_wrapper(function, own)))

    def _look_into_wrapper(self, function: FunctionType, own: OwnCode) -> list[Any]:
        """What a function holds that another package's decorator made."""
        self.watch.add(function)
        registry = vars(function).get("registry")
        if type(registry) is MappingProxyType and function.__globals__ is vars(functools):
            self.watch.add(registry)  # of `singledispatch`, whose cells hold a cache as well
            implementations = sorted(registry.items(), key=lambda item: sort_key(item[0]))
            found = [self.all(item, own) for item in implementations]
            return [*found, self.attributes(function, own, but=_SET_BY_DISPATCH)]
        inner = wrapped_in(function)
        held = [] if inner is None else [self.describe(inner, own)]
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=True):
            with self.named(name):
                held.append(self.describe(cell_contents(cell), own))
        return [*held, self.attributes(function, own)]

    def _look_into_function(self, function: FunctionType, own: OwnCode) -> Description:
        self.watch.add(function)
        try:
            tree = definitions.find_function(function)
        except VersionError as error:
            raise self.refusal(f"which {error}") from None
        names = Names.of(function, self.watch)
        with self.named("its default values"):
            defaults = self.describe((function.__defaults__, function.__kwdefaults__), own)
        return (
            "function",
            self._tokens(tree, names),
            defaults,
            self._follow(function.__code__, names, own),
            self._follow_annotations(tree, names, own),
            self._follow_imports(tree, names, own),
            self._follow_owner(function, own),
            self.attributes(function, own),
        )

    def _tokens(self, tree: ast.AST, names: Names) -> list[Any]:
        return definitions.tree_tokens(tree, names.is_ours)

    def describe_class(self, cls: type, own: OwnCode) -> Description:
        """A number for a class of the same own code, or one that no module has; else its name."""
        if is_static(cls):
            return "elsewhere", *class_name(cls)
        if not own.has(cls.__module__):
            if find_class(*class_name(cls)) is cls:
                return "elsewhere", *class_name(cls)
            own = own_code_of(cls.__module__)  # made by a call
        return self._node(cls, lambda: self._look_into_class(cls, own))

    def _look_into_class(self, cls: Any, own: OwnCode) -> Description:
        self.watch.add(cls)
        explicit = vars(cls).get("__helium_version__")
        if isinstance(explicit, str):
            return "class", *class_name(cls), explicit
        generic = getattr(cls, "__pydantic_generic_metadata__", None)
        if generic and generic["args"]:
            return (
                "generic",
                self.all((generic["origin"], *generic["args"]), own),
                self._members(cls, members_of(cls, own), own),
            )
        sources = definitions.find_class(cls)
        definition = _schema(cls)
        if not sources and definition is None:
            raise self.refusal("which is a class without source")
        namespace = getattr(sys.modules.get(cls.__module__), "__dict__", {})
        names = Names(namespace, {}, self.watch)
        statements = [
            (
                self._tokens(source.node, names),
                self._follow(source.code, names, own),
                self._follow_annotations(source.node, names, own),
                self._follow_imports(source.node, names, own),
            )
            for source in sources
        ]
        bases = self.all((base for base in cls.__bases__ if base is not object), own)
        members = [*members_of(cls, own), *fields_of(cls)]
        if not sources:
            members += annotated_fields_of(cls)
        return (
            "class",
            definition,
            statements,
            [*bases, self.describe(type(cls), own)],
            self._members(cls, members, own),
        )

    def _members(self, cls: type, members: Iterable[tuple[str, Any]], own: OwnCode) -> list[Any]:
        found = []
        for name, member in members:
            with self.named(f"{cls.__qualname__}.{name}"):
                found.append((name, self.describe(member, own)))
        return found

    # --- names -----------------------------------------------------------------------------------

    def _follow(self, code: CodeType, names: Names, own: OwnCode) -> list[Any]:
        """What a body names, by label: constants by value, code by number."""
        chains = definitions.named_in_code(code)
        loaded = {chain[0] for chain, scope in chains if scope is Scope.CELL}
        chains |= {((name,), Scope.CELL) for name in names.cells if name not in loaded}
        found: dict[str, Any] = {}
        for chain, scope in sorted(chains, key=lambda item: (item[0], item[1].value)):
            with self.named(chain[0]):
                depth, value = names.resolve(chain, scope, own)
            label = ".".join(chain[:depth])
            with self.named(label):
                if value is UNBOUND:
                    raise self.refusal("which is not defined")
                if depth and label not in found:
                    found[label] = self.describe(value, own)
                if chain[depth:] == ("__doc__",):
                    found[f"{label}.__doc__"] = ("value", str(value.__doc__))
        return sorted(found.items())

    def _follow_annotations(self, tree: ast.AST, names: Names, own: OwnCode) -> list[Any]:
        """Classes of the package that annotations name; other annotations do not count."""
        found = []
        for chain in sorted(definitions.named_in_annotations(tree)):
            value = names.find(chain)
            is_ours = isinstance(value, type) and own.has(value.__module__)
            if is_ours or typing.get_args(value):
                with self.named(".".join(chain)):
                    found.append(self.describe(value, own))
        return found

    def _follow_imports(self, tree: ast.AST, names: Names, own: OwnCode) -> list[Any]:
        """What a body imports from the package for itself."""
        found = []
        package = names.namespace.get("__package__") or ""
        for module, name in sorted(definitions.named_in_imports(tree, package)):
            if not own.has(module):
                continue
            with self.named(f"{module}.{name}" if name else module):
                found_in = self.watch.look_up(sys.modules, module)
                value = self.watch.look_up(getattr(found_in, "__dict__", {}), name)
                if value is UNBOUND or isinstance(value, ModuleType):
                    raise self.refusal("which it imports itself; import it at the top of the file")
                found.append((f"{module}.{name}", self.describe(value, own)))
        return found

    def _follow_owner(self, function: FunctionType, own: OwnCode) -> list[Any]:
        """The class that a method is written in: its other methods are reached through `self`."""
        owner, _, _ = function.__code__.co_qualname.rpartition(".")
        module = function.__globals__.get("__name__", "")
        if not owner or owner.endswith("<locals>") or self._is_inside(module, owner):
            return []
        if "<locals>" in owner:
            raise self.refusal("which is a method of a class inside a function")
        cls = Names(function.__globals__, {}, self.watch).find(tuple(owner.split(".")))
        if not isinstance(cls, type):
            raise self.refusal(f"which is a method of {owner}, and that is no longer a class")
        return [self.describe(cls, own)]

    def _is_inside(self, module: str, owner: str) -> bool:
        """Whether the walk came to the class of this name already."""
        return any(
            isinstance(item, type) and (item.__module__, item.__qualname__) == (module, owner)
            for item in self.definitions
        )


def _schema(cls: type) -> bytes | None:
    """What a class of data is, as a value: its JSON schema, members or fields."""
    try:
        return class_definition(cls)
    except EncodingError:
        return None
