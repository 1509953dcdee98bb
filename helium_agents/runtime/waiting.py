"""What waits for what, as a tree for a person: whoever stares at a program that stands still.

At the top are those that nobody inside the session waits for: the program itself, items of maps,
calls that were started and not awaited. Below each are the calls that it waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from helium_agents.errors import shown
from helium_agents.graph.llm_node import describe
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.tool_call import ToolCall
from helium_agents.graph.trace import Frame
from helium_agents.graph.waits import inline_waits
from helium_agents.runtime.flight import Flight

_MOST_LINES = 200
_SHOWN_CHARACTERS = 40
_PROGRAM, _STARTED = "the program", "started, and awaited by nobody"


class OpenMap(Protocol):
    """What is shown of a map."""

    @property
    def state(self) -> str:
        """What it is doing, in words."""
        ...

    def open_items(self, now_s: float) -> list[tuple[Any, str]]:
        """The open items, each with what to say of it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RunningTool:
    """A tool that runs.

    Args:
        frame: Where it was called.
        call: What the model asked for.
        since_s: By the event loop's clock.
    """

    frame: Frame
    call: ToolCall
    since_s: float


@dataclass
class _Entry:
    """One line of the tree, and what stands below it."""

    text: str = ""
    below: dict[Any, None] = field(default_factory=dict)
    is_root: bool = True


def _named(node: Node) -> str:
    """A call with the beginning of its arguments, which tell it from others."""
    if not isinstance(node, OperatorNode):
        return describe(node)
    args = [shown(argument, _SHOWN_CHARACTERS) for argument in node.args]
    return f"{node.label}({', '.join([*args, *_by_name(node.kwargs)])})"


def _by_name(arguments: dict[str, Any]) -> list[str]:
    return [f"{name}={shown(argument, _SHOWN_CHARACTERS)}" for name, argument in arguments.items()]


class _Tree:
    def __init__(self, now_s: float) -> None:
        self._entries: dict[Any, _Entry] = {}
        self._now_s = now_s

    def add_flight(self, flight: Flight) -> None:
        """A flight, below all who wait for it."""
        seconds = self._now_s - flight.usage.asked_s
        num_others = len(flight.nodes) - 1
        others = f" and {num_others} equal call{'s' * (num_others > 1)}" if num_others else ""
        entry = self._entry(flight)
        entry.text = f"{_named(flight.node)}{others}: {seconds:.1f} s, {flight.doing}"
        for waiter in flight.waiters:
            if waiter.holder is not None:
                self._put_below(flight, waiter.holder)
            elif waiter.frame is not None:
                self._put_below_frame(flight, waiter.frame)
            else:
                self._put_below(flight, self._top(_STARTED))

    def add_plain(self, node: Node) -> None:
        """A plain operator that runs, below all who wait for it."""
        self._entry(node).text = f"{_named(node)}: its body runs"
        for wait in inline_waits(node):
            if wait.frame is not None:
                self._put_below_frame(node, wait.frame)

    def add_tool(self, tool: RunningTool) -> None:
        """A tool that runs, below where it was called."""
        name = f"{tool.call.name}({', '.join(_by_name(tool.call.arguments))})"
        entry = self._entry(tool)
        entry.text = f"the tool {name}: {self._now_s - tool.since_s:.1f} s, its body runs"
        self._put_below_frame(tool, tool.frame)

    def add_item(self, item: Any, text: str) -> None:
        """An item of a map."""
        self._entry(item).text = text

    def lines(self) -> list[str]:
        """The tree as text, each entry once."""
        found: list[str] = []
        shown: set[int] = set()
        stack = [(entry, 0) for entry in reversed(self._entries.values()) if entry.is_root]
        while stack:
            if len(found) == _MOST_LINES:
                found.append("  ...")
                break
            entry, depth = stack.pop()
            is_again = id(entry) in shown
            found.append(f"{'  ' * (depth + 1)}{entry.text}{' (as above)' if is_again else ''}")
            if not is_again:
                shown.add(id(entry))
                below = reversed(entry.below)
                stack.extend((self._entries[child], depth + 1) for child in below)
        return found

    def _entry(self, key: Any) -> _Entry:
        return self._entries.setdefault(key, _Entry())

    def _top(self, text: str) -> str:
        self._entry(text).text = text
        return text

    def _put_below(self, child: Any, above: Any) -> None:
        self._entry(child).is_root = False
        self._entry(above).below[child] = None

    def _put_below_frame(self, child: Any, frame: Frame) -> None:
        """Below the operator whose body waits, or else the item, or else the program."""
        while True:
            node = frame.node
            if node is None or (frame.item is not None and node.frame.item is not frame.item):
                above = frame.item if frame.item is not None else self._top(_PROGRAM)
                self._put_below(child, above)
                return
            if node.flight is not None:
                self._put_below(child, node.flight)
                return
            self._entry(node).text = f"{_named(node)}: its body runs"
            self._put_below(child, node)
            if node.awaiter is None or node.awaiter is frame:
                self._put_below(node, self._top(_PROGRAM))
                return
            child, frame = node, node.awaiter


def waiting(
    flights: Sequence[Flight],
    plain: Iterable[Node],
    tools: Iterable[RunningTool],
    maps: Iterable[OpenMap],
    engines: Sequence[str],
    now_s: float,
) -> str:
    """The tree.

    Args:
        flights: All unfinished ones.
        plain: Plain operators whose bodies run.
        tools: Those that run and are no operators.
        maps: The open maps.
        engines: What each engine is doing.
        now_s: By the event loop's clock.
    """
    tree = _Tree(now_s)
    heads = [f"calls that wait or are computed: {len(flights)}"]
    for each in maps:
        heads.append(each.state)
        for item, text in each.open_items(now_s):
            tree.add_item(item, text)
    for flight in flights:
        tree.add_flight(flight)
    for node in plain:
        tree.add_plain(node)
    for tool in tools:
        tree.add_tool(tool)
    return "\n".join([*heads, *engines, *tree.lines()])
