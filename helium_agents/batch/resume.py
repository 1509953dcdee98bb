"""What a batch goes on with: nothing, a run to resume, or a finished output.

An unfinished run is resumed: its lines stay, and its log has the answers of its draws. A finished
output is gone on from where it has not all that is asked for, rows beyond a limit or answers for
rows that failed: its lines are then taken over by a run of their own, which replaces it at the end
and can itself be stopped and resumed. Other work is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from helium_agents.batch.lines import Lines
from helium_agents.batch.output import MadeOf, Output, file_digest
from helium_agents.batch.rows import Rows
from helium_agents.batch.workflow import Workflow
from helium_agents.engines.engine import Engine
from helium_agents.engines.whole_engine import WholeEngine
from helium_agents.errors import InputError
from helium_agents.memo.run_log import RunLog, differences

_FINISHED, _RETRIES = "finished", "retries"  # notes of a run that goes on from a finished output


class Earlier:
    """The work that was done before.

    Args:
        workflow: What is run now, like the others.
        rows: On what.
        output: Where the lines go.
        lines: Reads them.
        engines: What computes.
        is_ordered: Whether lines are in the order of the rows.
        resume: Whether to go on with what is there.
        retry_failed: Whether rows of a finished output that failed are computed again.
        warn: Called with what the user should know.

    Attributes:
        in_part: Rows whose lines are in the output's part.
        kept: Rows whose lines are taken over from the finished output.
        num_failed: Of all these, those that failed.
    """

    def __init__(
        self,
        workflow: Workflow,
        rows: Rows,
        output: Output,
        lines: Lines,
        engines: Mapping[str, tuple[Engine, ...]],
        *,
        is_ordered: bool,
        resume: bool,
        retry_failed: bool,
        warn: Callable[[str], object],
    ) -> None:
        self.in_part: range | set[int] = range(0)
        self.kept: set[int] = set()
        self.num_failed = 0
        self._workflow = workflow
        self._rows = rows
        self._output = output
        self._lines = lines
        self._engines = engines
        self._is_ordered = is_ordered
        self._resume = resume
        self._retry_failed = retry_failed
        self._warn = warn

    @cached_property
    def about(self) -> dict[str, str]:
        """What identifies the work, all of which must be the same where a run is resumed."""
        about = {
            "workflow": f"{self._workflow.fn.__module__}:{self._workflow.name}",
            "input": file_digest(self._rows.path),
            "order of lines": "that of the rows" if self._is_ordered else "as finished",
        }
        for name, (engine, *_) in self._engines.items():  # a replica is as good as another
            model = "model" if len(self._engines) == 1 else f"model {name!r}"
            parts = WholeEngine(engine).identity_parts()
            about[model] = engine.identity()
            about |= {f"{model}'s {part}": value for part, value in parts.items()}  # for people
        return about

    @cached_property
    def finished(self) -> MadeOf | None:
        """What a finished output was made of, if there is one to go on with."""
        about = self.about  # before anything is replaced: there may be no such model
        if not self._output.is_finished:
            return None
        finished = MadeOf.read(self._output.target)
        path, num_rows = self._output.path, len(self._rows)
        found = differences(finished.about, about)
        # failures are computed again because their cause was corrected, maybe in the source
        retries = self._retry_failed and finished.num_failed
        if not retries and finished.source != self._workflow.source_version:
            found.append("its workflow's source has changed")
        if found:
            raise InputError(
                f"{path} is of other work than is asked for: {'; '.join(found)}. Ask for the "
                "same, choose another output=, or give overwrite=True in place of resume=True to "
                "make it anew"
            )
        if finished.num_rows > num_rows:
            raise InputError(
                f"{path} has {finished.num_rows:,} rows, more than the {num_rows:,} that are asked "
                "for: raise limit=, or choose another output="
            )
        return finished

    @property
    def retries(self) -> bool:
        """Whether failed rows of a finished output are computed again."""
        return self._retry_failed and self.finished is not None and self.finished.num_failed > 0

    def open_log(self) -> RunLog:
        """The log of the run that begins or is resumed; the output must be open.

        Raises:
            MemoError: The run to resume was of other work.
            InputError: There are lines to go on with, but no log.
        """
        path, source, finished = self._output.run_path, self._workflow.source_version, self.finished
        notes, run_id = {"source": source}, None
        if finished is not None:
            notes = {"source": finished.source, _FINISHED: finished.digest}
            notes[_RETRIES] = "failed rows" if self.retries else ""
            run_id = finished.run_id
        if finished is not None or not self._resume:
            RunLog.discard(path)
        elif self._output.has_lines and not RunLog.is_in(path):
            raise InputError(
                f"{self._output.part} cannot be resumed, since {path} is gone: add overwrite=True "
                "(and leave out resume=True) to start over"
            )
        log = RunLog(path, self.about, notes, run_id=run_id)
        if log.notes.get("source") != source:
            self._warn("the workflow's source has changed since the run began; rows done stay")
        return log

    def take_up(self, run_log: RunLog) -> None:
        """Go on with the lines of an unfinished run, and of the output before it.

        Raises:
            InputError: They are not what the run began with, or not what is asked for.
        """
        output, notes = self._output, run_log.notes
        if run_log.is_resumed:
            items: set[int] = set()
            for item, has_failed, _ in self._lines.read(output.read_lines(), output.part):
                self.num_failed += has_failed
                if not self._is_ordered:
                    items.add(item)
            self.in_part = range(output.num_lines) if self._is_ordered else items
        if _FINISHED not in notes:
            return
        if run_log.is_resumed:  # by its content: the note of the next one may be there already
            target = output.target
            if not target.exists() or file_digest(target) != notes[_FINISHED]:
                raise InputError(
                    f"the run in {output.run_path} goes on from {output.path}, which has changed "
                    "since: put it back, or give overwrite=True in place of resume=True to start "
                    "over"
                )
        for item, has_failed, _ in self.finished_lines():
            if not (has_failed and notes[_RETRIES]):
                self.num_failed += has_failed
                self.kept.add(item)

    def finished_lines(self) -> Iterator[tuple[int, bool, bytes]]:
        """The parsed lines of the finished output that are not in the part already."""
        with self._output.target.open("rb") as lines:
            for line in self._lines.read(lines, self._output.path):
                if line[0] not in self.in_part:
                    yield line
