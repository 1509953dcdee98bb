"""Versions: what may change an answer changes the version, and what is not reached does not."""

from __future__ import annotations
import __future__

import ast
import asyncio
import functools
import inspect
import linecache
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helium_agents import Session
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import VersionError
from helium_agents.keys.versions.version import code_version

Loader = Callable[..., ModuleType]

# A package `app`: the operator under test is `app.main.answer`.
APP = {
    "main.py": """
        import enum
        import functools
        import logging
        import re
        from dataclasses import dataclass, field
        from pydantic import BaseModel, Field, field_validator
        from app import prompts
        from app.helpers import shorten, Helper
        from app.ops import operator

        log = logging.getLogger(__name__)
        LIMIT = 3
        ROLES = ("critic", "poet")
        TABLE = {"shorten": shorten, "limits": [1, 2]}
        WORD = re.compile("a+")
        HINT = "be brief"

        class Tone(enum.Enum):
            DRY = "dry"
            WET = "wet"

        class Verdict(BaseModel):
            score: int = Field(description=HINT)

            @field_validator("score")
            def positive(cls, score):
                return abs(score)

        @dataclass
        class Row:
            text: str
            size: int = 3
            tags: list = field(default_factory=list)

            def title(self):
                return self.text.title()

        @dataclass
        class Settings:
            model: str = "small"

        SETTINGS = Settings()

        @operator(retries=1)
        async def other(x):
            return x + 1

        @operator(version="7")
        async def fixed(x):
            return x + 2

        @functools.lru_cache
        def cached(x):
            return x + 3

        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        def make(greeting):
            def greet(x, mark="!"):
                return f"{greeting} {x}{mark}"
            return greet

        greet = make("hello")
        double = lambda x: x * 2; triple = lambda x: x * 3

        async def answer(row: Row, limit=LIMIT, *, mode: str = "fast") -> str:
            '''Says something.'''
            # a comment
            log.info("hi")
            total: int = limit + 1
            parts = [shorten(part) for part in row.text.split()]
            await other(total), await fixed(total)
            lines = (lambda: [prompts.SYSTEM, prompts.more.EXTRA, ROLES, TABLE, WORD])()
            return f"{parts} {Tone.DRY} {Verdict} {SETTINGS.model} {Helper().run()} {lines}" \\
                f"{greet(1)} {double(2)} {even(4)} {cached(1)}"
    """,
    "prompts/__init__.py": "from app.prompts import more\nSYSTEM = 'you are'\nUNUSED = 1\n",
    "prompts/more.py": "EXTRA = 'extra'\n",
    "helpers.py": """
        SUFFIX = "..."

        def shorten(text):
            return clip(text) + SUFFIX

        def clip(text):
            return text[:10]

        def unused(text):
            return text

        class Base:
            def run(self):
                return self.step()

            def step(self):
                return 1

        class Helper(Base):
            RATE = 0.5

            @property
            def rate(self):
                return self.RATE

            @staticmethod
            def twice(x):
                return x * 2
    """,
    "ops.py": """
        class Operator:
            def __init__(self, function, version=None):
                self.__wrapped__ = function
                self.__module__ = function.__module__
                self.__qualname__ = function.__qualname__
                self.version = version

            def __helium_version__(self):
                raise AssertionError("a version must not ask for versions")

            def __call__(self, *args):
                raise NotImplementedError

        def operator(function=None, **options):
            if function is None:
                return lambda function: Operator(function, options.get("version"))
            return Operator(function)

        operator.__module__ = "helium_agents.authoring.operator"
    """,
    "__init__.py": "",
}


def _edited(*edits: tuple[str, str, str]) -> dict[str, str]:
    files = dict(APP)
    for name, old, new in edits:
        assert files[name].count(old) == 1, (name, old)
        files[name] = files[name].replace(old, new)
    return files


MAIN, HELPERS, PROMPTS, MORE = "main.py", "helpers.py", "prompts/__init__.py", "prompts/more.py"

