"""What a session remembers: calls' answers, kept in a store by key.

This is the past tense of the one key. A single greedy answer is kept under its question (the call
without `max_tokens`), so that one record serves every length that it covers; what was computed
although a longer answer was there is kept beside it, under the call's own key. A call with inputs
is also found under its plan key, through an alias, before its inputs are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from helium_agents.errors import DecodingError, ReplayMiss
from helium_agents.graph.llm_node import LlmNode, describe
from helium_agents.graph.node import Node, join_digests
from helium_agents.memo.store import Store
from helium_agents.runtime.commits import Commits
from helium_agents.runtime.cut_answer import fit_answer
from helium_agents.runtime.fleet.engine_pool import EnginePool
from helium_agents.runtime.record import (
    AliasRecord,
    AnswerRecord,
    Record,
    ValueRecord,
    alias_in,
    alias_record,
    answer_record,
    calls_below_in,
    max_tokens_in,
    read_record,
    run_tag,
    value_record,
)
from helium_agents.telemetry.events import CallMissed, Observer

MemoMode = Literal["read-write", "refresh", "replay-only", "off"]
"""How a memo is used: read and written; only written, replacing what is there (but what this
session wrote is read); only read, a miss being an error; not at all."""

MEMO_MODES: tuple[str, ...] = get_args(MemoMode)


@dataclass(frozen=True, slots=True)
class Found:
    """A remembered answer.

    Args:
        value: An `Answer` of a model, or the value of a pure operator.
        is_of_this_run: Whether this run has computed it, as opposed to one before it.
        calls_below: Model calls that were made for the value of a pure operator.
    """

    value: Any
    is_of_this_run: bool = False
    calls_below: int = 0


class Answers:
    """A session's use of its stores.

    Args:
        engines: The session's engines, which cut long answers.
        emit: Takes events.
        store: Where answers that anybody may share are kept; `None` for nowhere.
        mode: How it is used; "off" is expressed by having none.
        run_id: Tells the answers of this run from those of runs before it.
        run_log: Where the answers of this run's draws are kept; `None` for nowhere.
        provenance: Says what a call was, for who looks into `store` later; `None` if nobody can.
        session_store: Where answers are kept that last a session only; `None` for nowhere.

    Attributes:
        heeds_misses: Whether `note_miss` is to be told of calls that are not remembered.
        num_kept: How many answers were kept.
        commits: Makes them durable.
    """

    def __init__(
        self,
        engines: EnginePool,
        store: Store | None,
        mode: MemoMode,
        run_id: str,
        run_log: Store | None = None,
        *,
        emit: Observer,
        provenance: Callable[[Node], bytes] | None = None,
        session_store: Store | None = None,
    ) -> None:
        self.mode = mode
        self._run = run_tag(run_id)
        self._emit = emit
        self._provenance = provenance
        self._engines = engines
        if mode == "refresh":
            store = None if store is None else _Anew(store)
            session_store = None if session_store is None else _Anew(session_store)
        self.heeds_misses = provenance is not None or mode == "replay-only"
        self.num_kept = 0
        self._store = store
        self._session_store = session_store
        self._limits_memory = engines.limits_memory
        self._run_log = run_log
        self.commits = Commits()

    def look_up(self, node: Node) -> Found | None:
        """The remembered answer of a call."""
        if node.is_drawn:
            return self._find(self._run_log, node.key, node)
        store = self._shared_store(node) if self._limits_memory else self._store
        return self._find(store, node.record_key, node)

    def calls_below(self, node: Node) -> int:
        """How many model calls were made for the remembered value of a pure operator."""
        store, key = self._store_of(node), node.record_key
        if store is None or key is None:
            return 0
        data = store.get(key)
        if data is not None and (alias := alias_in(data)) is not None:
            data = store.get(alias)
        return 0 if data is None else calls_below_in(data)

    def look_up_drawn(self, node: Node, asked: Node) -> Found | None:
        """The answer that a draw, or a call that depends on one, had earlier in this run.

        Args:
            node: The call with its inputs' values put in.
            asked: The call as it was asked.
        """
        return self._find(self._run_log, _run_log_key(node, asked), node)

    def _find(self, store: Store | None, key: bytes | None, node: Node) -> Found | None:
        if store is None or key is None:
            return None
        record = self._read(store, key)
        if record is None:
            return None
        if not isinstance(node, LlmNode):
            if not isinstance(record, ValueRecord):
                return None
            return Found(record.value, record.run == self._run, record.calls_below)
        if not isinstance(record, AnswerRecord):
            return None
        fleet = self._engines[node.call.model]
        answer = fit_answer(record, node, fleet)
        if answer is None:  # a longer one that could not be cut: then ours is kept beside it
            own = None if node.key is None else self._read(store, node.key)
            if not isinstance(own, AnswerRecord):
                return None
            record, answer = own, fit_answer(own, node, fleet)
        return None if answer is None else Found(answer, record.run == self._run)

    def keep(self, node: Node, asked: Node, value: Any, *, calls_below: int = 0) -> None:
        """Remember an answer, and what was asked.

        Args:
            node: The call with its inputs' values put in.
            asked: The call as it was asked; differs where there were inputs.
            value: An `Answer`, or the value of a pure operator.
            calls_below: Model calls that were made for the value of a pure operator.
        """
        store = self._store_of(asked)
        if store is None or (self.mode == "replay-only" and store is self._store):
            return
        if isinstance(node, LlmNode):
            record = answer_record(value, node.call.sampling.max_tokens, self._run)
        else:
            record = value_record(value, calls_below, self._run)
        alias_key, provenance = None, b""
        if asked.is_drawn:  # by the draw: whoever asks again is the same call
            key = _run_log_key(node, asked)
        else:
            key, alias_key = node.record_key, asked.record_key
            if isinstance(node, LlmNode) and key is not None:
                there = store.get(key)
                if there is not None and max_tokens_in(there) > node.call.sampling.max_tokens:
                    key, alias_key = node.key, asked.key  # it cannot be cut, or came since: both
            if self._provenance is not None:
                provenance = self._provenance(node)
        if key is None:
            return
        store.put(key, record, label=node.label, provenance=provenance)
        if alias_key is not None and alias_key != key:
            store.put(alias_key, alias_record(key), label=node.label)
        if store not in self.commits.dirty:
            self.commits.dirty.append(store)
        self.num_kept += 1

    def note_miss(self, node: Node) -> None:
        """Say that a call missed, and refuse to ask a model in replay-only mode.

        Raises:
            ReplayMiss: The call is one of a model, in that mode.
        """
        is_llm = isinstance(node, LlmNode)
        if self._provenance is not None:
            kind: Literal["llm", "operator"] = "llm" if is_llm else "operator"
            self._emit(CallMissed(kind, node.label, partial(self._provenance, node)))
        if self.mode == "replay-only" and is_llm:
            raise ReplayMiss(
                f"{describe(node)} is not in the memo, which is replay-only: run once in "
                f"read-write mode with the same program, rows and model (helium cache "
                f"explain-miss says what differs)"
            )

    def _store_of(self, asked: Node) -> Store | None:
        if asked.is_drawn:
            return self._run_log
        if isinstance(asked, LlmNode) and not asked.call.is_shared:
            return None
        return self._shared_store(asked) if self._limits_memory else self._store

    def _shared_store(self, node: Node) -> Store | None:
        """The store that has a call's answer as long as it lasts.

        What a pure operator returns depends on models that its key does not tell: on any of them.
        """
        pool = self._engines
        models = pool[node.call.model] if isinstance(node, LlmNode) else pool
        stores = {"for good": self._store, "a session": self._session_store, "not at all": None}
        return stores[models.answers_last]

    def _read(self, store: Store, key: bytes) -> Record | None:
        for _ in range(2):  # an alias leads to a record
            data = store.get(key)
            if data is None:
                return None
            try:
                record = read_record(data)
            except DecodingError:  # of a class that has changed or is not imported: a miss
                return None
            if not isinstance(record, AliasRecord):
                return record
            key = record.key
        return None


class _Anew:
    """A store for a run that computes all anew: what it has not put itself is not there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fresh: set[bytes] = set()
        self.commit = store.commit
        self.close = store.close

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key) if key in self._fresh else None

    def put(self, key: bytes, value: bytes, **about: Any) -> None:
        self._store.put(key, value, **about)
        self._fresh.add(key)


def is_memorable(node: Node) -> bool:
    """Whether a call's answer may serve others: it is not a draw, and sharing is not refused."""
    if isinstance(node, LlmNode) and not node.call.is_shared:
        return False
    return not node.is_drawn


def _run_log_key(node: Node, asked: Node) -> bytes | None:
    """What the answer of a draw, or of a call that depends on one, is kept under in the run log.

    Where a plain operator is among the inputs, nobody knows what it will return next time: then
    both the place of the call and the values that it was given count.
    """
    if asked.key is not None or node.is_drawn or node.key is None:
        return asked.key or node.key
    return join_digests(b"w", asked.run_key, node.key)
