"""Options that several commands have, written once."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import click

from helium_agents.batch import Batch
from helium_agents.runtime.options import SessionOptions

Command = TypeVar("Command", bound=Callable[..., Any])

_DEBUG = "helium_agents.debug"

_NAMES = "|".join({*signature(Batch).parameters, *SessionOptions.__annotations__})
_OPTION = re.compile(
    rf"(?<![\w/])({_NAMES})="
    r"(?:True\b|\"([\w-]+)\"|([A-Z]+)\b|(?!\w))"
)


class _NamedPath(click.Path):
    """A path; an empty one would mean the current directory, and is a variable that is unset."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty: is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


FILE = _NamedPath(path_type=Path, dir_okay=False)
DIRECTORY = _NamedPath(path_type=Path, file_okay=False)
POSITIVE = click.IntRange(min=1)


def is_debug() -> bool:
    """Whether tracebacks were asked for."""
    return bool(click.get_current_context().meta.get(_DEBUG))


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value


def examples(*lines: str, heading: str = "Examples") -> str:
    """A paragraph of a command's help that click leaves as it is."""
    return "\n".join(["\b", f"{heading}:", *(f"  {line}" for line in lines)]) + "\n\n"


def in_shell(message: str) -> str:
    """A message about a batch, with options as the shell has them, not Python.

    ``retry_failed=True`` becomes ``--retry-failed``, and ``on_error="collect"`` becomes
    ``--on-error collect``.
    """

    def option(found: re.Match[str]) -> str:
        name, *values = found.groups(default="")
        return f"--{name.replace('_', '-')} {''.join(values)}".rstrip()

    return _OPTION.sub(option, message)


def echo_error(message: str) -> None:
    """Print an error on stderr as every command does."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)


def echo_warning(message: str) -> None:
    """Print a warning on stderr as every command does."""
    click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {message}", err=True)


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Show tracebacks.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
)
workflow_argument = click.argument("target", metavar="FILE:WORKFLOW")


def engine_options(command: Command) -> Command:
    """`--model` and how vLLM is to run it, or which server has it."""
    options = (
        click.option(
            "--model",
            metavar="DIR_OR_NAME",
            help="A model directory, a name on the Hugging Face hub, or `random` for a model whose "
            "text means nothing. Without it the embedded one answers, SmolLM2-135M-Instruct. With "
            "--server its name there.",
        ),
        click.option(
            "--server",
            metavar="URL",
            help="Ask a server with the OpenAI API, e.g. http://localhost:8000/v1. The key comes "
            "from OPENAI_API_KEY.",
        ),
        click.option(
            "--weights",
            metavar="TEXT",
            help="With --server: what tells the weights that it has, e.g. a version. You vouch for "
            "it; without it nothing is kept in a memo.",
        ),
        click.option(
            "--tokenizer",
            metavar="DIR_OR_NAME",
            help="With --server of vLLM's: renders prompts here and sends token ids.",
        ),
        click.option(
            "--dtype", metavar="NAME", default="auto", show_default=True, help="Of the weights."
        ),
        click.option(
            "--max-model-tokens",
            type=POSITIVE,
            metavar="N",
            help="Most tokens of a prompt and its answer together. [default: the model's own]",
        ),
        click.option(
            "--kv-tokens",
            type=POSITIVE,
            metavar="N",
            help="Tokens that the KV cache holds. [default: what fits]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
