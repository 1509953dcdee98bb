"""Where a call is made: the frame of the caller, found through one `ContextVar`.

A frame says which session runs the calls made in it, which item of a `map` they belong to,
whether they must be pure, and by which path they are reached. Paths identify draws: two unseeded
samples are the same draw exactly when run, item and path are equal. That holds across runs of the
same program, whatever the timing, because an ordinal counts only siblings with an equal key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol

from helium_agents.graph.encoding import fingerprint

if TYPE_CHECKING:
    from helium_agents.graph.node import Node


class Runner(Protocol):
    """What a frame knows of its session."""

    def model_key(self, model: str | None) -> bytes:
        """Identity of the model called `model` (`None`: the default), as part of keys."""
        ...

    def check_open(self) -> None:
        """Raise unless calls of this session can be made and awaited here."""
        ...

    def on_created(self, node: Node) -> None:
        """A call was made."""
        ...

    def on_awaited(self, node: Node) -> None:
        """A plain operator is about to run in its awaiter's task; raises if that cannot be."""
        ...

    def on_taken(self, node: Node) -> None:
        """Somebody took care of a plain operator's call without awaiting it."""
        ...

    def wait(self, node: Node) -> Coroutine[Any, Any, Any]:
        """The value of a pure or LLM node, computing it if needed."""
        ...

    def start(self, node: Node) -> None:
        """Demand a node on the session's own behalf."""
        ...

    def stream(self, node: Node) -> AsyncIterator[str]:
        """The text of an LLM node, piece by piece."""
        ...


class Frame:
    """One level of the call tree.

    Args:
        runner: The session, or `None` outside any.
        parent: The caller's frame.
        level: What identifies this level below its parent: name, key, ordinal, attempt.
        is_pure: Whether only pure calls may be made here.
        item: The item of a `map` that this frame works for; opaque to the graph.
        node: The operator call whose body runs in this frame.

    Attributes:
        has_failed: Whether what ran in this frame was left by an exception.
    """

    __slots__ = (
        "_level", "_ordinals", "_parent", "_path", "has_failed", "is_pure", "item", "node",
        "runner",
    )  # fmt: skip

    def __init__(
        self,
        runner: Runner | None,
        parent: Frame | None = None,
        level: tuple[Any, ...] = (),
        is_pure: bool = False,
        item: Any = None,
        node: Node | None = None,
    ) -> None:
        self.runner = runner
        self.is_pure = is_pure
        self.item = item
        self.node = node
        self.has_failed = False
        self._parent = parent
        self._level = level
        self._path: bytes | None = None
        self._ordinals: dict[tuple[str, Any], int] | None = None

    @property
    def path(self) -> bytes:
        """Digest of run, item and call path."""
        if self._path is None:
            above = self._parent.path if self._parent is not None else b""
            self._path = fingerprint(above, self._level)
        return self._path

    def callers(self) -> Iterator[Node]:
        """The operator calls that this frame is inside of, innermost first."""
        frame: Frame | None = self
        while frame is not None:
            if frame.node is not None:
                yield frame.node
            frame = frame._parent

    def next_ordinal(self, name: str, key: Any) -> int:
        """How many earlier calls of this frame had the same name and key; counts this one."""
        if self._ordinals is None:
            self._ordinals = {}
        ordinal = self._ordinals.get((name, key), 0)
        self._ordinals[name, key] = ordinal + 1
        return ordinal


_FRAME: ContextVar[Frame | None] = ContextVar("helium_agents.frame", default=None)


entered_frame: Callable[[], Frame | None] = _FRAME.get
"""The frame of the code that is running, if there is one."""


def current_frame() -> Frame:
    """The frame of the code that is running; a fresh one without a session outside any."""
    return entered_frame() or Frame(None)


def set_frame(frame: Frame | None) -> Frame | None:
    """Make `frame` current and return the one that was.

    For sessions, which may be entered and left in different contexts (a pytest fixture), where a
    `ContextVar` token could not be reset.
    """
    previous = _FRAME.get()
    _FRAME.set(frame)
    return previous


enter: Callable[[Frame], Token[Frame | None]] = _FRAME.set
"""Makes a frame current; what it returns is given to `leave`."""


def leave(token: Token[Frame | None]) -> None:
    """Make the frame current that was before `enter`."""
    try:
        _FRAME.reset(token)
    except ValueError:
        # closed by the garbage collector in another context, where there is nothing to reset
        return


@contextmanager
def entered(frame: Frame) -> Iterator[Frame]:
    """Run a block in `frame`."""
    token = enter(frame)
    try:
        yield frame
    except BaseException:
        frame.has_failed = True
        raise
    finally:
        leave(token)
