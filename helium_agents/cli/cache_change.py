"""`helium cache verify`, `prune`, `clear`, `export`, `import`: a memo whole, smaller, elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from helium_agents.cli.cache_memo import (
    cache_command,
    confirm,
    count_entries,
    entries,
    operator_option,
    reading,
    tell,
    writing,
    yes_option,
)
from helium_agents.cli.options import FILE, echo_error
from helium_agents.cli.units import age, duration, num_bytes, size
from helium_agents.errors import InputError


@cache_command("helium cache verify --memo memo")
def verify(memo: Path, as_json: bool) -> None:
    """Check all of a memo: its structure, checksums and bounds.

    Exits with 1 if anything is wrong.
    """
    with reading(memo) as store:
        report = store.verify()
    lines = report.problems or [f"{memo}: {count_entries(report.num_entries)}, nothing is wrong."]
    tell(
        memo,
        "\n".join(lines),
        as_json=as_json,
        entries=report.num_entries,
        bytes=report.num_bytes,
        problems=report.problems,
    )
    if report.problems:
        echo_error(
            f"{memo} is damaged: delete it to start afresh, after `helium cache export` if the "
            "rest of it is worth keeping"
        )
        sys.exit(1)


@cache_command(
    "helium cache prune --memo memo --older-than 30d",
    "helium cache prune --memo memo --max-bytes 1GiB --yes",
)
@click.option(
    "--older-than",
    "older_than_s",
    type=duration,
    metavar="DURATION",
    help="Remove what is older: 30d, 12h.",
)
@click.option(
    "--max-bytes",
    type=num_bytes,
    metavar="SIZE",
    help="Then remove what was used longest ago until the rest has that size: 1GiB, 500MB.",
)
@operator_option
@yes_option
def prune(
    memo: Path, older_than_s: float | None, max_bytes: int | None, operator: str | None,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Remove what is old, or too much.

    With --operator, only the operator's calls go, and --max-bytes bounds what they hold.
    """
    what = []
    if older_than_s is not None:
        what.append(f"is older than {age(older_than_s)}")
    if max_bytes is not None:
        what.append(f"exceeds {size(max_bytes)}")
    if not what:
        raise InputError("say what is to go: --older-than 30d, --max-bytes 1GiB, or both")
    whose = f" of the calls of {operator}" if operator else ""
    question = f"Remove from {memo} what{whose} {' or '.join(what)}?"
    _remove(memo, operator, older_than_s, max_bytes, question, yes=yes, as_json=as_json)


@cache_command(
    "helium cache clear --memo memo", "helium cache clear --memo memo --operator expert --yes"
)
@operator_option
@yes_option
def clear(memo: Path, operator: str | None, yes: bool, as_json: bool) -> None:
    """Remove what a memo holds: all, or an operator's calls. The directory stays."""
    _remove(memo, operator, None, 0, None, yes=yes, as_json=as_json)


def _remove(
    memo: Path, operator: str | None, older_than_s: float | None, max_bytes: int | None,
    question: str | None, *, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    among = None
    with reading(memo) as store:
        before = store.stats()
        if operator is not None:
            among = {entry.key for entry, _ in entries(store, operator=operator)}
    if question is None:
        number = before.num_entries if among is None else len(among)
        question = f"Remove {count_entries(number)} from {memo}?"
    if confirm(question, yes=yes):
        with writing(memo) as store:
            num_removed = store.prune(older_than_s=older_than_s, max_bytes=max_bytes, among=among)
            freed_bytes = before.num_bytes - store.stats().num_bytes
        text = f"Removed {count_entries(num_removed)} ({size(freed_bytes)}) from {memo}."
        tell(memo, text, as_json=as_json, removed=num_removed, freed_bytes=freed_bytes)


@cache_command("helium cache export --memo memo answers.memo", name="export")
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--label", metavar="NAME", help="Only entries of this label.")
def export_command(memo: Path, path: Path, label: str | None, as_json: bool) -> None:
    """Write what a memo holds to a file; prompts and answers are in it in clear."""
    from helium_agents.memo.portable import export_entries

    with reading(memo) as store:
        num_entries = export_entries(store, path, label=label)
    text = f"{count_entries(num_entries)} of {memo} -> {path}"
    tell(memo, text, as_json=as_json, file=str(path), exported=num_entries)


@cache_command("helium cache import --memo memo answers.memo", name="import")
@click.argument("path", metavar="FILE", type=FILE)
def import_command(memo: Path, path: Path, as_json: bool) -> None:
    """Put exported entries into a memo, which is made if needed.

    What the memo has already stays, unless the file's is newer. Exits with 1 if the file is
    damaged; what could be read is imported all the same.
    """
    from helium_agents.memo.portable import import_entries

    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path")
    with writing(memo, path.stat().st_size) as store:
        report = import_entries(store, path)
    kept = f", {report.num_kept:,} were there already" if report.num_kept else ""
    tell(
        memo,
        f"{path} -> {memo}: {count_entries(report.num_imported)}{kept}",
        as_json=as_json,
        file=str(path),
        imported=report.num_imported,
        kept=report.num_kept,
        damaged=report.num_damaged,
        problems=report.problems,
    )
    for problem in report.problems:
        echo_error(f"{path}: {problem}")
    if report.problems:
        sys.exit(1)
