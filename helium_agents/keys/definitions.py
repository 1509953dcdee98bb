"""Finds the source of functions and classes, and says what in it counts and what it names.

Source is looked up, not asked of `inspect`: that would trust line numbers in a file that may have
been edited since it was imported, and cannot tell two lambdas in a line apart. Here the file is
compiled again, and a function's source is the one that gives the code that is running.
"""

from __future__ import annotations
import __future__

import ast
import dis
import enum
import importlib.util
import linecache
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from helium_agents.errors import VersionError

Chain = tuple[str, ...]
"""A dotted name: ``prompts.SYSTEM`` is ``("prompts", "SYSTEM")``."""

_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class ClassSource(NamedTuple):
    """A class statement, and the code of its body with everything in it."""

    node: ast.ClassDef
    code: CodeType


# --- finding -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Module:
    """Functions of a source by name and first line, classes by qualified name."""

    functions: Mapping[tuple[str, int], list[_FunctionNode]]
    codes: Mapping[tuple[str, int], list[CodeType]]
    classes: Mapping[str, list[ClassSource]]


_FUTURE_FLAGS = 0
for _name in __future__.all_feature_names:
    _FUTURE_FLAGS |= getattr(__future__, _name).compiler_flag


@lru_cache(maxsize=256)
def _index(source: str, future_flags: int = 0) -> _Module:
    """What a source defines.

    Args:
        source: A module, or the cell of a notebook, which may await things at its top.
        future_flags: What its code says of `from __future__` imports: an earlier cell's hold on.
    """
    flags = future_flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        tree = ast.parse(source)
        # Optimisation flags are this process's own, as they were at import.
        module = compile(tree, "<source>", "exec", flags, dont_inherit=True)
    except SyntaxError:
        return _Module({}, {}, {})
    functions, codes = defaultdict(list), defaultdict(list)
    for code in nested_codes(module):
        codes[code.co_name, code.co_firstlineno].append(code)
    classes = defaultdict(list)
    for node in ast.walk(tree):
        if isinstance(node, _SCOPES):
            name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
            decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
            line = min(part.lineno for part in (node, *decorators))
            if isinstance(node, ast.ClassDef):
                for code in codes[name, line]:
                    classes[code.co_qualname].append(ClassSource(node, code))
            else:
                functions[name, line].append(node)
    return _Module(functions, codes, classes)


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """The code and every code inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from nested_codes(const)


def find_function(function: FunctionType) -> _FunctionNode:
    """The syntax tree of a function or lambda.

    Raises:
        VersionError: There is no source, it has changed since it was imported, or it cannot be told
            which of several lambdas is meant. The message is a clause about "its" source.
    """
    code, module = function.__code__, function.__globals__
    key = code.co_name, code.co_firstlineno
    nodes: list[_FunctionNode] = []
    for _ in range(2):  # as it was when it was first read, then as it is now
        source = "".join(linecache.getlines(code.co_filename, module))
        index = _index(source, code.co_flags & _FUTURE_FLAGS)
        nodes = index.functions.get(key, [])
        if code in index.codes.get(key, []) or (nodes and _is_rewritten(module)):
            return nodes[0] if len(nodes) == 1 else _lambda_of(code, nodes)
        linecache.checkcache(code.co_filename)
    raise VersionError("has no source" if not source else "has source that changed since import")


def _is_rewritten(module: Mapping[str, Any]) -> bool:
    """Whether an import hook compiled something else than the source, as pytest's does."""
    spec = module.get("__spec__")
    return spec is not None and type(spec.loader) is not SourceFileLoader


def _lambda_of(code: CodeType, nodes: list[_FunctionNode]) -> _FunctionNode:
    """Which of the lambdas in a line: the one whose body stands where the code says."""
    positions = {*code.co_positions()}
    found = [
        node
        for node in nodes
        if isinstance(node, ast.Lambda)
        and (body := node.body)
        and (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset) in positions
    ]
    if not found or len({ast.dump(node) for node in found}) > 1:
        raise VersionError("is one of several lambdas in a line; write it as a `def`")
    return found[0]


def find_class(cls: type) -> list[ClassSource]:
    """The class statements of that name in the class's module: more than one in an `if` and `else`.

    Empty where the class was made by a call, or has no source.
    """
    module = vars(sys.modules.get(cls.__module__, sys))
    methods = [item.__code__ for item in vars(cls).values() if isinstance(item, FunctionType)]
    files = {code.co_filename for code in methods}
    for filename in sorted(files | {module.get("__file__") or ""}):
        linecache.checkcache(filename)
        source = "".join(linecache.getlines(filename, module))
        if found := _index(source).classes.get(cls.__qualname__):
            return found
    return []


# --- what counts ---------------------------------------------------------------------------------

