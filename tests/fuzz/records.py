"""What a program's steps give, as data that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_64_hexdigest

from helium_agents import HeliumError, ItemError, Reply
from helium_agents.errors import RequestError, TransientEngineError
from tests.fuzz.model import MARK, Odd


@dataclass(frozen=True)
class Loose:
    """A record of which only a part is promised.

    Args:
        promised: What the program must give, whoever runs it.
        in_full: What it gave. The plain program and the optimised one share their code, so they
            are compared in full.
    """

    promised: str
    in_full: Any

    def __repr__(self) -> str:
        return f"<{self.promised}>"


def shown(value: Any) -> Any:
    """A value as a record: comparable, and without what may differ between runs."""
    match value:
        case Reply():
            parsed = repr(value.all_parsed) if value.all_parsed else ""
            return ("reply", value.texts, value.finish_reason, parsed)
        case tuple() | list():
            return tuple(map(shown, value))
        case BaseException():
            return _shown_error(value)
    return value


def _shown_error(error: BaseException) -> Any:
    name = type(error).__name__
    notes = tuple(n for n in getattr(error, "__notes__", ()) if not n.startswith("caught by"))
    attributes = {key: value for key, value in vars(error).items() if key != "__notes__"}
    in_full = ("error", name, repr(error.args), str(error), repr(attributes), notes)
    if isinstance(error, ItemError):
        return ("error", name, error.index, error.row, shown(error.__cause__), notes)
    if isinstance(error, HeliumError) and not isinstance(
        error, RequestError | TransientEngineError
    ):
        return Loose(name, in_full)  # the library's own: its words are not promised
    if isinstance(error, Odd):
        return Loose(f"{name}{error.args}", in_full)  # nor whether it has the row as a note
    return in_full


def in_full(record: Any) -> Any:
    """The record with all that was given."""
    match record:
        case tuple():
            return tuple(map(in_full, record))
        case Loose():
            return in_full(record.in_full)
    return record


def brief(value: Any) -> str:
    """A value as a short text of what is promised; the draws that it comes from stay visible."""
    text = value.text if isinstance(value, Reply) else repr(shown(value))
    if len(text) <= 60:  # marks are all of one length
        return text
    return "".join(MARK.findall(text)) + digest(MARK.sub("~", text))


def digest(text: str) -> str:
    """A short digest of a text."""
    return xxh3_64_hexdigest(text.encode())


def up_to_draws(outcome: Any) -> str:
    """The outcome as text, its draws named by the order in which they first occur."""
    names: dict[str, str] = {}
    return MARK.sub(lambda m: names.setdefault(m[0], f"~{len(names)}~"), repr(outcome))
