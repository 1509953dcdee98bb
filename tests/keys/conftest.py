"""A package that is written, imported, edited, and imported again."""

from __future__ import annotations

import importlib
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

Loader = Callable[..., ModuleType]


def _forget(package: str) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    """Writes a package `app` and imports its `main`, each time to a folder of its own."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folders = itertools.count()

    def load(files: dict[str, str], *, folder: str | None = None) -> ModuleType:
        root = tmp_path / (folder or f"{next(folders)}")
        for name, source in files.items():
            path = root / "app" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        _forget("app")
        monkeypatch.syspath_prepend(root)
        return importlib.import_module("app.main")

    yield load
    _forget("app")
