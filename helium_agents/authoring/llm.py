"""`llm(...)`: one call of a model, recorded as a node of the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Any, TypeVar, overload

from helium_agents.authoring.llm_arguments import (
    check_options,
    check_predict,
    not_a_message,
    tools_of,
)
from helium_agents.authoring.messages import Message, content_parts
from helium_agents.authoring.tool_schema import ToolLike
from helium_agents.errors import ImpureCall, PromptError
from helium_agents.graph.image import Image
from helium_agents.graph.llm_node import LlmCall, LlmNode, Part
from helium_agents.graph.node import Node
from helium_agents.graph.ref import LEAK_MARK, Ref
from helium_agents.graph.reply import Reply
from helium_agents.graph.reply_schema import reply_schema
from helium_agents.graph.sampling import Sampling, sampling_of, stop_strings
from helium_agents.graph.tool_call import Beside
from helium_agents.graph.trace import check_on_loop, entered_frame, root_frame
from helium_agents.graph.values import Slot

S = TypeVar("S")

Predict = str | Callable[[Any], Any]
"""Guesses an answer: the name of an engine, or a function of the messages."""


@overload
def llm(
    *messages: Message,
    model: str | None = ...,
    max_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    top_k: int = ...,
    min_p: float = ...,
    presence_penalty: float = ...,
    frequency_penalty: float = ...,
    repetition_penalty: float = ...,
    stop: str | list[str] | tuple[str, ...] | None = ...,
    seed: int | None = ...,
    n: int = ...,
    schema: None = ...,
    share: bool = ...,
    tools: Sequence[ToolLike] | None = ...,
    tool_choice: str = ...,
    retries: int = ...,
    timeout: float | None = ...,
    predict: Predict | None = ...,
) -> Ref[Reply[None]]: ...
@overload
def llm(
    *messages: Message,
    schema: type[S],
    model: str | None = ...,
    max_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    top_k: int = ...,
    min_p: float = ...,
    presence_penalty: float = ...,
    frequency_penalty: float = ...,
    repetition_penalty: float = ...,
    stop: str | list[str] | tuple[str, ...] | None = ...,
    seed: int | None = ...,
    n: int = ...,
    share: bool = ...,
    retries: int = ...,
    timeout: float | None = ...,
    predict: Predict | None = ...,
) -> Ref[Reply[S]]: ...
@overload
def llm(
    *messages: Message,
    schema: dict[str, Any] | UnionType,
    model: str | None = ...,
    max_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    top_k: int = ...,
    min_p: float = ...,
    presence_penalty: float = ...,
    frequency_penalty: float = ...,
    repetition_penalty: float = ...,
    stop: str | list[str] | tuple[str, ...] | None = ...,
    seed: int | None = ...,
    n: int = ...,
    share: bool = ...,
    retries: int = ...,
    timeout: float | None = ...,
    predict: Predict | None = ...,
) -> Ref[Reply[Any]]: ...
def llm(
    *messages: Message,
    model: str | None = None,
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: str | list[str] | tuple[str, ...] | None = None,
    seed: int | None = None,
    n: int = 1,
    schema: Any = None,
    share: bool = True,
    tools: Sequence[ToolLike] | None = None,
    tool_choice: str = "auto",
    retries: int = 2,
    timeout: float | None = None,
    predict: Predict | None = None,
) -> Ref[Any]:
    """Ask a model; `await` the returned Ref for the `Reply`.

    Greedy calls (the default) and seeded ones are deterministic: equal ones are computed once and
    remembered. A sampled call without a seed is a fresh draw each time, never merged.

    Args:
        messages: The conversation: `system(...)`, `user(...)`, `assistant(...)`, `tool(...)`.
        model: Name of one of the session's engines; the first by default.
        max_tokens: Most tokens of one answer.
        temperature: 0 is greedy.
        top_p: Nucleus mass, in (0, 1].
        top_k: Tokens considered; 0 means all.
        min_p: Least probability relative to the likeliest token, in [0, 1].
        presence_penalty: In [-2, 2].
        frequency_penalty: In [-2, 2].
        repetition_penalty: Greater than 0; 1 is none.
        stop: A string, or a list of strings, that end the answer.
        seed: Makes a sampled answer reproducible: a whole number from 0 to 2**63 - 1.
        n: Number of answers, in `reply.texts`.
        schema: A pydantic model, an Enum, or any type that pydantic validates: decoding is
            constrained to its JSON schema, and `reply.parsed` is the value. Or a JSON schema as a
            dict: then `reply.parsed` is the JSON value.
        share: `False` keeps this call from being merged with equal ones and from the memo.
        tools: What the model may call: functions with annotated parameters (operators, too), of
            which it is told the name, the docstring and the types; or JSON schemas as dicts. The
            calls are in `reply.tool_calls`; `run_tools` carries them out. Not with `schema=`, and
            for one answer (`n=1`) only.
        tool_choice: ``"auto"``: the model decides; ``"none"``: it calls none; ``"required"``: it
            calls at least one; or the name of the one that it must call.
        retries: Further attempts after a transient engine error. A sampled reply that does not
            fit `schema` is drawn anew; a greedy one is not, since it would come out the same.
        timeout: Seconds this waiter grants the call, counted from when its turn has come: an int
            or float above 0.
        predict: Guesses the answer, in no time, from the messages (each has `role` and
            `content`). While the call is open inside a pure operator, what comes after it may be
            computed as if the guess were right (see `Session(speculate=...)`); results are those
            that they would be without. It returns one answer, or a list of pairs of an answer and
            its probability; `None` for no guess. An answer is a text; with `schema=` a value of it;
            with `tools=` also a `ToolCall` or a list of them. Or the name of a smaller one of the
            session's engines, which is asked the same.

    Raises:
        PromptError: The messages or the schema are malformed.
        RequestError: Another argument is of the wrong type or out of range, or does not go with
            `tools=`.
        ImpureCall: An unseeded sample inside a pure operator.
        OffLoopCall: No event loop runs here.
    """
    is_usual = timeout is None and model is None and share is True
    if not (is_usual and type(retries) is int and retries >= 0):
        check_options(model, share, retries, timeout)
    frame = entered_frame() or root_frame()
    if frame.runner is None:  # a session checks it itself
        check_on_loop("llm")
    parts, inputs, beside = _to_parts(messages)
    parameters = (  # by position: half the cost of names
        max_tokens,
        temperature,
        top_p,
        top_k,
        min_p,
        presence_penalty,
        frequency_penalty,
        repetition_penalty,
        () if stop is None else stop_strings(stop),
        seed,
        n,
    )
    try:
        sampling = sampling_of(*parameters)
    except TypeError:  # one of them has no hash, so it is wrong, and this says which
        sampling = Sampling(*parameters)
    if frame.is_pure and not sampling.is_deterministic:
        raise ImpureCall(
            "an unseeded sample (temperature > 0) was asked for inside a pure operator, whose "
            "result may be shared: give llm(...) a seed=, or drop pure=True"
        )
    asked = None if schema is None else reply_schema(schema)
    json_schema = None if asked is None else asked.json_schema
    call = LlmCall(
        parts, sampling, asked, json_schema, model, share, retries, timeout, beside=beside
    )
    if tools is not None or tool_choice != "auto":
        call.tools = tools_of(tools, tool_choice, schema, n)
    if predict is not None:
        check_predict(predict, frame, n)
        call.predict = predict
    node = LlmNode(frame, call, inputs)
    if frame.runner is not None:
        frame.runner.on_created(node)
    return Ref(node)


def _to_parts(
    messages: Iterable[Message],
) -> tuple[tuple[tuple[str, tuple[Part, ...]], ...], tuple[Node, ...], tuple[Beside | None, ...]]:
    """Messages as texts and slots, the nodes that the slots stand for, and what is beside the text.

    In place of an image its mark is in the text.

    Neighbouring texts are joined, so that one conversation has one form however it was composed.
    Where no message has anything beside its text, the last is empty.
    """
    inputs: dict[Node, Slot] = {}
    rendered: list[tuple[str, tuple[Part, ...]]] = []
    beside: list[Beside | None] = []
    for position, message in enumerate(messages):
        if not isinstance(message, Message):
            raise PromptError(not_a_message(message, position))
        beside.append(message.beside)
        if type(message.content) is str and LEAK_MARK not in message.content:  # nearly always
            rendered.append((message.role, (message.content,)))
            continue
        parts: list[Part] = [""]
        images: list[Image] = []
        for part in content_parts(message.content, f"the {message.role} message {position}"):
            if isinstance(part, Image):
                images.append(part)
                part = part.mark
            if isinstance(part, Ref):
                parts.append(inputs.setdefault(part.node, Slot(len(inputs))))
            elif isinstance(parts[-1], str):
                parts[-1] += part
            else:
                parts.append(part)
        if len(parts) > 1 and parts[0] == "":
            del parts[0]
        _check_leaks(parts, message.role, position)
        rendered.append((message.role, tuple(parts)))
        if images:
            beside[-1] = (message.beside or Beside())._replace(images=tuple(images))
    if not rendered:
        raise PromptError("llm(...) needs at least one message, e.g. llm(user('Hello'))")
    return tuple(rendered), tuple(inputs), tuple(beside) if any(beside) else ()


def _check_leaks(parts: list[Part], role: str, position: int) -> None:
    for part in parts:
        if isinstance(part, str) and LEAK_MARK in part:
            start = part.index(LEAK_MARK)
            raise PromptError(
                f"the {role} message {position} contains the representation of a Ref "
                f"({part[start : start + 60]}...) instead of its value: await it first, or pass it "
                f'through prompt("... {{x}}", x=ref)'
            )
