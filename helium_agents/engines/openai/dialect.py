"""How a server wants to be asked: the path, and the JSON body of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from helium_agents.engines.chat_template import as_chat
from helium_agents.engines.engine import Request, Sampling
from helium_agents.errors import RequestError

_DEFAULTS = Sampling()
_ALWAYS = {"max_tokens", "temperature", "seed", "stop"}  # said in ways of their own
_OF_OPENAI = ("top_p", "presence_penalty", "frequency_penalty", "n")
_BEYOND_OPENAI = tuple(
    field.name
    for field in fields(Sampling)
    if field.init and field.name not in {*_ALWAYS, *_OF_OPENAI}
)
"""All else that `Sampling` has is vLLM's, so that none can be forgotten here."""


class Dialect:
    """What one server takes.

    Args:
        model: The model's name there.
        is_vllm: Whether it is vLLM's own, which takes all of `Sampling`, and hints.
        template_kwargs: Given to its chat template.
        extra_body: What every request has besides.
    """

    def __init__(
        self,
        model: str,
        *,
        is_vllm: bool,
        template_kwargs: Mapping[str, Any],
        extra_body: Mapping[str, Any],
    ) -> None:
        self.is_vllm = is_vllm
        self._model = model
        self._template_kwargs = dict(template_kwargs)
        self._extra_body = dict(extra_body)
        self._length_name = "max_tokens"
        self._takes_priority = is_vllm

    def phrase(self, request: Request, *, is_streamed: bool) -> tuple[str, dict[str, Any]]:
        """Path and body of a request: token ids where it has any, else its messages.

        Messages also where there are tools, since only a chat's answer has their calls apart.

        Raises:
            RequestError: The server is not known to take what is asked for.
        """
        body: dict[str, Any] = {"model": self._model}
        if request.prompt_token_ids and not request.tools:
            path = "/completions"
            body["prompt"] = list(request.prompt_token_ids)
        else:
            path = "/chat/completions"
            body["messages"] = [as_chat(message) for message in request.messages]
            if self._template_kwargs:
                body["chat_template_kwargs"] = self._template_kwargs
        if request.tools:
            body |= self._told(request)
        body |= self._sampled(request.sampling)
        if request.json_schema is not None:
            schema = {"name": "reply", "schema": json.loads(request.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if is_streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.is_vllm:
            body["return_token_ids"] = True
            if request.hints is not None:
                body["vllm_xargs"] = request.hints
            if request.priority and self._takes_priority:
                body["priority"] = request.priority
        return path, body | self._extra_body

    def _told(self, request: Request) -> dict[str, Any]:
        """The tools, and which is to be called."""
        choice: Any = request.tool_choice
        tools = list(request.tools)
        if choice not in ("auto", "none") and self.is_vllm:
            # a call that must be made has arguments that fit; without "strict" they may be anything
            tools = [
                {"type": "function", "function": {"strict": True, **tool["function"]}}
                for tool in tools
            ]
        if choice not in ("auto", "none", "required"):
            choice = {"type": "function", "function": {"name": choice}}
        return {"tools": tools, "tool_choice": choice}

    def learn(self, refusal: str) -> bool:
        """Adapt to what a server refused; whether there is anything new to try.

        Newer models of OpenAI's want another name for `max_tokens`, and vLLM takes a priority only
        where it was started with ``--scheduling-policy priority``.
        """
        if self._length_name in refusal and "max_completion_tokens" in refusal:
            is_new = self._length_name == "max_tokens"
            self._length_name = "max_completion_tokens"
            return is_new
        if "priority" in refusal and self._takes_priority:
            self._takes_priority = False
            return True
        return False

    def _sampled(self, sampling: Sampling) -> dict[str, Any]:
        """How to sample. To vLLM all is said: it takes other defaults from the model's files."""
        body: dict[str, Any] = {
            self._length_name: sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        for name in (*_OF_OPENAI, *_BEYOND_OPENAI):
            value = getattr(sampling, name)
            if self.is_vllm or value != getattr(_DEFAULTS, name):
                body[name] = value
        beyond = [name for name in _BEYOND_OPENAI if name in body]
        if beyond and not self.is_vllm:
            raise RequestError(
                f"llm({beyond[0]}=...): the OpenAI API has no {beyond[0]}, and a server may ignore "
                "what it does not know: leave it out, or use a vLLM server"
            )
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body
