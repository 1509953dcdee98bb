"""The blocks of code on a page, and what the page says of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "benchmarks/README.md")
)

_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->", re.DOTALL)
_RECORDED = re.compile(r"<!-- recorded: (.+?) -->", re.DOTALL)


class Block(NamedTuple):
    """A block of code.

    Args:
        line: Where it begins, from 1.
        language: What its fence says.
        text: What is in it.
        not_run: Why it cannot be run, from a comment above it; empty where it is run.
        recorded: Where what it shows comes from, from a comment above it, in place of comparing.
    """

    line: int
    language: str
    text: str
    not_run: str
    recorded: str


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    blocks, comment = [], ""
    for token in MarkdownIt().enable("table").parse((ROOT / page).read_text("utf-8")):
        if token.type == "fence":
            assert token.map is not None
            blocks.append(
                Block(
                    token.map[0] + 1,
                    token.info.strip(),
                    token.content,
                    reason(_NOT_RUN, comment),
                    reason(_RECORDED, comment),
                )
            )
        comment = token.content if token.type == "html_block" else ""
    return blocks


def reason(pattern: re.Pattern[str], comment: str) -> str:
    found = pattern.search(comment)
    return found[1] if found else ""
