"""The site is built without a warning, and its pages ask nobody for anything."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from page_blocks import ROOT

pytest.importorskip("furo", reason="Sphinx and its theme come with requirements/docs.txt")
pytest.importorskip("langgraph", reason="LangGraph comes with requirements/bench.txt")

pytestmark = pytest.mark.slow

LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]+)\"|<link[^>]*\shref=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-d", f"{folder}.doctrees"]
    done = subprocess.run(
        [sys.executable, *command, "-c", "docs", ".", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert site / "index.html" in pages and len(pages) > 15
    assert 'id="helium_agents.Session"' in (site / "docs" / "api.html").read_text("utf-8")
    for page in pages:
        for match in LOADED.finditer(page.read_text("utf-8")):
            address = match[1] or match[2]
            assert "//" not in address, f"{page.name}: {address}"


def test_pictures_are_what_is_drawn() -> None:
    spec = spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None and spec.loader is not None
    pictures = module_from_spec(spec)
    spec.loader.exec_module(pictures)
    for draw in pictures.PICTURES:
        path = pictures.FOLDER / f"{draw.__name__}.svg"
        assert path.read_text("utf-8") == draw().svg(), "run `python docs/pictures.py`"
