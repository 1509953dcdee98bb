"""Which cores of a CPU compute."""

from __future__ import annotations

import os

import pytest

from helium_agents.engines import vllm_plugin

VARIABLES = {
    "VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_CPU_NUM_OF_RESERVED_CPU": "1", "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "active",
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.mark.parametrize(("name", "value"), VARIABLES.items())
def test_what_users_say_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    says_cores = name in vllm_plugin.CORE_VARIABLES
    assert vllm_plugin.computes_on_all_cores() == (not says_cores)
    if not says_cores:
        vllm_plugin._compute_on_all_cores()
        assert {each for each in VARIABLES if each in os.environ} == {
            "VLLM_CPU_OMP_THREADS_BIND",
            name,
        }
    assert os.environ[name] == value


def test_of_many_cores_vllm_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vllm_plugin.computes_on_all_cores()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert not vllm_plugin.computes_on_all_cores()