SAME = {
    "nothing": [],
    "comment": [(MAIN, "# a comment", "# another comment")],
    "lines moved": [(MAIN, "LIMIT = 3", "\n\n\n        # moved\n        LIMIT = 3")],
    "formatting": [(MAIN, "total: int = limit + 1", "total: int = (limit\n                + 1)")],
    "quotes": [(MAIN, '"hi"', "'hi'")],
    "local annotation": [(MAIN, "total: int =", "total =")],
    "unused constant": [(PROMPTS, "UNUSED = 1", "UNUSED = 2")],
    "unused function": [(HELPERS, "def unused(text):", "def unused(text, more):")],
    "helper comment": [(HELPERS, "return text[:10]", "return text[:10]  # clip")],
    "options of an operator": [(MAIN, "retries=1", "retries=2")],
    "operator decorator": [
        (MAIN, "async def answer", "@operator(retries=3)\n        async def answer")
    ],
    "body of a fixed operator": [(MAIN, "return x + 2", "return x + 20")],
    "order of definitions": [
        (HELPERS, "def clip(text):\n            return text[:10]\n", ""),
        (
            HELPERS,
            'SUFFIX = "..."',
            'def clip(text):\n            return text[:10]\n\n        SUFFIX = "..."',
        ),
    ],
    "logger": [(MAIN, "logging.getLogger(__name__)", "logging.getLogger('other')")],
}

DIFFERENT = {
    "body": [(MAIN, "limit + 1", "limit + 2")],
    "constant": [(MAIN, '("critic", "poet")', '("critic", "bard")')],
    "constant of another type": [(MAIN, '("critic", "poet")', '["critic", "poet"]')],
    "nested constant": [(MAIN, "[1, 2]", "[1, 3]")],
    "pattern": [(MAIN, 're.compile("a+")', 're.compile("b+")')],
    "default value": [(MAIN, "LIMIT = 3", "LIMIT = 4")],
    "keyword default": [(MAIN, 'mode: str = "fast"', 'mode: str = "slow"')],
    "helper": [(HELPERS, "clip(text) + SUFFIX", "SUFFIX + clip(text)")],
    "helper of a helper": [(HELPERS, "text[:10]", "text[:11]")],
    "constant of a helper": [(HELPERS, 'SUFFIX = "..."', 'SUFFIX = "!"')],
    "module attribute": [(PROMPTS, "'you are'", "'thou art'")],
    "attribute of a submodule": [(MORE, "'extra'", "'more'")],
    "enum member": [(MAIN, 'DRY = "dry"', 'DRY = "bone-dry"')],
    "other enum member": [(MAIN, 'WET = "wet"', 'WET = "soaked"')],
    "class constant": [(HELPERS, "RATE = 0.5", "RATE = 0.6")],
    "property": [(HELPERS, "return self.RATE", "return -self.RATE")],
    "static method": [(HELPERS, "return x * 2", "return x * 3")],
    "inherited method": [(HELPERS, "return 1", "return 2")],
    "method of an annotated class": [(MAIN, "self.text.title()", "self.text.upper()")],
    "field of an annotated class": [(MAIN, "size: int = 3", "size: int = 4")],
    "class of a constant": [(MAIN, 'model: str = "small"', 'model: str = "large"')],
    "model field": [(MAIN, "score: int", "score: float")],
    "constant in a model field": [(MAIN, 'HINT = "be brief"', 'HINT = "be exact"')],
    "model validator": [(MAIN, "return abs(score)", "return score")],
    "operator": [(MAIN, "return x + 1", "return x + 10")],
    "explicit version": [(MAIN, 'version="7"', 'version="8"')],
    "cached function": [(MAIN, "return x + 3", "return x + 4")],
    "closure cell": [(MAIN, 'make("hello")', 'make("bye")')],
    "closure body": [(MAIN, 'mark="!"', 'mark="?"')],
    "lambda": [(MAIN, "double = lambda x: x * 2", "double = lambda x: x * 4")],
    "mutual recursion": [(MAIN, "n != 0 and", "n > 0 and")],
}


