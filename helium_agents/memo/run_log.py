"""The run log: which run this is, and the answers that its unseeded draws got.

The memo remembers what anybody may share. A draw belongs to one run, so its answer is kept apart,
for as long as the run is unfinished; together they are what a killed run needs to go on as if
nothing had happened.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore

_MAX_BYTES = 16 * 2**30  # nothing of it may be evicted while the run lasts
_ABOUT = "run.json"


class RunLog:
    """A directory with the state of one unfinished run; a context manager that closes it.

    Args:
        path: The directory. If it holds a run, that one is resumed; otherwise one begins.
        about: What identifies the work, e.g. the model. A run is resumed only where all of it is
            equal.
        notes: What else to keep about the run when it begins.

    Attributes:
        run_id: Identifies the run; the same after resuming.
        is_resumed: Whether there was a run.
        notes: What was noted when the run began.
        store: Where the answers are.

    Raises:
        MemoError: The directory holds something else, or a run of other work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        about: Mapping[str, str] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.notes = dict(notes or {})
        self.is_resumed = (self.path / _ABOUT).exists()
        if self.is_resumed:
            self._take_up(about or {})
        else:
            self.run_id = uuid.uuid4().hex
            self._begin(about or {})
        self.store = LmdbStore(self.path, max_bytes=_MAX_BYTES)
        self.store.open()

    def close(self) -> None:
        """Commit and release the directory; the run can be resumed. Idempotent."""
        self.store.close()

    def remove(self) -> None:
        """The run is finished: close and delete the directory."""
        self.close()
        self.discard(self.path)

    @staticmethod
    def discard(path: Path) -> None:
        """Delete a run's directory, if there is one; nothing else is ever deleted.

        Raises:
            MemoError: The directory is not a run's.
        """
        if not path.exists():
            return
        strangers = {child.name for child in path.iterdir()} - {
            _ABOUT, f"{_ABOUT}.part", "data.mdb", "lock.mdb",
        }  # fmt: skip
        if strangers:
            raise MemoError(f"{path} is not the log of a run (it holds {min(strangers)}): move it")
        (path / _ABOUT).unlink(missing_ok=True)  # first: without it nothing is resumed by halves
        shutil.rmtree(path)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take_up(self, about: Mapping[str, str]) -> None:
        try:
            known = json.loads((self.path / _ABOUT).read_text("utf-8"))
            self.run_id, self.notes, began_with = known["run_id"], known["notes"], known["about"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise MemoError(f"{self.path} is not the log of a run: {error!r}") from error
        for name, value in about.items():
            if began_with.get(name) != value:
                raise MemoError(
                    f"the run in {self.path} cannot go on: its {name} has changed since it began. "
                    f"Use the same {name}, or start over"
                )

    def _begin(self, about: Mapping[str, str]) -> None:
        self.discard(self.path)  # of a run that was killed before it began
        self.path.mkdir(mode=0o700)
        part = self.path / f"{_ABOUT}.part"
        with part.open("w", encoding="utf-8") as file:
            known = {"run_id": self.run_id, "about": dict(about), "notes": self.notes}
            json.dump(known, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / _ABOUT)
