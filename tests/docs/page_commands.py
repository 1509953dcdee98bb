"""Runs a page's commands: `helium` in this process with a scripted engine, files by a shell."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest

import click
import pytest
from click.testing import CliRunner
from page_blocks import ROOT

from helium_agents.cli import main

_OF_FILES = {"cat", "echo", "head", "ls", "printf", "wc"}
_TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
_EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of a block, as words; comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def run_commands(text: str) -> str:
    """What the commands of a block print, in the current directory."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "helium":
            result = CliRunner().invoke(main, words[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}"
            printed += result.stdout
        elif words[0] in _OF_FILES:
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
            printed += done.stdout
        else:
            check_exists(words)
    return printed


def check_exists(words: list[str]) -> None:
    """Fails for a command, option, target, extra or module that there is not."""
    match words:
        case ["helium", *arguments]:
            check_options(main, arguments)
        case ["make", target, *_]:
            assert target in _TARGETS, f"make {target}"
        case ["pip", "install", *arguments]:
            extras = re.findall(r"\[(\w+)\]", " ".join(arguments))
            assert set(extras) <= _EXTRAS.keys(), words
        case ["python", "-m", module, *_]:
            assert find_spec(module), f"python -m {module}"
        case ["vllm", "serve", *arguments]:
            module, _, name = arguments[arguments.index("--scheduler-cls") + 1].rpartition(".")
            assert hasattr(import_module(module), name), words
        case _:
            pytest.fail(f"{shlex.join(words)!r} is not run: say why, <!-- not run: ... -->")


def check_options(command: click.Command, arguments: list[str]) -> None:
    """Fails where a command does not know a subcommand or an option."""
    if isinstance(command, click.Group) and arguments and arguments[0][0] != "-":
        assert arguments[0] in command.commands, f"helium has no {arguments[0]}"
        return check_options(command.commands[arguments[0]], arguments[1:])
    known = {name for option in command.params for name in option.opts} | {"--help"}
    given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert given <= known, f"helium {command.name} has no {', '.join(given - known)}"


def differences(printed: str, shown: str) -> list[str]:
    """Words of which one is printed and another one shown; numbers may differ by 15%.

    What is simulated changes with the schedules, and the pages need not follow each time.
    """
    pairs = zip_longest(printed.split(), shown.split(), fillvalue="")
    return [f"{old} -> {new}" for new, old in pairs if not is_about(new, old)]


def is_about(word: str, shown: str) -> bool:
    try:
        return word == shown or number(word) == pytest.approx(number(shown), rel=0.15)
    except ValueError:  # one of them is no number
        return False


def number(word: str) -> float:
    return float(word.replace(",", "").strip("%:;()"))
