"""`python -m tests.langgraph_own`: LangGraph's own tests of its node cache pass with ours.

They are in its source distribution, and not in what is installed. Each cache that they make is a
`HeliumCache` (see `our_caches`). Arguments are given to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def main() -> int:
    """Fetch them and run them; returns pytest's exit status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needs = str(ROOT / "requirements" / "langgraph-tests.txt")
        target = str(folder / "site")
        install = ["install", "--quiet", "--no-deps", "--target", target, "--requirement", needs]
        subprocess.run([*PIP, *install], check=True)
        fetch_tests(folder)
        paths = [target, str(ROOT), str(Path(__file__).parent)]
        environment = {**os.environ, "NO_DOCKER": "true", "PYTHONPATH": os.pathsep.join(paths)}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "our_caches", "-k", "cache", "tests"]
        settings = ["-o", "asyncio_default_fixture_loop_scope=function", "--asyncio-mode=auto"]
        line = [*pytest, *settings, *sys.argv[1:]]
        return subprocess.run(line, cwd=folder, env=environment).returncode


def fetch_tests(folder: Path) -> None:
    """Put the tests of the LangGraph that is installed into a folder."""
    what = f"langgraph=={version('langgraph')}"
    source = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    subprocess.run([*PIP, *source, "--dest", str(folder), what], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (folder / archive.name.removesuffix(".tar.gz") / "tests").rename(folder / "tests")


if __name__ == "__main__":
    sys.exit(main())
