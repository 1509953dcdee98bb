"""Output in a notebook's cell that is drawn again and again."""

from __future__ import annotations

import sys
from html import escape
from typing import Any


def is_in_notebook() -> bool:
    """Whether a notebook runs this program: the shell has a kernel, to which cells are sent."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


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
