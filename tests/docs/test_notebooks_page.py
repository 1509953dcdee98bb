"""`docs/notebooks.md` runs as a notebook, and shows what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_blocks import ROOT, blocks_of

nbclient = pytest.importorskip("nbclient", reason="requirements/notebook.txt is not installed")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.slow  # a kernel is started

PRELUDE = """
import helium_agents
from helium_agents.engines.scripted import ScriptedEngine
helium_agents.VLLM = lambda model: ScriptedEngine(lambda request: "<b>Honey</b> & salt")
"""
MORE = [
    "llm(user('Is it <i>odd</i>?'))",
    "await llm(user('Is it odd?'))",
    "print(session.waiting())",
]


def shown(cell: Any, kind: str = "text/html") -> str:
    """What the outputs of a cell are, all of one kind."""
    return "".join(str(each["data"].get(kind, "")) for each in cell.outputs if "data" in each)


def test_the_page_runs_as_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    blocks = [block.text for block in blocks_of("docs/notebooks.md")]
    sources = [PRELUDE, *blocks[:-1], *MORE, blocks[-1]]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=60, resources=resources).execute()
    cells = dict(zip(sources, notebook.cells, strict=True))
    _, _, asked, plan, summary, rows = (cells[source] for source in sources[:6])
    assert "<b>Honey</b> & salt" in shown(asked, "text/plain")
    assert shown(plan).startswith("<pre>") and "What do bees make?" in shown(plan)
    assert "<table>" in shown(summary) and "computed" in shown(summary)
    assert '<progress max="2" value="2"' in shown(rows) and "answers: 2/2 items" in shown(rows)
    assert len(rows.outputs) == 1, "it is drawn in its place"
    ref, reply, waits = (cells[source] for source in MORE)
    assert "not answered yet: write <code>await</code>" in shown(ref)
    assert "&lt;b&gt;Honey&lt;/b&gt; &amp; salt" in shown(reply), "answers are text"
    assert "calls that wait" in waits.outputs[0]["text"]
