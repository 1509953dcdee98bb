"""Which model a server's answers are of, how far that is known, and whether it is still so.

A server tells its version and a digest of its configuration, but not which weights it has: only who
runs it knows. So with `weights=` answers are kept for good, and without for a session. A server
that says something else than before is another one: from then on nothing is remembered.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from blake3 import blake3

from helium_agents.engines.cached_model import cache_root
from helium_agents.engines.engine import AnswersLast
from helium_agents.engines.openai.about import About, Asking, NotThere
from helium_agents.engines.openai.settings import ServerSettings
from helium_agents.errors import EngineStartError


class ServerIdentity:
    """What keys say of a server's model.

    Args:
        settings: Of the engine.
        asking: Makes what asks the server.
    """

    def __init__(self, settings: ServerSettings, asking: Callable[[], Asking]) -> None:
        self._settings = settings
        self._asking = asking
        self._version: str | None = None
        self._fingerprint: str | None = None
        self._has_changed = False

    @cached_property
    def parts(self) -> dict[str, str]:
        """What the identity is made of, by name.

        Raises:
            EngineStartError: The server has to be asked, and does not answer.
        """
        parts = self._settings.deciding()
        weights = self._settings.weights
        if weights is None:
            return parts | {"weights": "not known"}
        about = self._ask_or_recall()
        self._version, self._fingerprint = about.version, about.fingerprint
        told = {"weights": weights, "version": about.version, "fingerprint": about.fingerprint}
        return parts | {name: text for name, text in told.items() if text is not None}

    @property
    def digest(self) -> str:
        """Hex digest of `parts`."""
        return blake3(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()

    @property
    def answers_last(self) -> AnswersLast:
        """How long an answer may be remembered."""
        if self._has_changed:
            return "not at all"
        return "a session" if self._settings.weights is None else "for good"

    def note(self, *, version: str | None = None, fingerprint: str | None = None) -> None:
        """The server has told something of itself; `None` where it did not."""
        was_version, was_fingerprint = self._version, self._fingerprint
        self._version, self._fingerprint = version or was_version, fingerprint or was_fingerprint
        for what, was, is_now in (
            ("version", was_version, self._version),
            ("system_fingerprint", was_fingerprint, self._fingerprint),
        ):
            if was not in (None, is_now) and not self._has_changed:
                self._has_changed = True
                warnings.warn(
                    f"the server at {self._settings.base_url} is another than it was: its {what} "
                    f"was {was!r} and is {is_now!r}. Its answers are used, but from now on neither "
                    "remembered nor taken from the memo",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _ask_or_recall(self) -> About:
        """What the server says of itself or, where nobody answers, what it said the last time.

        A program whose calls are all remembered must not need the server.
        """
        settings = self._settings
        place = json.dumps([settings.base_url, settings.model, settings.weights])
        path = cache_root() / "servers" / f"{blake3(place.encode()).hexdigest()}.json"
        try:
            about = self._asking().about(has_fingerprint=True)
        except NotThere as error:
            recalled = _recalled(path)
            if recalled is None:
                raise EngineStartError(str(error)) from error.__cause__
            return recalled
        with suppress(OSError):  # a cache that can't be written only costs a start without server
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(about.model_dump_json(), "utf-8")
        return about


def _recalled(path: Path) -> About | None:
    with suppress(OSError, ValueError):  # pydantic's errors are such
        return About.model_validate_json(path.read_text("utf-8"))
    return None
