"""A short hammering finds nothing, and would find what is missing or wrong."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from stores import ROOT

from helium_agents.memo.lmdb import LmdbStore

sys.path.insert(0, str(ROOT))
from benchmarks import hammer

pytestmark = pytest.mark.slow


def test_a_short_hammering() -> None:
    command = [sys.executable, "-m", "benchmarks.hammer", "--seconds", "2", "--kills", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if " bound |" in line]
    assert [row[1] for row in rows] == ["8", "8"]
    assert all(int(row[3].replace(",", "")) > 100 for row in rows), done.stdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("", ""),
        ("missing", "is missing"),
        ("old", "has version 1, not one of"),
        ("other", "has version 2, not one of"),
        ("provenance", "provenance of another"),
        ("back", "has version 3, not one of"),
        ("large", "over"),
    ],
)
def test_the_check_finds_what_is_wrong(tmp_path: Path, wrong: str, words: str) -> None:
    log = tmp_path / "log"
    log.write_text(
        "start\nput a 1\nack\nput a 2\nput b 2\nack\nput gone 3\ndelete gone 0\nack\nput late 4\n"
        "start\nput c 5\nack\n"
    )
    states = {"a": 2, "b": 2, "c": 5} | {"missing": {"b": 0}, "old": {"a": 1}}.get(wrong, {})
    states |= {"back": {"gone": 3}, "large": {"late": 4}}.get(wrong, {})
    with closing(LmdbStore(tmp_path / "memo")) as store:
        for name, version in states.items():
            is_other = (wrong, name) == ("other", "c")
            value = hammer.value_of("b", 2) if is_other else hammer.value_of(name, version)
            provenance = hammer.provenance_of(name, version + (wrong == "provenance"))
            if version:
                store.put(hammer.key_of(name), value, label="mine", provenance=provenance)
    result = hammer.Result("test")
    bound = 200 if wrong == "large" else hammer.LARGE_BYTES
    if wrong == "large":
        with closing(LmdbStore(tmp_path / "memo")) as store:
            assert store.stats().num_bytes > bound
    hammer.check(tmp_path / "memo", [log], bound, result)
    if wrong:
        assert any(words in violation for violation in result.violations), result.violations
    else:
        assert result.violations == []
    assert (result.num_checked, result.num_operations) == (5, 7)
