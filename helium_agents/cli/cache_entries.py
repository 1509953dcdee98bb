"""Which entries of a memo are meant: those of an operator, of a row, with a text in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from helium_agents.cli.options import FILE
from helium_agents.errors import DecodingError, InputError

if TYPE_CHECKING:
    from helium_agents.diagnose.provenance import Provenance
    from helium_agents.memo.store import BrowsableStore, EntryInfo

Command = TypeVar("Command", bound=Callable[..., Any])

operator_option = click.option(
    "--operator",
    metavar="NAME",
    help="Only calls of this operator, and model calls that its body made.",
)


def row_options(command: Command) -> Command:
    """`--row`, `--input` and `--workflow`, which together name a row as a run knows it."""
    how = "What they are rows of; it says how to read them."
    command = click.option("--workflow", metavar="FILE:WORKFLOW", help=how)(command)
    command = click.option("--input", "input_path", type=FILE, help="The rows that --row counts.")(
        command
    )
    which = "Only what was computed for row N (from 0) of --input."
    return click.option("--row", type=click.IntRange(min=0), metavar="N", help=which)(command)


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

    def has(self, label: str, call: Provenance | None) -> bool:
        """Whether an entry is meant."""
        if self.operator is not None and label != self.operator:
            caller = call.caller if call is not None else None
            if caller is None or self.operator not in (caller, caller.partition(":")[2]):
                return False
        if self.row is not None and (call is None or call.row != self.row):
            return False
        return self.text is None or (call is not None and call.mentions(self.text))


def select(
    *, operator: str | None, row: int | None, input_path: Path | None, workflow: str | None,
    text: str | None = None,
) -> Selection:  # fmt: skip
    """The selection that options make.

    Raises:
        InputError: They do not go together, or there is no such row.
    """
    if row is None and input_path is None and workflow is None:
        return Selection(operator, text=text)
    if row is None or input_path is None or workflow is None:
        raise InputError(
            "--row, --input and --workflow go together: a row is known by what the workflow "
            "makes of its line"
        )
    from helium_agents.cli.execute import stdout_for_report
    from helium_agents.cli.loading import load_workflow
    from helium_agents.diagnose.provenance import row_name
    from helium_agents.keys.encoding import fingerprint

    with stdout_for_report():
        found = row_of(row, input_path, load_workflow(workflow))
    return Selection(operator, row_name(fingerprint(found)), text)


def entries(
    store: BrowsableStore, selection: Selection | None = None
) -> Iterator[tuple[EntryInfo, Provenance | None]]:
    """The selected entries with their provenance, the newest first; aliases are left out."""
    from helium_agents.diagnose.provenance import read_provenance

    for info in store.entries():
        entry = store.find(info.key)
        if entry is not None:
            call = read_provenance(entry.provenance)
            if (selection is None or selection.has(info.label, call)) and (
                call is not None or _alias_target(entry.value) is None
            ):
                yield info, call


def with_aliases(store: BrowsableStore, keys: Iterable[bytes]) -> set[bytes]:
    """Keys, and those of the aliases that lead to them."""
    keys = set(keys)
    found = (store.find(info.key) for info in store.entries())
    return keys | {
        entry.key
        for entry in found
        if entry is not None and not entry.provenance and _alias_target(entry.value) in keys
    }


def _alias_target(value: bytes) -> bytes | None:
    """Where an alias leads; `None` for any other entry."""
    from helium_agents.runtime.record import AliasRecord, read_record

    try:
        record = read_record(value)
    except DecodingError:
        return None
    return record.key if isinstance(record, AliasRecord) else None


def row_of(row: int, input_path: Path, workflow: Any) -> Any:
    """Row N of a file, as the workflow gets it.

    Raises:
        InputError: There is none.
    """
    from itertools import islice

    from helium_agents.cli.rows import Rows

    rows = Rows(input_path, workflow, row + 1)
    if len(rows) <= row:
        raise InputError(f"{input_path} has {len(rows):,} rows, so --row is below that (from 0)")
    return next(islice(rows, row, None))
