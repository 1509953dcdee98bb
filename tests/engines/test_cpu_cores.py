"""Which cores of a CPU compute, and in which process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helium_agents.engines.cpu_cores import (
    CORE_VARIABLES,
    IN_ENGINE_CORE,
    NUM_SPINS,
    computes_on_all_cores,
    core_environment,
)
from helium_agents.engines.model_source import ModelSource
from helium_agents.engines.vllm import settings
from helium_agents.engines.vllm.settings import Settings

VARIABLES = {
    "VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_CPU_NUM_OF_RESERVED_CPU": "1", "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "active",
}  # fmt: skip


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(settings, "is_cpu_build", lambda: True)


def executor(**engine_args: object) -> object:
    arguments = Settings("random", engine_args=engine_args).engine_arguments(
        ModelSource("/model", None, Path("/model"))
    )
    return arguments.get("distributed_executor_backend")


def test_few_cores_all_compute_in_the_engine_core() -> None:
    assert core_environment() == {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "GOMP_SPINCOUNT": str(NUM_SPINS),
    }
    assert executor() == IN_ENGINE_CORE


@pytest.mark.parametrize(("name", "value"), VARIABLES.items())
def test_what_users_say_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    says_cores = name in CORE_VARIABLES
    assert computes_on_all_cores() == (not says_cores)
    assert core_environment() == ({} if says_cores else {"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    assert executor() == (None if says_cores else IN_ENGINE_CORE)


def test_of_many_cores_vllm_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert not computes_on_all_cores()
    assert core_environment() == {}
    assert executor() is None


def test_several_workers_are_processes_of_their_own() -> None:
    assert executor(tensor_parallel_size=2) is None
    assert executor(distributed_executor_backend="mp") == "mp"


def test_on_a_gpu_vllm_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "is_cpu_build", lambda: False)
    assert Settings("random").environment() == {}
    assert executor() is None
