"""What a job goes on with: an unfinished run, a finished output, or nothing yet.

A finished output is gone on with where it has not all that is asked for: rows beyond a limit, or,
with `--retry-failed`, answers for rows that failed. Its lines are then taken over by a run of their
own, which replaces it at the end and can itself be stopped and resumed. Other work is refused.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from helium_agents.cli.batch import Batch
from helium_agents.cli.made_of import MadeOf
from helium_agents.cli.options import echo_warning
from helium_agents.cli.report import count
from helium_agents.errors import InputError, VersionError
from helium_agents.keys.version import code_version
from helium_agents.memo.run_log import RunLog

_FINISHED, _RETRIES = "finished", "retries"  # notes of a run that goes on from a finished output


class Resuming:
    """What is there of a job, checked against what is asked for; nothing is written yet.

    Args:
        batch: What is asked for.
        about: What identifies the work.
        resume: Whether an earlier run or output is to be gone on with.
        retry_failed: Whether the failed rows of a finished output are to be computed again.

    Raises:
        InputError: A finished output is of other work, or has more than is asked for.
    """

    def __init__(
        self, batch: Batch, about: dict[str, str], *, resume: bool, retry_failed: bool
    ) -> None:
        self._batch = batch
        self._about = about
        self._resume = resume
        self._retry_failed = retry_failed
        self._output = batch.output
        self._finished = self._output.made_of() if self._output.is_finished else None
        self._retries = retry_failed and self.num_failed > 0
        if self._finished is not None:
            self._check(self._finished)

    @property
    def num_failed(self) -> int:
        """How many rows of the finished output failed."""
        return 0 if self._finished is None else self._finished.num_failed

    @property
    def has_all(self) -> bool:
        """Whether a finished output leaves nothing to do."""
        finished = self._finished
        has_rows = finished is not None and finished.num_rows == len(self._batch.rows)
        return has_rows and not self._retries

    @property
    def described(self) -> str:
        """What there is of the finished output, as the beginning of a message."""
        assert self._finished is not None
        text = f"{self._output.path} was finished already"
        if not self.num_failed:
            return text
        return f"{text}, but {self.num_failed:,} of {count(self._finished.num_rows, 'row')} failed"

    def run_log(self) -> RunLog:
        """The log of the run that begins or is resumed, open; the output must be open.

        Raises:
            MemoError: The run to resume was of other work.
            InputError: There are lines to go on with, but no log.
        """
        path, finished = self._output.run_path, self._finished
        notes, run_id = {"source": self._source}, None
        if finished is not None:
            notes = {"source": finished.source, _FINISHED: finished.digest}
            notes[_RETRIES] = "failed rows" if self._retries else ""
            run_id = finished.run_id
        if finished is not None or not self._resume:
            RunLog.discard(path)
        elif not RunLog.is_in(path):
            self._output.check_is_empty()
        log = RunLog(path, self._about, notes, run_id=run_id)
        if log.notes.get("source") != self._source:
            echo_warning("the workflow's source has changed since the run began; rows done stay")
        return log

    def take_up(self, run_log: RunLog) -> None:
        """Have the batch go on with the lines of an unfinished run, and of the output before it.

        Raises:
            InputError: They are not what the run began with, or not what is asked for.
        """
        batch, output, notes = self._batch, self._output, run_log.notes
        if run_log.is_resumed:
            batch.take_up()
            if batch.num_failed:
                self._check_failures(batch.num_failed)
        if _FINISHED in notes:
            if run_log.is_resumed and output.finished_digest() != notes[_FINISHED]:
                raise InputError(
                    f"the run in {output.run_path} goes on from {output.path}, which has changed "
                    "since: put it back, or give --overwrite in place of --resume to start over"
                )
            batch.keep_finished(retries=bool(notes[_RETRIES]))

    def made_of(self, run_log: RunLog) -> MadeOf:
        """What the output was made of once the run has finished."""
        batch = self._batch
        return MadeOf(
            run_id=run_log.run_id,
            about=self._about,
            source=self._source,
            num_rows=len(batch.rows),
            num_failed=batch.num_failed,
        )

    @cached_property
    def _source(self) -> str:
        """The version of the workflow's source; empty where it has none."""
        fn: Any = self._batch.workflow.fn
        try:
            return code_version(getattr(fn, "__wrapped__", fn)).hex()
        except VersionError:
            return ""

    def _check(self, finished: MadeOf) -> None:
        path, num_rows = self._output.path, len(self._batch.rows)
        # failures are computed again because their cause was corrected, maybe in the source
        finished.check_same(path, self._about, None if self._retries else self._source)
        if finished.num_rows > num_rows:
            raise InputError(
                f"{path} has {finished.num_rows:,} rows, more than the {num_rows:,} that are asked "
                "for: raise --limit, or choose another --output"
            )
        if finished.num_failed and self._batch.on_error == "raise" and not self._retries:
            raise InputError(
                f"{self.described}: add --retry-failed to compute them again, or --on-error "
                "collect to leave them as they are"
            )

    def _check_failures(self, num_failed: int) -> None:
        """What to do about rows that failed in the run that is resumed."""
        if self._batch.on_error == "raise":
            raise InputError(
                f"{count(num_failed, 'row')} in {self._output.part} failed: add --on-error collect "
                "to go on all the same; once it is finished, --retry-failed computes them again"
            )
        if self._retry_failed:
            echo_warning(
                "rows that failed in the unfinished run stay so for now: once it is finished, "
                "--retry-failed computes them again"
            )
