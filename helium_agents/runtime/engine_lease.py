"""Who may stop an engine: several sessions can use one at once, and its owner may outlive them all.

A session that finds an engine stopped starts it, and then the sessions own it: the last of them
that uses it stops it. An engine that was started before belongs to whoever did that.
"""

from __future__ import annotations

from helium_agents.engines.engine import Engine


class _Use:
    """The sessions that use an engine now."""

    def __init__(self) -> None:
        self.num_sessions = 0
        self.is_ours = False


_uses: dict[int, _Use] = {}  # by the id of an engine, which the sessions in it keep alive


class EngineLease:
    """One session's use of an engine.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._use: _Use | None = None

    def take(self) -> None:
        """The session begins to use it."""
        self._use = _uses.setdefault(id(self._engine), _Use())
        self._use.num_sessions += 1

    def will_start(self) -> None:
        """The session is about to start it."""
        if self._use is not None and not self._engine.is_started:
            self._use.is_ours = True

    async def give_back(self) -> None:
        """The session ends: stop the engine if sessions own it and no other uses it. Idempotent."""
        use, self._use = self._use, None
        if use is None:
            return
        use.num_sessions -= 1
        if use.num_sessions:
            return
        del _uses[id(self._engine)]
        if use.is_ours:
            await self._engine.close()
