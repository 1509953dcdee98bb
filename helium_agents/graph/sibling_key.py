"""What tells calls of a plain operator apart in one body, where its arguments can be encoded."""

from __future__ import annotations

from typing import Any

from helium_agents.errors import HeliumError
from helium_agents.keys.encoding import fingerprint

_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_SHORT_CHARACTERS = 64


def sibling_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The key of a call by its arguments.

    A few short scalars stand for themselves, with their types, since 1 and 1.0 are equal. The rest
    is digested now: it may change later, and it may be large, and keys stay as long as the frame.
    """
    if not kwargs and len(args) <= 2:
        is_text = True
        for arg in args:
            if type(arg) is not str:
                is_text = False
                if type(arg) not in _SCALARS:
                    break
                if type(arg) is bytes and len(arg) > _SHORT_CHARACTERS:
                    break
            elif len(arg) > _SHORT_CHARACTERS:
                break
        else:
            return args if is_text else (args, tuple(type(arg).__name__ for arg in args))
    try:
        return fingerprint(args, kwargs)
    except HeliumError:  # no part of a key; then siblings are told apart by their order only
        return ()
