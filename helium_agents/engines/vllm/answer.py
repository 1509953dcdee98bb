"""The answers to a request: their pieces put together, and taken apart by vLLM's own parsers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from helium_agents.engines.detokenize import Detokenizer
from helium_agents.engines.engine import Choice, Delta, OnDelta, Request, WrittenCall
from helium_agents.engines.vllm.request import choice_of
from helium_agents.errors import EngineStartError, RequestError

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.outputs import CompletionOutput
    from vllm.parser import Parser
    from vllm.v1.engine.async_llm import AsyncLLM

_PARSERS: Final = (
    ("<arg_key>", "glm45"),
    ("<function=", "qwen3_coder"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("[TOOL_CALLS]", "mistral"),
    ("<tool_call>", "hermes"),
    ('"parameters": dictionary of argument name', "llama3_json"),
)
"""What a chat template tells its model to write, and the parser that reads that; the first holds.
`settings._FIXED_SETTINGS` counts changes of it."""


def known_parser(template: str) -> str | None:
    """The name of the parser for a model's chat template; `None` where it is not known."""
    return next((parser for mark, parser in _PARSERS if mark in template), None)


class AnswerReader:
    """Takes answers apart.

    Args:
        llm: The engine, which knows the model's tokenizer and template.
        name: What a person calls it.
        tool_parser: Name of vLLM's parser for calls of tools; `None` for the known one.
        reasoning_parser: Name of vLLM's parser for reasoning; `None` for none.
        template_kwargs: What the chat template is given; some parsers depend on it.

    Raises:
        EngineStartError: vLLM has no such parser, or it does not fit the tokenizer.
    """

    def __init__(
        self,
        llm: AsyncLLM,
        name: str,
        tool_parser: str | None,
        reasoning_parser: str | None,
        template_kwargs: Mapping[str, Any],
    ) -> None:
        from vllm.parser import ParserManager

        self._name = name
        self._config = llm.vllm_config.model_config
        self._tokenizer = llm.get_tokenizer()
        self._template_kwargs = dict(template_kwargs)
        template = getattr(self._tokenizer, "chat_template", None)
        self._template = str(template)
        self._tool_parser = tool_parser or known_parser(self._template)
        try:
            self._parser = ParserManager.get_parser(
                tool_parser_name=self._tool_parser,
                reasoning_parser_name=reasoning_parser,
                enable_auto_tools=True,
                model_name=name,
                tokenizer=self._tokenizer,
            )
        except TypeError as error:  # what vLLM raises for a name that it does not have
            raise EngineStartError(
                f"VLLM(tool_call_parser={tool_parser!r}, reasoning_parser={reasoning_parser!r}): "
                f"{error}. vLLM's documentation on tool calling and reasoning lists the names"
            ) from error

    def check_tools(self) -> None:
        """Refuse tools where the model cannot be told of them, or its calls not be read.

        Raises:
            RequestError: One of the two.
        """
        if "tools" not in self._template:
            raise RequestError(
                f"llm(tools=...): the chat template of {self._name!r} tells its model of no tools: "
                "use a model that was trained to call them"
            )
        if self._tool_parser is None:
            raise RequestError(
                f"llm(tools=...): how {self._name!r} writes calls of tools is not known: name "
                "vLLM's parser for it, as in VLLM(..., tool_call_parser='hermes')"
            )

    def asked(self, request: Request) -> ChatCompletionRequest:
        """A request as vLLM's server has it, adjusted to what the parsers need."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        choice: Any = request.tool_choice
        is_free = choice in ("auto", "none")
        # A call that must be made has arguments that fit; without "strict" they may be anything.
        tools = [
            {"type": "function", "function": {"strict": not is_free, **tool["function"]}}
            for tool in request.tools
        ]
        if not is_free and choice != "required":
            choice = {"type": "function", "function": {"name": choice}}
        more = {"tools": tools, "tool_choice": choice} if tools else {}
        asked = ChatCompletionRequest(messages=[], **more)
        return self._new_parser(asked).adjust_request(asked)

    def read(self, choice: Choice, asked: ChatCompletionRequest, request: Request) -> Choice:
        """The answer with what is more than text apart."""
        parser = self._new_parser(asked)
        parser.set_prompt_token_ids(request.prompt_token_ids)
        reasoning, text, calls = parser.parse(
            choice.text,
            asked,
            enable_auto_tools=bool(request.tools),
            model_output_token_ids=choice.token_ids,
        )
        written = tuple(WrittenCall(call.name, call.arguments) for call in calls or ())
        return replace(choice, text=text or "", reasoning=reasoning, tool_calls=written)

    def stream(self, asked: ChatCompletionRequest, request: Request) -> StreamedText:
        """What takes one answer's text out of its pieces."""
        return StreamedText(self._new_parser(asked), asked, request.prompt_token_ids)

    def _new_parser(self, asked: ChatCompletionRequest) -> Parser:
        assert self._parser is not None
        return self._parser(
            self._tokenizer,
            asked.tools,
            chat_template_kwargs=self._template_kwargs,
            model_config=self._config,
        )


