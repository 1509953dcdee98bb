"""Where the examples are: in a wheel inside this package, in a checkout beside it.

The folder keeps its name in both, and what holds it is no package, so that `FILE:WORKFLOW` imports
the examples by the name that they import each other by, and as an author's own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from helium_agents.errors import InputError

EXAMPLES = "agents_examples"
"""The package that the examples are."""

_OURS = Path(__file__).resolve().parents[1]
_HOLDERS = (_OURS / "_examples", _OURS.parent)


def examples_folder() -> Path:
    """The folder of the examples, as they were installed.

    Raises:
        InputError: They were left out of this installation.
    """
    for holder in _HOLDERS:
        if (holder / EXAMPLES / "__init__.py").is_file():
            return holder / EXAMPLES
    places = " nor ".join(map(str, _HOLDERS))
    raise InputError(f"{EXAMPLES} is neither in {places}: install helium_agents again")


def example_files() -> Iterator[Path]:
    """The modules and their data, relative to what holds the folder, in order."""
    folder = examples_folder()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder.parent)
        is_made_or_hidden = any(
            part == "__pycache__" or part.startswith(".") for part in relative.parts
        )
        if path.is_file() and not is_made_or_hidden:
            yield relative
