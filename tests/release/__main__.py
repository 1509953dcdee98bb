"""`python -m tests.release`: the wheel, in an empty environment, runs an example on a server.

It builds the wheel, installs it with what it depends on, and nothing else, and lets it run an
example against a scripted server in this process. What a user has who runs `pip install` is tried,
not what a checkout has.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engines" / "openai"))

from scripted_server import KEY, MODEL, ScriptedServer

ROOT = Path(__file__).parents[2]
# what the wheel has counts, and not what is found beside it
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
HEAVY = ("torch", "vllm", "transformers", "numpy")


def main() -> None:
    """Do all of it; ends with an error where something is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = installed(built(folder), folder)
        size = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if path.is_file())
        print(f"installed: {size / 1e6:.0f} MB with Python's own pip")
        found = said(python, "-c", f"import importlib.util as u; print([n for n in {HEAVY} "
                     "if u.find_spec(n)])", folder=folder)  # fmt: skip
        assert found.strip() == "[]", f"the wheel brings {found}"
        says_what_is_missing(python, folder)
        asyncio.run(runs_on_a_server(python, folder))
    print("the wheel is well")


def built(folder: Path) -> Path:
    """The wheel."""
    line = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    said(Path(sys.executable), *line, "--wheel-dir", str(folder), str(ROOT), folder=ROOT)
    (wheel,) = folder.glob("*.whl")
    print(f"built: {wheel.name}, {wheel.stat().st_size / 1e3:.0f} kB")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of an environment with the wheel and what it depends on."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    said(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", str(wheel),
         folder=folder)  # fmt: skip
    return python


def says_what_is_missing(python: Path, folder: Path) -> None:
    """Without vLLM the error names files that are there."""
    (folder / "config.json").write_text("{}")  # else it is no model directory
    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    (folder / "flow.py").write_text(
        "from helium_agents import llm, operator, user\n\n\n@operator\n"
        "async def answer(row: dict) -> str:\n    return (await llm(user(row['text']))).text\n"
    )
    line = [str(python.parent / "helium"), "run", "flow.py:answer", "--input", "rows.jsonl"]
    done = subprocess.run(
        [*line, "--output", "out.jsonl", "--model", str(folder)],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lists = re.findall(r"-r (\S+)", done.stderr)
    assert done.returncode == 1 and len(lists) == 2 and all(map(os.path.isfile, lists)), done
    print(f"without vLLM: {' '.join(done.stderr.split())}")


async def runs_on_a_server(python: Path, folder: Path) -> None:
    """An example, computed by a server; the second time from the memo."""
    helium = str(python.parent / "helium")
    said(python, helium, "examples", "mine", folder=folder)
    async with ScriptedServer(key=KEY, refuse=lambda body: None) as server:
        for number in range(2):
            line = [helium, "run", "agents_examples/debate.py:debate"]
            line += ["--input", "agents_examples/data/questions.jsonl", "--output", "out.jsonl"]
            line += ["--overwrite", "--memo", "memo", "--json", "--server", server.url]
            line += ["--model", MODEL, "--weights", "scripted"]
            process = await asyncio.create_subprocess_exec(
                str(python), *line,
                cwd=folder / "mine", env=ENVIRONMENT | {"OPENAI_API_KEY": KEY},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            report = json.loads(out)
            print(f"run {number + 1}: {report['rows_written']} rows, {report['computed']} computed")
            assert (report["computed"] > 0) == (number == 0), report
        assert server.bodies, "the server was never asked"


def said(python: Path, *arguments: str, folder: Path) -> str:
    """What a program prints; its failure is one."""
    done = subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    main()
