"""Which entries of a memo are meant: those of an operator, of a row, with a text in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from helium_agents.cli.options import FILE
from helium_agents.errors import DecodingError, InputError

if TYPE_CHECKING:
    from helium_agents.diagnose.provenance import Provenance
    from helium_agents.memo.store import EntryInfo, ManagedStore

Command = TypeVar("Command", bound=Callable[..., Any])

operator_option = click.option(
    "--operator",
    metavar="NAME",
    help="Only calls of this operator, and model calls that its body made.",
)


def row_options(command: Command) -> Command:
    """`--row`, `--input` and `--workflow`, which together name a row as a run knows it."""
    options = (
        click.option(
            "--row",
            type=click.IntRange(min=0),
            metavar="N",
            help="Only what was computed for row N (from 0) of --input.",
        ),
        click.option("--input", "input_path", type=FILE, help="The rows that --row counts."),
        click.option(
            "--workflow", metavar="FILE:WORKFLOW", help="What they are rows of; it says how to "
            "read them.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are meant.

    Args:
        operator: Only calls of it or from its body.
        row: Only what was computed for the row that provenance names so.
        text: Only where it is part of what was asked, whatever the case of letters.
    """

    operator: str | None = None
    row: str | None = None
    text: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.operator is None and self.row is None and self.text is None

    def has(self, entry: EntryInfo, provenance: Provenance | None) -> bool:
        """Whether an entry is meant."""
        if self.operator is not None and entry.label != self.operator:
            caller = provenance.caller if provenance is not None else None
            if caller is None or self.operator not in (caller, caller.partition(":")[2]):
                return False
        if self.row is not None and (provenance is None or provenance.row != self.row):
            return False
        return self.text is None or (provenance is not None and provenance.mentions(self.text))


def select(
    *, operator: str | None, row: int | None, input_path: Path | None, workflow: str | None,
    text: str | None = None,
) -> Selection:  # fmt: skip
    """The selection that options make.

    Raises:
        InputError: They do not go together, or there is no such row.
    """
    given = [option is not None for option in (row, input_path, workflow)]
    if any(given) and not all(given):
        raise InputError(
            "--row, --input and --workflow go together: a row is known by what the workflow "
            "makes of its line"
        )
    name = None
    if row is not None and input_path is not None and workflow is not None:
        name = _name_of(row, input_path, workflow)
    return Selection(operator, name, text)


def entries(
    store: ManagedStore, selection: Selection | None = None
) -> Iterator[tuple[EntryInfo, Provenance | None]]:
    """The selected entries with their provenance, the newest first; aliases are left out."""
    from helium_agents.diagnose.provenance import read_provenance

    for entry in store.entries():
        data = store.provenance(entry.key) if entry.has_provenance else None
        provenance = read_provenance(data)
        if (selection is None or selection.has(entry, provenance)) and (
            provenance is not None or alias_target(store, entry) is None
        ):
            yield entry, provenance


def with_aliases(store: ManagedStore, keys: Iterable[bytes]) -> set[bytes]:
    """Keys, and those of the aliases that lead to them."""
    keys = set(keys)
    aliases = {
        entry.key
        for entry in store.entries()
        if not entry.has_provenance and alias_target(store, entry) in keys
    }
    return keys | aliases


def alias_target(store: ManagedStore, entry: EntryInfo) -> bytes | None:
    """Where an alias leads; `None` for any other entry."""
    from helium_agents.runtime.record import AliasRecord, read_record

    with suppress(DecodingError):
        record = read_record(store.get(entry.key) or b"")
        return record.key if isinstance(record, AliasRecord) else None
    return None


def row_of(row: int, input_path: Path, workflow: Any) -> Any:
    """Row N of a file, as the workflow gets it.

    Raises:
        InputError: There is none.
    """
    from itertools import islice

    from helium_agents.batch.rows import Rows

    rows = Rows(input_path, workflow, row + 1)
    if len(rows) <= row:
        raise InputError(f"{input_path} has {len(rows):,} rows, so --row is below that (from 0)")
    return next(islice(rows, row, None))


def _name_of(row: int, input_path: Path, target: str) -> str:
    from helium_agents.cli.execute import stdout_for_report
    from helium_agents.cli.loading import load_workflow
    from helium_agents.diagnose.provenance import row_name
    from helium_agents.keys.encoding import fingerprint

    with stdout_for_report():
        found = row_of(row, input_path, load_workflow(target))
    return row_name(fingerprint(found))
