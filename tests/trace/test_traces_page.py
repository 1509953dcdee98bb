"""`docs/traces.md` shows what its commands print, and its Python runs."""

from __future__ import annotations

import re
import shlex
from itertools import zip_longest
from pathlib import Path

import pytest
from click.testing import CliRunner

from helium_agents.cli import main

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "traces.md").read_text("utf-8")
SHOWN = re.findall(r"```sh\nhelium ([^`]*)\n```\n\n```text\n([^`]*)```", PAGE)


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_commands_print_what_is_shown(
    command: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command.startswith("simulate"):
        pytest.importorskip("vllm")
    monkeypatch.chdir(DOCS)
    result = CliRunner().invoke(main, shlex.split(command))
    assert result.exit_code == 0, result.output
    pairs = zip_longest(result.stdout.split(), output.split(), fillvalue="")
    changed = [f"{other} -> {word}" for word, other in pairs if not is_about(word, other)]
    assert not changed, (
        f"in docs/traces.md, `helium {command}`: {', '.join(changed)}; it prints\n{result.stdout}"
    )


def is_about(word: str, shown: str) -> bool:
    """What is simulated may change with the schedules: the page need not follow each time."""
    try:
        return word == shown or number(word) == pytest.approx(number(shown), rel=0.15)
    except ValueError:  # one of them is no number
        return False


def number(word: str) -> float:
    return float(word.replace(",", "").strip("%:;()"))


def test_the_outputs_are_found() -> None:
    assert len(SHOWN) == 4


def test_the_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(DOCS)
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(block, "traces.md", "exec"), {"__name__": "traces"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 56 and all("agents_examples.debate:debate" in line for line in lines)
