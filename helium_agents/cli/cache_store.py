"""A memo's store, as the `helium cache` commands open it: one that is there, and left as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
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


@contextmanager
def reading(memo: Path, ttl_s: float | None = None) -> Iterator[LmdbStore]:
    """A memo that is there, to be read.

    Raises:
        InputError: There is none.
    """
    from helium_agents.memo.lmdb import LmdbStore
    from helium_agents.memo.lmdb_tables import DATA_FILE

    if not (memo / DATA_FILE).is_file():
        raise InputError(
            f"there is no memo in {memo}: check the path (a run with --memo makes one)"
        )
    with closing(LmdbStore(memo, ttl_s=ttl_s, read_only=True)) as store:
        yield store


@contextmanager
def writing(memo: Path, more_bytes: int = 0) -> Iterator[LmdbStore]:
    """A memo to be written, which is made if needed.

    Its byte bound is the program's, which is not known here: nothing must be evicted for another.

    Args:
        memo: Where it is.
        more_bytes: What may be added.
    """
    from helium_agents.memo.lmdb import LmdbStore
    from helium_agents.memo.lmdb_tables import DATA_FILE

    data = memo / DATA_FILE
    held_bytes = data.stat().st_size if data.is_file() else 0
    bound = max(_LEAST_BOUND_BYTES, held_bytes + more_bytes)
    with closing(LmdbStore(memo, max_bytes=bound)) as store:
        yield store


def confirm(question: str, *, yes: bool) -> bool:
    """Whether to go on with what cannot be undone; says so if not.

    Raises:
        InputError: Nobody is there to say.
    """
    if not yes and not sys.stdin.isatty():
        raise InputError("there is nobody to ask: add --yes to do it")
    if yes or click.confirm(question, err=True):
        return True
    click.echo("Nothing was removed.")
    return False


def count_entries(number: int) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"
