"""`helium demo`: the document example on its bundled rows, to see the package work."""

from __future__ import annotations

from pathlib import Path

import click

from helium_agents.cli.examples_command import examples_folder
from helium_agents.cli.execute import engine_of, execute, new_batch
from helium_agents.cli.options import DIRECTORY, FILE, debug_option, examples
from helium_agents.cli.report import MEANINGLESS, count, savings
from helium_agents.engines.embedded import ORIGIN
from helium_agents.engines.model_source import RANDOM
from helium_agents.errors import InputError, shortened

_QUESTION_WIDTH, _ANSWER_WIDTH = 41, 26


@click.command(epilog=examples("helium demo", "helium demo --model Qwen/Qwen3-0.6B"))
@click.option(
    "--model", metavar="DIR_OR_NAME",
    help="A model in place of SmolLM2-135M-Instruct; `random` for one whose text means nothing.",
)  # fmt: skip
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

    Three readers answer each question from its document, and where they disagree an editor
    decides: the workflow agents_examples/document_qa.py, which `helium examples` writes for you.
    The answers are shown beside the true ones, with a score. Run it twice: the second time every
    answer is remembered.
    """
    folder = examples_folder()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make {output.parent}: {error.strerror}. Choose another place with --output "
            "and --memo"
        ) from error
    batch = new_batch(
        f"{folder / 'document_qa.py'}:answer",
        folder / "data" / "documents.jsonl",
        output,
        engine=engine_of(model=model),
        memo=memo,
        overwrite=True,
    )
    documents = count(len(batch.rows), "document")
    click.echo(f"Readers answer questions about {documents}.\nModel: {model or ORIGIN}.")
    ending = execute(batch, shows_progress=True, has_resume=False)
    if ending.status == "finished":
        _show_answers(output)
        if model == RANDOM:
            click.echo(f"\n{MEANINGLESS}")
        click.echo(f"\n{savings(batch.summary, has_memo=True, seconds=ending.seconds)}\n")
        if batch.summary.num_computed:
            click.echo("Run it again: every call will come from the memo.")
        else:
            click.echo("Every call came from the memo, so the engine was not even started.")
        click.echo(f"Answers: {output}   memo: {memo}")
    ending.end()


def _show_answers(path: Path) -> None:
    """Each question with the true answer, the model's and its score, and what they come to."""
    # can be imported in a wheel too, since the batch has loaded its workflow from there
    from agents_examples.document_qa import DocumentAnswers
    from agents_examples.rows import Document, read_rows
    from agents_examples.score import score

    lines = path.read_text(encoding="utf-8").splitlines()
    results = [DocumentAnswers.model_validate_json(line) for line in lines]
    click.echo(f"\n{_row('question', 'true answer', 'answer', 'score')}")
    scores = []
    for document, result in zip(read_rows(Document, "documents.jsonl"), results, strict=True):
        for question, given in zip(document.questions, result.answers, strict=True):
            scores.append(score(given.answer, question))
            truth = question.true_answer()
            click.echo(_row(question.question, truth, given.answer, f"{scores[-1]:.2f}"))
    num_right = sum(each == 1 for each in scores)
    click.echo(
        f"\nScore {sum(scores) / len(scores):.2f} (numbers equal, text by token F1, as TAT-QA "
        f"does); {num_right} of {len(scores)} are exactly right."
    )


def _row(question: str, truth: str, answer: str, score: str) -> str:
    cells = (
        f"{shortened(' '.join(text.split()), width):<{width}}"
        for text, width in (
            (question, _QUESTION_WIDTH), (truth, _ANSWER_WIDTH), (answer, _ANSWER_WIDTH),
        )
    )  # fmt: skip
    return f"{'  '.join(cells)}  {score:>5}"
