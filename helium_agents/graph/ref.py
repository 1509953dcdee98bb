"""`Ref`: the awaitable handle of a call, usable wherever a coroutine object is.

asyncio and anyio drive coroutine objects by `send`/`throw`; a task knows nothing else of them. A
`Ref` may be awaited by any number of tasks, so it keeps one driver (an ordinary coroutine that
waits for the value) per task that drives it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Generator
from html import escape
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from helium_agents.errors import RefAttributeError, RefMisuse, SessionError
from helium_agents.graph.inline import check_may_await, run_inline
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.node import Node, OperatorNode
from helium_agents.graph.trace import entered_frame

T_co = TypeVar("T_co", covariant=True)

LEAK_MARK = f"<helium_agents Ref {os.urandom(4).hex()} "
"""What the representation of every Ref of this process begins with; prompts are scanned for it.

The random part is there so that a text that merely quotes or discusses such a representation can
be asked.
"""


class Ref(Coroutine[Any, Any, T_co]):
    """Handle of one call: `await` it for the value, any number of times.

    Making a Ref computes nothing. A call of an operator or of `llm(...)` returns one. It may be
    handed un-awaited to `prompt(...)`, to a message, or to `operator.defer(...)`.
    """

    __slots__ = ("__weakref__", "_drivers", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._drivers: dict[Any, Coroutine[Any, Any, T_co]] | None = None

    @property
    def __name__(self) -> str:  # how asyncio shows a task of this Ref
        return self.node.label

    def __await__(self) -> Generator[Any, Any, T_co]:
        value: Generator[Any, Any, T_co] = value_of(self.node).__await__()
        return value

    def start(self) -> Ref[T_co]:
        """Demand the value without waiting for it; returns the Ref itself.

        The call then goes on until it is done or its session closes, whether or not anybody
        awaits it.
        """
        runner = self.node.frame.runner
        if runner is None:
            raise SessionError(f"{self.node.label}: start() needs a session to run in")
        if self.node.outcome is None:
            runner.start(self.node)
        return self

    def stream(self) -> AsyncIterator[str]:
        """The text of an `llm(...)` call piece by piece; awaiting the Ref then gives the reply.

        Pieces are buffered: who comes late gets all of them from the start, and a remembered
        answer is replayed.

        Raises:
            RefMisuse: The Ref is not of an `llm(...)` call, or of one with `n > 1`.
        """
        node = self.node
        if not isinstance(node, LlmNode) or node.call.sampling.n != 1:
            raise RefMisuse(
                f"{node.label}: only an llm(...) call with n=1 can be streamed; await this instead"
            )
        if node.frame.runner is None:
            raise SessionError("llm(...) needs a session to run in")
        return node.frame.runner.stream(node)

    # --- the coroutine protocol, one driver per task -------------------------------------------

    def send(self, value: Any) -> Any:
        """Advance the driver of the current task."""
        return self._drive("send", value)

    def throw(self, *error: Any) -> Any:
        """Raise into the driver of the current task."""
        return self._drive("throw", *error)

    def close(self) -> None:
        """End the driver of the current task, if it has one; without one, give the call up."""
        driver = self._drivers.pop(_current_task(), None) if self._drivers else None
        if driver is not None:
            driver.close()
        else:
            self._give_up()

    def _give_up(self) -> None:
        if self.node.frame.runner is not None:
            self.node.frame.runner.on_ended(self.node)

    def _drive(self, step: str, *args: Any) -> Any:
        task = _current_task()
        if self._drivers is None:
            self._drivers = {}
        driver = self._drivers.get(task)
        if driver is None:
            if step == "throw":  # a task that was cancelled before it began
                self._give_up()
            driver = self._drivers[task] = value_of(self.node)
        try:
            return getattr(driver, step)(*args)
        except BaseException:
            self._drivers.pop(task, None)
            raise

    # --- what a Ref is not ---------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "pending" if self.node.outcome is None else type(self.node.outcome).__name__.lower()
        return f"{LEAK_MARK}of {self.node.label}, {state}>"

    def _repr_html_(self) -> str:
        """What a notebook shows, where a cell's last line makes a Ref and does not await it."""
        state = "not answered yet" if self.node.outcome is None else "which has ended"
        label = escape(self.node.label)
        return f"a call of <code>{label}</code>, {state}: write <code>await</code> before it"

    def __str__(self) -> str:
        self._refuse("text")

    def __format__(self, spec: str) -> str:
        self._refuse("text")

    def __bool__(self) -> bool:
        self._refuse("a truth value")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ref):
            return self is other
        self._refuse("something to be compared with a value")

    __hash__ = object.__hash__

    def __copy__(self) -> Ref[T_co]:
        return self

    def __deepcopy__(self, memo: object) -> Ref[T_co]:
        return self  # it is a handle: two of them would be one call all the same

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self._refuse("something to be pickled")

    if not TYPE_CHECKING:  # a checker refuses both itself; knowing these it would take a Ref for
        # whatever has attributes, and find the value of a task of one to be `Never`

        def __iter__(self) -> NoReturn:
            self._refuse("a sequence")

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith(("__", "cr_", "gi_", "ag_")):  # what asyncio and inspect probe for
                raise AttributeError(name)
            raise RefAttributeError(
                f"{self.node.label}(...) was not awaited: .{name} is an attribute of its value. "
                f"Write `(await {self.node.label}(...)).{name}`"
            )

    def _refuse(self, use: str) -> NoReturn:
        raise RefMisuse(
            f"the Ref of {self.node.label}(...) was used as {use} before it was awaited. Either "
            f"await it (`await ref`), or hand it over un-awaited through "
            f'`prompt("... {{x}}", x=ref)`, a message, or `operator.defer(ref)`'
        )


def _current_task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def value_of(node: Node) -> Coroutine[Any, Any, Any]:
    """What gives the value of a call when it is awaited: run inline, or waited for, or known."""
    runner = node.frame.runner
    if node.outcome is not None or (runner is None and isinstance(node, LlmNode)):
        return _known(node)
    if isinstance(node, OperatorNode) and (runner is None or not node.body.is_pure):
        return run_inline(node, value_of)
    assert runner is not None
    return runner.wait(node)


async def _known(node: Node) -> Any:
    check_may_await(node, entered_frame())
    if node.outcome is None:
        raise SessionError(
            "llm(...) needs a session to run in: put `async with Session(...)` around the call, "
            "or start the program with helium_agents.run(...)"
        )
    return node.outcome.get()
