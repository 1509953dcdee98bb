"""Tells observers what an engine's steps were, where it says that itself."""

from __future__ import annotations

import asyncio
from math import inf

from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.optimizer.step_window import WINDOW_S, JoinedWindows, StepWindow
from helium_agents.telemetry.events import EngineStepped, Observer

_EVERY_S = 1.0


class StepTeller:
    """Reads an engine's windows now and then, and tells of those that will not grow any more."""

    def __init__(self, engine: WholeEngine, model: str, label: str, emit: Observer) -> None:
        self._engine = engine
        self._model = model
        self._label = label
        self._emit = emit
        self._joined = JoinedWindows()
        self._told_s = self._due_s = -inf

    def begin(self) -> None:
        """The session begins: what the engine did before is not its business."""
        self._told_s = asyncio.get_running_loop().time()

    def tell(self) -> None:
        """Tell what is new, if some time has passed."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._due_s:
            self._due_s = now_s + _EVERY_S
            self._tell(self._until(now_s - 2 * WINDOW_S))

    def tell_all(self) -> None:
        """Tell what is left, for the engine or the session ends."""
        found, rest = self._until(inf), self._joined.rest()
        self._tell(found if rest is None else [*found, rest])

    def _until(self, until_s: float) -> list[StepWindow]:
        """The new windows that ended until then, joined where they are short."""
        found = []
        for window in self._engine.step_windows(self._told_s):
            if window.end_s <= until_s:
                self._told_s = window.end_s
                ready = self._joined.add(window)
                if ready is not None:
                    found.append(ready)
        return found

    def _tell(self, windows: list[StepWindow]) -> None:
        if windows:
            self._emit(EngineStepped(self._model, self._label, windows))
