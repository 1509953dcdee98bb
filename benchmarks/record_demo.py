"""Runs `helium demo` twice and puts what it printed into docs/demo.md.

    python -m benchmarks.record_demo

The memo is a new one, so the first run computes everything. Of the questions the first twelve are
kept, right or wrong; of the second run its counts.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

_PAGE = Path(__file__).parents[1] / "docs" / "demo.md"
_BLOCK = re.compile(r"(?<=<!-- demo:start -->\n).*(?=<!-- demo:end -->)", re.DOTALL)
_NUM_SHOWN = 12


def main() -> None:
    """Run, and write."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_demo(folder) for _ in range(2))
    text = (
        f"```console\n$ helium demo\n{_shortened(first)}\n$ helium demo\n{_counts(second)}\n```\n"
    )
    page = _PAGE.read_text("utf-8")
    replaced, num_blocks = _BLOCK.subn(lambda _: text, page)
    assert num_blocks == 1, "docs/demo.md has no place for it"
    _PAGE.write_text(replaced, "utf-8")


def _demo(folder: str) -> str:
    command = [sys.executable, "-m", "helium_agents.cli", "demo"]
    run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout.rstrip()


def _shortened(text: str) -> str:
    """All but the questions after the first."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("question ")) + 1
    end = lines.index("", first)
    num_left_out = end - first - _NUM_SHOWN
    shown = [*lines[: first + _NUM_SHOWN], f"... {num_left_out} more", *lines[end:]]
    return "\n".join(line.rstrip() for line in shown)


def _counts(text: str) -> str:
    """From the counts on."""
    return "...\n" + text[text.index("  asked ") :]


if __name__ == "__main__":
    main()
