"""The engines that a session is given, by name: whatever a user may write for one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helium_agents.engines.engine import Engine
from helium_agents.engines.replicas import Replicas
from helium_agents.errors import SessionError

EngineLike = Engine | Replicas | str | Path
"""An engine, replicas of one, or what `VLLM(...)` takes for a model: a directory, or a hub name."""

_REQUIRED = ("name", "identity", "complete")


def engines_by_name(
    given: EngineLike | Mapping[str, EngineLike] | None,
) -> dict[str, tuple[Engine, ...]]:
    """The engines of each model by the name that `llm(model=...)` uses; the first is the default.

    Args:
        given: One, or several by name; `None` for vLLM on the embedded model,
            SmolLM2-135M-Instruct.

    Raises:
        SessionError: It is something else.
    """
    if isinstance(given, Mapping):
        if not given:
            raise SessionError("engine={} names no engine: leave it out for the embedded model")
        for name in given:
            if not isinstance(name, str):
                raise SessionError(f"engine={{{name!r}: ...}}: the name of an engine must be text")
        return {name: _engines(each) for name, each in given.items()}
    engines = _engines(given)
    return {engines[0].name: engines}


def _engines(given: EngineLike | None) -> tuple[Engine, ...]:
    if given == "":
        raise SessionError("engine='' names no model: leave it out for the embedded model")
    if given is None or isinstance(given, str | Path):
        from helium_agents.engines.vllm import VLLM

        return (VLLM(given),)
    if isinstance(given, Replicas):
        return given.engines
    what: Any = given  # it is the user's: its type says nothing for sure
    if isinstance(what, type):
        raise SessionError(
            f"engine={what.__name__} is a class: make an engine of it, {what.__name__}(...)"
        )
    missing = [name for name in _REQUIRED if not hasattr(what, name)]
    if missing:
        raise SessionError(
            f"engine={type(what).__name__}(...) is no engine, it has no {', '.join(missing)}: give "
            'one like VLLM("Qwen/Qwen3-8B"), or the name of a model'
        )
    return (given,)
