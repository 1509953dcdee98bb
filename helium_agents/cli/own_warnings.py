"""Warnings of this package, printed for a person: what is the matter, and not where in our code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from helium_agents.cli.loading import OURS


@contextmanager
def own_warnings_in_words() -> Iterator[None]:
    """A block in which they are; others look as Python shows them."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if filename.startswith(OURS):
                # not by click.echo, which finds its way around the progress bar's stderr
                print(f"warning: {message}", file=file or sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