@pytest.mark.parametrize("edits", SAME.values(), ids=SAME)
def test_what_does_not_matter_keeps_the_version(load: Loader, edits: Any) -> None:
    before = code_version(load(APP).answer)
    assert len(before) == 32
    assert code_version(load(_edited(*edits)).answer) == before


@pytest.mark.parametrize("edits", DIFFERENT.values(), ids=DIFFERENT)
def test_what_matters_changes_the_version(load: Loader, edits: Any) -> None:
    before = code_version(load(APP).answer)
    assert code_version(load(_edited(*edits)).answer) != before


def test_the_neighbouring_lambda_does_not_count(load: Loader) -> None:
    before = code_version(load(APP).double)
    assert code_version(load(_edited((MAIN, "x * 3", "x * 5"))).double) == before
    assert code_version(load(APP).triple) != before


def test_a_decorated_function_keeps_docstring_and_annotations(load: Loader) -> None:
    source = "import functools\n@functools.cache\ndef answer(x: int):\n    'hammer'\n    return x\n"
    versions = {
        code_version(load({"main.py": text, "__init__.py": ""}).answer)
        for text in (source, source.replace("hammer", "saw"), source.replace("int", "str"))
    }
    assert len(versions) == 3


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of another package than `app`."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def test_another_packages_decorator_hides_nothing(load: Loader) -> None:
    source = (
        f"from {__name__} import decorated\ndef helper():\n    return 'hammer'\n"
        "@decorated\n@decorated\ndef answer():\n    return helper() + 'nail'\n"
    )
    versions = {
        code_version(load({"main.py": text, "__init__.py": ""}).answer)
        for text in (source, source.replace("hammer", "saw"), source.replace("nail", "wood"))
    }
    assert len(versions) == 3


def test_a_named_docstring_counts(load: Loader) -> None:
    source = "def ask():\n    'Ask.'\ndef answer():\n    return ask.__doc__\n"
    files = {"main.py": source, "__init__.py": ""}
    before = code_version(load(files).answer)
    files["main.py"] = source.replace("Ask.", "Tell.")
    assert code_version(load(files).answer) != before


def test_a_method_brings_its_class(load: Loader) -> None:
    source = (
        "class A:\n    def go(self):\n        return self.step()\n"
        "    def step(self):\n        return 1\n"
    )
    files = {"main.py": source, "__init__.py": ""}
    module = load(files)
    go, whole = code_version(module.A.go), code_version(module.A)
    files["main.py"] = source.replace("return 1", "return 2")
    module = load(files)
    assert code_version(module.A.go) != go
    assert code_version(module.A) != whole


def test_both_ends_of_a_recursion_have_versions_in_any_order(load: Loader) -> None:
    module = load(APP)
    forth = [code_version(module.even), code_version(module.odd)]
    module = load(APP)
    back = [code_version(module.odd), code_version(module.even)]
    assert forth == back[::-1]
    assert forth[0] != forth[1]


