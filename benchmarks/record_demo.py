"""Runs `helium demo` twice in a terminal, and records it for docs/demo.md.

    python -m benchmarks.record_demo

What the terminal showed is docs/demo.cast, and as a moving picture docs/images/demo.gif; pauses are
cut to two seconds. What the demo printed is put into docs/demo.md: of the first run, with a new
memo, all but the questions after the first twelve, and of the second its counts. The recorder and
the painter are asciinema and agg (requirements/recording.txt).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"
_PAGE, _CAST, _PICTURE = _DOCS / "demo.md", _DOCS / "demo.cast", _DOCS / "images" / "demo.gif"
_BLOCK = re.compile(r"(?<=<!-- demo:start -->\n).*(?=<!-- demo:end -->)", re.DOTALL)
_NUM_SHOWN = 12
_COLUMNS, _LINES = 108, 36
_LONGEST_PAUSE_S = 2

_TERMINAL = """
set -e -o pipefail
cd {folder}
helium() {{ {python} -m helium_agents.cli "$@"; }}
for run in first second; do
    echo '$ helium demo'
    helium demo | tee $run  # the progress is still written to the terminal
done
"""


def main() -> None:
    """Run, and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _record(folder, folder / "demo.cast", folder / "demo.gif")
        first, second = ((folder / run).read_text("utf-8").rstrip() for run in ("first", "second"))
        _CAST.write_bytes((folder / "demo.cast").read_bytes())
        _PICTURE.write_bytes((folder / "demo.gif").read_bytes())
    text = (
        f"```console\n$ helium demo\n{_shortened(first)}\n$ helium demo\n{_counts(second)}\n```\n"
    )
    page = _PAGE.read_text("utf-8")
    replaced, num_blocks = _BLOCK.subn(lambda _: text, page)
    assert num_blocks == 1, "docs/demo.md has no place for it"
    _PAGE.write_text(replaced, "utf-8")


def _record(folder: Path, cast: Path, picture: Path) -> None:
    """Run the demo in a terminal, and paint what it showed."""
    script = _TERMINAL.format(folder=shlex.quote(str(folder)), python=shlex.quote(sys.executable))
    (folder / "terminal.sh").write_text(script, "utf-8")
    size = ["--cols", str(_COLUMNS), "--rows", str(_LINES)]
    pause = ["--idle-time-limit", str(_LONGEST_PAUSE_S)]
    command = ["--command", f"bash {shlex.quote(str(folder / 'terminal.sh'))}"]
    title = ["--title", "helium demo, twice", "--quiet", "--env", "TERM"]
    subprocess.run(["asciinema", "rec", *command, *title, *size, *pause, str(cast)], check=True)
    runs = [folder / "first", folder / "second"]
    if not all(run.exists() and run.stat().st_size for run in runs):
        raise SystemExit(f"the demo failed, and nothing was changed: {cast.read_text('utf-8')}")
    painted = ["--theme", "github-light", "--font-size", "13", "--fps-cap", "10"]
    last = ["--last-frame-duration", "6"]
    subprocess.run(["agg", *pause, *painted, *last, str(cast), str(picture)], check=True)


def _shortened(text: str) -> str:
    """All but the questions after the first."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("question ")) + 1
    end = lines.index("", first)
    num_left_out = end - first - _NUM_SHOWN
    shown = [*lines[: first + _NUM_SHOWN], f"... {num_left_out} more", *lines[end:]]
    return "\n".join(line.rstrip() for line in shown)


def _counts(text: str) -> str:
    """From the counts on."""
    return "...\n" + text[text.index("  asked ") :]


if __name__ == "__main__":
    main()
