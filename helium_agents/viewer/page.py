"""The page: one HTML file with everything in it, and the runs too where it is to be kept.

Data stand in it compressed and in base 64, so that nothing in a prompt can end their element. The
page may run the scripts that are in it and no others, and connect to nobody but its own server.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_STYLES = ("vendor/uPlot.min.css", "page.css")
_SCRIPTS = (
    "vendor/uPlot.iife.min.js", "vendor/dagre.min.js", "base.js", "data.js", "details.js",
    "overview.js", "graph.js", "rows.js", "timeline.js", "prefixes.js", "table.js", "compare.js",
    "main.js",
)  # fmt: skip


def page(data: Mapping[str, Any] | None = None) -> str:
    """The page.

    Args:
        data: By name, what it would ask its server for; `None` where it has one.
    """
    styles, scripts = ([_static(name) for name in names] for names in (_STYLES, _SCRIPTS))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_digest, scripts))}",
            f"style-src {' '.join(map(_digest, styles))}",
            "img-src data:",
            "connect-src 'self'" if data is None else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    blocks = (
        f'<script type="application/octet-stream" data-name="{name}">'
        f"{base64.b64encode(compressed(value)).decode('ascii')}</script>"
        for name, value in (data or {}).items()
    )
    parts = {
        "%POLICY%": policy,
        "%STYLES%": "\n".join(f"<style>{style}</style>" for style in styles),
        "%DATA%": "\n".join(blocks),
        "%SCRIPTS%": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    head, *rest = _static("page.html").split("%")
    found = [head]
    for place, text in enumerate(rest):
        found.append(parts[f"%{text}%"] if place % 2 == 0 else text)
    return "".join(found)


def compressed(value: Any) -> bytes:
    """JSON for the page."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: lone surrogates stay
    return gzip.compress(text.encode("ascii"), 6, mtime=0)


@cache
def _static(name: str) -> str:
    return files("helium_agents.viewer").joinpath("static", name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
