"""How an LLM call samples, and whether that makes it deterministic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Final

from helium_agents.errors import RequestError
from helium_agents.graph.arguments import complaint, is_finite, is_whole
from helium_agents.keys.encoding import encode


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one LLM call, in vLLM's vocabulary.

    Greedy calls are canonical: parameters that cannot change a greedy answer (`top_p`, `top_k`,
    `min_p`, `seed`) are reset, so that two ways to ask for the same answer have the same key.

    Args:
        max_tokens: Most tokens of one answer, at least 1.
        temperature: 0 is greedy; finite.
        top_p: Nucleus mass, in (0, 1].
        top_k: Tokens considered; 0 means all.
        min_p: Least probability relative to the likeliest token, in [0, 1].
        presence_penalty: In [-2, 2].
        frequency_penalty: In [-2, 2].
        repetition_penalty: Greater than 0; 1 is none.
        stop: Strings that end the answer; they are not part of it.
        seed: Makes a sampled answer reproducible: from 0 to 2**63 - 1 (-1 means none to vLLM).
            `None` means a fresh draw each time.
        n: Number of answers, at least 1.

    Attributes:
        encoded: The canonical encoding of all but `max_tokens`, as part of keys.
        is_greedy: Whether the likeliest token is always taken.
        is_deterministic: Whether asking twice gives the same answer: greedy, or seeded.
        has_prefixes: Whether a shorter answer is the beginning of a longer one: greedy and single.

    Raises:
        RequestError: A value is of the wrong type or out of range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    encoded: bytes = field(init=False, compare=False, repr=False)
    is_greedy: bool = field(init=False, compare=False, repr=False)
    is_deterministic: bool = field(init=False, compare=False, repr=False)
    has_prefixes: bool = field(init=False, compare=False, repr=False)

    def __hash__(self) -> int:
        return hash((self.encoded, self.max_tokens))

    def __post_init__(self) -> None:
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            if not is_whole(value, low, high):
                want = f"a whole number, at least {low} and at most {high}"
                raise RequestError(complaint(name, value, want))
            object.__setattr__(self, name, int(value))  # of an IntEnum too
        for name, (is_valid, want) in _REAL.items():
            value = getattr(self, name)
            if not (is_finite(value) and is_valid(value)):
                raise RequestError(complaint(name, value, f"a finite number {want}"))
            # 0, 0.0 and -0.0 are the same request
            object.__setattr__(self, name, float(value) + 0.0)
        object.__setattr__(self, "stop", _plain_texts(self.stop))
        is_greedy = self.temperature == 0.0
        if is_greedy:
            for name, value in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0), ("seed", None)):
                object.__setattr__(self, name, value)
        object.__setattr__(self, "encoded", _encode_all_but_length(self))
        object.__setattr__(self, "is_greedy", is_greedy)
        object.__setattr__(self, "is_deterministic", is_greedy or self.seed is not None)
        object.__setattr__(self, "has_prefixes", is_greedy and self.n == 1)


def stop_strings(stop: Any) -> tuple[Any, ...]:
    """`stop=` as a tuple: a string, a list or tuple of them, or `None` for none.

    A set is refused, since it has no order to be part of a key; what is inside is checked by
    `Sampling`.

    Raises:
        RequestError: It is something else.
    """
    if stop is None:
        return ()
    if isinstance(stop, str):
        return (stop,)
    if isinstance(stop, list | tuple):
        return tuple(stop)
    raise RequestError(complaint("stop", stop, _STOP))


def _plain_texts(stop: Any) -> tuple[str, ...]:
    for text in stop:
        if not isinstance(text, str) or not text:
            raise RequestError(complaint("stop", stop, _STOP))
    return tuple(str.__str__(text) for text in stop)  # of a StrEnum too


_STOP: Final = "a string, or a list of strings, none of them empty"
_MOST: Final = 2**31 - 1
_WHOLE: Final = {
    "max_tokens": (1, _MOST), "top_k": (0, _MOST), "seed": (0, 2**63 - 1), "n": (1, _MOST),
}  # fmt: skip
_REAL: Final[dict[str, tuple[Callable[[float], bool], str]]] = {
    "temperature": (lambda value: value >= 0, "at least 0"),
    "top_p": (lambda value: 0 < value <= 1, "in (0, 1]"),
    "min_p": (lambda value: 0 <= value <= 1, "in [0, 1]"),
    "presence_penalty": (lambda value: -2 <= value <= 2, "in [-2, 2]"),
    "frequency_penalty": (lambda value: -2 <= value <= 2, "in [-2, 2]"),
    "repetition_penalty": (lambda value: value > 0, "above 0"),
}


def _encode_all_but_length(sampling: Sampling) -> bytes:
    """The canonical encoding of what decides each next token, the length apart.

    By name and without defaults: a parameter that is added later changes no key that is there.
    """
    values = {name: getattr(sampling, name) for name in _DEFAULTS}
    return encode({name: value for name, value in values.items() if value != _DEFAULTS[name]})


_DEFAULTS = {f.name: f.default for f in fields(Sampling) if f.init and f.name != "max_tokens"}
_DEFAULTS = {name: _DEFAULTS[name] for name in sorted(_DEFAULTS)}  # whatever their order above


@lru_cache(maxsize=256, typed=True)  # typed, since 2.0 and True must not pass for 2 and 1
def sampling_of(*parameters: Any) -> Sampling:
    """A `Sampling` of these arguments, made and checked once for all calls that ask for it.

    Raises:
        TypeError: One of them has no hash.
    """
    return Sampling(*parameters)
