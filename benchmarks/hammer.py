"""Two processes hammer one memo and are killed at random: is anything lost, wrong or too much?

    python -m benchmarks.hammer --seconds 120 --kills 50 --tmpfs

Each process puts, overwrites, deletes and reads entries of all sizes, and writes a log beside the
memo: an operation before it begins, and how many of them a commit has acknowledged after it
returned. SIGKILL stops a process but not what it has written, so the log knows at least what the
memo must. At the end `verify` must find nothing, every acknowledged entry must be there with the
value acknowledged or one put later, and the live bytes must be within the bound.

Three phases of equal length: a large bound, where nothing may be missing; a small one, where the
bound must hold at every moment; and a small tmpfs that fills up and is emptied again (`--tmpfs`),
where errors must be clear and what was acknowledged must stay. Exits with 1 on any violation.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore

NUM_PROCESSES: Final = 2
NUM_KEYS: Final = 2000
MAX_VALUE_BYTES: Final = 60_000
LARGE_BYTES: Final = 2**30
SMALL_BYTES: Final = 4 * 2**20
DISK_BYTES: Final = 48 * 2**20
BALLAST_BYTES: Final = 40 * 2**20
CLEAR_WORDS: Final = ("free some space", "has room")
FAILED: Final = 3
WRONG: Final = 4


@dataclass
class Result:
    """What a phase did, and what was wrong."""

    phase: str
    num_kills: int = 0
    num_operations: int = 0
    num_acknowledged: int = 0
    num_checked: int = 0
    num_errors: int = 0
    num_entries: int = 0
    most_bytes: int = 0
    violations: list[str] = field(default_factory=list)


def key_of(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=32).digest()


def value_of(name: str, version: int) -> bytes:
    """What was put under a name as its n-th version: made of both, a few bytes or thousands."""
    drawn = random.Random(f"{name} {version}")
    size = int(MAX_VALUE_BYTES ** drawn.random())
    return f"{name} {version} ".encode() + drawn.randbytes(size)


def provenance_of(name: str, version: int) -> bytes:
    return f"asked for {name} {version}, ".encode() * (version % 40)


# --- a process that hammers --------------------------------------------------------------------


def hammer(memo: Path, log: Path, who: int, seed: int, max_bytes: int) -> int:
    """Work until killed; the exit status if the memo fails (`FAILED`) or lies (`WRONG`)."""
    drawn = random.Random(seed)
    version = int(time.time() * 1000) * 1000  # larger than those of the process before
    store = LmdbStore(memo, max_bytes=max_bytes)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b"start\n")
    try:
        while True:
            for _ in range(drawn.randint(1, 40)):
                version += 1
                name = f"{who}-{drawn.randrange(NUM_KEYS)}"
                if not operate(store, file, drawn, name, version):
                    return WRONG
            store.commit().result()
            os.write(file, b"ack\n")
            if drawn.random() < 0.01:  # some lives end in peace
                store.close()
                store = LmdbStore(memo, max_bytes=max_bytes)
    except MemoError as error:
        os.write(file, f"error {error}\n".encode())
        return FAILED


def operate(store: LmdbStore, file: int, drawn: random.Random, name: str, version: int) -> bool:
    """One operation of those that people do; whether the memo told the truth."""
    choice = drawn.random()
    if choice < 0.45:
        os.write(file, f"put {name} {version}\n".encode())
        store.put(
            key_of(name),
            value_of(name, version),
            label="mine",
            provenance=provenance_of(name, version),
        )
        return store.get(key_of(name)) is not None
    if choice < 0.55:
        os.write(file, f"delete {name} 0\n".encode())
        store.prune(max_bytes=0, among=[key_of(name)])
        os.write(file, b"ack\n")  # a delete comes back when it is durable, and all before it
        return store.get(key_of(name)) is None
    other = f"{drawn.randrange(NUM_PROCESSES)}-{drawn.randrange(NUM_KEYS)}"
    return is_true(other, store.get(key_of(other)))


def is_true(name: str, value: bytes | None) -> bool:
    """Whether a value is one that was once put under the name."""
    if value is None:
        return True
    said, version, _ = value.split(b" ", 2)
    return said.decode() == name and value == value_of(name, int(version))


# --- what kills them ---------------------------------------------------------------------------


def run_phase(
    phase: str, directory: Path, *, seconds: float, num_kills: int, max_bytes: int, seed: int
) -> Result:
    """Start, kill and restart the processes, watch the bound, then check everything."""
    result = Result(phase)
    memo, drawn = directory / "memo", random.Random(seed)
    is_disk = phase == "full disk"
    logs = [Path(tempfile.mkdtemp()) / "log" for _ in range(NUM_PROCESSES)]

    def begin(who: int) -> int:
        life = drawn.randrange(2**30)
        return spawn(lambda: hammer(memo, logs[who], who, life, max_bytes))

    running = {begin(who): who for who in range(NUM_PROCESSES)}
    start_s = time.monotonic()
    deaths = sorted(
        (start_s + drawn.uniform(0, seconds), who)
        for who in range(NUM_PROCESSES)
        for _ in range(num_kills)
    )
    while deaths or time.monotonic() < start_s + seconds:
        while deaths and deaths[0][0] <= time.monotonic():
            kill(running, deaths.pop(0)[1])
            result.num_kills += 1
        if is_disk:
            load(directory, is_full=int(time.monotonic() - start_s) % 4 < 2)
        else:
            watch(memo, max_bytes, result)
        for pid, who in reap(running, result, is_error_fine=is_disk):
            del running[pid]
            running[begin(who)] = who
        time.sleep(0.01)
    for who in range(NUM_PROCESSES):
        os.waitpid(kill(running, who), 0)
    load(directory, is_full=False)
    check(memo, logs, max_bytes, result)
    for log in logs:
        shutil.rmtree(log.parent)
    return result


def kill(running: dict[int, int], who: int) -> int:
    """End a process in the middle of whatever it does; its id."""
    pid = next(pid for pid, each in running.items() if each == who)
    os.kill(pid, signal.SIGKILL)
    return pid


def spawn(work: Callable[[], int]) -> int:
    """Run in a forked child; no store is open here when it begins."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = WRONG
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


