"""`helium trace export`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from jsonl import Helium

DEBATE = Path(__file__).parents[2] / "docs/debate.trace"


def test_a_time_line_is_written(helium: Helium) -> None:
    said = helium(f"trace export {DEBATE} --perfetto run.json").stdout
    content = json.loads(Path("run.json").read_text("ascii"))
    assert said.startswith(f"run.json: {len(content['traceEvents'])} events of 56 calls")
    assert Path("run.json").stat().st_mode & 0o777 == 0o600
    helium(f"trace export {DEBATE} --perfetto run.json.gz")
    assert json.loads(gzip.decompress(Path("run.json.gz").read_bytes())) == content


def test_what_is_there_is_replaced_only_when_asked(helium: Helium) -> None:
    Path("run.json").write_text("mine")
    command = f"trace export {DEBATE} --perfetto run.json"
    assert "run.json is there already" in helium(command, expect=1).stderr
    assert Path("run.json").read_text() == "mine"
    helium(f"{command} --overwrite")
    assert json.loads(Path("run.json").read_text("ascii"))
    wrong = helium(f"trace export {DEBATE} --perfetto none/run.json", expect=1).stderr
    assert "none/run.json cannot be written: No such file" in wrong


def test_what_is_no_trace(helium: Helium) -> None:
    assert "is no trace" in helium("trace export rows.jsonl --perfetto x", expect=1).stderr
    assert not Path("x").exists()
