"""Models in the cache directory: made once, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helium_agents.engines.cached_model import cached_model
from helium_agents.errors import EngineStartError

KILLED = """
import os, signal, sys
from pathlib import Path
from helium_agents.engines.cached_model import cached_model

def make(directory: Path) -> None:
    (directory / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

cached_model("model", make, Path(sys.argv[1]))
"""


def make(directory: Path) -> None:
    (directory / "weights").write_text("whole")


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    first = cached_model("model", make, tmp_path)
    assert cached_model("model", lambda _: pytest.fail("made again"), tmp_path) == first
    assert (first / "weights").read_text() == "whole"


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(directory: Path) -> None:
        make(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_model("model", interrupted, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert visible(tmp_path) == set()
    assert len(list(tmp_path.glob(".model-*/half"))) == 1
    assert (cached_model("model", make, tmp_path) / "weights").exists()
    assert list(tmp_path.glob(".model-*")) == []


def test_those_that_need_it_at_once_wait_for_the_first(tmp_path: Path) -> None:
    num_made, paths = 0, []

    def count(directory: Path) -> None:
        nonlocal num_made
        num_made += 1
        make(directory)

    def need() -> None:
        paths.append(cached_model("model", count, tmp_path))

    threads = [threading.Thread(target=need) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert num_made == 1
    assert paths == [tmp_path / "model"] * 4


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineStartError, match=r"cannot be written to .*file"):
        cached_model("model", make, tmp_path / "file" / "cache")


def test_it_is_readable_by_its_user_alone(tmp_path: Path) -> None:
    assert os.stat(cached_model("model", make, tmp_path)).st_mode & 0o077 == 0