def reap(
    running: dict[int, int], result: Result, *, is_error_fine: bool
) -> Iterator[tuple[int, int]]:
    """Those that have ended, and what is wrong with how they did."""
    for pid, who in list(running.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == FAILED and is_error_fine:
                result.num_errors += 1
            elif code != -signal.SIGKILL:
                result.violations.append(f"process {who} ended with {code}")
            yield pid, who


def watch(memo: Path, max_bytes: int, result: Result) -> None:
    """Look at the live bytes as another process would."""
    if not (memo / "data.mdb").exists():
        return
    try:
        store = LmdbStore(memo, read_only=True)
        num_bytes = store.stats().num_bytes
        store.close()
    except MemoError as error:
        if "not a memo" not in str(error):  # which it is not yet, at the very beginning
            result.violations.append(f"cannot be looked at: {error}")
        return
    result.most_bytes = max(result.most_bytes, num_bytes)
    if num_bytes > max_bytes:
        result.violations.append(f"{num_bytes} live bytes, over {max_bytes}")


def load(directory: Path, *, is_full: bool) -> None:
    """Take most of the disk away, or give it back."""
    ballast = directory / "ballast"
    if is_full and not ballast.exists():
        try:
            with open(ballast, "wb") as file:
                for _ in range(BALLAST_BYTES // 2**20):
                    file.write(bytes(2**20))
        except OSError:
            pass  # fuller than full
    elif not is_full:
        ballast.unlink(missing_ok=True)


# --- what must be true -------------------------------------------------------------------------


def check(memo: Path, logs: list[Path], max_bytes: int, result: Result) -> None:
    """Compare the memo with the logs, and have it check itself."""
    store = LmdbStore(memo, max_bytes=max_bytes)
    may_be_evicted = max_bytes == SMALL_BYTES
    for log in logs:
        for name, allowed in allowed_of(log, result).items():
            result.num_checked += 1
            found = store.find(key_of(name))
            value = None if found is None else found.value
            version = 0 if value is None else int(value.split(b" ", 2)[1])
            if value is not None and (version not in allowed or value != value_of(name, version)):
                result.violations.append(f"{name} has version {version}, not one of {allowed}")
            elif value is None and 0 not in allowed and not may_be_evicted:
                result.violations.append(f"{name} is missing, should be one of {allowed}")
            elif found is not None and found.provenance != provenance_of(name, version):
                result.violations.append(f"{name} has the provenance of another version")
    report = store.verify()
    store.close()
    result.violations += report.problems
    result.num_entries = report.num_entries
    result.most_bytes = max(result.most_bytes, report.num_bytes)
    if report.num_bytes > max_bytes:
        result.violations.append(f"{report.num_bytes} live bytes at the end, over {max_bytes}")


def allowed_of(log: Path, result: Result) -> dict[str, list[int]]:
    """For each name the versions it may have now, 0 for none: the last acknowledged, or later."""
    allowed: dict[str, list[int]] = {}
    waiting: dict[str, int] = {}
    for line in log.read_text().splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "ack":
            result.num_acknowledged += len(waiting)
            allowed |= {name: [version] for name, version in waiting.items()}
            waiting.clear()
        elif verb in ("start", "error"):
            waiting.clear()  # what a life left behind stays allowed, and nobody acknowledges it
            if verb == "error" and not any(words in rest for words in CLEAR_WORDS):
                result.violations.append(f"an error that does not help: {rest}")
        else:
            name, version = rest.split(" ")
            result.num_operations += 1
            waiting[name] = int(version)
            allowed.setdefault(name, [0]).append(int(version))
    return allowed


# --- the command -------------------------------------------------------------------------------


def main() -> None:
    """Run the phases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="of each phase")
    parser.add_argument("--kills", type=int, default=50, help="of each process in each phase")
    parser.add_argument("--tmpfs", action="store_true", help="also fill a small tmpfs (needs root)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {NUM_PROCESSES} processes")
    results = []
    phases = [("large bound", LARGE_BYTES), ("small bound", SMALL_BYTES)]
    for phase, max_bytes in [*phases, *([("full disk", LARGE_BYTES)] if arguments.tmpfs else [])]:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            if phase == "full disk":
                subprocess.run(
                    ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", name], check=True
                )
            try:
                results.append(
                    run_phase(
                        phase,
                        directory,
                        seconds=arguments.seconds,
                        num_kills=arguments.kills,
                        max_bytes=max_bytes,
                        seed=arguments.seed,
                    )
                )
            finally:
                if phase == "full disk":
                    subprocess.run(["umount", name], check=True)
    show(results)
    sys.exit(any(result.violations for result in results))


def show(results: list[Result]) -> None:
    """Print what happened, and each violation."""
    print(
        "| phase | kills | puts and deletes | acknowledged | names checked | errors | entries "
        "| most live MB | violations |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for result in results:
        print(
            f"| {result.phase} | {result.num_kills} | {result.num_operations:,} "
            f"| {result.num_acknowledged:,} | {result.num_checked:,} | {result.num_errors} "
            f"| {result.num_entries:,} | {result.most_bytes / 1e6:.2f} "
            f"| {len(result.violations)} |"
        )
    for result in results:
        for violation in result.violations[:20]:
            print(f"{result.phase}: {violation}")


if __name__ == "__main__":
    main()
