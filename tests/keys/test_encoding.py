"""Encoding: what goes in comes out, what differs stays different, what is broken is refused."""

from __future__ import annotations

import enum
import os
import pathlib
import subprocess
import sys
import zoneinfo
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from helium_agents.errors import DecodingError, EncodingError
from helium_agents.keys.encoding import decode, digest, encode, encode_result, fingerprint, freeze

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    CRIMSON = "red"


class Level(enum.IntEnum):
    LOW = 1


class Tone(enum.StrEnum):
    RED = "red"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


@dataclass
class Item:
    name: Any
    tags: list[Any] = field(default_factory=list)
    size: int = field(init=False, default=3)

    @cached_property
    def length(self) -> int:
        return len(self.tags)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: Any


@dataclass(slots=True)
class Unset:
    value: int = field(init=False)


@dataclass
class Box(Generic[T]):
    content: T


class Model(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    items: list[Any] = Field(default_factory=list)
    _seen: int = PrivateAttr(default=0)


class Parcel(BaseModel, Generic[T]):
    content: T


IntParcel = Parcel[int]


def _model(name: str, items: list[Any], seen: int, **extra: Any) -> Model:
    model = Model(name=name, items=items, **extra)
    model._seen = seen
    return model


text = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.builds(lambda m: timezone(timedelta(minutes=m), "X"), st.integers(-1000, 1000)),
    st.just(zoneinfo.ZoneInfo("Europe/Zurich")),
)
hashable_atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.complex_numbers(),
    text,
    st.sampled_from(["", "1", "1.0", "red", "RED", "None", "True"]),
    st.binary(max_size=8),
    st.decimals().filter(lambda number: not number.is_snan()),  # has no hash
    st.fractions(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.dates(),
    st.times(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Tone, Access(0), Access(3), Access.READ]),
    st.sampled_from([pathlib.PurePosixPath("a/b"), pathlib.Path("a"), range(3), range(1, 9, 2)]),
    st.sampled_from([Item, Model, Colour, Point, Frozen, Level, IntParcel, int, str, Decimal]),
)
hashable = st.recursive(
    hashable_atoms,
    lambda inner: st.one_of(
        st.tuples(inner),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Frozen, inner),
        st.frozensets(inner, max_size=3),
    ),
    max_leaves=4,
)
values = st.recursive(
    hashable | st.binary(max_size=4).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(hashable, inner, max_size=3),
        st.sets(hashable, max_size=3),
        st.builds(Item, inner, st.lists(inner, max_size=2)),
        st.builds(Box, inner),
        st.builds(Point, inner, inner),
        st.builds(_model, text, st.lists(inner, max_size=2), st.integers(0, 3), extra=inner),
        st.builds(lambda content: Parcel[Any](content=content), inner),
        st.builds(lambda content: IntParcel(content=content), st.integers()),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Equality with types all the way down and dict order: the oracle of injectivity."""
    if type(a) is not type(b):
        return False
    if isinstance(a, enum.Enum | type):
        return a is b
    if isinstance(a, float):
        return repr(a) == repr(b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, datetime | time):
        return repr(a) == repr(b) and a.fold == b.fold
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    if isinstance(a, BaseModel):
        return same(BaseModel.__getstate__(a), BaseModel.__getstate__(b))
    if is_dataclass(a):
        return same(_attributes(a), _attributes(b))
    return bool(a == b)


def _attributes(value: Any) -> dict[str, Any]:
    names = [item.name for item in fields(value)]
    return {name: getattr(value, name) for name in names}


@settings(max_examples=100, deadline=None)
@given(values)
def test_round_trip_keeps_values_and_types(value: Any) -> None:
    encoding = encode(value)
    decoded = decode(encoding)
    assert same(decoded, value)
    assert encode(decoded) == encoding


@settings(max_examples=100, deadline=None)
@given(values, values)
def test_encodings_are_equal_exactly_for_the_same_values(a: Any, b: Any) -> None:
    assert (encode(a) == encode(b)) == same(a, b)


NOTORIOUS: list[Any] = [
    *([], (), set(), frozenset(), {}, "", b"", bytearray(), None, 0, 0.0, -0.0, False, 0j),
    *(1, True, 1.0, "1", b"1", Decimal(1), Decimal("1.0"), Fraction(1), 1 + 0j, Level.LOW),
    *("red", b"red", Colour.RED, Tone.RED, "RED", bytearray(b"red"), Colour.BLUE),
    *(["ab", "c"], ["a", "bc"], ["abc"], ("ab", "c"), [["ab"], "c"], [["ab", "c"]], "abc"),
    *([[], []], [[[]]], [[]], ((),), ([],), [()]),
    *({"a": 1, "b": 2}, {"b": 2, "a": 1}, [("a", 1), ("b", 2)], {"a": {"b": 2}}, {1: "a"}),
    *({True: "a"}, {1.0: "a"}, {1, 2}, frozenset({1, 2}), [1, 2], (1, 2), Point(1, 2)),
    *(Item("a"), Item("a", []), Frozen("a"), Box("a"), Item, Frozen, Box),
    *(Model(name="a"), Model(name="a", items=[]), _model("a", [], 0, x=1), _model("a", [], 1)),
    *(Parcel[int](content=1), Parcel[Any](content=1), Parcel(content=1), IntParcel),
    *(float("nan"), "nan", Decimal("nan"), Decimal("-nan"), Decimal("nan1"), Decimal("snan")),
    *(float("inf"), Decimal("inf"), 2**31, -(2**31), -(2**31) - 1, 2**31 - 1, 2**64, -129, 128),
    *("\ud800", "\udc00", "\U00010000", "\ud800\udc00", "é", "e\u0301"),
    *(date(2025, 1, 1), datetime(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), "2025-01-01"),
    *(datetime(2025, 1, 1, fold=1), time(0), time(0, fold=1), timedelta(0), timedelta(1)),
    datetime(2025, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    datetime(2025, 1, 1, tzinfo=timezone(timedelta(0), "Z")),
    *(pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), pathlib.Path("a"), "a"),
    *(UUID(int=1), range(3), range(0, 3, 2), range(0), str, int, "int"),
]


def test_the_notorious_collisions_do_not_collide() -> None:
    encodings: dict[bytes, Any] = {}
    for value in NOTORIOUS:
        encoding = encode(value)
        if encoding in encodings:
            assert same(encodings[encoding], value), (encodings[encoding], value)
        encodings[encoding] = value
        assert same(decode(encoding), value)


def test_fingerprints_keep_their_parts_apart() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("a") == digest(encode(("a",)))
    assert len(fingerprint()) == 32


def test_cached_properties_are_not_state() -> None:
    fresh, used = Item("a"), Item("a")
    assert used.length == 0
    assert encode(fresh) == encode(used)


def test_fields_that_are_not_set_stay_unset() -> None:
    decoded = decode(encode(Unset()))
    assert type(decoded) is Unset
    assert not hasattr(decoded, "value")


def test_attributes_beyond_the_fields_are_state() -> None:
    item = Item("a")
    item.note = "b"  # type: ignore[attr-defined]
    assert encode(item) != encode(Item("a"))
    assert decode(encode(item)).note == "b"


STABLE = """
import enum
from helium_agents.keys.encoding import fingerprint
class Tone(enum.StrEnum):
    A = "a"
value = {"set": {"a", "b", "c", "d"}, "nested": frozenset({("x", 1), ("y", 2)}), "e": {Tone.A}}
print(fingerprint(value, 1.5, None, 2**70).hex())
"""


def test_fingerprints_do_not_depend_on_the_process() -> None:
    seen = {
        subprocess.run(
            [sys.executable, "-c", STABLE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(seen) == 1


# --- refusals ------------------------------------------------------------------------------------


class Client:
    pass


class Markdown(str):
    pass


@dataclass
class Row:
    items: list[Any]


@dataclass
class Failure(Exception):
    code: int


class Slotted:
    __slots__ = ("hidden",)


@dataclass
class Half(Slotted):
    code: int


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        ({"row": Row([1, 2, 3, {"client": Client()}])}, "row.items[3]['client']", "Client"),
        ({"row": Row([_model("a", [Client()], 0)])}, "row.items[0].items[0]", "Client"),
        ([1, (2, Markdown("x"))], "[1][1]", "Markdown"),
        (OrderedDict(), "the value", "OrderedDict"),
        ({"a b": defaultdict(list)}, "['a b']", "defaultdict"),
        (Failure(3), "the value", "Failure"),
        (Half(3), "the value", "Half"),
        (print, "the value", "builtin_function_or_method"),
        (Client, "the value", "Client"),
    ],
)
def test_a_refusal_says_where_and_what(value: Any, path: str, type_name: str) -> None:
    with pytest.raises(EncodingError) as error:
        encode(value)
    assert error.value.path == path
    assert str(error.value).startswith(path)
    assert type_name in str(error.value)
    assert "pure=True" in str(error.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append({"again": cycle})
    with pytest.raises(EncodingError, match="contains itself"):
        encode({"arg": [cycle]})
    with pytest.raises(EncodingError, match="contains itself"):
        freeze(cycle)


def test_a_value_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(1200):
        deep = [deep]
    with pytest.raises(EncodingError, match="nested too deeply"):
        encode(deep)


@dataclass
class FakeOperator:
    version: bytes

    def __post_init__(self) -> None:
        self.__module__, self.__qualname__ = "app", "answer"

    def __helium_version__(self) -> bytes:
        return self.version


def test_operators_count_by_name_and_version() -> None:
    assert encode(FakeOperator(b"1")) == encode(FakeOperator(b"1"))
    assert encode(FakeOperator(b"1")) != encode(FakeOperator(b"2"))
    with pytest.raises(DecodingError):
        decode(encode(FakeOperator(b"1")))


def test_functions_count_by_name_and_version() -> None:
    assert encode(same) == encode(same)
    assert encode(same) != encode(_model)


def test_classes_count_with_their_schema() -> None:
    def made(kind: Any) -> type:
        class Answer(BaseModel):
            text: kind

        return Answer

    assert encode(made(str)) == encode(made(str))
    assert encode(made(str)) != encode(made(int))


# --- decoding ------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(values, st.data())
def test_broken_bytes_are_refused_or_mean_what_they_say(value: Any, data: st.DataObject) -> None:
    broken = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not broken:
            break
    try:
        decoded = decode(bytes(broken))
    except DecodingError:
        return
    assert encode(decoded) == bytes(broken)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_random_bytes_are_refused_or_mean_what_they_say(data: bytes) -> None:
    try:
        decoded = decode(data)
    except DecodingError:
        return
    assert encode(decoded) == data


@pytest.mark.parametrize("value", [[1, "a"], Item("a"), Colour.RED, Decimal(1), {"a": {1, 2}}])
def test_every_truncation_is_refused(value: Any) -> None:
    encoding = encode(value)
    for end in range(len(encoding)):
        with pytest.raises(DecodingError):
            decode(encoding[:end])
    with pytest.raises(DecodingError, match="follow"):
        decode(encoding + b"N")


def test_deep_bytes_are_refused() -> None:
    with pytest.raises(DecodingError, match="nested too deeply"):
        decode(b"l\x01" * 100_000 + b"N")


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.object"])
def test_only_classes_of_data_are_made(name: str) -> None:
    module, _, qualname = name.rpartition(".")
    data = b"o" + encode(module) + encode(qualname) + encode(())
    with pytest.raises(DecodingError):
        decode(data)


def test_local_classes_cannot_be_found_again() -> None:
    @dataclass
    class Local:
        x: int

    with pytest.raises(DecodingError, match="no class"):
        decode(encode(Local(1)))


def test_a_class_that_changed_is_refused() -> None:
    encoding = encode(Frozen(1)).replace(encode("value"), encode("other"))
    with pytest.raises(DecodingError, match="no longer"):
        decode(encoding)
    with pytest.raises(DecodingError, match="canonical"):
        decode(encode(Colour.RED).replace(encode("red"), encode("rot")))


def test_no_code_of_a_class_runs() -> None:
    class Loud(BaseModel):
        x: int

        def model_post_init(self, _: Any) -> None:
            raise AssertionError

    quiet = Loud.__new__(Loud)
    BaseModel.__setstate__(
        quiet,
        {
            "__dict__": {"x": "not an int"},
            "__pydantic_fields_set__": {"x"},
            "__pydantic_extra__": None,
            "__pydantic_private__": None,
        },
    )
    assert freeze(quiet).x == "not an int"


# --- freezing ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(values)
def test_a_frozen_copy_is_the_same_value(value: Any) -> None:
    assert same(freeze(value), value)


def _scramble(value: Any) -> None:
    """Changes everything in a value that can be changed."""
    if isinstance(value, bytearray | list):
        for item in [] if isinstance(value, bytearray) else value:
            _scramble(item)
        value.append(7)
    elif isinstance(value, tuple | frozenset):
        for item in value:
            _scramble(item)
    elif isinstance(value, dict):
        for item in value.values():
            _scramble(item)
        value["scrambled"] = 7
    elif isinstance(value, set):
        value.add("scrambled")
    elif isinstance(value, Item | Model):
        _scramble(value.__dict__.get("items", value.__dict__.get("tags")))
        value.name = "scrambled"
    elif isinstance(value, Box):
        _scramble(value.content)
        value.content = "scrambled"
    elif isinstance(value, Parcel):
        _scramble(value.content)


@settings(max_examples=60, deadline=None)
@given(values)
def test_a_frozen_copy_is_independent(value: Any) -> None:
    encoding = encode(value)
    copy = freeze(value)
    _scramble(value)
    assert encode(copy) == encoding


def test_what_is_immutable_is_shared() -> None:
    for value in ("a", (1, ("b",)), frozenset({1}), Frozen("x"), Point(1, 2), Colour.RED, date.max):
        assert freeze(value) is value
    nested = (1, [2])
    assert freeze(nested) is not nested
    assert freeze(Frozen([1])).value == [1]


def test_freezing_works_for_local_classes_and_lets_handles_pass() -> None:
    @dataclass
    class Local:
        x: Any

    handle = Client()
    original = Local([handle])
    copy = freeze(original)
    original.x.append(1)
    assert type(copy) is Local
    assert copy.x == [handle]


@pytest.mark.parametrize(
    ("whole", "broken"),
    [
        (b"t\x01s\x07contentNN", b"s\x07contentNN"),  # a text for the tuple of fields that were set
        (b"i\x00\x00\x00\x01t\x00d\x00", b"i\x00\x00\x00\x01d\x00d\x00"),  # a dict for a tuple
        (b"t\x00d\x00t\x01", b"t\x00d\x00e\x01"),  # a set for a tuple
    ],
)
@pytest.mark.parametrize("parcel", [Parcel[Any](content=1), Parcel[int](content=1)])
def test_a_model_with_parts_of_other_kinds_is_refused(
    parcel: Any, whole: bytes, broken: bytes
) -> None:
    encoding = encode(parcel)
    assert whole in encoding
    with pytest.raises(DecodingError):
        decode(encoding.replace(whole, broken))


# --- the classes of values -----------------------------------------------------------------------


def _twins(kind: str) -> tuple[Any, Any]:
    """Two values of same-named classes of one factory, whose methods differ."""

    def made(word: str) -> Any:
        if kind == "dataclass":

            @dataclass
            class Twin:
                x: int = 1

                def say(self) -> str:
                    return word

            return Twin()
        if kind == "model":

            class Twin(BaseModel):  # type: ignore[no-redef]
                x: int = 1

                def say(self) -> str:
                    return word

            return Twin()
        if kind == "named tuple":

            class Twin(NamedTuple):  # type: ignore[no-redef]
                x: int = 1

                def say(self) -> str:
                    return word

            return Twin()

        class Twin(enum.Enum):  # type: ignore[no-redef]
            A = 1

            def say(self) -> str:
                return word

        return Twin.A

    return made("a"), made("b")


@pytest.mark.parametrize("kind", ["dataclass", "model", "named tuple", "enum"])
def test_same_named_classes_with_other_methods_differ(kind: str) -> None:
    first, second = _twins(kind)
    assert type(first).__qualname__ == type(second).__qualname__
    assert encode(first) != encode(second)
    assert encode([{"a": first}]) != encode([{"a": second}])
    assert encode(type(first)) != encode(type(second))
    assert encode(_twins(kind)) == encode((first, second))


ROWS = """
    from dataclasses import dataclass
    from app.prompts import WORD

    class Base:
        def greet(self):
            return "hello"

    @dataclass
    class Row(Base):
        x: int = 1

        def title(self):
            return WORD + self.greet()
"""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main.py", "WORD + self.greet()", "self.greet() + WORD"),
        ("main.py", '"hello"', '"bye"'),
        ("main.py", "x: int = 1", "x: int = 2"),
        ("prompts.py", "a", "b"),
    ],
)
def test_an_edit_of_a_class_changes_the_encoding_of_its_instances(
    load: Any, file: str, old: str, new: str
) -> None:
    files = {"__init__.py": "", "prompts.py": "WORD = 'a'\n", "main.py": ROWS}
    before = encode(load(files).Row(3))
    assert decode(before).x == 3
    same = load(files).Row(3)
    assert encode(same) == before
    edited = load({**files, file: files[file].replace(old, new)}).Row(3)
    assert encode(edited) != before
    with pytest.raises(DecodingError, match="has changed"):
        decode(before)


def test_a_class_may_say_its_version(load: Any) -> None:
    files = {
        "__init__.py": "",
        "main.py": """
            from dataclasses import dataclass
            import threading

            @dataclass
            class Row:
                x: int = 1
                client = threading.Thread()
        """,
    }
    with pytest.raises(EncodingError, match=r'__helium_version__ = "1"'):
        encode(load(files).Row())
    dataclass_ = "            @dataclass\n            class Row:\n"
    files["main.py"] = files["main.py"].replace(
        dataclass_, dataclass_ + '                __helium_version__ = "1"\n'
    )
    row = load(files).Row(5)
    assert decode(encode(row)) == row
    row = load(files).Row(5)
    files["main.py"] = files["main.py"].replace('"1"', '"2"')
    assert encode(load(files).Row(5)) != encode(row)


def test_a_class_without_source_counts_by_what_it_holds() -> None:
    def made(source: str) -> type:
        namespace: dict[str, Any] = {"__name__": __name__, "dataclass": dataclass}
        exec(f"@dataclass\nclass Made:\n    {source}\n", namespace)
        cls: type = namespace["Made"]
        return cls

    assert encode(made("x: int = 1")(3)) == encode(made("x: int = 1")(3))
    assert encode(made("x: int = 1")(3)) != encode(made("x: int = 2")(3))
    method = "def say(self):\n        return "
    assert encode(made(f"{method}1")()) != encode(made(f"{method}2")())
    nowhere: dict[str, Any] = {}  # such a class says that it is a builtin
    other: dict[str, Any] = {}
    kind = "import enum\nclass Kind(enum.Enum):\n  A = 1\n  def say(self): return "
    exec(f"{kind}1\n", nowhere)
    exec(f"{kind}2\n", other)
    assert encode(nowhere["Kind"].A) != encode(other["Kind"].A)


def test_a_model_with_a_default_that_json_does_not_have_is_encoded_without_a_warning() -> None:
    class Holder(BaseModel):
        item: Any = Frozen({1: Colour.RED, (2,): b"\xff"})

    assert encode(Holder()) == encode(Holder())


# --- code of the user's --------------------------------------------------------------------------


class Moody(type):
    def __getattr__(cls, name: str) -> Any:
        raise OSError("no")


@dataclass
class Loud:
    x: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise OSError("no")
        return object.__getattribute__(self, name)


@dataclass(frozen=True)
class Unhashable:
    x: int = 1

    def __hash__(self) -> int:
        if _is_broken:
            raise OSError("no")
        return 1

    def __repr__(self) -> str:
        raise OSError("no")

    def __eq__(self, other: object) -> bool:
        raise OSError("no")


_is_broken: list[int] = []


class Broken:
    def __helium_version__(self) -> bytes:
        raise OSError("no")


@pytest.mark.parametrize(
    "value", [Loud(), Broken(), Moody("A", (), {})(), [Unhashable(), {Unhashable(): Loud()}]]
)
def test_what_code_of_the_users_raises_is_an_encoding_error(value: Any) -> None:
    with pytest.raises(EncodingError, match=r"raised OSError\('no'\)") as error:
        encode({"row": [value]})
    assert error.value.path.startswith("row[0]")
    assert isinstance(error.value.__cause__, OSError)


def test_values_that_cannot_be_compared_or_shown_are_encoded() -> None:
    value = {Unhashable(): [1]}
    assert encode(value) == encode({Unhashable(): [1]})
    _is_broken.append(1)
    try:
        with pytest.raises(EncodingError, match="raised OSError"):
            freeze(value)
    finally:
        _is_broken.clear()


# --- results -------------------------------------------------------------------------------------


def _local() -> Any:
    @dataclass
    class Local:
        x: int = 1

    return Local()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (_local(), "there is no class"),
        (type(_local()), "there is no class"),
        (same, "a function cannot be read back"),
        (FakeOperator(b"1"), "an operator"),
    ],
)
def test_a_result_that_could_not_be_read_again_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason) as error:
        encode_result({"found": [1, value]})
    assert error.value.path == "found[1]"


@settings(max_examples=50, deadline=None)
@given(values)
def test_a_result_is_encoded_as_any_value(value: Any) -> None:
    assert encode_result(value) == encode(value)


# --- depth ---------------------------------------------------------------------------------------


_WRAP: dict[str, Callable[[Any], Any]] = {
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "dict": lambda value: {"a": value},
    "item": lambda value: Row([value]),
}


def _nested(kind: str, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = _WRAP[kind](value)
    return value


def _cycle(kind: str) -> Any:
    inner: list[Any] = []
    inner.append(_WRAP[kind](inner))
    return inner[0]


@pytest.mark.parametrize("kind", ["list", "tuple", "dict", "item"])
def test_depth_and_cycles_are_refused_by_name(kind: str) -> None:
    for value in (_nested(kind, 100_000), _cycle(kind)):
        for work in (encode, encode_result):
            with pytest.raises(EncodingError, match=r"nested too deeply|contains itself") as error:
                work({"row": value})
            assert error.value.path.startswith("row")
            assert len(str(error.value)) < 1000
        with pytest.raises(EncodingError, match="nested too deeply"):
            freeze(value)


def test_depth_is_refused_also_by_who_is_deep_down() -> None:
    value, errors = _nested("list", 100), []

    def descend() -> None:
        try:
            encode(value)
        except EncodingError:
            errors.append(1)
        descend()

    with pytest.raises(RecursionError):
        descend()
    assert errors
