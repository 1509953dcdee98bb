"""Puts files into a directory: all of them, or none if anything goes wrong.

Copies are made beside their places first, where a full disk or a missing permission shows; then
each takes its place by a rename. What an error undoes: the renames, and the folders that were made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path


def place_files(files: Sequence[Path], source: Path, directory: Path) -> None:
    """Copy files, in place of what is there under their names.

    Args:
        files: Relative paths.
        source: Where they are.
        directory: Where they go; made if needed, with the folders in it. What a symbolic link
            under a file's name points to stays as it is.

    Raises:
        OSError: A file cannot be read or written; the directory is as it was.
    """
    directory = directory.resolve()
    with ExitStack() as unmake:
        for file in files:
            _make_folder((directory / file).parent, unmake)
        with tempfile.TemporaryDirectory(prefix=".helium-", dir=directory) as beside:
            _replace(files, source, directory, new=Path(beside, "new"), old=Path(beside, "old"))
        unmake.pop_all()


def _replace(files: Sequence[Path], source: Path, directory: Path, new: Path, old: Path) -> None:
    for file in files:
        _copy(source / file, new / file)
        if os.path.lexists(directory / file):
            _copy(directory / file, old / file, with_mode=True)
    with ExitStack() as undo:
        for file in files:
            # noted before it is done, so that Ctrl-C in between is no gap
            if os.path.lexists(old / file):
                undo.callback(os.replace, old / file, directory / file)
            else:
                undo.callback((directory / file).unlink, missing_ok=True)
            os.replace(new / file, directory / file)
        undo.pop_all()


def _copy(source: Path, target: Path, *, with_mode: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if with_mode:
        shutil.copy2(source, target, follow_symlinks=False)
    else:  # a file that is installed read-only becomes one that can be changed
        shutil.copyfile(source, target)


def _make_folder(path: Path, unmake: ExitStack) -> None:
    if path.is_dir():
        return
    _make_folder(path.parent, unmake)
    path.mkdir()
    unmake.callback(path.rmdir)
