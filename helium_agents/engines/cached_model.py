"""Models that are made on this machine, once, in the cache directory of its user."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from helium_agents.errors import EngineStartError


def cache_root() -> Path:
    """The directory where the package keeps what can be made again.

    Returns:
        ``$XDG_CACHE_HOME/helium_agents``, or ``~/.cache/helium_agents``; it may not exist yet.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "helium_agents"


def cached_model(name: str, make: Callable[[Path], None], cache_dir: Path | None) -> Path:
    """The directory of a model, made at the first call.

    It is made aside and renamed into place, so a reader never sees half of it, wherever the
    process that makes it is killed. Processes that need it at once wait for the first of them:
    a lock that the system takes back from a dead process says who makes it, and that whatever
    lies aside was left by one that was killed.

    Args:
        name: Of the directory; another one whenever the model is another.
        make: Writes the model's files into an empty directory.
        cache_dir: Where to keep it; `cache_root()` by default.

    Raises:
        EngineStartError: The directory cannot be written.
    """
    root = cache_dir if cache_dir is not None else cache_root()
    target = root / name
    if target.is_dir():
        return target
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():  # else another process has made it meanwhile
                _make_aside(target, make)
    except OSError as error:
        raise EngineStartError(f"the model {name} cannot be written to {root}: {error}") from error
    return target


def _make_aside(target: Path, make: Callable[[Path], None]) -> None:
    prefix = f".{target.name}-"
    for left_behind in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_behind, ignore_errors=True)
    # mkdtemp gives mode 0700, as a cache of one user should have.
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        make(unfinished)
        for path in unfinished.iterdir():
            _sync(path)  # or the machine's failure could leave a whole name with half a content
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
