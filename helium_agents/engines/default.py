"""The engines that a session is given, by name: whatever a user may write for one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helium_agents.engines.engine import Engine, Model
from helium_agents.engines.replicas import Replicas
from helium_agents.errors import SessionError

EngineLike = Engine | Replicas | str | Path
"""An engine, replicas of one, or what `VLLM(...)` takes for a model: a directory, or a hub name."""

_ABILITIES = ("name", "capacity", "is_started", "identity", "start", "render", "complete", "close")


def engines_by_name(given: EngineLike | Mapping[str, EngineLike] | None) -> dict[str, Model]:
    """The engines of a session by the names that `llm(model=...)` uses; the first is the default.

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
        return {name: _engine(each) for name, each in given.items()}
    engine = _engine(given)
    return {engine.name: engine}


def _engine(given: EngineLike | None) -> Model:
    if given == "":
        raise SessionError("engine='' names no model: leave it out for the embedded model")
    if given is None or isinstance(given, str | Path):
        from helium_agents.engines.vllm import VLLM

        return VLLM(given)
    what: Any = given
    if isinstance(what, type):
        raise SessionError(
            f"engine={what.__name__} is a class: make an engine of it, {what.__name__}(...)"
        )
    if isinstance(what, Replicas):
        return what
    missing = [name for name in _ABILITIES if not hasattr(what, name)]
    if missing:
        raise SessionError(
            f"engine={type(what).__name__}(...) is no engine, it has no {', '.join(missing)}: give "
            'one like VLLM("Qwen/Qwen3-8B"), or the name of a model'
        )
    model: Model = what
    return model
