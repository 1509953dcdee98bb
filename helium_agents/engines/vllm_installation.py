"""How vLLM is installed, with a GPU and without: what is said where it is missing.

Its CPU build works with exact versions only, and without some packages that it asks for; so pip is
given a complete list, which a wheel has inside and a checkout beside the package.
"""

from __future__ import annotations

import shlex
from pathlib import Path

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

_OURS = Path(__file__).resolve().parents[1]
_HOLDERS = (_OURS / "_requirements", _OURS.parent / "requirements")


def _cpu_installation() -> str:
    """The commands, for an environment of its own."""
    folder = next(holder for holder in _HOLDERS if (holder / "cpu.txt").is_file())
    torch, rest = (shlex.quote(str(folder / name)) for name in ("torch-cpu.txt", "cpu.txt"))
    return (
        f"pip install --no-deps -r {torch} --extra-index-url {TORCH_INDEX} && "
        f"pip install --no-deps -r {rest}"
    )


def instead_or_installed() -> str:
    """What to do without vLLM."""
    return (
        "Ask a server that runs already, by OpenAIServer(...) or on the command line --server URL; "
        "or install it, on a machine with a GPU by pip install 'helium_agents[vllm]', without one, "
        "and best in an environment of its own, since it needs exact versions of what else is "
        f"there, by {_cpu_installation()}"
    )
