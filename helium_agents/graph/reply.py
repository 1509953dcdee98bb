"""What an LLM call evaluates to: the answers and, where a schema was asked for, parsed values."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Generic, Literal, TypeVar

from helium_agents.graph.tool_call import ToolCall, WrittenCall

T = TypeVar("T")

FinishReason = Literal["stop", "length"]
"""Why an answer ended: the model (or a stop string) ended it, or `max_tokens` did."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer.

    Args:
        text: What it says, without what follows here.
        token_ids: All that the model gave, end of sequence included.
        finish_reason: Why it ended.
        reasoning: What the model thought first, where its engine tells that apart.
        tool_calls: The calls of tools in it, as the model wrote them.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    reasoning: str | None = None
    tool_calls: tuple[WrittenCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """The value of an `llm(...)` call; where text is wanted it counts as its first answer's text.

    What the call happened to cost (cached tokens, seconds) is not part of the value: it is in the
    session's events.

    Args:
        choices: The `n` answers.
        all_parsed: The `n` answers as values of `schema=`; empty without one.
        tool_calls: The calls of `tools=` that the model asks for.
    """

    choices: tuple[Choice, ...]
    all_parsed: tuple[T, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()

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
    def reasoning(self) -> str | None:
        """What the model thought before it answered, where its engine tells that apart."""
        return self.choices[0].reasoning

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

    def _repr_html_(self) -> str:
        """What a notebook shows: the answers, and the calls of tools."""
        asked = (f"{call.name}({call.text})" for call in self.tool_calls)
        parts = (escape(text) for text in (*self.texts, *asked) if text)
        return "".join(f'<pre style="white-space: pre-wrap">{part}</pre>' for part in parts)
