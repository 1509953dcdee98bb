"""What a scheduler counts reaches the harness, and nothing reaches it where none counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.engine_counts import VARIABLE, CountsFile, CountsWriter, EngineCounts

SCHEDULER = """
import os

from benchmarks.harness.engine_counts import VARIABLE, CountsWriter, EngineCounts

writer = CountsWriter(os.environ[VARIABLE])
for more in (EngineCounts(1, 2, 300, 1, 0), EngineCounts(1, 3, 0, 3, 2), EngineCounts()):
    writer.add(more)
    print("added", flush=True)
    input()
"""


def test_another_process_is_seen_to_count_as_it_does(tmp_path: Path) -> None:
    file = CountsFile(tmp_path / "counts")
    assert file.read() is None
    with file.named_in_environment():
        process = subprocess.Popen(
            [sys.executable, "-c", SCHEDULER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert VARIABLE not in os.environ
    seen = []
    with process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "added\n"
            seen.append(file.read())
            process.stdin.write("go on\n")
            process.stdin.flush()
    assert seen == [EngineCounts(1, 2, 300, 1, 0), *[EngineCounts(2, 5, 300, 4, 2)] * 2]
    assert file.read() == seen[-1]  # outlives who counted


def test_two_schedulers_cannot_count_as_one(tmp_path: Path) -> None:
    CountsWriter(tmp_path / "counts")
    with pytest.raises(FileExistsError):
        CountsWriter(tmp_path / "counts")


def test_what_was_counted_between_two_moments() -> None:
    before, after = EngineCounts(10, 20, 30, 40, 50), EngineCounts(14, 30, 31, 49, 50)
    assert after - before == EngineCounts(4, 10, 1, 9, 0)
    assert (after - before).mean_batch == 2.5
    assert EngineCounts().mean_batch == 0
