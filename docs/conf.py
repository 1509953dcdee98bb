"""How Sphinx builds the site: pages as they lie in the repository, docstrings and commands.

    sphinx-build -W --keep-going -c docs . docs/_build

The source directory is the repository, so that one link serves readers of the files and of the
site. Nothing is loaded from the network, neither by the build nor by a page.
"""

from __future__ import annotations

import re

import click
from sphinx.application import Sphinx

_OPTION = re.compile(r"(?<!option::)(?<!,)([ (])(--[a-z][a-z-]+)")
_ASTERISK = re.compile(r"(?<!\*)\*(?!\*)")

project = "helium_agents"
author = "the authors of helium_agents"
html_title = "helium_agents"
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]

root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*.rst", "benchmarks/*.md", "CHANGELOG.md"]
exclude_patterns = ["docs/_build", "**/.*", ".*"]
# A reference that leads nowhere is a warning, and warnings fail; types in signatures may be
# those of Python and of other packages, whose pages are not here.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]
show_warning_types = True

myst_heading_anchors = 3
smartquotes_action = "D"  # a dash between an argument and what it means; quotes stay
default_role = "code"  # docstrings have single backticks, as Markdown has

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_theme_options = {  # a hundred columns of code fit
    f"{theme}_css_variables": {"code-font-size": "0.75rem"} for theme in ("light", "dark")
}
html_extra_path = ["root"]  # index.html, which leads to docs/index.html
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("sphinx-click-process-epilog", _as_code)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _as_meant)


def _as_code(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Examples and exit codes of a command keep their columns."""
    bare = [line.removeprefix("|").removeprefix(" ") for line in lines]
    lines.clear()
    for line in bare:
        lines.extend(
            ["", line, "", ".. code-block:: text", ""] if line.endswith(":") else [f"  {line}"]
        )


def _as_meant(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """In the help of a command an asterisk is one, and other options are code."""
    parts = "\n".join(lines).split("`")  # every other one is code already
    for number in range(0, len(parts), 2):
        parts[number] = _OPTION.sub(r"\1``\2``", _ASTERISK.sub(r"\\*", parts[number]))
    lines[:] = "`".join(parts).split("\n") if lines else []
