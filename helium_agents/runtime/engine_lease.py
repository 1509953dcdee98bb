"""Who starts and stops an engine: several sessions can use one at once, and its owner outlive them.

A session that finds an engine stopped starts it, and then the sessions own it: the last of them
that uses it stops it. An engine that was started before belongs to whoever did that.
"""

from __future__ import annotations

from helium_agents.engines.engine import Engine, Starts, able


class _Use:
    """The sessions that use an engine now."""

    def __init__(self) -> None:
        self.num_sessions = 0
        self.is_ours = False


_uses: dict[int, _Use] = {}  # by the id of an engine, which the sessions in it keep alive


class EngineLease:
    """One session's use of an engine.

    Args:
        engine: The engine; one that cannot be started is always ready.

    Attributes:
        starts: The engine as one that can be started; `None` if it can't.
    """

    def __init__(self, engine: Engine) -> None:
        self.starts = able(engine, Starts)
        self._id = id(engine)
        self._use: _Use | None = None

    @property
    def is_started(self) -> bool:
        """Whether the engine is started; one that died counts."""
        return self.starts is None or self.starts.is_started

    def take(self) -> None:
        """The session begins to use it."""
        self._use = _uses.setdefault(self._id, _Use())
        self._use.num_sessions += 1

    async def start(self) -> None:
        """Start the engine, which then belongs to the sessions; anew if it died.

        Raises:
            EngineStartError: It does not start.
        """
        if self.starts is not None:
            if self._use is not None and not self.starts.is_started:
                self._use.is_ours = True
            await self.starts.start()

    async def give_back(self) -> None:
        """The session ends: stop the engine if sessions own it and no other uses it. Idempotent."""
        use, self._use = self._use, None
        if use is None:
            return
        use.num_sessions -= 1
        if not use.num_sessions:
            del _uses[self._id]
            if use.is_ours and self.starts is not None:
                await self.starts.close()
