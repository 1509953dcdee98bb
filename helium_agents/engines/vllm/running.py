"""A vLLM engine that runs: it renders conversations and computes requests in its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from helium_agents.engines import chat_template
from helium_agents.engines.detokenize import detokenizer_of
from helium_agents.engines.encode import encoder_of
from helium_agents.engines.engine import Capacity, ChatMessage, Completion, Delta, Request
from helium_agents.engines.model_source import ModelSource
from helium_agents.engines.vllm import multimodal
from helium_agents.engines.vllm.answer import AnswerReader, Pieces
from helium_agents.engines.vllm.launch import launch
from helium_agents.engines.vllm.liveness import Launched
from helium_agents.engines.vllm.request import sampling_params, translated
from helium_agents.engines.vllm.settings import Settings
from helium_agents.errors import EngineDied, EngineError, EngineStartError, RequestError

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


class RunningVLLM:
    """An engine that runs, from its start to its end.

    Args:
        launched: Its processes, and where requests go in.
        name: What a person calls the model.
        settings: What it was started with.
        today: What a template that shows the date is to show.

    Attributes:
        llm: Where requests go in.
        launched: As given.
        loop: The event loop that it was started in.
        capacity: What it can hold.

    Raises:
        EngineStartError: The model has no chat template.
    """

    def __init__(self, launched: Launched, name: str, settings: Settings, today: date) -> None:
        self.launched = launched
        self.llm = launched.llm
        self.loop = asyncio.get_running_loop()
        self.capacity = _capacity(self.llm)
        self._name = name
        self._settings = settings
        self._today = today
        self._encoder = encoder_of(self.llm.get_tokenizer())
        self._detokenizer = detokenizer_of(self.llm.get_tokenizer())
        self._sees_images = multimodal.sees_images(self.llm)
        self._reader: AnswerReader | None = None
        self._num_asked = 0
        has_template = getattr(self.llm.get_tokenizer(), "chat_template", "")
        if has_template is None and not self._sees_images:  # else its processor may have one
            raise EngineStartError(
                f"model {name!r} has no chat template: use a chat or instruct model"
            )

    @classmethod
    async def start(
        cls,
        settings: Settings,
        source: ModelSource,
        environment: Mapping[str, str],
        name: str,
        today: date,
    ) -> RunningVLLM:
        """Load a model; cancelling leaves nothing behind.

        Args:
            settings: What to start it with.
            source: Where the model is.
            environment: More variables for its processes.
            name: What a person calls the model.
            today: What a template that shows the date is to show.

        Raises:
            EngineStartError: It does not load, or is none to chat with.
        """
        launched = await launch(
            settings.engine_arguments(source), {**settings.environment(), **environment}
        )
        try:
            engine = cls(launched, name, settings, today)
            if settings.tool_call_parser or settings.reasoning_parser:
                await engine.load_parsers()
        except BaseException:
            await launched.shut_down()
            raise
        return engine

    @property
    def num_open_requests(self) -> int:
        """How many requests vLLM is working on, or has queued."""
        return int(self.llm.output_processor.get_num_unfinished_requests())

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes."""
        async with self.launched.while_alive():
            if self.num_open_requests or not await self.llm.reset_prefix_cache():
                raise EngineError(f"engine {self._name!r} has open requests: wait for them first")

    async def load_parsers(self) -> AnswerReader:
        """What takes answers apart; made once, since vLLM's parsers take a second to import.

        Raises:
            EngineStartError: vLLM has no such parser, or it does not fit the tokenizer.
        """
        if self._reader is None:
            settings = self._settings
            self._reader = await asyncio.to_thread(
                AnswerReader,
                self.llm,
                self._name,
                settings.tool_call_parser,
                settings.reasoning_parser,
                settings.chat_template_kwargs,
            )
        return self._reader

    # --- conversations -------------------------------------------------------------------------

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]]
    ) -> Sequence[int]:
        """Token ids of a conversation; see `VLLM.render`."""
        if tools:
            (await self.load_parsers()).check_tools()
        if any(message.images for message in messages):
            if not self._sees_images:
                raise RequestError(
                    f"image(...): the model {self._name!r} takes no images: use one that was "
                    "trained to see them"
                )
            return ()
        if self._sees_images:
            ids: Sequence[int] = (await self._as_prompt(messages, tools))["prompt_token_ids"]
            return ids
        return await chat_template.render(
            self.llm.get_tokenizer(),
            messages,
            tools,
            encoder=self._encoder,
            name=self._name,
            today=self._today,
            template_kwargs=self._settings.chat_template_kwargs,
        )

    async def _as_prompt(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """A conversation with a model that sees images, as vLLM takes it."""
        return await multimodal.render(
            self.llm,
            messages,
            tools,
            name=self._name,
            today=self._today,
            template_kwargs=self._settings.chat_template_kwargs,
        )

    # --- requests ------------------------------------------------------------------------------

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None
    ) -> Completion:
        """Compute a request; see `VLLM.complete`."""
        # Of the "type" that it would make of a prompt, for which it would go through a thread.
        prompt: dict[str, Any] = {
            "type": "token",
            "prompt_token_ids": list(request.prompt_token_ids),
        }
        if request.has_images:
            prompt = await self._as_prompt(request.messages, request.tools)
            request = replace(request, prompt_token_ids=prompt["prompt_token_ids"])
        self._check_length(request)
        reader = None
        if request.tools or self._settings.reasoning_parser:
            reader = await self.load_parsers()
        pieces, cached_tokens = Pieces(request, on_delta, reader, self._detokenizer), 0
        self._num_asked = number = self._num_asked + 1
        params = sampling_params(
            request, number, on_delta is not None, pieces.asked, makes_text=pieces.vllm_makes_text
        )
        outputs = _outputs(self.launched, prompt, request, params)
        async with self.launched.while_alive(), aclosing(outputs):
            async for output in outputs:
                cached_tokens = max(cached_tokens, output.num_cached_tokens or 0)
                for piece in output.outputs:
                    pieces.add(piece)
        begun_s, read_s = self.launched.steps.times_of(number) or (None, None)
        return Completion(
            pieces.choices(),
            cached_tokens,
            pieces.first_token_s,
            prompt_tokens=len(request.prompt_token_ids),
            begun_s=begun_s,
            read_s=read_s,
        )

    def _check_length(self, request: Request) -> None:
        """Refuse what vLLM would silently answer with fewer tokens than were asked for."""
        limit = self.capacity.max_model_tokens
        prompt_tokens, max_tokens = len(request.prompt_token_ids), request.sampling.max_tokens
        if prompt_tokens + max_tokens > limit:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, together "
                f"{prompt_tokens + max_tokens}, but {self._name!r} holds {limit}: shorten the "
                f"prompt, lower max_tokens to {max(limit - prompt_tokens, 0)}, or start the "
                "engine with a larger max_model_tokens"
                if prompt_tokens < limit
                else f"the prompt has {prompt_tokens} tokens, but {self._name!r} holds {limit} "
                f"with the answer (max_tokens={max_tokens}): shorten the prompt, or start the "
                "engine with a larger max_model_tokens"
            )


def _capacity(llm: AsyncLLM) -> Capacity:
    config = llm.vllm_config
    block_tokens = config.cache_config.block_size
    num_blocks = config.cache_config.num_gpu_blocks - 1  # vLLM keeps one to itself
    return Capacity(
        kv_tokens=num_blocks * block_tokens,
        block_tokens=block_tokens,
        max_model_tokens=config.model_config.max_model_len,
        max_requests=config.scheduler_config.max_num_seqs,
        max_batched_tokens=config.scheduler_config.max_num_batched_tokens,
    )


async def _outputs(
    engine: Launched, prompt: dict[str, Any], request: Request, params: SamplingParams
) -> AsyncGenerator[RequestOutput, None]:
    """What vLLM gives for a request, its errors in the port's terms."""
    try:
        outputs = engine.llm.generate(
            prompt,
            params,
            request.request_id,
            priority=request.priority,
        )
        async with aclosing(outputs):
            async for output in outputs:
                if any(piece.finish_reason == "abort" for piece in output.outputs):
                    # Not by us, who then would not be here: the core was told to end.
                    raise engine.died()
                yield output
    except Exception as error:
        explained = translated(error, engine)
        if isinstance(explained, EngineDied):
            engine.lose()
        raise explained from error
