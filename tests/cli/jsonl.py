"""Rows and results of the tests, as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

Helium = Callable[..., Result]
"""Runs `helium ARGUMENTS`; `expect=` is the exit code."""


def write_rows(path: Path, num_rows: int, unlucky: int | None = None) -> None:
    """Write rows; the one of index `unlucky` fails in `flow.py:answer`."""
    rows = [
        {"question": f"question {index}", "number": 13 if index == unlucky else 0}
        for index in range(num_rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: str | Path) -> list[Any]:
    """The values of a JSON Lines file, which must end with a whole line."""
    text = Path(path).read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]
