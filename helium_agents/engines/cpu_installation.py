"""How vLLM is installed on a machine without a GPU: what is said where it is missing.

Its CPU build works with exact versions only, and without some packages that it asks for; so pip is
given a complete list, which a wheel has inside and a checkout beside the package.
"""

from __future__ import annotations

import shlex
from pathlib import Path

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

_OURS = Path(__file__).resolve().parents[1]
_HOLDERS = (_OURS / "_requirements", _OURS.parent / "requirements")


def cpu_installation() -> str:
    """The commands, for an environment of its own."""
    folder = next(holder for holder in _HOLDERS if (holder / "cpu.txt").is_file())
    torch, rest = (shlex.quote(str(folder / name)) for name in ("torch-cpu.txt", "cpu.txt"))
    return (
        f"pip install --no-deps -r {torch} --extra-index-url {TORCH_INDEX} && "
        f"pip install --no-deps -r {rest}"
    )
