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

from helium_agents.errors import MemoError
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.lmdb.environment import UNFINISHED
from helium_agents.memo.lmdb.tables import DATA_FILE

_MAX_BYTES = 16 * 2**30  # nothing of it may be evicted while the run lasts
_DIGEST_CHARACTERS = 64
_ABOUT = "run.json"
_UNBORN = "run.json.part"  # while it begins, and while it is deleted
_STORE = (DATA_FILE, "lock.mdb")


class RunLog:
    """A directory with the state of one unfinished run; a context manager that closes it.

    Args:
        path: The directory. If it holds a run, that one is resumed; otherwise one begins.
        about: What identifies the work, e.g. the model. A run is resumed only where all of it is
            equal.
        notes: What else to keep about the run when it begins.
        run_id: Of the run that goes on in the one that begins; by default it gets a new one.

    Attributes:
        run_id: Identifies the run; the same after resuming.
        is_resumed: Whether there was a run.
        notes: What was noted when the run began.
        store: Where the answers are.

    Raises:
        MemoError: The directory cannot be used, holds something else, or a run of other work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        about: Mapping[str, str] | None = None,
        notes: Mapping[str, str] | None = None,
        *,
        run_id: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.notes = dict(notes or {})
        self.is_resumed = self.is_in(self.path)
        if self.is_resumed:
            self._take_up(about or {})
        else:
            self.run_id = run_id or uuid.uuid4().hex
            self._begin(about or {})
        self.store = LmdbStore(self.path, max_bytes=_MAX_BYTES)
        self.store.open()

    @staticmethod
    def is_in(path: Path) -> bool:
        """Whether a directory holds a run."""
        return (path / _ABOUT).exists()

    @property
    def is_empty(self) -> bool:
        """Whether no answer was kept; false where that cannot be told."""
        try:
            return self.store.stats().num_entries == 0
        except MemoError:
            return False

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
        if not path.is_dir():
            raise MemoError(f"{path} is not the log of a run (it is a file): move it")
        names = {each.name for each in path.iterdir() if not each.name.startswith(UNFINISHED)}
        strangers = names - {_ABOUT, _UNBORN}
        if names != strangers:  # else it may be a memo, which has the same files
            strangers -= {*_STORE}
        if strangers:
            raise MemoError(f"{path} is not the log of a run (it holds {min(strangers)}): move it")
        try:
            if _ABOUT in names:  # so that nothing is ever resumed by halves
                (path / _ABOUT).replace(path / _UNBORN)
            for name in _STORE:
                (path / name).unlink(missing_ok=True)
            shutil.rmtree(path)
        except OSError as error:
            raise MemoError(f"the log of a run in {path} cannot be removed: {error}") from error

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_up(self, about: Mapping[str, str]) -> None:
        try:
            known = json.loads((self.path / _ABOUT).read_text("utf-8"))
            self.run_id, self.notes, began_with = known["run_id"], known["notes"], known["about"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise MemoError(f"{self.path} is not the log of a run: {error!r}") from error
        changed = differences(began_with, about)
        if changed:
            raise MemoError(
                f"the run in {self.path} cannot go on: {'; '.join(changed)} since it began. Use "
                "the same, or start over"
            )

    def _begin(self, about: Mapping[str, str]) -> None:
        self.discard(self.path)  # of a run that was killed before it began
        part = self.path / _UNBORN
        known = {"run_id": self.run_id, "about": dict(about), "notes": self.notes}
        try:
            self.path.mkdir(mode=0o700)
            with part.open("w", encoding="utf-8") as file:
                json.dump(known, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path / _ABOUT)
        except OSError as error:
            raise MemoError(f"no run can be logged in {self.path}: {error}") from error


def differences(began_with: Mapping[str, str], about: Mapping[str, str]) -> list[str]:
    """What is not as it was: ``its workflow has changed (flow:answer, now flow:ask)``.

    Values are left out where one is a digest, which says nothing to a person.
    """
    changed = []
    for name, now in about.items():
        if (was := began_with.get(name, "")) != now:
            is_readable = was and now and max(len(was), len(now)) < _DIGEST_CHARACTERS
            values = f" ({was}, now {now})" if is_readable else ""
            changed.append(f"its {name} has changed{values}")
    return changed
