"""What a body's names stand for: in its closure, its module, and the package's other modules."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from helium_agents.keys.definitions import Chain, Scope, dotted_name
from helium_agents.keys.own_code import OwnCode
from helium_agents.keys.watch import UNBOUND, Watch, cell_contents

# These say where the code is, rather than what it does.
_PLACES = frozenset(
    {"__name__", "__file__", "__path__", "__package__", "__spec__", "__loader__", "__cached__"}
)


class Names(NamedTuple):
    """The names that a function or a class body sees.

    Args:
        namespace: Globals of its module.
        cells: Variables of enclosing functions, by name.
        watch: Told of every name that is looked up.
    """

    namespace: Mapping[str, Any]
    cells: Mapping[str, Any]
    watch: Watch

    @classmethod
    def of(cls, function: FunctionType, watch: Watch) -> Names:
        """The names that a function sees."""
        cells = map(cell_contents, function.__closure__ or ())
        free_names = function.__code__.co_freevars
        return cls(function.__globals__, dict(zip(free_names, cells, strict=True)), watch)

    def resolve(self, chain: Chain, scope: Scope, own: OwnCode) -> tuple[int, Any]:
        """How much of a dotted name is a constant or definition, and which one.

        Attributes are followed through modules of the package. The length is 0 for names that need
        no following: builtins, local variables, names of places.
        """
        name = chain[0]
        if scope is Scope.CELL:
            if name not in self.cells:
                return 0, None
            value = self.cells[name]
        elif name in _PLACES:
            return 0, None
        else:
            value = self.watch.look_up(self.namespace, name)
            if value is UNBOUND:
                is_known = hasattr(builtins, name) or scope is Scope.CLASS
                return (0, None) if is_known else (1, UNBOUND)
        depth = 1
        while isinstance(value, ModuleType) and own.has(value.__name__) and depth < len(chain):
            value = self.watch.look_up(vars(value), chain[depth])
            depth += 1
        return depth, value

    def find(self, chain: Chain) -> Any:
        """What a dotted name stands for, through modules and classes, without running code."""
        if not chain:
            return UNBOUND
        value = self.cells.get(chain[0], UNBOUND)
        if value is UNBOUND:
            value = self.watch.look_up(self.namespace, chain[0])
        for name in chain[1:]:
            is_namespace = isinstance(value, ModuleType | type)
            value = self.watch.look_up(vars(value), name) if is_namespace else UNBOUND
        return value

    def is_ours(self, decorator: ast.expr) -> bool:
        """Whether a decorator is helium's own: its options do not change what a body does."""
        expression = decorator.func if isinstance(decorator, ast.Call) else decorator
        module = getattr(self.find(dotted_name(expression)), "__module__", None)
        return isinstance(module, str) and module.partition(".")[0] == "helium_agents"
