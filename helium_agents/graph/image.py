"""Images in messages: known by their content, and marked in the text where they stand.

A message with images keeps its text as text: at an image's place is a mark that says what stands
there, and the images are beside the text, in the same order. So whatever reads texts (plans,
traces, provenance) shows images without knowing them, and only engines put the two together, by
`pieces`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from blake3 import blake3

from helium_agents.errors import PromptError

_SHOWN_DIGITS: Final = 16

_BEGINNINGS: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
)


@dataclass(frozen=True, slots=True, repr=False)
class Image:
    """An image, as the bytes of a file; made by `image(...)`.

    Args:
        data: A PNG, JPEG, GIF or WebP file.

    Attributes:
        kind: Which of these it is, in lower case.
        digest: 64 hex digits by which keys know it.

    Raises:
        PromptError: It is none of these.
    """

    data: bytes
    kind: str = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _kind_of(self.data))
        object.__setattr__(self, "digest", blake3(self.data).hexdigest())

    @property
    def mark(self) -> str:
        """What stands for it in a text."""
        return f"[image of {len(self.data):,} bytes, {self.digest[:_SHOWN_DIGITS]}]"

    @property
    def data_url(self) -> str:
        """All of it as a URL, which servers take."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"

    def __repr__(self) -> str:
        return f"<Image {self.mark}>"

    def __str__(self) -> NoReturn:
        raise PromptError(
            "an image was used as text: give it to the message beside the text, as in "
            "user('What is this?', picture), or to a slot of prompt(...)"
        )

    def __format__(self, format_spec: str) -> NoReturn:
        str(self)
        raise AssertionError("unreachable")


def pieces(content: str, images: Sequence[Image]) -> Iterator[str | Image]:
    """What a message says, its texts and images in order; empty texts are left out.

    Args:
        content: The text, with the marks of the images.
        images: In the order of their marks.
    """
    for image in images:
        before, _, content = content.partition(image.mark)
        if before:
            yield before
        yield image
    if content:
        yield content


def _kind_of(data: bytes) -> str:
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise PromptError(
        f"image(...) got {len(data):,} bytes that are no PNG, JPEG, GIF or WebP file: save the "
        "picture as one of them"
    )
