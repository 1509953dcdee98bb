"""Every error the package raises on purpose.

Each message says what was wrong, where, and what to do about it; the classes exist so that a
program can tell the cases apart. `HeliumError` catches them all.
"""

from __future__ import annotations

from typing import Any


class HeliumError(Exception):
    """Base class of all errors raised by helium_agents."""


# --- authoring ---------------------------------------------------------------------------------


class OperatorDefinitionError(HeliumError, TypeError):
    """An `@operator` was put on something that cannot be one (a generator, a sync function)."""


class VersionError(HeliumError, TypeError):
    """An operator's version cannot be computed from its source; `version=` is needed."""


class EncodingError(HeliumError, TypeError):
    """A value that has to be part of a key cannot be encoded.

    Args:
        message: What could not be encoded and why.
        path: Where inside the argument, e.g. ``row.items[3]``.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class DecodingError(HeliumError, ValueError):
    """Bytes are not an encoding this version can read, or name a class that is not there."""


class ImpureCall(HeliumError):
    """A pure operator called something impure: an impure operator or an unseeded sample."""


class RefMisuse(HeliumError, TypeError):
    """A `Ref` was used in place of its value, or something else in place of a `Ref`."""


class RefAttributeError(RefMisuse, AttributeError):
    """An attribute of a call's value was asked of its `Ref`."""


class PromptError(HeliumError, ValueError):
    """A prompt or message is malformed: a slot without a value, a value that is not text."""


class OffLoopCall(HeliumError, RuntimeError):
    """An operator was called where no event loop runs (a thread, a sync program)."""


# --- sessions ----------------------------------------------------------------------------------


class SessionError(HeliumError, RuntimeError):
    """A session was used wrongly: not open, closed, or a Ref of another session."""


class RefCancelled(HeliumError):
    """The task that was running a plain operator was cancelled while others awaited it."""


class CallTimeout(HeliumError, TimeoutError):
    """A call did not finish within its `timeout=`, counted from when its turn had come."""


class TokenBudgetExceeded(HeliumError):
    """The session's token budget has no room for the next call."""


class InvalidReply(HeliumError, ValueError):
    """A reply does not fit the `schema=` that was asked for.

    Args:
        message: What does not fit.
        text: The reply, where there is one.
    """

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


# --- memo --------------------------------------------------------------------------------------


class MemoError(HeliumError):
    """The memo's store cannot be opened, read, or written."""


class ReplayMiss(HeliumError, LookupError):
    """A call is not in the memo and the memo is replay-only."""


# --- traces ------------------------------------------------------------------------------------


class TraceError(HeliumError):
    """A trace cannot be written or read, or has not what is asked of it."""


# --- engines -----------------------------------------------------------------------------------


class EngineError(HeliumError):
    """An engine could not do what it was asked to do."""


class EngineStartError(EngineError):
    """An engine could not be started: the model does not load, or a package is missing."""


class RequestError(EngineError, ValueError):
    """One request is at fault (too long for the model, a bad sampling value)."""


class TransientEngineError(EngineError):
    """A request failed for a reason that may pass; it is retried."""


class EngineDied(EngineError):
    """The engine's process is gone; every request that was open on it failed.

    Args:
        message: What is gone and, if known, why.
        was_killed: Somebody ended it from outside, and it had no error of its own. That says
            little about the requests that were open.
    """

    def __init__(self, message: str, *, was_killed: bool = False) -> None:
        super().__init__(message)
        self.was_killed = was_killed


class PoisonRequest(EngineError):
    """A request that killed its engine: it was open at several deaths, alone at the last."""


# --- command line ------------------------------------------------------------------------------


class InputError(HeliumError, ValueError):
    """A workflow, a file of rows, an output or an option of a batch or command is wrong."""


class ItemError(HeliumError):
    """One item of a `map` failed; `__cause__` is what it raised.

    Args:
        index: The item's position in the input, from 0.
        row: The item itself.
        cause: The exception.
    """

    def __init__(self, index: int, row: Any, cause: BaseException) -> None:
        super().__init__(f"item {index} failed: {in_words(cause)}")
        self.index = index
        self.row = row
        self.__cause__ = cause

    def __reduce__(self) -> tuple[Any, ...]:
        """How it is copied and pickled: with its cause, which Python would leave behind."""
        return type(self), (self.index, self.row, self.__cause__), vars(self)


def message_of(error: BaseException) -> str:
    """The message of an exception, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception:
        return "<no text, str() raises>"


def in_words(error: BaseException) -> str:
    """Class and message of an exception."""
    text = message_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shown(value: Any, most_characters: int = 80) -> str:
    """The representation of any value, cut to a length that fits a message."""
    try:
        text = repr(value)
    except Exception as error:  # the value's own; the message matters more
        text = f"<a {type(value).__name__} whose repr raised {type(error).__name__}>"
    return shortened(text, most_characters)


def shortened(text: str, most_characters: int = 60) -> str:
    """A text that fits, with dots where it was cut."""
    return text if len(text) <= most_characters else f"{text[: most_characters - 3]}..."