_UNSEEN = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def tree_tokens(node: ast.AST, is_decorator_of_ours: Callable[[ast.expr], bool]) -> list[Any]:
    """The syntax tree, flat, without what cannot change what the code does.

    Left out: positions, docstrings and annotations of functions, and our own decorators. A function
    that has another decorator keeps docstring and annotations, since the decorator may read them (a
    validator, a tool's description); so does a class, whose schema is made of them.

    The result holds text for structure, and tuples of one for data, so neither can pass for the
    other. It does not depend on recursion (long `elif` chains are deep trees), nor on fields that
    later Python versions add and leave empty.
    """
    tokens: list[Any] = []
    stack: list[tuple[Any, bool]] = [(node, False)]
    while stack:
        item, has_annotations = stack.pop()
        if isinstance(item, ast.AnnAssign) and item.value and not has_annotations:
            item = ast.Assign(targets=[item.target], value=item.value)
        if isinstance(item, ast.AST):
            children = list(_counting_fields(item, has_annotations, is_decorator_of_ours))
            tokens.append(f"({type(item).__name__}")
            stack.append((_Close(")"), False))
            for name, child, inside in reversed(children):
                stack += [(child, inside), (_Close(name), False)]
        elif isinstance(item, list):
            tokens.append("[")
            stack.append((_Close("]"), False))
            stack += [(child, has_annotations) for child in reversed(item)]
        elif isinstance(item, _Close):
            tokens.append(str(item))
        else:
            tokens.append(("...",) * 2 if item is ... else (item,))
    return tokens


class _Close(str):
    """Structure, where the stack holds data as well."""

    __slots__ = ()


def _counting_fields(
    node: ast.AST, has_annotations: bool, is_decorator_of_ours: Callable[[ast.expr], bool]
) -> Iterator[tuple[str, Any, bool]]:
    """Fields that count: name, content, and whether annotations count in there."""
    inside = has_annotations or isinstance(node, ast.ClassDef)
    dropped = _UNSEEN
    decorators: list[ast.expr] = []
    body: list[ast.stmt] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        decorators = [item for item in node.decorator_list if not is_decorator_of_ours(item)]
        body = node.body[bool(ast.get_docstring(node, clean=False)) and not decorators :]
        dropped |= {"decorator_list", "body"} | (set() if decorators else {"returns"})
        inside = bool(decorators)
    elif isinstance(node, ast.arg | ast.AnnAssign) and not has_annotations:
        dropped |= {"annotation"}
    for name, child in ast.iter_fields(node):
        if name not in dropped and child is not None and child != []:
            yield name, child, inside
    if decorators:
        yield "decorator_list", decorators, False
    if body:
        yield "body", body, False


# --- what is named -------------------------------------------------------------------------------


class Scope(enum.Enum):
    """Where a code looks for a name."""

    GLOBAL = "global"
    CELL = "cell"  # of the function, or of an enclosing one that is itself inside the code
    CLASS = "class"  # in the class body that is being run, then global


_SCOPES_OF_LOADS = {
    "LOAD_GLOBAL": Scope.GLOBAL,
    "LOAD_DEREF": Scope.CELL,
    "LOAD_CLASSDEREF": Scope.CELL,
    "LOAD_FROM_DICT_OR_DEREF": Scope.CELL,
    "LOAD_NAME": Scope.CLASS,
    "LOAD_FROM_DICT_OR_GLOBALS": Scope.CLASS,
}


def named_in_code(code: CodeType) -> set[tuple[Chain, Scope]]:
    """Names that a code and those inside it take from elsewhere, with the attributes taken of them.

    Read from the code rather than the tree, since the compiler has settled what is local.
    """
    found = set()
    for part in nested_codes(code):
        chain: Chain = ()
        scope = None
        for instruction in dis.get_instructions(part):
            if instruction.opname == "EXTENDED_ARG":
                continue
            if scope and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                chain += (instruction.argval,)
                continue
            if scope:
                found.add((chain, scope))
            chain, scope = (instruction.argval,), _SCOPES_OF_LOADS.get(instruction.opname)
    return found


def named_in_annotations(node: ast.AST) -> set[Chain]:
    """Dotted names in the annotations of a definition, in quotes or not."""
    chains = set()
    for part in ast.walk(node):
        annotation = getattr(part, "annotation", None) or getattr(part, "returns", None)
        if annotation is not None:
            chains |= _dotted_names(annotation)
    return chains


def _dotted_names(expression: ast.AST) -> set[Chain]:
    chains = set()
    for part in ast.walk(expression):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            try:
                chains |= _dotted_names(ast.parse(part.value, mode="eval").body)
            except SyntaxError:
                continue  # not a forward reference: Literal["..."]
        elif chain := dotted_name(part):
            chains.add(chain)
    return chains


def named_in_imports(tree: ast.AST, package: str) -> set[tuple[str, str]]:
    """Modules that a body imports, and what it takes from them; "" is the module itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(name, package) if node.level else name
            found |= {(module, alias.name) for alias in node.names}
    return found


def dotted_name(expression: ast.AST) -> Chain:
    """``a.b.c`` as a chain; empty if the expression is something else."""
    names: list[str] = []
    while isinstance(expression, ast.Attribute):
        names.append(expression.attr)
        expression = expression.value
    return (expression.id, *reversed(names)) if isinstance(expression, ast.Name) else ()
