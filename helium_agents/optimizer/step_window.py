"""What an engine computed in a short time: the steps that ended in it, added up.

Windows are what is kept of the steps of a run. They are joined as the run gets longer, so that a
run of a day has not much more of them than one of an hour.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from helium_agents.optimizer.step_cost import Step

WINDOW_S: Final = 0.1
"""Steps that end in the same tenth of a second are in one window."""

_MOST_SHARE: Final = 1 / 4_000
"""A window may be as long as this share of the time since the first began."""


class EngineLoad(NamedTuple):
    """What an engine has while it computes a step.

    Args:
        running: Requests that it is at.
        waiting: Requests that it has been sent and has not begun.
        kv_share: Of its KV cache, what these requests hold, from 0 to 1.
    """

    running: int
    waiting: int
    kv_share: float


class StepWindow(NamedTuple):
    """The steps that ended in a short time.

    Args:
        begin_s: When the first of them began, by the event loop's clock.
        end_s: When the last of them ended.
        running: Requests that the engine was at, on average over that time.
        waiting: Requests that it had not begun, on average.
        kv_share: Of its KV cache what requests held, on average, from 0 to 1.
        prefill_tokens: Prompt tokens that were computed.
        decode_tokens: Tokens of answers, but the first of each, which comes with its prompt.
    """

    begin_s: float
    end_s: float
    running: float
    waiting: float
    kv_share: float
    prefill_tokens: float
    decode_tokens: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end_s - self.begin_s


def window_of(step: Step, load: EngineLoad, begin_s: float, end_s: float) -> StepWindow:
    """A window of one step."""
    return StepWindow(begin_s, end_s, *load, step.prefill_tokens, step.decodes)


def joined(one: StepWindow, other: StepWindow) -> StepWindow:
    """A window and one after it; between them the engine had nothing to do."""
    seconds = max(other.end_s - one.begin_s, 1e-9)
    before, after = one.seconds / seconds, other.seconds / seconds
    return StepWindow(
        one.begin_s,
        other.end_s,
        one.running * before + other.running * after,
        one.waiting * before + other.waiting * after,
        one.kv_share * before + other.kv_share * after,
        one.prefill_tokens + other.prefill_tokens,
        one.decode_tokens + other.decode_tokens,
    )


def is_same_window(one: StepWindow, other: StepWindow) -> bool:
    """Whether two end in the same tenth of a second."""
    return one.end_s // WINDOW_S == other.end_s // WINDOW_S


class JoinedWindows:
    """Joins windows that are short beside the time since the first of them began."""

    def __init__(self) -> None:
        self._begin_s: float | None = None
        self._last: StepWindow | None = None

    def add(self, window: StepWindow) -> StepWindow | None:
        """Take the next one; gives the one before it if that is to stay as it is."""
        last = self._last
        if self._begin_s is None:
            self._begin_s = window.begin_s
        if last is not None:
            most_s = (window.end_s - self._begin_s) * _MOST_SHARE
            if window.end_s - last.begin_s <= most_s:
                self._last = joined(last, window)
                return None
        self._last = window
        return last

    def rest(self) -> StepWindow | None:
        """The last one, which nothing is to be joined to any more."""
        last, self._last = self._last, None
        return last
