"""What a session remembers: calls' answers, kept in a store by key.

This is the past tense of the one key. A single greedy answer is kept under its family (the call
without `max_tokens`), so that one record serves every length that it covers; what was computed
although a longer answer was there is kept beside it, under the call's own key. A call with inputs
is also found under its plan key, through an alias, before its inputs are known.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from typing import Any, Literal, get_args

from helium_agents.engines.engine import Choice, Engine
from helium_agents.errors import DecodingError, ReplayMiss
from helium_agents.graph.encoding import decode, encode, fingerprint
from helium_agents.graph.node import LlmNode, Node
from helium_agents.memo.store import Store

MemoMode = Literal["read-write", "refresh", "replay-only", "off"]
"""How a memo is used: read and written; only written, replacing what is there (but what this
session wrote is read); only read, a miss being an error; not at all."""

MEMO_MODES: tuple[str, ...] = get_args(MemoMode)


@dataclass(frozen=True, slots=True)
class Answer:
    """A model call's answer as it is remembered."""

    choices: tuple[Choice, ...]
    prompt_tokens: int

    @property
    def output_tokens(self) -> int:
        """Tokens of all choices together."""
        return sum(len(choice.token_ids) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class Found:
    """A remembered answer: an `Answer` of a model, or the value of a pure operator."""

    value: Any


class Recall:
    """A session's use of its stores.

    Args:
        store: Where answers that anybody may share are kept; `None` for nowhere.
        mode: How it is used; "off" is expressed by having none.
        run_log: Where the answers of this run's draws are kept; `None` for nowhere.
    """

    def __init__(self, store: Store | None, mode: MemoMode, run_log: Store | None = None) -> None:
        self.mode = mode
        self._store = store
        self._run_log = run_log
        self._fresh: set[bytes] = set()
        self._dirty: list[Store] = []
        self._last_commit: asyncio.Future[Any] | None = None

    def look_up(self, node: Node, engine: Engine | None) -> Found | None:
        """The remembered answer of a call.

        Args:
            node: The call.
            engine: The engine that would compute it (model calls), for cutting long answers.
        """
        store = self._store_of(node)
        if store is None:
            return None
        for key in dict.fromkeys((self._record_key(node), node.key)):
            record = self._read(store, key)
            if record is None:
                continue
            if not isinstance(node, LlmNode):
                return Found(record[1]) if record[0] == "value" else None
            assert engine is not None
            answer = _fit(record, node, engine)
            if answer is not None:
                return Found(answer)
        return None

    def keep(self, node: Node, asked: Node, value: Any) -> None:
        """Remember an answer.

        Args:
            node: The call with its inputs' values put in.
            asked: The call as it was asked; differs where there were inputs.
            value: An `Answer`, or the value of a pure operator.
        """
        store = self._store_of(asked)
        if store is None or (self.mode == "replay-only" and store is self._store):
            return
        if asked.is_drawn:  # by the draw: whoever asks again is the same call
            key = asked.key or (node.key if node.is_drawn else None)
            if key is not None:
                self._write(store, key, _to_record(node, value), node.label)
            return
        key, plan_key = record_key(node), record_key(asked)
        if key is None:
            return
        if self._has_longer(
            store, key, node
        ):  # and could not cut it, or it came meanwhile: keep both
            key, plan_key = node.key, asked.key
            assert key is not None
        self._write(store, key, _to_record(node, value), node.label)
        if plan_key is not None and plan_key != key:
            self._write(store, plan_key, ("alias", key), node.label)

    def check_may_compute(self, node: Node) -> None:
        """Refuse to compute in replay-only mode.

        Raises:
            ReplayMiss: Always, in that mode.
        """
        if self.mode == "replay-only":
            raise ReplayMiss(
                f"{describe(node)} is not in the memo, which is replay-only: run once in "
                f"read-write mode with the same program, rows and model"
            )

    async def committed(self) -> None:
        """Wait until everything kept so far is durable."""
        if self._dirty:
            commits = [asyncio.wrap_future(store.commit()) for store in self._dirty]
            self._dirty.clear()
            self._last_commit = commits[0] if len(commits) == 1 else asyncio.gather(*commits)
        if self._last_commit is not None:  # somebody else's, perhaps, but of our answers too
            await asyncio.shield(self._last_commit)

    def _store_of(self, asked: Node) -> Store | None:
        if asked.is_drawn:
            return self._run_log
        if isinstance(asked, LlmNode) and not asked.call.is_shared:
            return None
        return self._store

    def _record_key(self, node: Node) -> bytes | None:
        return node.key if node.is_drawn else record_key(node)

    def _has_longer(self, store: Store, key: bytes, node: Node) -> bool:
        record = self._read(store, key) if isinstance(node, LlmNode) else None
        if record is None or record[0] != "answer":
            return False
        assert isinstance(node, LlmNode)
        return bool(record[1] > node.call.sampling.max_tokens)

    def _read(self, store: Store, key: bytes | None) -> tuple[Any, ...] | None:
        if key is None:
            return None
        if self.mode == "refresh" and store is not self._run_log and key not in self._fresh:
            return None
        for _ in range(2):  # an alias leads to a record
            data = store.get(key)
            if data is None:
                return None
            try:
                record: tuple[Any, ...] = decode(data)
            except DecodingError:  # of a class that has changed or is not imported: a miss
                return None
            if record[0] != "alias":
                return record
            key = record[1]
        return None

    def _write(self, store: Store, key: bytes, record: tuple[Any, ...], label: str) -> None:
        store.put(key, encode(record), label=label)
        if store not in self._dirty:
            self._dirty.append(store)
        if self.mode == "refresh":
            self._fresh.add(key)


def describe(node: Node) -> str:
    """A call as an error message names it."""
    if isinstance(node, LlmNode):
        role, parts = node.call.messages[-1]
        text = "".join(part if isinstance(part, str) else "{...}" for part in parts)
        return f"llm({role}({text[:60] + '...' if len(text) > 60 else text!r}))"
    return f"{node.label}(...)"


def is_memorable(node: Node) -> bool:
    """Whether a call's answer may serve others: it is not a draw, and sharing is not refused."""
    if isinstance(node, LlmNode) and not node.call.is_shared:
        return False
    return not node.is_drawn


def record_key(node: Node) -> bytes | None:
    """What a call's answer is kept under: its family's key, where it has a family."""
    family = node.family if isinstance(node, LlmNode) else None
    if family is None:
        return node.key
    keys = [source.key for source in node.inputs]
    return None if None in keys else fingerprint("record", family, keys)


def _to_record(node: Node, value: Any) -> tuple[Any, ...]:
    if not isinstance(node, LlmNode):
        return ("value", value)
    choices = tuple(
        (choice.text, array("I", choice.token_ids).tobytes(), choice.finish_reason)
        for choice in value.choices
    )
    return ("answer", node.call.sampling.max_tokens, value.prompt_tokens, choices)


def _fit(record: tuple[Any, ...], node: LlmNode, engine: Engine) -> Answer | None:
    """The recorded answer at the asked length, or `None` where it does not reach that far."""
    if record[0] != "answer":
        return None
    _, recorded_max, prompt_tokens, choices = record
    asked_max = node.call.sampling.max_tokens
    fitted = []
    for text, token_bytes, finish_reason in choices:
        token_ids = array("I")
        token_ids.frombytes(token_bytes)
        choice = fit_choice(
            Choice(text, tuple(token_ids), finish_reason), recorded_max, asked_max, engine
        )
        if choice is None:
            return None
        fitted.append(choice)
    return Answer(tuple(fitted), prompt_tokens)


def fit_choice(choice: Choice, max_tokens: int, asked_max: int, engine: Engine) -> Choice | None:
    """An answer of a call with `max_tokens` as that of the same call with `asked_max`."""
    if asked_max == max_tokens:
        return choice
    if len(choice.token_ids) > asked_max:
        return engine.truncate(choice, asked_max)
    if choice.finish_reason == "stop":
        return choice
    return choice if len(choice.token_ids) == asked_max else None