class StreamedText:
    """An answer's text as it comes, without reasoning and calls of tools.

    Args:
        parser: vLLM's, of this answer alone.
        asked: The request as the parser has adjusted it.
        prompt_token_ids: By which it knows whether the prompt ends inside of reasoning.
    """

    def __init__(
        self, parser: Parser, asked: ChatCompletionRequest, prompt_token_ids: Sequence[int]
    ) -> None:
        self._parser = parser
        self._asked = asked
        self._prompt_token_ids = list(prompt_token_ids)
        self._held = ""  # white space, which the parser of the whole may drop at the end
        self._told = ""

    def add(self, piece: CompletionOutput) -> str:
        """What the next piece of the answer adds to the text."""
        found = self._parser.parse_delta(
            piece.text,
            list(piece.token_ids),
            self._asked,
            self._prompt_token_ids,
            finished=piece.finish_reason is not None,
        )
        text = self._held + ((found.content if found is not None else None) or "")
        ready = text.rstrip()
        self._held = text[len(ready) :]
        self._told += ready
        return ready

    def rest(self, text: str) -> str:
        """What is missing at the end, given all of the text."""
        return text.removeprefix(self._told) if text.startswith(self._told) else ""


class Pieces:
    """What has come of the answers to a request.

    Args:
        request: What was asked.
        on_delta: Is told of the text as it comes; `None` for nobody.
        reader: What takes answers apart, where they are not only text.
        detokenizer: What makes the text where nobody looks at it before the end; `None`: vLLM.

    Attributes:
        asked: The request as `reader` has adjusted it.
        vllm_makes_text: Whether vLLM has to make the text from the tokens.
        first_token_s: When the first piece came, if somebody listens: else only the end is told.
    """

    def __init__(
        self,
        request: Request,
        on_delta: OnDelta | None,
        reader: AnswerReader | None,
        detokenizer: Detokenizer | None,
    ) -> None:
        self._request = request
        self._on_delta = on_delta
        self._reader = reader
        self._clock = asyncio.get_running_loop().time
        num_answers = request.sampling.n
        self._pieces: list[list[CompletionOutput]] = [[] for _ in range(num_answers)]
        self._streams: list[StreamedText] = []
        self.first_token_s: float | None = None
        is_read = on_delta is not None or reader is not None or bool(request.sampling.stop)
        self._detokenizer = None if is_read else detokenizer
        self.vllm_makes_text = self._detokenizer is None
        self.asked = None if reader is None else reader.asked(request)
        if reader is not None and self.asked is not None and on_delta is not None:
            self._streams = [reader.stream(self.asked, request) for _ in range(num_answers)]

    def add(self, piece: CompletionOutput) -> None:
        """Take the next piece of an answer."""
        self._pieces[piece.index].append(piece)
        if self._on_delta is not None:
            if self.first_token_s is None:
                self.first_token_s = self._clock()
            text = self._streams[piece.index].add(piece) if self._streams else piece.text
            self._tell(piece.index, text)

    def choices(self) -> tuple[Choice, ...]:
        """The answers, once all of them have ended.

        Raises:
            TransientEngineError: vLLM ended one by itself.
        """
        text_of = None if self.vllm_makes_text else self._text_of
        choices = tuple(choice_of(pieces, text_of) for pieces in self._pieces)
        if self._reader is not None and self.asked is not None:
            reader, asked = self._reader, self.asked
            choices = tuple(reader.read(choice, asked, self._request) for choice in choices)
        for index, stream in enumerate(self._streams):
            self._tell(index, stream.rest(choices[index].text))
        return choices

    def _text_of(self, token_ids: Sequence[int]) -> str:
        assert self._detokenizer is not None
        return self._detokenizer.text(self._request.prompt_token_ids, token_ids)

    def _tell(self, index: int, text: str) -> None:
        if self._on_delta is not None and text:
            self._on_delta(Delta(index, text))
