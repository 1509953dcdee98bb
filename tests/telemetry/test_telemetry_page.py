"""The block of docs/telemetry.md runs as it stands, and makes the trace that the page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from otel_made import Collector, attributes, collecting

from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.telemetry.otel import conventions

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text("utf-8")


async def test_the_block_makes_the_trace_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    with collecting() as collector:
        assert "http://localhost:4318" in block
        block = block.replace("http://localhost:4318", collector.url)
        names: dict[str, Any] = {"__name__": "flow"}
        exec(compile(block, "docs/telemetry.md", "exec"), names)
        await names["main"](ScriptedEngine())
    assert capsys.readouterr().out == "2\n2\n"
    assert lines_of(collector) == shown.splitlines()


def lines_of(collector: Collector) -> list[str]:
    spans = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)

    def below(parent: bytes, indent: str) -> list[str]:
        lines = []
        for span in spans:
            if span.parent_span_id == parent:
                source = attributes(span).get("helium.source")
                lines.append(f"{indent}{span.name}" + (f"  {source}" if source else ""))
                lines += below(span.span_id, indent + "  ")
        return lines

    return below(b"", "")


def test_every_name_of_ours_is_on_the_page() -> None:
    for name in vars(conventions).values():
        if isinstance(name, str) and name.startswith("helium."):
            assert name in PAGE, name
