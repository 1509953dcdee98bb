"""A memo's store, as the `helium cache` commands open it: one that is there, and left as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helium_agents.cli.options import DIRECTORY
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.memo.lmdb import LmdbStore

_LEAST_BOUND_BYTES = 4 * 2**30

memo_option = click.option("--memo", type=DIRECTORY, required=True, help="The memo's directory.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def is_memo(path: Path) -> bool:
    """Whether there is a memo."""
    from helium_agents.memo.lmdb_tables import DATA_FILE

    return (path / DATA_FILE).is_file()


@contextmanager
def reading(memo: Path, ttl_s: float | None = None) -> Iterator[LmdbStore]:
    """A memo that is there, to be read.

    Raises:
        InputError: There is none.
    """
    from helium_agents.memo.lmdb import LmdbStore

    if not is_memo(memo):
        raise InputError(
            f"there is no memo in {memo}: check the path (a run with --memo makes one)"
        )
    with _closing(LmdbStore(memo, ttl_s=ttl_s, read_only=True)) as store:
        yield store


@contextmanager
def writing(
    memo: Path, more_bytes: int = 0, *, held_bytes: int | None = None, may_make: bool = False
) -> Iterator[LmdbStore]:
    """A memo to be written.

    Its byte bound is the program's, which is not known here: nothing must be evicted for another.

    Args:
        memo: Where it is.
        more_bytes: What may be added.
        held_bytes: What it holds, where that is known.
        may_make: Whether it need not be there.
    """
    from helium_agents.memo.lmdb import LmdbStore

    if held_bytes is None and may_make and not is_memo(memo):
        held_bytes = 0
    elif held_bytes is None:
        with reading(memo) as store:
            held_bytes = store.stats().num_bytes
    bound = max(_LEAST_BOUND_BYTES, held_bytes + more_bytes)
    with _closing(LmdbStore(memo, max_bytes=bound)) as store:
        yield store


@contextmanager
def _closing(store: LmdbStore) -> Iterator[LmdbStore]:
    try:
        yield store
    finally:
        store.close()


def confirm(question: str, *, yes: bool) -> bool:
    """Whether to go on with what cannot be undone.

    Raises:
        InputError: Nobody is there to say.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError("there is nobody to ask: add --yes to do it")
    return click.confirm(question, err=True)


def count_entries(number: int) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"
