"""The learners of a session: which workflow each row is of, and where its profile is kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from helium_agents.engines.engine import Completion, Request
from helium_agents.errors import MemoError
from helium_agents.graph.llm_node import LlmNode
from helium_agents.memo.store import Store
from helium_agents.optimizer.guesses import Histogram
from helium_agents.runtime.learning.learner import LEAST_ROWS, Learner
from helium_agents.runtime.learning.profiles import (
    load_profile,
    name_of,
    save_profile,
    workflow_key,
)


@dataclass(eq=False, slots=True)
class Mapped:
    """A map's function and rows.

    Args:
        fn: The function.
        num_rows: How many rows it has; `None` where the input has no length.

    Attributes:
        open: The rows that are open, by how many were read in the session before them.
        num_ended: Rows that have ended.
        partial: Open rows that teach nothing more: earlier sessions have answered calls of theirs.
        key: What the workflow's profile is kept under; `None` where it is not kept.
        learner: Once a row has asked something.
    """

    fn: Callable[..., Any]
    num_rows: int | None
    open: dict[int, None] = field(default_factory=dict)
    num_ended: int = 0
    partial: set[int] = field(default_factory=set)
    key: bytes | None = None
    learner: Learner | None = None

    @property
    def num_left(self) -> int:
        """Rows that are open and, where that is known, those that will be."""
        if self.num_rows is None:
            return len(self.open)
        return max(len(self.open), self.num_rows - self.num_ended)


class Learners:
    """Finds the learner of each row, and sees to it that what they learn is kept.

    Args:
        store: Where profiles are; `None` for this session only.
        models: Identifies the session's models.
        model_name: What a person calls them.
        is_resumed: Whether an earlier session of the run has answered calls.
        engines: Which of the session's engines a model has; by default all have the first.
    """

    def __init__(
        self,
        store: Store | None,
        models: bytes,
        model_name: str,
        *,
        is_resumed: bool = False,
        engines: Mapping[str | None, int] = MappingProxyType({}),
    ) -> None:
        self._engines = engines
        self._store = store
        self._models = models
        self._model_name = model_name
        self._mapped: dict[int, Mapped] = {}
        self._is_resumed = is_resumed
        self._by_key: dict[bytes, Learner] = {}

    def begin(self, item: int, mapped: Mapped) -> None:
        """A row begins."""
        self._mapped[item] = mapped
        mapped.open[item] = None

    def of(self, item: int) -> Mapped | None:
        """What a row is of; `None` where it has ended."""
        return self._mapped.get(item)

    def site(self, item: int, call: Hashable) -> str:
        """The name of a call site: the operator in whose body a call is made."""
        caller = call.frame.node if isinstance(call, LlmNode) else None
        if caller is not None:
            return str(caller.body.identity).partition(":")[2]
        mapped = self._mapped.get(item)
        return "" if mapped is None else name_of(mapped.fn).partition(":")[2]

    def histograms(self, item: int) -> Sequence[Histogram]:
        """How often which closed answer came in rows like an open one: in this run, and before."""
        mapped = self._mapped.get(item)
        return () if mapped is None else (mapped.learner or self._find(mapped)).histograms

    def engine(self, model: str | None) -> int:
        """Which of the session's engines a model has."""
        return self._engines.get(model, 0)

    def ask(self, request: Request, now_s: float) -> None:
        """A call of a row is asked."""
        item = request.item
        mapped = None if item is None else self._mapped.get(item)
        if item is not None and mapped is not None and item not in mapped.partial:
            learner = mapped.learner or self._find(mapped)
            site = self.site(item, request.call)
            learner.ask(item, request, site, now_s, self.engine(request.model))

    def answer(
        self, request: Request, completion: Completion | None, sent_s: float | None, now_s: float
    ) -> None:
        """A call of a row has ended; with no completion it failed, or was cancelled."""
        item = request.item
        mapped = None if item is None else self._mapped.get(item)
        if item is not None and mapped is not None and mapped.learner is not None:
            mapped.learner.answer(item, request, completion, sent_s, now_s)

    def used_tokens(self, request: Request) -> int | None:
        """How many of the first tokens of a call and its answer calls to come will begin with."""
        item = request.item
        mapped = None if item is None else self._mapped.get(item)
        if item is None or mapped is None or mapped.learner is None:
            return None
        return mapped.learner.used_tokens(item, request)

    def remembered(self, item: int, is_of_this_run: bool) -> None:
        """A call of a row was answered from the memo.

        What rows share within a run is part of what they ask of engines. But of a row of which
        another session has answered calls, nobody can tell what it would ask of them.
        """
        mapped = self._mapped.get(item)
        if mapped is None or (is_of_this_run and not self._is_resumed):
            return
        mapped.partial.add(item)
        if mapped.learner is not None:
            mapped.learner.leave(item)

    def end(self, item: int, *, is_declared: bool) -> None:
        """A row has ended."""
        mapped = self._mapped.pop(item, None)
        if mapped is None:
            return
        del mapped.open[item]
        mapped.partial.discard(item)
        mapped.num_ended += 1
        learner = mapped.learner
        if learner is not None and learner.end(item, is_declared=is_declared):
            number = learner.fresh.num_rows
            if mapped.key is not None and number >= LEAST_ROWS and number.bit_count() == 1:
                self._save(mapped.key, learner)  # a run may be killed

    def close(self) -> None:
        """Keep what was learned."""
        for key, learner in self._by_key.items():
            if learner.fresh.num_rows:
                self._save(key, learner)

    def _find(self, mapped: Mapped) -> Learner:
        mapped.key = key = workflow_key(mapped.fn, self._models)
        learner = None if key is None else self._by_key.get(key)
        if learner is None:
            learner = Learner(None if key is None else load_profile(self._store, key))
            learner.fresh.workflow, learner.fresh.model = name_of(mapped.fn), self._model_name
            if key is not None:
                self._by_key[key] = learner
        mapped.learner = learner
        return learner

    def _save(self, key: bytes, learner: Learner) -> None:
        try:
            save_profile(self._store, key, learner.learned())
        except MemoError as error:
            warnings.warn(f"a profile was not kept: {error}", RuntimeWarning, stacklevel=2)
