"""Imports point one way, as the design says; the public names are sorted and complete."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import helium_agents
from helium_agents import errors

ROOT = Path(helium_agents.__file__).parent
PACKAGE = "helium_agents"

MODULES = {
    ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "keys": {"keys", "errors"},
    "graph": {"graph", "keys", "errors"},
    "authoring": {"authoring", "graph", "keys", "errors"},
    "optimizer": {"optimizer", "graph", "keys", "errors"},
    "telemetry": {"telemetry", "errors"},
    "trace": {"trace", "telemetry", "optimizer", "errors"},
    "capacity": {
        "capacity", "trace", "runtime", "authoring", "engines", "optimizer", "graph", "errors",
    },
    "memo": {"memo", "graph", "keys", "errors"},
    "engines": {"engines", "optimizer", "graph", "keys", "errors"},  # what a step costs
    "runtime": {
        "runtime", "optimizer", "graph", "keys", "telemetry", "errors", "engines", "memo",
        "diagnose", "trace",
    },
    "diagnose": {
        "diagnose", "runtime", "memo", "engines", "graph", "keys", "telemetry", "errors", "trace",
        "optimizer",
    },
    "viewer": {"viewer", "trace", "diagnose", "capacity", "errors"},
    "batch": {
        "batch", "runtime", "authoring", "memo", "engines", "graph", "keys", "telemetry", "errors",
        "trace",
    },
}  # fmt: skip
"""What each layer may import; `cli` and `integrations` may import everything."""

PORTS = {
    "engines.engine", "engines.whole_engine", "engines.default", "engines.replicas",
    "memo.store", "memo.open", "memo.run_log",
    "diagnose.recorder",
}  # fmt: skip
"""What the runtime may know of the engines (replicas are made of ports only), of the memo, and of
`diagnose`, which stands above it but for the recorder."""

ABOVE_ALL = {"cli", "integrations", ""}
"""Who knows everything: the command line, the integrations, and the package's own `__init__`."""

NO_ASYNCIO_NOR_IO = {
    "anyio", "asyncio", "concurrent", "contextvars", "http", "io", "lmdb", "logging",
    "multiprocessing", "os", "pathlib", "shutil", "signal", "socket", "sqlite3", "ssl",
    "subprocess", "tempfile", "threading", "time", "urllib",
}  # fmt: skip


def layer_of(module: str) -> str:
    """`helium_agents.graph.node` is of the layer `graph`, `helium_agents` itself of ``""``."""
    return [*module.split("."), ""][1]


def imported_by(module: str) -> Iterator[str]:
    """Full names of the modules that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def own_imports(module: str) -> set[str]:
    return {name for name in imported_by(module) if name.split(".")[0] == PACKAGE}


def test_the_modules_are_found() -> None:
    assert {f"{PACKAGE}.graph.node", f"{PACKAGE}.runtime.session", PACKAGE} <= set(MODULES)
    assert f"{PACKAGE}.graph.node" in own_imports(f"{PACKAGE}.graph.ref")
    assert f"{PACKAGE}.errors" in own_imports(f"{PACKAGE}.graph.plan")


def test_every_layer_is_known() -> None:
    assert {layer_of(module) for module in MODULES} <= set(LAYERS) | ABOVE_ALL


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        if layer_of(module) == layer
        for name in sorted(own_imports(module))
        if layer_of(name) not in LAYERS[layer]
    ]
    assert wrong == []


def test_the_runtime_knows_the_ports_only() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        if layer_of(module) == "runtime"
        for name in sorted(own_imports(module))
        if layer_of(name) in ("engines", "memo", "diagnose") and name.partition(".")[2] not in PORTS
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """What is imported for types only counts too: a reader has to follow it all the same."""
    graph = {module: own_imports(module) & set(MODULES) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_the_recorder_knows_nothing_of_the_runtime() -> None:
    known = {f"{PACKAGE}.diagnose.recorder"}
    for _ in MODULES:
        known |= {
            name for module in known for name in own_imports(module) if layer_of(name) == "diagnose"
        }
    layers = {layer_of(name) for module in known for name in own_imports(module)}
    assert layers == {"diagnose", "errors", "graph", "keys"}


def test_nobody_imports_what_is_above_all() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in sorted(own_imports(module))
        if layer_of(name) in {*ABOVE_ALL, "batch"} and layer_of(module) != layer_of(name)
        if layer_of(module) not in ("cli", "integrations")
    ]
    assert wrong == []


def test_adapters_are_loaded_by_name_only_at_the_edges() -> None:
    # the package offers them, the defaults open them when they are needed
    for module in MODULES:
        for name in own_imports(module):
            if f"{name}.".startswith((f"{PACKAGE}.engines.vllm.", f"{PACKAGE}.memo.lmdb.")):
                assert layer_of(module) in {layer_of(name), *ABOVE_ALL}, f"{module} imports {name}"


def test_the_optimizer_does_no_io_and_knows_no_event_loop() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        if layer_of(module) == "optimizer"
        for name in imported_by(module)
        if name.split(".")[0] in NO_ASYNCIO_NOR_IO
    ]
    assert wrong == []


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle(module: str) -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
    assert not {name.split(".")[0] for name in imported_by(module)} & forbidden


@pytest.mark.parametrize("module", [name for name in MODULES if layer_of(name) != "engines"])
def test_only_engines_know_inference_libraries(module: str) -> None:
    heavy = {"vllm", "torch", "transformers", "tokenizers", "safetensors", "numpy"}
    assert not {name.split(".")[0] for name in imported_by(module)} & heavy


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, helium_agents; "
        "print(sorted({'vllm', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


# --- the public names ----------------------------------------------------------------------------


def test_the_public_names_are_sorted() -> None:
    # constants (all capitals), then classes, then functions, as ruff sorts them
    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    names = helium_agents.__all__
    assert names == sorted(names, key=rank)
    assert len(names) == len(set(names))


def test_the_public_names_are_complete() -> None:
    imported = {
        alias.asname or alias.name
        for node in ast.parse(MODULES[PACKAGE].read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert set(helium_agents.__all__) == imported
    for name in helium_agents.__all__:
        assert getattr(helium_agents, name).__doc__, name


@pytest.mark.parametrize("package", ["", ".batch", ".trace", ".integrations.langgraph"])
def test_the_public_names_have_a_place_in_the_api_page(package: str) -> None:
    page = (ROOT.parent / "docs" / "api.rst").read_text("utf-8")
    placed = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.MULTILINE))
    (names,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(MODULES[PACKAGE + package].read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    of_errors = {name for name in names if hasattr(errors, name)}  # the page has the whole module
    missing = set(names) - placed - of_errors
    assert not missing, f"docs/api.rst needs a line `.. autoclass:: NAME` for {missing}"


def test_every_error_is_one_of_ours_and_says_what_it_is() -> None:
    for name, found in inspect.getmembers(errors, inspect.isclass):
        if found.__module__ == errors.__name__:
            assert issubclass(found, errors.HeliumError), name
            assert found.__doc__, name
