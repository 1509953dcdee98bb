"""Slots: the places in arguments and messages where other calls' values go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from helium_agents.errors import PromptError
from helium_agents.graph.image import Image
from helium_agents.graph.reply import Reply


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of input number `index`; encodes as that number."""

    index: int


def leaves_of(value: Any) -> Iterator[Any]:
    """Everything inside tuples, lists and dict values, at any depth and in no order, once."""
    containers: list[Iterable[Any]] = [(value,)]
    seen: set[int] = set()
    while containers:
        for item in containers.pop():
            if type(item) in (tuple, list, dict):
                if id(item) not in seen:  # one may contain itself
                    seen.add(id(item))
                    containers.append(item.values() if type(item) is dict else item)
            else:
                yield item


def replace_leaves(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Apply `replace` to everything inside tuples, lists and dict values, rebuilding on change.

    Containers that hold nothing replaced are returned as they are, so that plain arguments keep
    their identity.

    Raises:
        RecursionError: The value contains itself, or is nested too deeply.
    """
    if type(value) is tuple or type(value) is list:
        items = [replace_leaves(item, replace) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(items)
    if type(value) is dict:
        items = [replace_leaves(item, replace) for item in value.values()]
        if all(new is old for new, old in zip(items, value.values(), strict=True)):
            return value
        return dict(zip(value, items, strict=True))
    return replace(value)


def map_slots(argument: Any, values: tuple[Any, ...]) -> Any:
    """One argument with every slot replaced by the value of its input."""

    def fill(leaf: Any) -> Any:
        return values[leaf.index] if type(leaf) is Slot else leaf

    try:
        return replace_leaves(argument, fill)
    except RecursionError:  # then `defer` has seen that no Ref is in it
        return argument


def as_text(value: Any, where: str) -> str:
    """`value` as text for a prompt: text itself, numbers, and what declares itself as text.

    Raises:
        PromptError: The value has no obvious text; `where` names its place.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Reply):
        return value.text
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Image):
        raise PromptError(f"{where} is an image, not text: await it, and give it to the message")
    raise PromptError(
        f"{where} is a {type(value).__name__}, which has no obvious text: "
        f"turn it into a string first"
    )
