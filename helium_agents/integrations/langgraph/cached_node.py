"""`@cached_node`: a node of LangGraph, backed by a pure operator, that runs once for equal states.

LangGraph's cache of nodes is asked before a step and told after it, so equal nodes of one step all
run. A pure operator is merged while it is under way, too.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.config import var_child_runnable_config

from helium_agents.authoring.operator import operator
from helium_agents.errors import ImpureCall, OperatorDefinitionError
from helium_agents.graph.task_waits import AWAITED_BY
from helium_agents.graph.trace import Frame, entered_frame
from helium_agents.graph.values import replace_leaves
from helium_agents.integrations.langgraph.nodes import task_around
from helium_agents.integrations.langgraph.where import session_loop
from helium_agents.integrations.langgraph.work import Work

F = TypeVar("F", bound=Callable[[Any], Any])


@overload
def cached_node(fn: F, /) -> F: ...
@overload
def cached_node(*, version: str | None = ..., name: str | None = ...) -> Callable[[F], F]: ...
def cached_node(
    fn: Callable[[Any], Any] | None = None,
    /,
    *,
    version: str | None = None,
    name: str | None = None,
) -> Any:
    """Make a function of a state, which returns an update of it, a node that runs once for each.

    In a session equal states are computed once, at the same time or later, and the memo keeps the
    updates. Outside of any the function runs each time. It must be pure: what it does beside
    returning an update, and what callbacks see of calls in it, happens only when it runs. A failure
    is raised by all nodes that wait for it, and not remembered.

    The key is what the node is given. LangGraph gives it those fields that the annotation of its
    parameter names, so annotate what it reads: fields that differ without need (messages have
    random ids) keep it from being found.

    Args:
        fn: The function, where the decorator is used without arguments: ``async def`` or ``def``,
            which runs in a thread.
        version: Stands for the source in keys, as for `operator`.
        name: What people see; the function's name by default.

    Raises:
        OperatorDefinitionError: It takes more than a state: a config, a writer or a runtime would
            be in no key.
        EncodingError: When it is called: something in the state or the update cannot be part of a
            key or be kept.
        ImpureCall: When it is called, in a session: it asks for an interrupt or for its run.
        RefMisuse: When it is called, in a session: it waits for itself, by running its own graph.
    """
    if fn is None:
        return lambda fn: _cached(fn, version, name)
    return _cached(fn, version, name)


def _cached(
    fn: Callable[[Any], Any], version: str | None, name: str | None
) -> Callable[[Any], Any]:
    _check(fn)
    is_async = inspect.iscoroutinefunction(fn)

    @functools.wraps(fn)
    async def body(state: Any) -> Any:
        frame = entered_frame()
        if frame is not None and frame.runner is not None:
            var_child_runnable_config.set(_NoRun(name or fn.__name__))
        return _plain(await (fn(state) if is_async else asyncio.to_thread(fn, state)))

    pure = operator(body, pure=True, version=version, name=name)

    @functools.wraps(fn)
    async def node(state: Any) -> Any:
        return await pure(_plain(state))

    @functools.wraps(fn)
    def sync_node(state: Any) -> Any:
        where = session_loop(is_sync=True)
        if where is None:
            return fn(state)
        return Work.on(where.loop, where.thread_id, for_thread(state, entered_frame())).result()

    async def for_thread(state: Any, frame: Frame | None) -> Any:
        task = asyncio.current_task()
        if task is not None and frame is not None:
            AWAITED_BY[task] = lambda _: task_around(frame)  # it waits for the thread, that for us
        return await node(state)

    return node if is_async else sync_node


class _NoRun(dict[str, Any]):
    """What LangGraph finds in a body for the config of the run: it is of no run, but of all equal.

    Args:
        name: What a person calls the node.
    """

    def __init__(self, name: str) -> None:
        super().__init__(tags=[])  # an empty one counts as none
        self._name = name

    def __missing__(self, key: str) -> Any:
        raise ImpureCall(
            f"the cached node {self._name} called interrupt(), or asked for its run's "
            f"{key}, store, writer or runtime: its update is for every node that is given an equal "
            "state, in other runs too. Do that in a node before it, whose answer is part of the "
            "state, or drop @cached_node"
        )


def _plain(value: Any) -> Any:
    """A value with text in place of ``message.text``, which is of a class of LangChain's."""
    try:
        return replace_leaves(value, lambda it: str(it) if type(it) is TextAccessor else it)
    except RecursionError:  # the key says what is wrong with it
        return value


def _check(fn: Any) -> None:
    name = getattr(fn, "__qualname__", repr(fn))
    if not inspect.isfunction(fn):
        raise OperatorDefinitionError(f"@cached_node on {name}: it must be a function")
    parameters = list(inspect.signature(fn).parameters)
    if len(parameters) != 1:
        raise OperatorDefinitionError(
            f"@cached_node on {name}: it takes {', '.join(parameters) or 'nothing'}, but must take "
            "the state and nothing else, since its key is made of that"
        )
