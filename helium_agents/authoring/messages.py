"""Messages of a conversation, and prompts with slots for values that may not exist yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Final

from helium_agents.errors import PromptError, shown
from helium_agents.graph.arguments import complaint
from helium_agents.graph.image import Image
from helium_agents.graph.llm_node import LlmNode
from helium_agents.graph.ref import Ref
from helium_agents.graph.reply import Reply
from helium_agents.graph.tool_call import Beside, ToolCall
from helium_agents.graph.values import as_text


@dataclass(frozen=True, slots=True, repr=False)
class Prompt:
    """Text with slots, of which some may be Refs that nobody has awaited yet, or images.

    Made by `prompt(...)`. Once it holds only text, `str(...)` gives it.

    Args:
        parts: Texts, Refs and images, in order.

    Raises:
        PromptError: The parts are something else.
    """

    parts: tuple[str | Ref[Any] | Image, ...]

    def __post_init__(self) -> None:
        parts: Any = self.parts
        if type(parts) is not tuple or not all(
            isinstance(part, str | Ref | Image) for part in parts
        ):
            want = "a tuple of texts, Refs and images; prompt(...) makes it of a template"
            raise PromptError(complaint("parts", parts, want))

    def __str__(self) -> str:
        return "".join(str(part) for part in self.parts)

    def __repr__(self) -> str:
        return f"prompt({''.join(p if isinstance(p, str) else repr(p) for p in self.parts)!r})"


_ROLES: Final = ("system", "user", "assistant", "tool")

Content = str | Prompt | Ref[Any] | Reply[Any] | Image
"""What a message may hold: text, a prompt, a call's Ref, a call's reply, or an image."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: who speaks (`system`, `user`, `assistant`, `tool`) and what.

    Args:
        role: Who speaks.
        content: What is said.
        beside: What it has beside text: calls of tools, or the call that it answers.

    Raises:
        PromptError: Another role, or content that has no text.
    """

    role: str
    content: Content
    beside: Beside | None = None

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise PromptError(complaint("role", self.role, "system, user, assistant or tool"))
        if type(self.content) is not str:
            content_parts(self.content, f"the {self.role} message")
        if self.role == "tool" and (self.beside is None or not self.beside.tool_call_id):
            raise PromptError("a tool message answers a call: write tool(result, call)")


def system(content: Content) -> Message:
    """A message that sets the scene."""
    return Message("system", content)


def user(content: Content, *more: Content) -> Message:
    """A message of the user, in one piece or in several, as in `user("What is this?", picture)`."""
    if more:
        where = "the user message"
        content = Prompt(
            tuple(part for each in (content, *more) for part in content_parts(each, where))
        )
    return Message("user", content)


def assistant(content: Content = "", tool_calls: Sequence[ToolCall] = ()) -> Message:
    """A message of the model: an earlier reply, as text, as `Reply`, or as a Ref.

    Args:
        content: What it said. A `Reply` brings its calls of tools and its reasoning with it.
        tool_calls: The calls of tools that it asked for, where `content` is no `Reply`.

    Raises:
        PromptError: `content` has no text, or is the Ref of a call with `tools=`, which has to be
            awaited: nobody knows yet whether it calls any.
    """
    reasoning = None
    if isinstance(content, Reply):
        tool_calls, reasoning = tool_calls or content.tool_calls, content.reasoning
    elif isinstance(content, Ref) and isinstance(content.node, LlmNode) and content.node.call.tools:
        raise PromptError(
            "assistant(...) was given the Ref of a call with tools=, which may come to be calls of "
            "tools: await it, and give assistant(...) the reply"
        )
    calls = tuple(tool_calls)
    if not all(isinstance(call, ToolCall) for call in calls):
        raise PromptError(complaint("tool_calls", tool_calls, "a sequence of ToolCall"))
    beside = Beside(calls, reasoning) if calls or reasoning else None
    return Message("assistant", content, beside)


def tool(content: Content, call: ToolCall) -> Message:
    """The result of a call that a model asked for.

    Args:
        content: The result as text, or what went wrong.
        call: One of a reply's `tool_calls`.

    Raises:
        PromptError: The content has no text, or `call` is something else.
    """
    if not isinstance(call, ToolCall):
        raise PromptError(complaint("call", call, "a ToolCall, one of reply.tool_calls"))
    return Message("tool", content, Beside(tool_call_id=call.id, tool_name=call.name))


def prompt(template: str, /, **values: Any) -> Prompt:
    """Fill `{name}` slots of a template, with values that may be un-awaited Refs.

    Because the template is known before the values are, a call whose prompt waits for an earlier
    answer can be planned at once. Values are taken as they are: braces in them mean nothing.

    Args:
        template: Text with `{name}` slots; `{{` and `}}` stand for braces.
        values: One for each slot: text, numbers, prompts, replies, Refs, images.

    Raises:
        PromptError: The template is no text, a slot has no value, a value has no slot, or no text.

    Example:
        >>> str(prompt("{a} and {b}", a="salt", b=3))
        'salt and 3'
    """
    if not isinstance(template, str):
        raise PromptError(complaint("template", template, "text with {name} slots"))
    parts: list[str | Ref[Any] | Image] = []
    unused = set(values)
    for text, name in _slots_of(template):
        parts.append(text)
        if name is None:
            continue
        if name not in values:
            raise PromptError(f"slot {{{name}}} of the prompt {shown(template, 43)} has no value")
        unused.discard(name)
        parts.extend(content_parts(values[name], f"slot {{{name}}} of the prompt"))
    if unused:
        raise PromptError(
            f"the prompt {shown(template, 43)} has no slot for {', '.join(sorted(unused))}"
        )
    return Prompt(tuple(part for part in parts if not isinstance(part, str) or part))


def content_parts(content: Any, where: str) -> tuple[str | Ref[Any] | Image, ...]:
    """What a message holds, as texts, Refs and images; `where` names its place in errors."""
    if isinstance(content, Prompt):
        return content.parts
    if isinstance(content, Ref | Image):
        return (content,)
    return (as_text(content, where),)


def _slots_of(template: str) -> Iterable[tuple[str, str | None]]:
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise PromptError(
            f"the prompt {shown(template, 43)} is malformed: {error}; write {{{{ or }}}} for a "
            "brace"
        ) from None
    for text, name, spec, conversion in pieces:
        if name is not None and (spec or conversion or not name.isidentifier()):
            raise PromptError(
                f"slot {{{name}}} of the prompt {shown(template, 43)} is not a plain name; "
                f"format the value first, and write {{{{ or }}}} for a brace"
            )
        yield text, name
