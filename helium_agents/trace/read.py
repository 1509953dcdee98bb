"""Reads a trace: its chunks become a `TracedRun`."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from helium_agents.errors import TraceError
from helium_agents.optimizer.step_window import StepWindow
from helium_agents.telemetry.events import EngineDescribed
from helium_agents.trace.chunks import MAGIC, check_header, chunks_in
from helium_agents.trace.encode import KINDS
from helium_agents.trace.front_coding import decoded
from helium_agents.trace.run import (
    TracedAnswer,
    TracedBody,
    TracedCall,
    TracedEngine,
    TracedItem,
    TracedMoment,
    TracedPart,
    TracedRun,
    TracedTool,
)

_ENGINE_FIELDS = [each.name for each in fields(EngineDescribed)]


def read_trace(path: str | Path) -> TracedRun:
    """What a trace tells so far.

    Raises:
        TraceError: There is none, it is of a later version, or it is damaged.
    """
    reader = TraceReader(path)
    reader.read()
    return reader.run


def is_trace(path: str | Path) -> bool:
    """Whether a file is there and begins as a trace does, of whatever version."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):  # no name of a file
        return False


class TraceReader:
    """Puts the parts of a run together; a file that grows can be read on.

    Args:
        path: The file.

    Attributes:
        run: What was read.
        end: Where that ends in the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.run = TracedRun()
        self.end = 0
        self._path = path
        self._answers: dict[str, TracedAnswer] = {}
        self._shift_s = 0.0
        self._end_s = 0.0
        self._num_before = 0
        self._most = 0
        self._num_rows: int | None = 0
        self._tokens: list[array[int]] = []
        self._texts: list[str] = []

    def read(self) -> None:
        """Read on, to the end of the last whole chunk.

        Raises:
            TraceError: As `read_trace`.
        """
        path = self._path
        try:
            with open(path, "rb") as file:
                if self.end:
                    file.seek(self.end)
                else:
                    check_header(file, str(path))
                    self.end = file.tell()
                for self.end, chunk in chunks_in(file, str(path)):
                    self._add_chunk(chunk)
                self.run.is_cut = self.end < file.seek(0, 2)
        except OSError as error:
            raise TraceError(f"the trace {path} cannot be read: {error.strerror}") from error
        except (LookupError, OverflowError, TypeError, ValueError) as error:
            raise TraceError(
                f"the trace {path} has records of another form ({error!r}): read it with the "
                "version of helium_agents that wrote it"
            ) from error
        for cached in ("by_number", "early"):  # of the calls that were there before
            self.run.__dict__.pop(cached, None)

    def _add_chunk(self, chunk: Mapping[str, Any]) -> None:
        """Read a chunk's records."""
        self._tokens = [array("I", ids) for ids in decoded(chunk["tokens"])]
        self._texts = decoded(chunk["texts"])
        for record in chunk["records"]:
            if "t" in record and record["kind"] != "part":
                self._end_s = max(self._end_s, self._time(record["t"]))
            match record["kind"]:
                case "llm" | "operator":
                    self._add_call(record)
                case "answer":
                    self._answers[record["request"]] = self._answer(record)
                case "body":
                    number = self._number(record["call"])
                    body = TracedBody(number, record["name"], self._number(record["body"]))
                    self.run.bodies[number] = body
                case "item opened" | "item closed":
                    self._add_item(record)
                case "tool":
                    self._add_tool(record)
                case "steps":
                    self._add_steps(record)
                case "part":
                    self._add_part(record)
                case _:
                    self._add_other(record)

    def _add_part(self, record: Mapping[str, Any]) -> None:
        self._answers.clear()  # requests are numbered anew
        self._num_before, self._num_rows = self._most, 0
        self._shift_s = self._end_s - record["t"]
        self.run.parts.append(
            TracedPart(
                run_id=record["run_id"],
                unix_s=record["unix_s"],
                start_s=self._end_s,
                version=record["version"],
                has_content=record["content"],
                schedule=record["schedule"],
            )
        )

    def _add_item(self, record: Mapping[str, Any]) -> None:
        if record["nested"]:
            return
        item, time_s = record["item"], self._time(record["t"])
        if record["kind"] == "item opened":
            found = self.run.items.get(item)
            if found is None:
                self.run.items[item] = TracedItem(item, record["index"], time_s)
            else:  # a resumed run opens it again
                found.closed_s = found.ended_s = found.error = None
                found.num_parts += 1
        elif item in self.run.items:
            found = self.run.items[item]
            found.closed_s, found.error = time_s, record["error"]
            found.ended_s = self._time(record["ended"])

    def _add_other(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == KINDS[EngineDescribed]:
            engine = TracedEngine(*(record[name] for name in _ENGINE_FIELDS))
            self.run.engines[engine.model] = engine
        elif record["kind"] == "schedule":
            self.run.choices.append({**record, "t": self._time(record["t"])})
        elif record["kind"] == "speculated":
            call = self._number(record["call"])
            self.run.speculated.append({**record, "t": self._time(record["t"]), "call": call})
        elif record["kind"] == "guessed":
            self.run.guessed[self._number(record["call"])] = record
        elif record["kind"] == "map" and not record["is_nested"]:
            self._add_rows(record["num_items"])
        else:
            self._add_moment(record)

    def _add_rows(self, num_items: int | None) -> None:
        """A top-level map begins; a part that resumes has all of its rows again."""
        before, self._num_rows = self._num_rows, None
        if before is not None and num_items is not None:
            self._num_rows = before + num_items
        self.run.num_rows = self._num_rows

    def _add_moment(self, record: Mapping[str, Any]) -> None:
        at_s = self._time(record["t"])
        match record["kind"]:
            case "engine started" as kind:
                model, seconds = record["model"], record["seconds"]
                moment = TracedMoment(kind, at_s, model, seconds=seconds)
            case "engine lost" as kind:
                reason, num_open = record["reason"], record["num_open"]
                moment = TracedMoment(kind, at_s, record["model"], reason, num_open=num_open)
            case "misfit" as kind:
                moment = TracedMoment(kind, at_s, record["workflow"], record["reason"])
            case _:
                return
        self.run.moments.append(moment)

    def _add_steps(self, record: Mapping[str, Any]) -> None:
        found = self.run.steps.setdefault((record["model"], record["engine"]), [])
        for begin_s, end_s, *rest in record["windows"]:
            found.append(StepWindow(self._time(begin_s), self._time(end_s), *rest))

    def _add_tool(self, record: Mapping[str, Any]) -> None:
        self.run.tools.append(
            TracedTool(
                name=record["name"],
                body=self._number(record["body"]),
                item=record["item"],
                begun_s=self._time(record["begun"]),
                end_s=self._time(record["t"]),
                error=record["error"],
                arguments=record.get("arguments"),
            )
        )

    def _add_call(self, record: Mapping[str, Any]) -> None:
        asked_s, sent_s, first_token_s, end_s = record["times"]
        prompt_tokens, cached_tokens, output_tokens = record["tokens"]
        begun_s, read_s = record.get("engine", (None, None))
        number = self._number(record["call"])
        self._most = max(self._most, number)
        call = TracedCall(
            number=number,
            kind=record["kind"],
            label=record["label"],
            source=record["source"],
            body=self._number(record["body"]),
            leader=self._number(record["leader"]),
            item=record["item"],
            model=record["model"],
            inputs=tuple(map(self._number, record["inputs"])),
            calls_below=record["below"],
            error=record["error"],
            asked_s=self._time(asked_s),
            sent_s=self._time_or_none(sent_s),
            first_token_s=self._time_or_none(first_token_s if read_s is None else read_s),
            end_s=self._time(end_s),
            num_attempts=record["attempts"],
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            output_tokens=output_tokens,
            answer=self._answers.get(record["request"]),
            begun_s=self._time_or_none(begun_s),
        )
        self._end_s = max(self._end_s, call.end_s)
        self.run.calls.append(call)

    def _answer(self, record: Mapping[str, Any]) -> TracedAnswer:
        messages, texts = None, None
        if "texts" in record:
            messages = tuple((role, self._texts[text]) for role, text in record["messages"])
            texts = tuple(self._texts[text] for text in record["texts"])
        return TracedAnswer(
            prompt=self._tokens[record["prompt"]],
            outputs=tuple(self._tokens[number] for number in record["outputs"]),
            max_tokens=record["max_tokens"],
            finish_reasons=tuple(record["finish"]),
            messages=messages,
            texts=texts,
            tool_calls=tuple(
                tuple((name, arguments) for name, arguments in calls)
                for calls in record.get("tool_calls", ())
            ),
        )

    def _number(self, number: int) -> int:
        """A call's number in the run, for that in its part."""
        found = number + self._num_before if number else 0
        self._most = max(self._most, found)
        return found

    def _time(self, time_s: float) -> float:
        """Seconds since the run began, for the part's clock."""
        return time_s + self._shift_s

    def _time_or_none(self, time_s: float | None) -> float | None:
        return None if time_s is None else self._time(time_s)
