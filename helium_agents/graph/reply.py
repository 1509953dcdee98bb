"""What an LLM call evaluates to: the answers and, where a schema was asked for, parsed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

FinishReason = Literal["stop", "length"]
"""Why an answer ended: the model (or a stop string) ended it, or `max_tokens` did."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its text, its token ids (end-of-sequence included), and why it ended."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """The value of an `llm(...)` call; where text is wanted it counts as its first answer's text.

    What the call happened to cost (cached tokens, seconds) is not part of the value: it is in the
    session's events.

    Args:
        choices: The `n` answers.
        all_parsed: The `n` answers as values of `schema=`; empty without one.
    """

    choices: tuple[Choice, ...]
    all_parsed: tuple[T, ...] = ()

    @property
    def text(self) -> str:
        """The text of the first answer."""
        return self.choices[0].text

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all `n` answers."""
        return tuple(choice.text for choice in self.choices)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first answer ended."""
        return self.choices[0].finish_reason

    @property
    def parsed(self) -> T:
        """The first answer as a value of `schema=`.

        Raises:
            AttributeError: The call had no `schema=`.
        """
        if not self.all_parsed:
            raise AttributeError("this reply has no parsed value: give llm(...) a schema=")
        return self.all_parsed[0]

    def __str__(self) -> str:
        return self.text
