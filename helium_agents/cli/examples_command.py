"""`helium examples`: the bundled workflows as files of the user's own, to read, run and change.

In a wheel they are inside this package, in a checkout beside it. The folder keeps its name in both,
and what holds it is no package, so that `FILE:WORKFLOW` imports the examples by the name that they
import each other by, and as an author's own code.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from helium_agents.cli.loading import relative
from helium_agents.cli.options import DIRECTORY, debug_option, examples
from helium_agents.cli.report import count
from helium_agents.errors import InputError

EXAMPLES = "agents_examples"
"""The package that the examples are."""

_OURS = Path(__file__).resolve().parents[1]
_HOLDERS = (_OURS / "_examples", _OURS.parent)


def examples_folder() -> Path:
    """The folder of the examples, as they were installed.

    Raises:
        InputError: They were left out of this installation.
    """
    for holder in _HOLDERS:
        if (holder / EXAMPLES / "__init__.py").is_file():
            return holder / EXAMPLES
    places = " nor ".join(map(str, _HOLDERS))
    raise InputError(f"{EXAMPLES} is neither in {places}: install helium_agents again")


def example_files() -> Iterator[Path]:
    """The modules and their data, relative to what holds the folder, in order."""
    folder = examples_folder()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder.parent)
        is_made_or_hidden = any(
            part == "__pycache__" or part.startswith(".") for part in relative.parts
        )
        if path.is_file() and not is_made_or_hidden:
            yield relative


@click.command(
    "examples",
    epilog=examples("helium examples my_agents", "helium examples my_agents --overwrite"),
)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option("--overwrite", is_flag=True, help="Replace files of these names in DIR.")
@debug_option
def examples_command(directory: Path, overwrite: bool) -> None:
    """Write the examples to a directory, to read, run and change.

    They are document QA (what `helium demo` runs), a debate, reflection and tools, with a few rows:
    the package agents_examples, which comes to stand in DIR. DIR is made if needed; other files in
    it stay as they are.
    """
    files = list(example_files())
    if not overwrite:
        _check_nothing_is_there(files, directory)
    try:
        for file in files:
            _place(examples_folder().parent / file, directory / file)
    except OSError as error:
        place = error.filename2 or error.filename  # of a rename the place, not the copy
        raise InputError(
            f"cannot write the examples to {directory}: {error.strerror}"
            f"{f' ({relative(place)})' if place else ''}. Choose another directory"
        ) from error
    click.echo(f"Wrote {count(len(files), 'file')} to {directory}:")
    for file in files:
        click.echo(f"  {file}")
    click.echo("\nTry one of them:")
    if directory.resolve() != Path.cwd():
        click.echo(f"  cd {shlex.quote(str(directory))}")
    click.echo(
        f"  helium run {EXAMPLES}/document_qa.py:answer \\\n"
        f"      --input {EXAMPLES}/data/documents.jsonl --output answers.jsonl --memo memo"
    )


def _check_nothing_is_there(files: Sequence[Path], directory: Path) -> None:
    there = [str(file) for file in files if os.path.lexists(directory / file)]
    if there:
        raise InputError(
            f"{directory} has {', '.join(there)} already: add --overwrite to replace what is "
            "there, or choose another directory"
        )


def _place(source: Path, target: Path) -> None:
    """Copy a file, whole, in place of what is there; what a link points to stays as it is."""
    os.makedirs(target.parent, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, part)  # without its mode: what is installed may be read-only
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
