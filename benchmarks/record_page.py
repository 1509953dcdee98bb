"""Runs the commands of a page of the documentation, and puts what they print below them.

    python -m benchmarks.record_page docs/tutorial.md

The blocks are run from the top of the page to its end, in an empty folder and on the real engine:
Python that begins with the name of a file is written to it, commands are given to a shell. A block
of text right below commands is replaced. What a comment says is not run is not run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

_ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?P<comment><!-- [^>]*-->\n)?```(?P<language>python|sh)\n(?P<source>.*?)^```\n"
    r"(?P<between>\n(?:<!-- [^>]*-->\n)?```text\n)?(?P<shown>(?(between).*?^```\n|))",
    re.MULTILINE | re.DOTALL,
)
_FILE_NAME = re.compile(r"# (\w+\.py)\n")
_HELIUM = f'helium() {{ {sys.executable} -m helium_agents.cli "$@"; }}\nset -e\n'


@click.command()
@click.argument("page", type=click.Path(path_type=Path, exists=True))
def main(page: Path) -> None:
    """Run, and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kept in (_ROOT / "agents_examples", *page.parent.glob("*.trace")):
            (folder / kept.name).symlink_to(kept.resolve())

        def recorded(block: re.Match[str]) -> str:
            return _recorded(block, folder)

        page.write_text(_BLOCK.sub(recorded, page.read_text("utf-8")), "utf-8")


def _recorded(block: re.Match[str], folder: Path) -> str:
    """The block, and below it what it printed."""
    source = block["source"]
    if "not run:" in (block["comment"] or ""):
        return block[0]
    if block["language"] == "python":
        if (name := _FILE_NAME.match(source)) is not None:
            (folder / name[1]).write_text(source, "utf-8")
        return block[0]
    click.echo(source, nl=False)
    run = subprocess.run(
        ["bash", "-c", _HELIUM + source],
        cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    if block["between"] is None:
        return block[0]
    before = block[0].removesuffix(block["shown"])
    printed = "\n".join(line.rstrip() for line in run.stdout.strip("\n").split("\n"))
    return f"{before}{printed}\n```\n"


if __name__ == "__main__":
    main()
