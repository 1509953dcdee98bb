"""Where a call is made: the frame of the caller, found through one `ContextVar`.

A frame says which session runs the calls made in it, which item of a `map` they belong to,
whether they must be pure, and by which path they are reached. Paths identify draws: two unseeded
samples are the same draw exactly when run, item and path are equal. That holds across runs of the
same program, because an ordinal counts only siblings with an equal key, by order of creation. It
depends on timing in one case: coroutines that are no operators run concurrently in one frame and
make equal draws there; then whichever comes first has the first ordinal. Operators have a frame for
each call, so giving each of them an argument of its own makes their draws independent of timing.

Code of an event loop on which a session is open but whose task has no frame (a notebook's cell, a
web handler that was there before) is in the root frame of that session.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, _get_running_loop
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from helium_agents.errors import OffLoopCall, SessionError
from helium_agents.graph.models import Models
from helium_agents.graph.tool_call import ToolCall
from helium_agents.keys.encoding import fingerprint

Call = Any
"""A `Node`, of which frames and what runs them know nothing: nodes are made in frames."""


class Runner(Protocol):
    """What a frame knows of its session."""

    @property
    def models(self) -> Models:
        """The session's models."""
        ...

    def waiting(self) -> str:
        """Which calls wait for what, and for how long."""
        ...

    def on_created(self, node: Call) -> None:
        """A call was made."""
        ...

    def on_awaited(self, node: Call, /) -> None:
        """A plain operator is about to run in its awaiter's task; raises if that cannot be."""
        ...

    def on_ended(self, node: Call, /) -> None:
        """A plain operator has ended, or somebody took care of its call without awaiting it."""
        ...

    def running_tool(
        self, frame: Frame, call: ToolCall, *, is_operator: bool
    ) -> AbstractContextManager[None]:
        """While a tool runs, in a frame."""
        ...

    def on_effect(self) -> None:
        """Code in a pure frame is about to do what a run that is only a guess may not do."""
        ...

    def wait(self, node: Call) -> Coroutine[Any, Any, Any]:
        """The value of a pure or LLM node, computing it if needed."""
        ...

    def start(self, node: Call) -> None:
        """Demand a node on the session's own behalf."""
        ...

    def stream(self, node: Call) -> AsyncIterator[str]:
        """The text of an LLM node, piece by piece."""
        ...


class Tally:
    """A count that several frames add to."""

    __slots__ = ("num_calls",)

    def __init__(self) -> None:
        self.num_calls = 0


class Frame:
    """One level of the call tree.

    Args:
        runner: The session, or `None` outside any.
        parent: The caller's frame.
        level: What identifies this level below its parent: name, key, ordinal, attempt.
        is_pure: Whether only pure calls may be made here.
        item: The item of a `map` that this frame works for; opaque to the graph.
        node: The operator call whose body runs in this frame; by default that of the parent.

    Attributes:
        has_failed: Whether what ran in this frame was left by an exception.
        depth: How many frames are above this one.
        tally: Counts the model calls made for the innermost pure operator around this frame, so
            that whoever shares its result knows what that saved. `None` where there is none.
    """

    __slots__ = (
        "_level", "_ordinals", "_path", "depth", "has_failed", "is_pure", "item", "node",
        "parent", "runner", "tally",
    )  # fmt: skip

    def __init__(
        self,
        runner: Runner | None,
        parent: Frame | None = None,
        level: tuple[Any, ...] = (),
        is_pure: bool = False,
        item: Any = None,
        node: Call | None = None,
    ) -> None:
        self.runner = runner
        self.is_pure = is_pure
        self.item = item
        self.has_failed = False
        self.parent = parent
        self.tally: Tally | None
        self.node: Call | None
        if parent is None:
            self.depth, self.tally, self.node = 0, None, node
        else:
            self.depth, self.tally = parent.depth + 1, parent.tally
            self.node = parent.node if node is None else node
        self._level = level
        self._path: bytes | None = None
        self._ordinals: dict[tuple[str, Any], int] = {}  # at once: threads may meet here

    @property
    def path(self) -> bytes:
        """Digest of run, item and call path."""
        if self._path is None:
            without: list[Frame] = []
            frame: Frame | None = self
            while frame is not None and frame._path is None:
                without.append(frame)
                frame = frame.parent
            path = b"" if frame is None or frame._path is None else frame._path
            for each in reversed(without):
                path = each._path = fingerprint(path, each._level)
            return path
        return self._path

    def callers(self) -> Iterator[Call]:
        """The operator calls that this frame is inside of, innermost first."""
        node = self.node
        while node is not None:
            yield node
            node = node.frame.node

    def next_ordinal(self, name: str, key: Any) -> int:
        """How many earlier calls of this frame had the same name and key; counts this one."""
        ordinal = self._ordinals.get((name, key), 0)
        self._ordinals[name, key] = ordinal + 1
        return ordinal


_FRAME: ContextVar[Frame | None] = ContextVar("helium_agents.frame", default=None)


entered_frame: Callable[[], Frame | None] = _FRAME.get
"""The frame of the code that is running, if there is one."""


_open_roots: WeakKeyDictionary[AbstractEventLoop, list[Frame]] = WeakKeyDictionary()


def offer_root(root: Frame, loop: AbstractEventLoop) -> None:
    """Let code of the loop that is in no frame be in this one."""
    _open_roots.setdefault(loop, []).append(root)


def withdraw_root(root: Frame, loop: AbstractEventLoop) -> None:
    """End what `offer_root` began. Idempotent."""
    roots = _open_roots.get(loop, [])
    if root in roots:
        roots.remove(root)


def open_runners() -> list[Runner]:
    """The sessions that are open in this process, on whatever event loop."""
    roots = [root for each in list(_open_roots.values()) for root in each]
    return [root.runner for root in roots if root.runner is not None]


def check_effect(frame: Frame | None) -> None:
    """Something is about to happen that a run which is only a guess may not do: it ends here."""
    if frame is not None and frame.is_pure and frame.runner is not None:
        frame.runner.on_effect()


def root_frame() -> Frame:
    """The frame of code that has entered none.

    That is the root frame of the session that is open on this event loop; where there is none, a
    fresh frame outside any session.

    Raises:
        SessionError: Several sessions are open, and nothing says which is meant.
    """
    loop = _get_running_loop()
    roots = _open_roots.get(loop) if loop is not None else None
    if not roots:
        return Frame(None)
    if len(roots) > 1:
        raise SessionError(
            f"{len(roots)} sessions are open on this event loop, and this task was begun outside "
            f"all of them: say which one is meant, with `await session.run(fn, ...)`, and close "
            f"those that are not used any more"
        )
    return roots[0]


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


class entered:
    """Run a block in a frame."""

    __slots__ = ("_frame", "_token")

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __enter__(self) -> Frame:
        self._token = _FRAME.set(self._frame)
        return self._frame

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._frame.has_failed = True
        leave(self._token)


def check_on_loop(name: str) -> None:
    """Refuse a call from a thread or a synchronous program, where the trace would be lost.

    Raises:
        OffLoopCall: No event loop runs in this thread.
    """
    if _get_running_loop() is None:  # public in asyncio.events, and quicker than its sister
        raise OffLoopCall(
            f"{name}(...) was called where no event loop runs (a thread, or a synchronous "
            f"program). Call it from async code on the session's loop, or start the program with "
            f"helium_agents.run({name}, ...)"
        )
