"""What the `helium cache` commands share: opening a memo, choosing entries, asking, and telling."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from helium_agents.cli.options import DIRECTORY, debug_option, examples, json_option
from helium_agents.errors import DecodingError, InputError

if TYPE_CHECKING:
    from helium_agents.diagnose.provenance import Provenance
    from helium_agents.memo.lmdb import LmdbStore
    from helium_agents.memo.store import BrowsableStore, EntryInfo

Command = TypeVar("Command", bound=Callable[..., Any])

_LEAST_BOUND_BYTES = 4 * 2**30
_memo_option = click.option("--memo", type=DIRECTORY, required=True, help="The memo's directory.")


def cache_command(*lines: str, name: str | None = None) -> Callable[[Command], click.Command]:
    """A command about a memo, with what they all have: `--memo`, `--json`, `--debug`, examples."""

    def make(function: Command) -> click.Command:
        function = _memo_option(json_option(debug_option(function)))
        command = click.command(name, epilog=examples(*lines))(function)
        command.params.sort(key=lambda param: param.name in ("as_json", "debug"))
        return command

    return make


operator_option = click.option(
    "--operator",
    metavar="NAME",
    help="Only calls of this operator, and model calls that its body made.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def is_memo(path: Path) -> bool:
    """Whether there is a memo."""
    from helium_agents.memo.lmdb.tables import DATA_FILE

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
    from helium_agents.memo.lmdb.tables import DATA_FILE

    data = memo / DATA_FILE
    held_bytes = data.stat().st_size if data.is_file() else 0
    bound = max(_LEAST_BOUND_BYTES, held_bytes + more_bytes)
    with closing(LmdbStore(memo, max_bytes=bound)) as store:
        yield store


def entries(
    store: BrowsableStore, *, operator: str | None = None, text: str | None = None
) -> Iterator[tuple[EntryInfo, Provenance | None]]:
    """Entries with their provenance, the newest first; aliases are left out.

    Args:
        store: Whose.
        operator: Only calls of it or from its body.
        text: Only where it is part of what was asked, whatever the case of letters.
    """
    from helium_agents.diagnose.provenance import read_provenance

    for info in store.entries():
        entry = store.find(info.key)
        call = read_provenance(entry.provenance) if entry else None
        caller = call.caller if call is not None and call.caller is not None else ""
        is_meant = operator in (None, info.label, caller, caller.partition(":")[2])
        if text is not None:
            is_meant = is_meant and call is not None and call.mentions(text)
        if is_meant and entry and (call is not None or not _is_alias(entry.value)):
            yield info, call


def _is_alias(value: bytes) -> bool:
    from helium_agents.runtime.record import AliasRecord, read_record

    try:
        return isinstance(read_record(value), AliasRecord)
    except DecodingError:
        return False


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


def tell(memo: Path, text: str, *, as_json: bool, **fields: object) -> None:
    """Print a text for people, or fields for programs."""
    click.echo(json.dumps({"memo": str(memo), **fields}) if as_json else text)


def count_entries(number: int) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"
