"""What a session can be told: listed once, for `Session`, `run`, `Batch` and the command line.

A new option is a line of `SessionOptions`, its default and, if it can be wrong, its check here; and
the place that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from helium_agents.errors import SessionError
from helium_agents.memo.store import Store
from helium_agents.optimizer.adaptive import Adaptive
from helium_agents.optimizer.rules import RULES, Rule
from helium_agents.optimizer.schedule import FewOpen, Schedule
from helium_agents.optimizer.speculation_budget import Budget
from helium_agents.runtime.answers import MEMO_MODES, MemoMode
from helium_agents.telemetry.otel.settings import Otlp, as_otlp
from helium_agents.trace.file import TraceFile


class SessionOptions(TypedDict, total=False):
    """The options of a session, all of them keywords that may be left out.

    Args:
        memo: Where answers are kept: a directory (made if needed), a store, or `None` for
            remembering within this session only.
        memo_mode: "read-write"; "refresh" (compute anew and replace); "replay-only" (a model call
            that is not in the memo is an error, and no engine is started); "off" (remember
            nothing, not even within the session).
        rules: The optimizer's rules; `()` rewrites nothing. Equal calls share one answer while it
            is under way, whatever the rules.
        share: `False` turns off merging, joining and the memo for every call.
        token_budget: Most prompt and output tokens that engines may compute in this session.
        max_open: Most items of top-level maps whose calls may be on an engine at once; by default
            all. Fewer share the KV cache better where the prefixes of all do not fit into it.
        schedule: Chooses which request goes to its engine next. By default (`Adaptive`) all go as
            they come, but where fewer open rows are predicted to be clearly faster, and where
            the next turns of agents that pause for tools will not fit into the KV cache: then those
            that have begun keep it, and others wait. `EverythingOpen()` never waits.
        record: Keep every call for `explain()`; memory then grows with the run.
        trace: A file that is to keep what happens, or a `TraceFile`, which says how; `helium
            simulate` and `helium explain --analyze` read it.
        speculate: Whether calls inside pure operators may be computed before they are asked for,
            while an earlier one is open whose answer is guessed: "auto" (where that is known to be
            worth it), "off", or a `Budget(...)`, which says how much may be guessed. What comes out
            is the same. Nothing is guessed with `token_budget=`, or where nothing is remembered.
        otlp: The URL of an OpenTelemetry collector that gets spans and metrics, or an `Otlp`, which
            says more; `True`: as the environment's `OTEL_*` say; `False`: none. By default they go
            where the application sends its own, if it has set up OpenTelemetry, or else to the
            collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names, if it does.
    """

    memo: str | Path | Store | None
    memo_mode: MemoMode
    rules: Sequence[Rule]
    share: bool
    token_budget: int | None
    max_open: int | None
    schedule: Schedule | None
    record: bool
    trace: str | Path | TraceFile | None
    speculate: Literal["auto", "off"] | Budget
    otlp: str | bool | Otlp | None


_DEFAULTS = SessionOptions(
    memo=None,
    memo_mode="read-write",
    rules=RULES,
    share=True,
    token_budget=None,
    max_open=None,
    schedule=None,
    record=False,
    trace=None,
    speculate="auto",
    otlp=None,
)


def all_options(given: SessionOptions) -> SessionOptions:
    """Every option: what was given, checked, and the defaults of the others.

    Raises:
        SessionError: One is of the wrong type or out of range.
        TypeError: There is no such option.
    """
    options: SessionOptions = {**_DEFAULTS, **given}
    for name in options.keys() - _DEFAULTS.keys():
        raise TypeError(f"there is no option {name}=: the options are {', '.join(_DEFAULTS)}")
    _check_memo(options["memo"], options["memo_mode"])
    share, token_budget = options["share"], options["token_budget"]
    if not isinstance(share, bool):
        raise SessionError(f"share={share!r} must be True or False")
    check_functions("rules", options["rules"])
    if token_budget is not None and (type(token_budget) is not int or token_budget < 1):
        raise SessionError(f"token_budget={token_budget!r} must be a whole number, at least 1")
    speculate = options["speculate"]
    if not (isinstance(speculate, Budget) or speculate in ("auto", "off")):
        raise SessionError(f'speculate={speculate!r} must be "auto", "off", or a Budget(...)')
    schedule_of(options)
    trace_of(options)
    as_otlp(options["otlp"])
    return options


def schedule_of(options: SessionOptions) -> Schedule:
    """The schedule that a session's options ask for.

    Raises:
        SessionError: It is none, or `max_open` asks for another one.
    """
    schedule: Any = options["schedule"]  # it is the user's: its type says nothing for sure
    max_open = options["max_open"]
    if schedule is None:
        return Adaptive() if max_open is None else FewOpen(max_open)
    if max_open is not None:
        raise SessionError("max_open= is a schedule of its own: give it or schedule=, not both")
    missing = [name for name in vars(Schedule) if name[0] != "_" and not hasattr(schedule, name)]
    if missing:
        raise SessionError(f"schedule={schedule!r} is no schedule: it has no {', '.join(missing)}")
    chosen: Schedule = schedule
    return chosen


def trace_of(options: SessionOptions) -> TraceFile | None:
    """The trace that a session's options ask for.

    Raises:
        SessionError: It is none.
    """
    trace: Any = options["trace"]
    if isinstance(trace, str | Path) and trace != "":
        return TraceFile(trace)
    if trace is None or isinstance(trace, TraceFile):
        return trace
    raise SessionError(f"trace={trace!r} must be the name of a file, a TraceFile, or None")


def check_functions(name: str, functions: Any) -> None:
    """Raise `SessionError` unless an argument is a list or tuple of functions."""
    if not isinstance(functions, list | tuple) or not all(map(callable, functions)):
        raise SessionError(f"{name}={functions!r} must be a list or tuple of functions")


def _check_memo(memo: Any, memo_mode: Any) -> None:
    if memo == "" or not (memo is None or isinstance(memo, str | Path) or hasattr(memo, "get")):
        raise SessionError(f"memo={memo!r} must be a directory, a store, or None")
    if memo_mode not in MEMO_MODES:
        raise SessionError(f"memo_mode={memo_mode!r} must be one of {', '.join(MEMO_MODES)}")
