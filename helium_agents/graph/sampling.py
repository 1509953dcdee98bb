"""How an LLM call samples, and whether that makes it deterministic."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from helium_agents.errors import RequestError
from helium_agents.graph.encoding import encode


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one LLM call, in vLLM's vocabulary.

    Greedy calls are canonical: parameters that cannot change a greedy answer (`top_p`, `top_k`,
    `min_p`, `seed`) are reset, so that two ways to ask for the same answer have the same key.

    Args:
        max_tokens: Most tokens of one answer.
        temperature: 0 is greedy.
        top_p: Nucleus mass, in (0, 1].
        top_k: Tokens considered; 0 means all.
        min_p: Least probability relative to the likeliest token, in [0, 1].
        presence_penalty: In [-2, 2].
        frequency_penalty: In [-2, 2].
        repetition_penalty: Greater than 0; 1 is none.
        stop: Strings that end the answer; they are not part of it.
        seed: Makes a sampled answer reproducible. `None` means a fresh draw each time.
        n: Number of answers.

    Attributes:
        encoded: The canonical encoding of all but `max_tokens`, as part of keys.
        is_greedy: Whether the likeliest token is always taken.
        is_deterministic: Whether asking twice gives the same answer: greedy, or seeded.
        has_prefixes: Whether a shorter answer is the beginning of a longer one: greedy and single.
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
        _check("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")
        _check("temperature", self.temperature, self.temperature >= 0, "at least 0")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]")
        _check("top_k", self.top_k, self.top_k >= 0, "at least 0 (0 means all)")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "in [0, 1]")
        for name in ("presence_penalty", "frequency_penalty"):
            _check(name, getattr(self, name), -2 <= getattr(self, name) <= 2, "in [-2, 2]")
        _check(
            "repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"
        )
        _check("n", self.n, self.n >= 1, "at least 1")
        _check("stop", self.stop, all(self.stop), "without empty strings")
        for each in fields(self):  # 0, 0.0 and -0.0 are the same request
            if each.type == "float":
                object.__setattr__(self, each.name, float(getattr(self, each.name)) + 0.0)
        is_greedy = self.temperature == 0.0
        if is_greedy:
            for name, value in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0), ("seed", None)):
                object.__setattr__(self, name, value)
        object.__setattr__(self, "encoded", _encode_all_but_length(self))
        object.__setattr__(self, "is_greedy", is_greedy)
        object.__setattr__(self, "is_deterministic", is_greedy or self.seed is not None)
        object.__setattr__(self, "has_prefixes", is_greedy and self.n == 1)


def _check(name: str, value: Any, is_valid: bool, want: str) -> None:
    if not is_valid:
        raise RequestError(f"{name}={value!r} is not valid: it must be {want}")


def _encode_all_but_length(sampling: Sampling) -> bytes:
    """The canonical encoding of what decides each next token, the length apart."""
    return encode(tuple(getattr(sampling, name) for name in _DECISIVE))


_DECISIVE = tuple(f.name for f in fields(Sampling) if f.init and f.name != "max_tokens")


@lru_cache(maxsize=256)
def sampling_of(*parameters: Any) -> Sampling:
    """A `Sampling` of these arguments, made and checked once for all calls that ask for it."""
    return Sampling(*parameters)
