"""helium_agents itself, and itself without each rule and each mechanism."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.measured_engine import RequestLog
from benchmarks.harness.system import Batch, Results, System, limits_of
from benchmarks.harness.testbed import Testbed
from helium_agents import Session
from helium_agents.engines.simulated.virtual_time import VirtualTimeLoop
from helium_agents.memo.memory import MemoryStore
from helium_agents.optimizer.rules import RULES, Rule
from helium_agents.optimizer.schedule import FewOpen, Schedule
from helium_agents.telemetry.events import Event, ItemClosed, Planned, ScheduleChosen


class Ours:
    """The workflow as it is, in a session.

    Args:
        name: What it is called in tables.
        rules: The plan rules in use.
        remembers: Whether it has a memo, which earlier days have filled.
        shares: Whether equal calls are merged or joined at all.
        schedule: Makes the schedule of a run; by default the session chooses.
        hints: Whether the engine is told what of its cache is of use.
        speculates: Whether calls may be computed before they are asked for.
        same_as: A system that does exactly the same.
    """

    uses_server = False
    runs_tools = True
    requirement: str | None = None
    same_as: str | None
    predicted_s: float | None = None
    """How long its first plan by a profile said that a run takes, of the last one."""

    def __init__(
        self,
        name: str,
        *,
        rules: Sequence[Rule] = RULES,
        remembers: bool = True,
        shares: bool = True,
        schedule: Callable[[], Schedule] | None = None,
        hints: bool = True,
        speculates: bool = True,
        same_as: str | None = None,
    ) -> None:
        self.name = name
        self.planning_s = 0.0
        self.choice = ""
        self._rules = rules
        self._remembers = remembers
        self._shares = shares
        self._schedule = schedule
        self._hints = hints
        self._speculates = speculates
        self.same_as = same_as
        self._prepared: tuple[Batch, Testbed, Path] | None = None
        self._memo_now: Path | MemoryStore | None = None

    def candidates(self, batch: Batch) -> Sequence[System]:
        """Nothing to tune."""
        return ()

    async def prepare(self, batch: Batch, bed: Testbed) -> None:
        """Put the memo into the state in which the earlier days left it."""
        if not self._remembers:
            return
        if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            # Virtual time goes on while a thread writes: there the memo is in memory.
            self._memo_now = MemoryStore()
            for day in batch.earlier:
                await self._run(day, bed, self._memo_now)
            return
        if self._prepared is None or self._prepared[:2] != (batch, bed):
            self._prepared = batch, bed, Path(tempfile.mkdtemp(dir=bed.folder))
            for day in batch.earlier:
                await self._run(day, bed, self._prepared[2] / "filled")
        filled, self._memo_now = self._prepared[2] / "filled", self._prepared[2] / "now"
        shutil.rmtree(self._memo_now, ignore_errors=True)
        if batch.earlier:
            shutil.copytree(filled, self._memo_now)

    async def run(self, batch: Batch, bed: Testbed) -> Results:
        """Execute a batch."""
        self.planning_s, self.choice, self.predicted_s = 0.0, "", None
        return await self._run(batch, bed, self._memo_now)

    async def _run(self, batch: Batch, bed: Testbed, memo: Path | MemoryStore | None) -> Results:
        engine = bed.engine
        if not self._hints:
            engine = copy(engine)
            engine.takes_hints = False
        session = Session(
            engine,
            memo=memo,
            rules=self._rules,
            share=self._shares,
            schedule=None if self._schedule is None else self._schedule(),
            observers=[partial(self._observe, bed.engine.log)],
            speculate="auto" if self._speculates else "off",
        )
        async with session:
            rows = _arriving(batch) if batch.arrivals_s else batch.rows
            return [list(texts) async for texts in session.map(batch.workload.workflow, rows)]

    def _observe(self, log: RequestLog, event: Event) -> None:
        if isinstance(event, Planned | ScheduleChosen):
            self.planning_s += event.seconds
        if isinstance(event, ScheduleChosen):
            self.choice = f"{event.policy}, predicted gain {event.gain:.2f}"
            if event.source == "profile" and self.predicted_s is None:
                self.predicted_s = event.predicted_s
        elif isinstance(event, ItemClosed):
            log.end_row(event.index)


async def _arriving(batch: Batch) -> AsyncIterator[Any]:
    """The rows, each when it arrives."""
    clock = asyncio.get_running_loop().time
    start_s = clock()
    for number, row in enumerate(batch.rows):
        await asyncio.sleep(start_s + batch.arrivals_s[number] - clock())
        yield row


class TunedOurs(Ours):
    """With the best fixed number of open rows that a sweep finds."""

    def candidates(self, batch: Batch) -> Sequence[System]:
        """Numbers of open rows, as for plain asyncio, and all."""
        limited: list[System] = [
            Ours(f"{self.name} ({limit} rows open)", schedule=partial(FewOpen, limit))
            for limit in limits_of(batch)
        ]
        return [*limited, Ours(f"{self.name} (all rows open)", same_as="ours")]


def _without(rule: Rule) -> Ours:
    rules = tuple(each for each in RULES if each is not rule)
    return Ours(f"ours-without-{rule.__name__.replace('_', '-')}", rules=rules)


SYSTEMS = (
    Ours("ours"),
    TunedOurs("ours-tuned"),
    Ours("ours-without-memo", remembers=False),
    Ours("ours-without-sharing", remembers=False, shares=False),
    *(_without(rule) for rule in RULES),
)
