"""What a session is made of: checked when it is made, opened and joined when it is opened."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from helium_agents.diagnose.recorder import Recorder
from helium_agents.engines.default import EngineLike, engines_by_name
from helium_agents.errors import SessionError
from helium_agents.memo.open import open_store
from helium_agents.memo.run_log import RunLog
from helium_agents.memo.store import Store
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.rules import substitute_known
from helium_agents.optimizer.schedule import FewOpen
from helium_agents.optimizer.speculation_budget import Budget
from helium_agents.runtime.answers import Answers
from helium_agents.runtime.calls import Calls
from helium_agents.runtime.dispatch.dispatcher import Dispatcher
from helium_agents.runtime.executed_plan import ExecutedPlan
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.learning.learners import Learners
from helium_agents.runtime.options import (
    SessionOptions,
    all_options,
    check_functions,
    schedule_of,
    trace_of,
)
from helium_agents.runtime.parts import Parts
from helium_agents.runtime.planner import Planner
from helium_agents.runtime.speculation.stakes import Stakes
from helium_agents.runtime.tasks import Tasks
from helium_agents.telemetry.events import Observer
from helium_agents.telemetry.observers import Observers
from helium_agents.telemetry.otel.opening import open_spans
from helium_agents.telemetry.otel.settings import as_otlp
from helium_agents.telemetry.summary import Summary
from helium_agents.trace.writer import TraceWriter


class Assembly:
    """The parts of a session.

    Args:
        engine: As for `Session`, like the others.
        observers: Called with every event.
        run_id: Identifies the run's unseeded draws.
        run_log: Keeps the answers of the run's draws.
        options: What `SessionOptions` lists.

    Attributes:
        run_id: As given, or that of the log, or a fresh one.
        engines: The engines of each model by name.
        summary: Counts what is asked, computed and saved.
        executed: Keeps every call, with `record=True`.

    Raises:
        SessionError: An argument is of the wrong type or out of range.
    """

    def __init__(
        self,
        engine: EngineLike | Mapping[str, EngineLike] | None,
        observers: Sequence[Observer],
        run_id: str | None,
        run_log: RunLog | None,
        options: SessionOptions,
    ) -> None:
        self._options = all_options(options)
        check_functions("observers", observers)
        if not (run_id is None or isinstance(run_id, str)):
            raise SessionError(f"run_id={run_id!r} must be text")
        if run_log is not None:
            run_id = _run_of(run_log, run_id, self._options)
        self.run_id = run_id or uuid.uuid4().hex
        self._run_log = run_log
        self.engines = engines_by_name(engine)
        self._schedule = schedule_of(self._options)
        self._trace = trace_of(self._options)
        self.summary = Summary()
        self.executed = ExecutedPlan() if self._options["record"] else None
        self._observers: list[Observer] = [self.summary, *observers]
        if self.executed is not None:
            self._observers.append(self.executed)

    async def open(self, tasks: Tasks) -> Calls:
        """Open what the session uses; it is closed with the tasks.

        Raises:
            MemoError: The memo cannot be opened.
            EngineStartError: A model cannot be found.
            TraceError: The trace cannot be begun.
        """
        options, resources = self._options, tasks.resources
        self._open_observers(resources)
        is_watched = len(self._observers) > 1  # by more than the summary
        emit: Observer = Observers(self._observers) if is_watched else self.summary
        engines = EnginePool(self.engines, tasks.spawn, emit)
        store = self._open_store(resources)
        answers = self._open_answers(engines, store, emit)
        resources.push_async_callback(engines.close)
        if answers is not None:
            resources.push_async_callback(answers.commits.wait)
        await engines.open()
        run_store = None if self._run_log is None else self._run_log.store
        if answers is not None and options["memo"] not in (None, run_store):
            engines.warn_of_short_memory()
        planner = self._open_planner(engines, store, emit, resources)
        dispatcher = Dispatcher(engines, self._schedule, options["token_budget"], planner)
        resources.callback(dispatcher.close)
        return Calls(
            Parts(
                run_id=self.run_id,
                engines=engines,
                dispatcher=dispatcher,
                answers=answers,
                tasks=tasks,
                emit=emit,
                is_watched=is_watched,
                executed=self.executed,
                planner=planner,
                rules=tuple(options["rules"]) if options["share"] else (),
                shares=options["share"],
                stakes=self._stakes(engines, dispatcher),
            )
        )

    def _open_observers(self, resources: AsyncExitStack) -> None:
        if self._trace is not None:  # first, so that it is closed last
            writer = TraceWriter(self._trace, {"run_id": self.run_id, "schedule": self._order})
            resources.push_async_callback(writer.close)
            self._observers.append(writer)
        spans = open_spans(as_otlp(self._options["otlp"]), self.run_id, self.summary)
        if spans is not None:
            resources.push_async_callback(spans.close)
            self._observers.append(spans)

    @property
    def _order(self) -> str:
        """What traces call the schedule."""
        schedule, name = self._schedule, type(self._schedule).__name__
        return f"{name}({schedule.policy.max_open})" if isinstance(schedule, FewOpen) else name

    def _open_store(self, resources: AsyncExitStack) -> Store | None:
        memo, mode = self._options["memo"], self._options["memo_mode"]
        if not self._options["share"] or mode == "off":
            return None
        store = open_store(memo, read_only=mode == "replay-only")
        if store is not memo:
            resources.callback(store.close)
        return store

    def _open_answers(
        self, engines: EnginePool, store: Store | None, emit: Observer
    ) -> Answers | None:
        memo, mode = self._options["memo"], self._options["memo_mode"]
        if store is None and self._run_log is None:
            return None
        draws = None if self._run_log is None else self._run_log.store
        return Answers(
            engines,
            store,
            mode,
            self.run_id,
            draws,
            emit=emit,
            # where the store goes with the session, nobody can ask
            provenance=None if memo is None else Recorder(engines).record,
            # a run that is resumed goes on with what it had
            session_store=store if store is None or memo is None else draws or open_store(None),
        )

    def _open_planner(
        self, engines: EnginePool, store: Store | None, emit: Observer, resources: AsyncExitStack
    ) -> Planner | None:
        """What learns which calls are made; `None` where the order is not the planner's."""
        if not isinstance(self._schedule, Adaptive):
            return None
        kept = None if self._options["memo_mode"] == "replay-only" else store
        is_resumed = self._run_log is not None and self._run_log.is_resumed
        learners = Learners(
            kept,
            engines.identity,
            engines.names,
            is_resumed=is_resumed,
            engines=engines.numbers,
        )
        planner = Planner(emit, learners)
        resources.callback(planner.close)
        return planner

    def _stakes(self, engines: EnginePool, dispatcher: Dispatcher) -> Stakes | None:
        """What guesses are worth; `None` where there are none."""
        options = self._options
        speculate = options["speculate"]
        is_remembered = options["memo_mode"] in ("read-write", "refresh") and options["share"]
        if speculate == "off" or not is_remembered or options["token_budget"] is not None:
            return None
        budget = speculate if isinstance(speculate, Budget) else Budget()
        return Stakes(budget, engines, dispatcher, is_cautious=speculate == "auto")


def _run_of(run_log: Any, run_id: str | None, options: SessionOptions) -> str:
    """The id of the run that a log is of.

    Raises:
        SessionError: It is no log, or something else that was given does not go with one.
    """
    if not (hasattr(run_log, "run_id") and hasattr(run_log, "store")):
        raise SessionError(f"run_log={run_log!r} must be a RunLog(...)")
    if not options["share"]:
        raise SessionError("a run log needs sharing: leave out share=False")
    if substitute_known not in options["rules"]:
        raise SessionError("a run log needs the rule substitute_known: add it to rules=")
    if run_id not in (None, run_log.run_id):
        raise SessionError(f"run_id={run_id!r} is not that of the run log: leave it out")
    return str(run_log.run_id)
