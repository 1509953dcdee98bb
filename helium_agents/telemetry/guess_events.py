"""Events of guesses: what was guessed of a call, and what was computed early for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

WhyNoGuess = Literal[
    "", "not shared", "never alike", "nobody", "nothing seen", "not said", "no cost", "off",
    "improbable", "long body", "not worth it",
]  # fmt: skip
"""Why nothing was computed early on a guess of a call: something was, or might have been; equal
calls are not one; its body differs when it is run again; nobody guesses such calls, nor could they;
too little like it was seen; `predict=` said nothing; nobody knows what a step of its engine costs;
guesses there did not pay; it was not probable enough, or one of too many; running the body again
would hold up the event loop; what followed was not worth its cost."""


class Guessed(NamedTuple):
    """The answer of a call in the body of a pure operator is there: what was guessed of it.

    Args:
        call: Its number.
        site: What it has in common with calls of which one tells about another.
        source: Who guessed, as in `Speculated`; "" where nobody did.
        probability: At least, of what was guessed right, or else of the likeliest guess.
        is_right: Whether one of the guesses was; `None` where there was none.
        why: Why nothing was computed early on it.
    """

    call: int
    site: str
    source: str
    probability: float
    is_right: bool | None
    why: WhyNoGuess


class Speculated(NamedTuple):
    """What was computed before anybody had asked for it was asked for, or is given up.

    Args:
        label: What a person calls the call.
        source: Who guessed what made it likely: "predict" (the program's own function), ...
        probability: Of that guess, as who guessed saw it.
        is_used: Whether it was asked for.
        saved_s: How long it had been computed by then.
        wasted_tokens: That an engine computed for it for nothing.
        call: The number of the call that asked for it; 0 where none did.
    """

    label: str
    source: str
    probability: float
    is_used: bool
    saved_s: float
    wasted_tokens: int
    call: int = 0
