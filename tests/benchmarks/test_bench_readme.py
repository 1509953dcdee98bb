"""The workload and the system that `benchmarks/README.md` adds are found, and work together."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks.systems
import benchmarks.workloads
from benchmarks.harness.calls import call_graph
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.system import Batch
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs
from helium_agents.engines.scripted import ScriptedEngine

README = Path(benchmarks.workloads.__file__).parents[1] / "README.md"


class ForgetfulEngine(ScriptedEngine):
    async def reset_prefix_cache(self) -> None: ...


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The README's two files, in places where the packages look."""
    workload, system = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for package, name, text in (
        (benchmarks.workloads, "translate_example", workload),
        (benchmarks.systems, "one_row_example", system),
    ):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    benchmarks.workloads.workloads.cache_clear()
    benchmarks.systems.systems.cache_clear()
    yield
    benchmarks.workloads.workloads.cache_clear()
    benchmarks.systems.systems.cache_clear()
    for name in ("workloads.translate_example", "systems.one_row_example"):
        sys.modules.pop(f"benchmarks.{name}")


async def test_a_workload_and_a_system_of_one_file_each(added: None) -> None:
    workload = benchmarks.workloads.workloads()["translate"]
    system = benchmarks.systems.systems()["one-row-at-a-time"]
    rows = workload.rows(Inputs(3))
    graphs = [await call_graph(workload.workflow, row) for row in rows]
    assert [len(graph.calls) for graph in graphs] == [2, 2, 2]
    engine = ForgetfulEngine()
    async with Testbed(EngineSettings("fits"), engine) as bed:
        await engine.start()
        batch = Batch(workload, rows, graphs)
        expected = await benchmarks.systems.systems()["raw"].run(batch, bed)
        assert await system.run(batch, bed) == expected
        assert len(expected) == 3 and all(expected)
        assert engine.num_requests == 12