def test_other_packages_count_by_name(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()
    source = "import json\ndef answer(x):\n    return json.{}(x)\n"
    versions = [
        code_version(load({"main.py": source.format(name), "__init__.py": ""}).answer)
        for name in ("dumps", "dumps", "loads")
    ]
    assert versions[0] == versions[1] != versions[2]


def test_modules_beside_a_script_are_its_own(tmp_path: Path) -> None:
    script = (
        "from helium_agents.keys.versions.version import code_version\n"
        "from beside import helper\n"
        "from enum import Enum\n"
        "class Tone(Enum):\n    DRY, WET = 'dry', 'wet'\n"
        "WORDS = {'a', 'b', helper, *Tone}\n"
        "def answer(x):\n    return helper(x), WORDS, x in {'d', 'e', 'f', None}\n"
        "print(code_version(answer).hex())\n"
    )
    versions = []
    for number, folder in ((1, "a"), (1, "b"), (2, "c")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "script.py").write_text(script)
        (tmp_path / folder / "beside.py").write_text(f"def helper(x):\n    return x + {number}\n")
        command = [sys.executable, str(tmp_path / folder / "script.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        versions.append(done.stdout)
    assert versions[0] == versions[1] != versions[2]


# --- what cannot be computed ---------------------------------------------------------------------

UNVERSIONABLE = {
    "client": (
        "class Client:\n    pass\nCLIENT = Client()\ndef answer():\n    return CLIENT\n",
        ["it names `CLIENT`", "app.main.Client"],
    ),
    "client of a helper": (
        "class Client:\n    pass\nCLIENT = Client()\ndef helper():\n    return CLIENT\n"
        "def answer():\n    return helper()\n",
        ["it names `helper`, which names `CLIENT`"],
    ),
    "closure": (
        "def make(file):\n    def answer():\n        return file\n    return answer\n"
        "answer = make(open(__file__))\nanswer().close()\n",
        ["it names `file`", "TextIOWrapper"],
    ),
    "default": (
        "class Client:\n    pass\ndef answer(client=Client()):\n    return client\n",
        ["default values", "Client"],
    ),
    "undefined": ("def answer():\n    return missing\n", ["`missing`", "not defined"]),
    "module as a value": (
        "from app import prompts\ndef answer(x):\n    return getattr(prompts, x)\n",
        ["`prompts`", "a module"],
    ),
    "import inside": (
        "def answer():\n    from app import late\n    return late.X\n",
        ["`app.late`", "at the top of the file"],
    ),
}


@pytest.mark.parametrize(("source", "clauses"), UNVERSIONABLE.values(), ids=UNVERSIONABLE)
def test_what_cannot_be_computed_is_named(load: Loader, source: str, clauses: list[str]) -> None:
    files = {"main.py": source, "__init__.py": "", "prompts.py": "X = 1\n", "late.py": "X = 1\n"}
    answer = load(files).answer
    with pytest.raises(VersionError) as error:
        code_version(answer)
    for clause in ["version of app.main", *clauses, 'version="1"']:
        assert clause in str(error.value)


def test_a_version_is_of_the_code_that_runs(load: Loader, tmp_path: Path) -> None:
    """Not of a file that was edited since, nor does it need one."""
    files = {"main.py": "def answer():\n    return 1\n", "__init__.py": ""}
    answer = load(files, folder="x").answer
    (tmp_path / "x" / "app" / "main.py").write_text("def answer():\n    return 2 # now\n")
    before = code_version(answer)
    again, other = (
        load({"main.py": f"exec('def answer():\\n return {number}')\n", "__init__.py": ""}).answer
        for number in (1, 2)
    )
    assert code_version(again) == before != code_version(other)


def test_something_else_than_a_function_is_refused() -> None:
    with pytest.raises(VersionError, match="not a function"):
        code_version(functools)


CELL = """
from helium_agents import operator

SIZE = 1

@operator(pure=True)
async def pure(x):
    return x * SIZE
"""


@pytest.mark.parametrize("after", ["", "await sleep(0)\n", "print(await pure(1))\n"])
@pytest.mark.parametrize("annotations", [False, True])
async def test_an_operator_of_a_notebooks_cell(after: str, annotations: bool) -> None:
    """A cell may await things at its top, and an earlier one may have imported from the future."""
    source, name = CELL + after, f"<ipython-input-{len(after)}-{annotations}>"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if annotations:
        flags |= __future__.annotations.compiler_flag
    names: dict[str, Any] = {"__name__": "__main__", "sleep": asyncio.sleep}
    async with Session(ScriptedEngine()):
        ran = eval(compile(source, name, "exec", flags, dont_inherit=True), names)
        if inspect.isawaitable(ran):
            await ran
        assert await names["pure"]("a") == "a"
        names["SIZE"] = 2
        assert await names["pure"]("a") == "aa"
