"""Options as messages name them."""

from __future__ import annotations

import pytest

from helium_agents.cli.options import in_shell


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("add overwrite=True, or another output=", "add --overwrite, or another --output"),
        ("raise limit=, or choose", "raise --limit, or choose"),
        ('add on_error="collect" to go on', "add --on-error collect to go on"),
        ('memo_mode="replay-only" needs memo=DIR', "--memo-mode replay-only needs --memo DIR"),
        ("rows of input=, see", "rows of --input, see"),
        ("there is data/limit=5/rows.jsonl", "there is data/limit=5/rows.jsonl"),
        ("Row(limit=13, inputs=True)", "Row(limit=13, inputs=True)"),
    ],
)  # fmt: skip
def test_options_of_python_become_those_of_the_shell(message: str, shown: str) -> None:
    assert in_shell(message) == shown
