"""What a notebook's cell shows: counts as a table, and output that is drawn again and again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from html import escape
from typing import Any


def is_in_notebook() -> bool:
    """Whether a notebook runs this program: the shell has a kernel, to which cells are sent."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def counts_as_html(counts: Mapping[str, str | float | None]) -> str:
    """A table of the counts that are not zero.

    Args:
        counts: By name; an underscore in one is shown as a space.
    """
    cells = (
        f"<tr><th style='text-align: left'>{escape(name.replace('_', ' '))}</th>"
        f"<td>{escape(_shown(value))}</td></tr>"
        for name, value in counts.items()
        if value not in (0, "", None)
    )
    return f"<table>{''.join(cells)}</table>"


def _shown(value: str | float | None) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


class CellOutput:
    """A place in the output of the cell that makes it."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, done: int, total: int | None, line: str) -> None:
        """Show a bar and a line in place of those before; from any thread.

        Args:
            done: How much of it is done.
            total: Of how much; `None` where that is not known.
            line: What to say below the bar.
        """
        # colours are the notebook's own, light or dark
        of = "" if total is None else f' max="{max(1, total)}" value="{done}"'
        bar = f'<progress{of} style="width: 100%"></progress>'
        content = {
            "text/plain": line,
            "text/html": f'{bar}<div style="font-family: monospace">{escape(line)}</div>',
        }
        if self._handle is None:
            self._handle = sys.modules["IPython"].display.display(
                content, raw=True, display_id=True
            )
        else:
            self._handle.update(content, raw=True)
