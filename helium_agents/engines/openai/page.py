"""One JSON object of a server's answer: all of it, or a piece of a stream.

Servers differ: what is null counts as not said, and other words for one thing are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

_MOST_COUNTED = 2**31 - 1


def _text_of(content: Any) -> Any:
    """What is said; some servers give it in parts."""
    if not isinstance(content, list):
        return content
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


_Count = Annotated[
    int,
    BeforeValidator(lambda said: said or 0),  # some say null
    AfterValidator(lambda said: min(max(said, 0), _MOST_COUNTED)),
]


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class Called(BaseModel):
    """A call of a tool or, in a stream, what comes of the one at `index`."""

    index: int | None = None
    id: str | None = None
    function: _Function = Field(default_factory=_Function)


class _Message(BaseModel):
    content: Annotated[str | None, BeforeValidator(_text_of)] = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Called] | None = None


_NOTHING = _Message()


class _Piece(BaseModel):
    index: _Count = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None

    @property
    def said(self) -> _Message:
        return self.message or self.delta or _NOTHING

    @property
    def content(self) -> str:
        return self.text or self.said.content or ""

    @property
    def refusal(self) -> str:
        return self.said.refusal or ""

    @property
    def reasoning(self) -> str:
        return self.said.reasoning or self.said.reasoning_content or ""

    @property
    def calls(self) -> list[Called]:
        if self.message is not None:
            whole = enumerate(self.message.tool_calls or ())
            return [call.model_copy(update={"index": at}) for at, call in whole]
        return self.said.tool_calls or []


class _Details(BaseModel):
    cached_tokens: _Count = 0


class Usage(BaseModel):
    """How many tokens there were, as far as it is told."""

    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _Details | None = None


class Page(BaseModel):
    """One JSON object of an answer: all of it, or a piece of a stream."""

    choices: Annotated[list[_Piece], BeforeValidator(lambda said: said or [])] = Field(
        default_factory=list
    )
    usage: Usage | None = None
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | None = None
    error: Any = None
    object: str | None = None
    code: Any = None

    @property
    def error_status(self) -> int | None:
        """The HTTP status that an error in place of an answer stands for; `None` if it is none."""
        if not self.error and self.object != "error":
            return None
        code = str(self.error.get("code") if isinstance(self.error, dict) else self.code)
        status = int(code) if code.isdecimal() else 0
        return status if 400 <= status < 600 else 500

    def hide(self, hide: Callable[[str], str]) -> None:
        """Take the key out of what is kept or shown, but for the answer: that is as it came."""
        if self.system_fingerprint is not None:
            self.system_fingerprint = hide(self.system_fingerprint)
        for piece in self.choices:
            if piece.finish_reason is not None:
                piece.finish_reason = hide(piece.finish_reason)
            if piece.refusal:
                piece.said.refusal = hide(piece.refusal)
