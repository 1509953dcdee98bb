"""What is wrong with an argument, in one wording: its name, its value, and what is wanted.

Each check gives the complaint as text, or `None`; who asks knows the error to raise. A `bool` is
no number here: ``retries=True`` is a mistake, whatever Python makes of it.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from helium_agents.errors import shown

_LARGEST: Final = sys.float_info.max


def complaint(name: str, value: Any, want: str) -> str:
    """Says that an argument is wrong and what it must be."""
    return f"{name}={shown(value)} ({type(value).__name__}) is not valid: it must be {want}"


def is_whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is an `int` between two bounds, both included."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_finite(value: Any) -> bool:
    """Whether a value is an `int` or `float` that a float can hold: neither NaN nor infinite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -_LARGEST <= value <= _LARGEST


def wrong_timeout(value: Any) -> str | None:
    """What is wrong with a `timeout=`: seconds, or `None` for no limit."""
    if value is None or (is_finite(value) and value > 0):
        return None
    return complaint(
        "timeout", value, "a finite number of seconds above 0 (of a timedelta, .total_seconds())"
    )


def wrong_retries(value: Any) -> str | None:
    """What is wrong with a `retries=`: how many attempts may follow the first."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    return complaint("retries", value, "a whole number, at least 0")


def wrong_flag(name: str, value: Any) -> str | None:
    """What is wrong with an argument that is true or false."""
    return None if value is True or value is False else complaint(name, value, "True or False")


def wrong_name(name: str, value: Any) -> str | None:
    """What is wrong with an argument that is a text of at least one character, or `None`."""
    if value is None or (isinstance(value, str) and value):
        return None
    return complaint(name, value, "a text that is not empty, or None")
