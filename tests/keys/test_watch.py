"""A version is of the moment: whatever it was computed from, a change of that is seen."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from helium_agents.errors import VersionError
from helium_agents.keys.versions.version import Version, code_version

Loader = Callable[..., ModuleType]

FILES = {
    "__init__.py": "",
    "other.py": "RATE = 1\n",
    "main.py": """
        import functools
        from collections import deque
        from dataclasses import dataclass, field
        from pydantic import BaseModel
        from app import other

        LIMIT = 3
        TABLE = {"a": {"deep": [1, 2]}}
        WORDS = {"a"}
        BYTES = bytearray(b"a")
        LATEST = deque([1])
        PAIR = (1, [2])

        @dataclass
        class Settings:
            model: str = "small"
            more: list = field(default_factory=list)

        @dataclass(slots=True)
        class Slotted:
            x: int = 1

        class Form(BaseModel):
            text: str = "a"

        SETTINGS, SLOTTED, FORM = Settings(), Slotted(), Form()

        class Base:
            pass

        class Helper(Base):
            RATE = 0.5
            _hidden = 1

            def run(self):
                return self.step()

            def step(self):
                return 1

        class Other:
            pass

        def shorten(text, length=3):
            return text[:length]

        def longer(text, length=4):
            return text[:length] + "..."

        @functools.singledispatch
        def render(x):
            return "?"

        @functools.lru_cache
        def cached(x):
            return x

        PART = functools.partial(shorten, length=5)

        def make():
            count = 0

            def step(x):
                return x + count

            def add():
                nonlocal count
                count += 1

            return step, add

        step, add = make()

        def answer(x):
            named = LIMIT, TABLE, WORDS, BYTES, LATEST, PAIR, SETTINGS, SLOTTED, FORM, other.RATE
            return named, Helper().run(), shorten(x), render(x), cached(x), PART(x), step(x), len(x)
    """,
}

CHANGES: dict[str, Callable[[Any], object]] = {
    "a global": lambda app: setattr(app, "LIMIT", 4),
    "a global of another type": lambda app: setattr(app, "LIMIT", 3.0),
    "a dict": lambda app: app.TABLE.update(b=1),
    "a list in a dict in a dict": lambda app: app.TABLE["a"]["deep"].append(3),
    "an item that is equal but of another type": lambda app: app.TABLE["a"]["deep"].__setitem__(
        0, True
    ),
    "the order of a dict": lambda app: app.TABLE["a"].update(b=app.TABLE["a"].pop("deep"), deep=0),
    "a set": lambda app: app.WORDS.add("b"),
    "bytes that can change": lambda app: app.BYTES.append(1),
    "a deque": lambda app: app.LATEST.append(2),
    "a list in a tuple": lambda app: app.PAIR[1].clear(),
    "an attribute of a dataclass": lambda app: setattr(app.SETTINGS, "model", "large"),
    "a list in a dataclass": lambda app: app.SETTINGS.more.append(1),
    "an attribute beyond the fields": lambda app: setattr(app.SETTINGS, "extra", 1),
    "a slot": lambda app: setattr(app.SLOTTED, "x", 2),
    "a field of a model": lambda app: setattr(app.FORM, "text", "b"),
    "an attribute of another module": lambda app: setattr(app.other, "RATE", 2),
    "a function": lambda app: setattr(app, "shorten", app.longer),
    "the code of a function": lambda app: setattr(app.shorten, "__code__", app.longer.__code__),
    "defaults of a function": lambda app: setattr(app.shorten, "__defaults__", (9,)),
    "an attribute of a function": lambda app: setattr(app.shorten, "table", {"a": 1}),
    "an attribute of a cached function": lambda app: setattr(app.cached, "table", {"a": 1}),
    "arguments of a partial function": lambda app: app.PART.keywords.update(length=6),
    "a dispatched implementation": lambda app: app.render.register(int, app.longer),
    "a variable of an enclosing function": lambda app: app.add(),
    "a constant of a class": lambda app: setattr(app.Helper, "RATE", 0.6),
    "a private constant of a class": lambda app: setattr(app.Helper, "_hidden", 2),
    "a new attribute of a class": lambda app: setattr(app.Helper, "_new", 2),
    "a method": lambda app: setattr(app.Helper, "step", app.longer),
    "a base of a class": lambda app: setattr(app.Helper, "__bases__", (app.Other,)),
    "a name that hides a builtin": lambda app: setattr(app, "len", app.longer),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_after_the_version_was_computed_is_seen(load: Loader, change: Any) -> None:
    app = load(FILES)
    before = code_version(app.answer)
    assert code_version(app.answer) == before
    change(app)
    assert code_version(app.answer) != before


def test_what_is_undone_has_the_version_that_it_had(load: Loader) -> None:
    app = load(FILES)
    before = code_version(app.answer)
    app.LIMIT = 4
    changed = code_version(app.answer)
    app.LIMIT = 3
    assert code_version(app.answer) == before != changed
    app.TABLE = {"a": {"deep": [1, 2]}}  # equal, and another object
    assert code_version(app.answer) == before


def test_what_is_not_named_does_not_count(load: Loader) -> None:
    app = load(FILES)
    before = code_version(app.answer)
    app.unrelated = 1
    app.other.UNRELATED = 2
    app.longer.table = 3
    assert code_version(app.answer) == before


def test_a_name_that_is_defined_later_gives_a_version(load: Loader) -> None:
    app = load({"__init__.py": "", "main.py": "def answer():\n    return later()\n"})
    for _ in range(2):
        with pytest.raises(VersionError, match="`later`"):
            code_version(app.answer)
    app.later = app.answer
    assert code_version(app.answer)


def test_the_version_of_a_class_follows_its_changes(load: Loader) -> None:
    app = load(FILES)
    before = code_version(app.Settings)
    app.Settings.describe = app.longer
    changed = code_version(app.Settings)
    del app.Settings.describe
    assert code_version(app.Settings) == before != changed


def test_parts_are_of_the_moment_too(load: Loader) -> None:
    app = load(FILES)
    version = Version(app.answer)
    before = dict(version.parts())
    app.LIMIT = 4
    changed = {name for name, part in version.parts().items() if part != before.get(name)}
    assert changed == {"LIMIT in app.main:answer"}


def test_a_version_asked_for_deep_down_does_not_spoil_the_next(load: Loader) -> None:
    app = load(
        {"__init__.py": "", "main.py": "def answer():\n    return len(TABLE)\nTABLE = [1]\n"}
    )
    version, errors = Version(app.answer), []

    def descend() -> None:
        try:
            version.digest()
        except (VersionError, RecursionError) as error:
            errors.append(error)
            raise
        version._watch = None
        descend()

    with pytest.raises((VersionError, RecursionError)):
        descend()
    assert errors
    assert version.digest() == Version(app.answer).digest()
