"""The key of a server: read when it is needed, and shown nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from helium_agents.errors import EngineStartError

VARIABLE = "OPENAI_API_KEY"


class ApiKey:
    """A key, or where it is.

    Args:
        given: The key, a path of a file that has it, or `None` for the environment variable
            `OPENAI_API_KEY`, which may be unset where the server asks for no key.

    Raises:
        EngineStartError: It is something else.
    """

    def __init__(self, given: str | Path | None) -> None:
        if not (given is None or isinstance(given, str | Path)):
            raise EngineStartError(
                f"OpenAIServer(api_key=...) is of type {type(given).__name__}: give the key as a "
                f"str, a Path of a file that has it, or None for the variable {VARIABLE}"
            )
        self._last = ""  # never shown: no class here has a __repr__ that tells attributes
        self._given = given if given is None or isinstance(given, Path) else SecretStr(given)

    def __repr__(self) -> str:
        return "ApiKey(...)"

    def read(self) -> str:
        """The key; empty for none.

        Raises:
            EngineStartError: The file cannot be read, or what is there cannot be a key.
        """
        if self._given is None:
            place, text = f"the environment variable {VARIABLE}", os.environ.get(VARIABLE, "")
        elif isinstance(self._given, Path):
            place = f"the file {self._given}"
            try:
                text = self._given.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise EngineStartError(
                    f"the API key cannot be read from {place}: {error}"
                ) from None
        else:
            place, text = "api_key=", self._given.get_secret_value()
        key = text.strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise EngineStartError(
                f"what {place} has is no API key: it has spaces, line ends or letters beyond ASCII"
            )
        self._last = key
        return key

    def hide(self, text: str) -> str:
        """A text of the server's without the key, which it may repeat."""
        return text.replace(self._last, "***") if self._last else text
