"""`helium demo`: the document example on its bundled rows, to see the package work."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from helium_agents.cli.options import DIRECTORY, FILE, debug_option, examples, is_debug
from helium_agents.errors import InputError

if TYPE_CHECKING:
    from helium_agents.cli.job import Result

_NUM_SHOWN = 4
_SHOWN_CHARACTERS = 88


@click.command(epilog=examples("helium demo", "helium demo --model Qwen/Qwen3-0.6B"))
@click.option("--model", metavar="DIR_OR_NAME", help="A model in place of the embedded one.")
@click.option(
    "--memo", type=DIRECTORY, default=Path(".helium/demo-memo"), show_default=True,
    help="Directory that remembers answers.",
)  # fmt: skip
@click.option(
    "--output", type=FILE, default=Path(".helium/demo.jsonl"), show_default=True,
    help="Results; overwritten.",
)  # fmt: skip
@debug_option
def demo(model: str | None, memo: Path, output: Path) -> None:
    """Answer questions about bundled documents.

    Three experts read each document for each question, and their views are merged: the workflow
    agents_examples/document_qa.py. Run it twice: the second time every answer is remembered.
    """
    import agents_examples
    from helium_agents.cli.execute import end
    from helium_agents.cli.job import Job
    from helium_agents.cli.report import count

    folder = Path(agents_examples.__file__).parent
    _make_folder(output.parent)
    job = Job(
        target=f"{folder / 'document_qa.py'}:answer",
        input_path=folder / "data" / "documents.jsonl",
        output_path=output,
        model=model,
        memo=memo,
        overwrite=True,
    )
    documents = count(len(job.batch.rows), "document")
    click.echo(
        f"Experts answer questions about {documents} with {model or 'a small embedded model'}."
    )
    result = job.run(shows_traceback=is_debug(), run_again="Run it again")
    if result.ending.status == "finished":
        _show_answers(output)
        _report(result)
    end(result.ending)


def _report(result: Result) -> None:
    from helium_agents.cli.report import MEANINGLESS, savings

    if result.job.model is None:
        click.echo(f"\n{MEANINGLESS}")
    click.echo(f"\n{savings(result.summary, has_memo=True, seconds=result.seconds)}\n")
    if result.summary.num_computed:
        click.echo("Run it again: every call will come from the memo.")
    else:
        click.echo("Every call came from the memo, so the engine was not even started.")
        click.echo("Calls that only led up to others, like the experts', were not asked again.")
    click.echo(f"Answers: {result.job.output_path}   memo: {result.job.memo}")


def _show_answers(path: Path) -> None:
    with path.open(encoding="utf-8") as lines:
        documents = [json.loads(line) for line in islice(lines, _NUM_SHOWN)]
    for document in documents:
        for answer in document["answers"][:1]:
            click.echo(f"\n{_shorten(answer['question'])}\n  -> {_shorten(answer['answer'])}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {path}: {error.strerror}. Choose another place with --output and --memo"
        ) from error


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
