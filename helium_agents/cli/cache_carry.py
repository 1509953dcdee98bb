"""`helium cache verify`, `export` and `import`: is a memo whole, and how to carry it elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from helium_agents.cli.cache_store import count_entries, memo_option, reading, writing
from helium_agents.cli.options import FILE, debug_option, echo_error, examples, json_option
from helium_agents.errors import InputError


@click.command(
    epilog=examples("helium cache verify --memo memo", "helium cache verify --memo memo --repair")
)
@memo_option
@click.option(
    "--repair", is_flag=True, help="Remove damaged entries, and compute anew what follows."
)
@json_option
@debug_option
def verify(memo: Path, repair: bool, as_json: bool) -> None:
    """Check all of a memo: its structure, checksums and bounds.

    Exits with 1 if anything is wrong and was not repaired.
    """
    with reading(memo) as store:
        report = store.verify()
    if repair and report.problems:
        with writing(memo) as store:
            report = store.verify(repair=True)
    if as_json:
        fields = {
            "memo": str(memo),
            "entries": report.num_entries,
            "bytes": report.num_bytes,
            "problems": report.problems,
            "repaired": repair,
            "dropped": report.num_dropped,
        }
        click.echo(json.dumps(fields))
    elif not report.problems:
        click.echo(f"{memo}: {count_entries(report.num_entries)}, nothing is wrong.")
    else:
        for problem in report.problems:
            click.echo(problem)
        if repair:
            click.echo(f"Repaired; {count_entries(report.num_dropped)} could not be saved.")
        else:
            echo_error(f"{memo} is damaged: see --repair, or delete it to start afresh")
    if report.problems and not repair:
        sys.exit(1)


@click.command("export", epilog=examples("helium cache export --memo memo answers.memo"))
@memo_option
@click.argument("path", metavar="FILE", type=FILE)
@click.option("--label", metavar="NAME", help="Only entries of this label.")
@json_option
@debug_option
def export_command(memo: Path, path: Path, label: str | None, as_json: bool) -> None:
    """Write what a memo holds to a file; prompts and answers are in it in clear."""
    from helium_agents.memo.portable import export_entries

    with reading(memo) as store:
        num_entries = export_entries(store, path, label=label)
    if as_json:
        click.echo(json.dumps({"memo": str(memo), "file": str(path), "exported": num_entries}))
    else:
        click.echo(f"{count_entries(num_entries)} of {memo} -> {path}")


@click.command("import", epilog=examples("helium cache import --memo memo answers.memo"))
@memo_option
@click.argument("path", metavar="FILE", type=FILE)
@json_option
@debug_option
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
    if as_json:
        fields = {
            "memo": str(memo),
            "file": str(path),
            "imported": report.num_imported,
            "kept": report.num_kept,
            "damaged": report.num_damaged,
            "problems": report.problems,
        }
        click.echo(json.dumps(fields))
    else:
        kept = f", {report.num_kept:,} were there already" if report.num_kept else ""
        click.echo(f"{path} -> {memo}: {count_entries(report.num_imported)}{kept}")
        for problem in report.problems:
            echo_error(f"{path}: {problem}")
    if report.problems:
        sys.exit(1)
