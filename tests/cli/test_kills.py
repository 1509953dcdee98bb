"""Killed runs, in processes of their own: before each change of a file, and at random moments."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from jsonl import write_rows

from benchmarks.kill_runs import kill_scripted

pytestmark = pytest.mark.slow

BEFORE_EACH_CHANGE = """
import json, os, signal, sys
from itertools import count
from pathlib import Path

from helium_agents.cli import execute, main
from helium_agents.engines.scripted import ScriptedEngine

execute.VLLM = lambda model, **settings: ScriptedEngine()
CHANGES = ("open", "write", "ftruncate", "fsync", "replace", "mkdir", "unlink", "rmdir")
RUN = sys.argv[1:]


def live(killed_before, *options):
    "One life in a process of its own; whether it came to its end."
    pid = os.fork()
    if not pid:
        if killed_before is not None:
            left = iter(range(killed_before))
            for name in CHANGES:
                setattr(os, name, dying(getattr(os, name), left))
        try:
            main([*RUN, *options])
        except SystemExit as end:
            os._exit(end.code or 0)
    status = os.waitpid(pid, 0)[1]
    refused = os.waitstatus_to_exitcode(status) == 1
    assert refused or status in (0, signal.SIGKILL), status
    return "refused" if refused else status == 0


def dying(change, left):
    def changing(*arguments, **options):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **options)

    return changing


def left_behind():
    return {path.name: path.read_bytes() for path in Path().glob("*out.jsonl*") if path.is_file()}


def check(before, *options):
    "Kill before each change in turn, and again when it goes on; whatever comes of it is whole."
    for number in count():
        for name in left_behind():
            Path(name).unlink()
        for name, data in before.items():
            Path(name).write_bytes(data)
        if live(number, *options) is True:
            break
        has_begun = Path("out.jsonl.run", "run.json").exists()
        live(number, "--resume")
        if live(None, "--resume") == "refused":  # nothing is known of what was to be overwritten
            assert not has_begun and before == {"out.jsonl": b"old"}, (number, before)
            assert left_behind().items() >= before.items()
            continue
        assert not Path("out.jsonl.run").exists()
        assert left_behind() == {"out.jsonl": expected, NOTE: left_behind()[NOTE]}, left_behind()
        assert json.loads(left_behind()[NOTE])["num_rows"] == 2
    return number


NOTE = ".out.jsonl.made_of.json"
assert live(None, "--limit", "1") is True
first_row = left_behind()
assert live(None, "--overwrite") is True
expected = left_behind()["out.jsonl"]
print(check({}), check({"out.jsonl": b"old"}, "--overwrite"), check(first_row, "--resume"))
"""


def test_killed_before_each_change_of_a_file(folder: Path) -> None:
    write_rows(folder / "rows.jsonl", 2)
    run = "run flow.py:answer --input rows.jsonl --output out.jsonl --quiet"
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_EACH_CHANGE, *run.split()],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(int(number) > 12 for number in done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    tally = kill_scripted(10, tmp_path, random.Random(seed), num_rows=16)
    assert tally.num_kills == 10
