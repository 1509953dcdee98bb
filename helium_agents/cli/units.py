"""Durations, sizes and dates: as options take them and as reports show them."""

from __future__ import annotations

import math
import re
from datetime import datetime

import click

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"B": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for unit, base in (("iB", 1024), ("B", 1000))
}
_QUANTITY = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def duration(text: str) -> float:
    """The seconds in ``30d``; the type of an option."""
    return _parse(text, "duration", _SECONDS, "30d")


def num_bytes(text: str) -> int:
    """The bytes in ``1GiB``; the type of an option."""
    return round(_parse(text, "size", _BYTES, "1GiB"))


def _parse(text: str, what: str, units: dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if match is None or match[2].lower() not in factors:
        raise click.BadParameter(
            f"{text!r} is no {what}: write a number and one of {', '.join(units)}, as in {example}"
        )
    return float(match[1].replace("_", "")) * factors[match[2].lower()]


def size(number: float) -> str:
    """Bytes for a person: ``1.5 MiB``."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while number >= 1024 and unit != "TiB":
        number, unit = number / 1024, next(units)
    return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"


def age(seconds: float) -> str:
    """How long ago something was, in its largest unit: ``3 d``."""
    seconds = max(0.0, seconds)
    for unit in ("d", "h", "min"):
        if seconds >= _SECONDS[unit]:
            return f"{math.floor(seconds / _SECONDS[unit]):,} {unit}"
    return f"{math.floor(seconds)} s"


def date(time_s: float) -> str:
    """A Unix time for a person, in the local time zone."""
    return datetime.fromtimestamp(time_s).strftime("%Y-%m-%d %H:%M")
