"""What a class or function holds beyond its text counts, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from helium_agents.errors import VersionError
from helium_agents.keys.versions.version import code_version

Loader = Callable[..., ModuleType]

HEAD = """
import pydantic.dataclasses
import abc, contextlib, enum, functools, json, threading
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar
from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, create_model, field_validator
from pydantic import validate_call
"""

# What an edit changes is between the bars: «before|after».
DIFFERENT = {
    "an implementation that is dispatched to": """
        @functools.singledispatch
        def render(x):
            return "?"
        @render.register
        def _(x: int):
            return «1|2»
        def answer(x):
            return render(x)
    """,
    "the class that is dispatched on": """
        @functools.singledispatch
        def render(x):
            return "?"
        def number(x):
            return 1
        render.register(«int|float», number)
        def answer(x):
            return render(x)
    """,
    "an implementation of a method that is dispatched to": """
        class Helper:
            @functools.singledispatchmethod
            def go(self, x):
                return 1
            @go.register
            def _(self, x: int):
                return «1|2»
        def answer(x):
            return Helper().go(x)
    """,
    "an attribute of a function": """
        def helper(x):
            return helper.table[x]
        helper.table = {"a": «1|2»}
        def answer(x):
            return helper(x)
    """,
    "an attribute of the function itself": """
        def answer(x):
            return answer.table[x]
        answer.table = {"a": «1|2»}
    """,
    "an attribute of a cached function": """
        @functools.cache
        def helper(x):
            return helper.table[x]
        helper.table = {"a": «1|2»}
        def answer(x):
            return helper(x)
    """,
    "the body of a context manager": """
        @contextlib.contextmanager
        def helper():
            yield «1|2»
        def answer(x):
            with helper() as value:
                return value
    """,
    "an argument of a partial function": """
        def helper(x, y):
            return y
        part = functools.partial(helper, y=«1|2»)
        def answer(x):
            return part(x)
    """,
    "a private attribute of a class, set from outside": """
        class Helper:
            def run(self):
                return self._rate
        Helper._rate = «1|2»
        def answer(x):
            return Helper().run()
    """,
    "a special method, set from outside": """
        @dataclass
        class Helper:
            x: int = 1
        def first(self):
            return "a"
        def second(self):
            return "b"
        Helper.__str__ = «first|second»
        def answer(x):
            return str(Helper())
    """,
    "a partial method": """
        class Helper:
            def go(self, x):
                return x
            run = functools.partialmethod(go, «1|2»)
        def answer(x):
            return Helper().run()
    """,
    "a computed constant of a class": """
        def made(number):
            return number + 1
        def number():
            return «1|2»
        class Helper:
            _rate = made(number())
        def answer(x):
            return Helper._rate
    """,
    "a default of a field": """
        DEFAULTS = {"x": «1|2»}
        @dataclass(slots=True)
        class Helper:
            x: int = DEFAULTS["x"]
        def answer(x):
            return Helper().x
    """,
    "a factory of a field": """
        def first():
            return [1]
        def second():
            return [2]
        @dataclass
        class Helper:
            x: list = field(default_factory=«first|second»)
        def answer(x):
            return Helper().x
    """,
    "a private default of a model": """
        NUMBER = «1|2»
        class Helper(BaseModel):
            _x: int = PrivateAttr(default=NUMBER)
        def answer(x):
            return Helper()._x
    """,
    "what an enum's members are made of": """
        class Kind(enum.Enum):
            def __new__(cls, value):
                member = object.__new__(cls)
                member._value_ = value
                member.extra = «1|2»
                return member
            A = "a"
        def answer(x):
            return Kind.A.extra
    """,
    "the method of a class that was made by a call": """
        def go(self):
            return «1|2»
        Helper = type("Helper", (namedtuple("Point", "x"),), {"go": go})
        def answer(x):
            return Helper(1).go()
    """,
    "the validator of a model that was made by a call": """
        def check(value):
            return «value|value + 1»
        Helper = create_model("Helper", x=(Annotated[int, AfterValidator(check)], 1))
        def answer(x):
            return Helper(x=1).x
    """,
    "the version that a class says": """
        class Helper:
            __helium_version__ = "«1|2»"
            client = threading.Thread()
            def run(self):
                return 1
        def answer(x):
            return Helper().run()
    """,
    "a class without source": """
        exec("class Helper:\\n    def run(self):\\n        return «1|2»")
        def answer(x):
            return Helper().run()
    """,
    "a special method without source": """
        exec(
            "@dataclass\\nclass Helper:\\n    x: int = 1\\n"
            "    def __str__(self):\\n        return '«a|b»'"
        )
        def answer(x):
            return str(Helper())
    """,
    "an option of a model's field": """
        class Helper(BaseModel):
            x: str = Field("a", «exclude=True|repr=False»)
        def answer(x):
            return Helper().model_dump()
    """,
    "a pattern of a model's field": """
        class Helper(BaseModel):
            x: str = Field("a", pattern="«a+|b+»")
        def answer(x):
            return Helper(x=x)
    """,
    "the mode of a validator": """
        class Helper(BaseModel):
            x: str = "a"
            @field_validator("x", mode="«before|after»")
            def check(cls, value):
                return value
        def answer(x):
            return Helper(x=x)
    """,
    "the mode of a pydantic dataclass's validator": """
        @pydantic.dataclasses.dataclass
        class Helper:
            x: str = "a"
            @field_validator("x", mode="«before|after»")
            def check(cls, value):
                return value
        def answer(x):
            return Helper(x=x)
    """,
    "the configuration of a pydantic dataclass": """
        @pydantic.dataclasses.dataclass(config={"extra": "«allow|forbid»"})
        class Helper:
            x: str = "a"
        def answer(x):
            return Helper(x=x)
    """,
    "the default of an attrs class": """
        import attrs
        @attrs.define
        class Helper:
            x: int = «1|2»
        def answer(x):
            return Helper().x
    """,
    "the option of an attrs class": """
        import attrs
        @attrs.define(order=«True|False»)
        class Helper:
            x: int = 1
        def answer(x):
            return Helper() < Helper(x)
    """,
    "the option of a dataclass": """
        @dataclass(order=«True|False»)
        class Helper:
            x: int = 1
        def answer(x):
            return sorted([Helper(2), Helper(1)])
    """,
    "a class that only a quoted annotation names": """
        class Helper:
            def run(self):
                return «1|2»
        def call(x: "list[Helper]"):
            return x
        def answer(x):
            return call(x)
    """,
    "the code of an annotated validator": """
        def check(value):
            return «value|value + 1»
        def call(x: Annotated[int, AfterValidator(check)]):
            return x
        def answer(x):
            return call(x)
    """,
    "an import in the body": """
        def answer(x):
            from app.main import limit
            return limit(x)
        def limit(x):
            return «1|2»
    """,
}

SAME = {
    "the text of a class that says its version": """
        class Helper:
            __helium_version__ = "1"
            def run(self):
                return «1|2»
        def answer(x):
            return Helper().run()
    """,
    "an attribute of another function": """
        def other():
            return 1
        other.table = {"a": «1|2»}
        def answer(x):
            return x
    """,
}

REFUSED = {
    "an attribute of a class": (
        """
        class Helper:
            def run(self):
                return self._client
        Helper._client = threading.Thread()
        def answer(x):
            return Helper().run()
        """,
        ["names `Helper`", "`Helper._client`", "threading.Thread"],
    ),
    "an attribute of a function": (
        """
        def answer(x):
            return answer.client
        answer.client = threading.Thread()
        """,
        ["names `client`", "threading.Thread"],
    ),
    "an object that wraps a function": (
        """
        class Twice:
            def __init__(self, function, times):
                functools.update_wrapper(self, function)
                self.function, self.times = function, times
            def __call__(self, x):
                return self.function(x) * self.times
        def raw(x):
            return x
        helper = Twice(raw, 2)
        def answer(x):
            return helper(x)
        """,
        ["names `helper`", "app.main.Twice"],
    ),
    "what a decorator of another package holds": (
        """
        @validate_call
        def helper(x: int):
            return x
        def answer(x):
            return helper(x)
        """,
        ["names `helper`", "ValidateCallWrapper"],
    ),
    "something that raises": (
        """
        class Loud(type):
            def __getattribute__(cls, name):
                raise OSError("no")
        class Helper(metaclass=Loud):
            pass
        def answer(x):
            return Helper
        """,
        ["`Helper`", "raised OSError"],
    ),
}


def _versions(load: Loader, source: str) -> list[bytes]:
    """The versions before and after the edit."""
    head, _, rest = source.partition("«")
    edit, _, tail = rest.partition("»")
    return [_version(load, head + text + tail) for text in edit.split("|")]


def _version(load: Loader, source: str) -> bytes:
    return code_version(load({"__init__.py": "", "main.py": _with_head(source)}).answer)


def _with_head(source: str) -> str:
    indent = " " * (len(source.lstrip("\n")) - len(source.lstrip()))
    return "\n".join(indent + line for line in HEAD.splitlines()) + source


@pytest.mark.parametrize("source", DIFFERENT.values(), ids=DIFFERENT)
def test_what_a_class_or_function_holds_counts(load: Loader, source: str) -> None:
    if "attrs" in source:
        pytest.importorskip("attrs")
    before, after = _versions(load, source)
    assert before != after
    again, _ = _versions(load, source)
    assert again == before


@pytest.mark.parametrize("source", SAME.values(), ids=SAME)
def test_what_does_not_decide_answers_does_not_count(load: Loader, source: str) -> None:
    before, after = _versions(load, source)
    assert before == after


@pytest.mark.parametrize(("source", "clauses"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_described_is_refused(load: Loader, source: str, clauses: list[str]) -> None:
    with pytest.raises(VersionError) as error:
        _version(load, source)
    for clause in clauses:
        assert clause in str(error.value)


CLASSES = """
    T = TypeVar("T")
    class Model(BaseModel):
        model_config = {"frozen": True, "extra": "allow"}
        a: int = Field(3, gt=0)
        b: Annotated[list[int], Field(min_length=1)] = Field(default_factory=list)
        K: ClassVar[int] = 4
        @functools.cached_property
        def c(self):
            return 1
    class Box(BaseModel, Generic[T]):
        content: T
    IntBox = Box[int]
    @dataclass(frozen=True, slots=True, order=True)
    class Row(abc.ABC):
        x: int = 1
        def key(self):
            return super().__repr__()
    @functools.total_ordering
    @dataclass
    class Ordered(Generic[T]):
        x: T
        def __lt__(self, other):
            return True
    class Point(NamedTuple):
        x: int = 1
        def norm(self):
            return self.x
    Pair = namedtuple("Pair", "a b", defaults=[1])
    class Tone(enum.Enum):
        A = 1
        def shout(self):
            return self.name
    class Number(enum.IntFlag):
        A = 1
    Made = create_model("Made", a=(int, 3))
"""


def test_every_kind_of_data_class_has_a_version_of_its_own(load: Loader) -> None:
    def versions() -> dict[str, bytes]:
        app = load({"__init__.py": "", "main.py": _with_head(CLASSES)})
        classes = [item for item in vars(app).values() if isinstance(item, type)]
        own = [cls for cls in classes if cls.__module__ == "app.main"]
        return {cls.__name__: code_version(cls) for cls in own}

    found = versions()
    assert len(found) == len({*found.values()}) == 10
    assert versions() == found
