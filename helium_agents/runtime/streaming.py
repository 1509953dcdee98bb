"""A call's streamed text, buffered: who comes late still gets all of it.

After a retry the engine says everything again from the start; what was delivered already must
then come out the same, and is not delivered twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from helium_agents.engines.engine import Delta
from helium_agents.errors import EngineError
from helium_agents.runtime.timeout import WaiterTimeout


class StreamBuffer:
    """The pieces of one answer, in order, for any number of readers."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._delivered = ""
        self._attempt = ""
        self._is_closed = False
        self._readers: set[asyncio.Future[None]] = set()
        self._successor: StreamBuffer | None = None

    def restart(self, *, is_repeatable: bool = True) -> None:
        """A new attempt begins: its text starts from nothing.

        Args:
            is_repeatable: Whether asking again gives the same text.

        Raises:
            EngineError: Some text was delivered, and another attempt would not repeat it.
        """
        if self._delivered and not is_repeatable:
            raise EngineError(
                f"the stream broke off after {len(self._delivered)} characters because its engine "
                "failed, and an unseeded sample cannot be continued: ask again, or give seed= (or "
                "temperature=0) to have streams that go on by themselves"
            )
        self._attempt = ""

    def on_delta(self, delta: Delta) -> None:
        """Add what the engine said next in this attempt.

        Raises:
            EngineError: It contradicts what an earlier attempt delivered.
        """
        self._attempt += delta.text
        shared = min(len(self._delivered), len(self._attempt))
        if self._delivered[:shared] != self._attempt[:shared]:
            raise EngineError("the retried call streamed a different text than was delivered")
        self._deliver(self._attempt)

    def close(self, text: str | None) -> None:
        """No more will come: `text` is all of the answer, `None` that the call failed."""
        if text is not None:
            self._deliver(text)
        self._is_closed = True
        self.wake()

    def absorb(self, other: StreamBuffer) -> None:
        """Serve another buffer's readers, which have had nothing yet."""
        other._successor = self
        other.wake()

    async def read(
        self, landed: asyncio.Future[None], timeout: WaiterTimeout | None = None
    ) -> AsyncIterator[str]:
        """All pieces from the start, as they come.

        Args:
            landed: The reader's wait for the end of the call; its error is raised here.
            timeout: The reader's time; `None` for as long as it takes.

        Raises:
            TimeoutError: The time is up.
        """
        buffer, position = self, 0
        while True:
            if timeout is not None:
                timeout.check()
            while buffer._successor is not None:
                buffer = buffer._successor
            while position < len(buffer._pieces):
                position += 1
                yield buffer._pieces[position - 1]
            if landed.done():
                landed.result()
            if buffer._is_closed:
                return
            wake = asyncio.get_running_loop().create_future()
            buffer._readers.add(wake)
            try:
                await (wake if timeout is None else timeout.wait_for(wake))
            finally:
                buffer._readers.discard(wake)

    def _deliver(self, text: str) -> None:
        if len(text) > len(self._delivered):
            self._pieces.append(text[len(self._delivered) :])
            self._delivered = text
            self.wake()

    def wake(self) -> None:
        """Let the readers look again."""
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)
