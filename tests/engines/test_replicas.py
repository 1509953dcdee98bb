"""Replicas: what may be given for several engines of one model."""

from __future__ import annotations

import pytest

from helium_agents import Replicas
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM


def test_none_and_twice_the_same_are_refused() -> None:
    engine = ScriptedEngine()
    with pytest.raises(ValueError, match="at least one"):
        Replicas([])
    with pytest.raises(ValueError, match="twice"):
        Replicas([engine, engine])
    assert repr(Replicas([VLLM()])) == "Replicas([VLLM('embedded')])"
