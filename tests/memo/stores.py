"""What the tests of the stores share: keys, a clock, child processes, damage."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import lmdb

from helium_agents.memo.entry import entry_bytes
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.memory import MemoryStore
from helium_agents.memo.store import Store

ROOT = Path(__file__).parents[2]
AnyStore = LmdbStore | MemoryStore


class Clock:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def key(name: object) -> bytes:
    return hashlib.blake2b(str(name).encode(), digest_size=32).digest()


def present(store: Store, names: range) -> list[int]:
    return [name for name in names if store.get(key(name)) is not None]


ENTRY_BYTES = entry_bytes(bytes(1000), "a")


def fill(store: Store, names: range) -> None:
    for name in names:
        store.put(key(name), bytes(1000), label="a")


PRELUDE = """
import hashlib, os, sys, time
from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore
path = sys.argv[1]
def key(name):
    return hashlib.blake2b(str(name).encode(), digest_size=32).digest()
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, args)],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # which `finish` closes
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    try:
        out, err = process.communicate(timeout=120)  # a busy disk may take seconds over a commit
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, err
    return out


def forked(work: Callable[[], object], user: int = 0) -> str:
    """What a function says, or the error it meets, in a child process of a user; fast.

    No store of the path it uses may be open here.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if user and os.getuid() == 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        said = file.read()
    assert os.waitpid(pid, 0)[1] == 0, "the child crashed"
    return said


def rewrite(path: Path, table: bytes, name: bytes, change: Callable[[bytes], bytes]) -> None:
    with lmdb.open(str(path), max_dbs=8, map_size=2**30) as env:
        handle = env.open_db(table)
        with env.begin(write=True) as txn:
            txn.put(name, change(txn.get(name, b"", db=handle)), db=handle)
