"""What was made of a class or a function, kept on itself: it lives exactly as long.

A table beside it would keep alive what it is of, since what is made of a function mostly leads back
to it: and a function that is defined where a request is handled holds all that was in hand there,
documents and sessions included. A weak reference to the function does not help, for that reason.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import FunctionType
from typing import Any, Final
from weakref import ref

KEPT: Final = "__helium_kept__"
"""The attribute, which does not count in versions."""


class _Kept(dict[Hashable, Any]):
    """What is kept on one class or function, and on no copy of it."""

    __slots__ = ("owner",)

    def __init__(self, owner: type | FunctionType) -> None:
        super().__init__()
        self.owner = ref(owner)

    def __reduce__(self) -> tuple[type[dict[Any, Any]], tuple[()]]:
        return dict, ()  # where a class or function is sent to another process, it stays here


def kept_on(definition: type | FunctionType) -> dict[Hashable, Any]:
    """What is kept on a class or a function; on one in C nothing is.

    Args:
        definition: A class, for which its subclasses do not stand, or a function.
    """
    kept = vars(definition).get(KEPT)
    if type(kept) is _Kept and kept.owner() is definition:  # `wraps` copies all attributes
        return kept
    kept = _Kept(definition)
    try:
        if isinstance(definition, type):
            type.__setattr__(definition, KEPT, kept)  # some metaclasses refuse, or make a field
        else:
            setattr(definition, KEPT, kept)
    except TypeError:
        return {}
    return kept
