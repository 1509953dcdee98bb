"""`helium` in a process of its own, with a scripted engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine

execute.VLLM = lambda model, **settings: ScriptedEngine()
main()
"""


def scripted_helium(*arguments: str, folder: Path, package: Path) -> str:
    """What it prints.

    Args:
        arguments: As on the command line.
        folder: Where it runs.
        package: What holds `helium_agents`.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
