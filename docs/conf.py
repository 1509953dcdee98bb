"""How Sphinx builds the site: pages as they lie in the repository, docstrings and commands.

    sphinx-build -W --keep-going -c docs . docs/_build

The source directory is the repository, so that one link serves readers of the files and of the
site. Nothing is loaded from the network, neither by the build nor by a page.
"""

from __future__ import annotations

import click
from sphinx.application import Sphinx

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
smartquotes = False  # options keep their two dashes
default_role = "code"  # docstrings have single backticks, as Markdown has

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_extra_path = ["root"]  # index.html, which leads to docs/index.html
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("sphinx-click-process-epilog", _as_code)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _with_asterisks)


def _as_code(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Examples and exit codes of a command keep their columns."""
    lines[:] = [f"{line}:\n" if line.endswith(":") else f"  {line}" for line in lines]


def _with_asterisks(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """An asterisk in the help of a command means itself."""
    lines[:] = [line.replace("*", "\\*") for line in lines]
