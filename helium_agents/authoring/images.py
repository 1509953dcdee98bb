"""`image(...)`: an image for a message, from wherever it is."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from helium_agents.errors import PromptError
from helium_agents.graph.arguments import complaint
from helium_agents.graph.image import Image


@runtime_checkable
class Saves(Protocol):
    """An image of Pillow, which need not be installed."""

    def save(self, fp: Any, format: str) -> None:
        """Write it to a file that is open."""
        ...


def image(source: str | Path | bytes | Saves) -> Image:
    """An image that a message can have, as in `user("What is this?", picture)`.

    It is read at once, and known by its content: a call is the same if the bytes are.

    Args:
        source: A file's path, the bytes of a PNG, JPEG, GIF or WebP file, a `data:` URL, or an
            image of Pillow, of which a PNG file is made.

    Raises:
        PromptError: It is something else, or the file cannot be read.
    """
    if isinstance(source, str | Path):
        return Image(_read(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return Image(bytes(source))
    if isinstance(source, Saves):
        file = BytesIO()
        try:
            source.save(file, "PNG")
        except (OSError, ValueError) as error:  # CMYK, floats, a file that is closed
            raise PromptError(
                f"image({type(source).__name__}) cannot be saved as PNG: {error}: convert it to "
                'RGB first (source.convert("RGB"))'
            ) from error
        return Image(file.getvalue())
    want = "a path, the bytes of a file, a data: URL or an image of Pillow"
    raise PromptError(complaint("source", source, want))


def _read(source: str | Path) -> bytes:
    if isinstance(source, str) and source.startswith("data:"):
        head, _, data = source.partition(",")
        try:
            if head.endswith(";base64"):
                return base64.b64decode(data, validate=True)
        except binascii.Error:
            pass
        raise PromptError(f"image({source[:40]!r}...) is no data: URL in base64")
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise PromptError(
            f"image({source!r}): what a URL leads to may change, and an image is known by its "
            "content: download it, and give its bytes"
        )
    try:
        return Path(source).read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero in it is no name
        raise PromptError(f"image({str(source)!r}) cannot be read: {error}") from error
