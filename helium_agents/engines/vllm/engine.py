"""vLLM as an engine: a model of one's own, computed by processes on this machine.

Importing this module imports neither vLLM nor torch, and `identity` and `truncate` do not either:
a program whose calls are all remembered never pays for them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

from helium_agents.engines import chat_template
from helium_agents.engines.calibrate import cost_file, cost_of, keep_cost
from helium_agents.engines.detokenize import Truncator, truncator_of
from helium_agents.engines.engine import Capacity, ChatMessage, Choice, Completion, Delta, Request
from helium_agents.engines.model_source import ModelSource, find_model
from helium_agents.engines.vllm.running import RunningVLLM
from helium_agents.engines.vllm.settings import Settings
from helium_agents.errors import EngineError
from helium_agents.optimizer.step_cost import StepCost
from helium_agents.optimizer.step_window import StepWindow


class VLLM:
    """A vLLM engine in processes of its own.

    Args:
        model: A model directory, the name of a hub repository, or `None` for the embedded model,
            SmolLM2-135M-Instruct. ``"random"`` is a small model with random weights, for tests and
            benchmarks: its text means nothing, but depends on every token of the prompt.
        dtype: Of weights and activations. ``"auto"``: float32 on a CPU and for the two models
            that are made on this machine, where answers do not depend on what else is computed;
            else what vLLM chooses.
        max_model_tokens: Most tokens of a prompt and its answer together. `None`: the model's
            own limit, or the size of the KV cache where that is less.
        kv_tokens: Tokens that the KV cache holds. `None`: on a GPU what fits; on a CPU 65,536
            (32,768 of the embedded model), or what ``VLLM_CPU_KVCACHE_SPACE`` (GiB) says.
        max_requests: Most requests computed in one step.
        enforce_eager: Do not compile the model. `None`: only on a GPU it is compiled.
        devices: The GPUs to use, as in ``CUDA_VISIBLE_DEVICES``. `None`: what is visible. With
            `Replicas`, every engine is given its own. Of a CPU with up to four cores all compute,
            unless ``VLLM_CPU_OMP_THREADS_BIND`` says which.
        name: What to call the model; by default its directory's or repository's name.
        chat_template_kwargs: Given to the chat template, e.g. ``{"enable_thinking": False}``.
        tool_call_parser: Which of vLLM's parsers reads the calls of tools in an answer, e.g.
            ``"hermes"``. `None`: that which the model's chat template speaks of, where it is known.
        reasoning_parser: Which of vLLM's parsers tells reasoning from the answer, e.g.
            ``"qwen3"``; then it is `reply.reasoning`. `None`: both are `reply.text`.
        **engine_args: More fields of vLLM's `AsyncEngineArgs`; they override what is set here.

    Raises:
        EngineStartError: An argument is out of range, there is no such `dtype`, or
            `max_model_tokens` does not fit into `kv_tokens`.
    """

    provider = "vllm"
    follows_schemas = True
    calls_tools = True
    takes_images = True  # where its model does, which is known once it is started

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        max_model_tokens: int | None = None,
        kv_tokens: int | None = None,
        max_requests: int = 64,
        enforce_eager: bool | None = None,
        devices: Sequence[int | str] | None = None,
        name: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tool_call_parser: str | None = None,
        reasoning_parser: str | None = None,
        **engine_args: Any,
    ) -> None:
        self._settings = Settings(
            model=model,
            dtype=dtype,
            max_model_tokens=max_model_tokens,
            kv_tokens=kv_tokens,
            max_requests=max_requests,
            enforce_eager=enforce_eager,
            chat_template_kwargs=dict(chat_template_kwargs or {}),
            tool_call_parser=tool_call_parser,
            reasoning_parser=reasoning_parser,
            engine_args=engine_args,
        )
        self._name = name
        gpus = None if devices is None else ",".join(map(str, devices))
        self._environment = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
        # A template that shows the date shows this one, or a run past midnight would not repeat.
        self._today = date.today()
        self._engine: RunningVLLM | None = None
        self._cost: StepCost | None = None
        self._cost_file: Path | None = None
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"VLLM({self.name!r}{', started' if self.is_started else ''})"

    # --- what it is ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What a person calls the model."""
        model = self._settings.model
        return self._name or ("embedded" if model is None else Path(model).name)

    @property
    def capacity(self) -> Capacity | None:
        """What the engine can hold; `None` while it is not started."""
        return None if self._engine is None else self._engine.capacity

    @property
    def cost(self) -> StepCost | None:
        """What a step takes: measured when it was started first on this machine, and corrected.

        Its scheduler tells what steps really take; one of yours does not, and nothing is corrected.
        """
        if self._cost is None or self._engine is None:
            return self._cost
        return self._engine.launched.steps.corrected(self._cost)

    def step_windows(self, since_s: float) -> list[StepWindow]:
        """What its scheduler told of the steps since a time; nothing where it is yours."""
        return [] if self._engine is None else self._engine.launched.steps.windows(since_s)

    @property
    def takes_hints(self) -> bool:
        """Whether its scheduler is ours; with ``scheduler_cls=`` it is yours."""
        return self._settings.takes_hints

    @property
    def is_started(self) -> bool:
        """Whether `start` has finished and `close` was not called since; a dead one counts."""
        return self._engine is not None

    @cached_property
    def _source(self) -> ModelSource:
        arguments = self._settings.engine_args
        return find_model(
            self._settings.model,
            revision=arguments.get("revision"),
            download_dir=arguments.get("download_dir"),
        )

    @cached_property
    def _parts(self) -> dict[str, str]:
        shows_date = self._source.chat_template_has(*chat_template.DATE_WORDS)
        return self._settings.identity_parts(self._source, self._today if shows_date else None)

    def identity(self) -> str:
        """Hex digest of `identity_parts`, everything that decides an answer.

        A hub repository counts by the commit it is pinned to (see `find_model`), a directory by
        the content of its files: large ones are hashed once and then known by size and time.

        Raises:
            EngineStartError: The model cannot be found.
        """
        return blake3(json.dumps(self._parts, sort_keys=True).encode()).hexdigest()

    def identity_parts(self) -> dict[str, str]:
        """What `identity` is made of, by name: weights, tokenizer, dtype, engine, ..."""
        return self._parts

    # --- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the model; 10 to 20 s on two cores. An engine that died is started anew.

        Cancelling leaves nothing behind. Concurrent calls wait for the same start.

        Raises:
            EngineStartError: The model does not load, vLLM is missing, or the program has no
                ``__main__`` guard; the message says what to do.
        """
        async with self._starting:
            if self._engine is not None:
                if not self._engine.launched.is_dead:
                    return
                await self._close()
            source = await asyncio.to_thread(lambda: self._source)
            self._engine = await RunningVLLM.start(
                self._settings, source, self._environment, self.name, self._today
            )
            if self._cost is None:
                await self._calibrate()

    async def _calibrate(self) -> None:
        """Find out what a step takes: read what was measured before, or measure it."""
        settings = f"{sorted(self._settings.engine_arguments(self._source).items())}"
        path = self._cost_file = cost_file(self.identity(), settings)
        try:
            self._cost = await cost_of(path, self.complete, self._running().capacity)
            await self.reset_prefix_cache()
        except EngineError:
            return  # whoever asks it next will see what is the matter
        except BaseException:
            await self._close()
            raise

    async def close(self) -> None:
        """Stop the engine and its processes. Idempotent; requests that are open fail."""
        async with self._starting:
            await self._close()

    async def __aenter__(self) -> Self:
        """Start it for a block, in which any number of sessions may use it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _close(self) -> None:
        before, self._cost = self._cost, self.cost
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.launched.shut_down()
        if self._cost is not None and self._cost != before and self._cost_file is not None:
            await asyncio.to_thread(keep_cost, self._cost_file, self._cost)

    def _running(self) -> RunningVLLM:
        if self._engine is None:
            raise EngineError(f"engine {self.name!r} is not started")
        if asyncio.get_running_loop() is not self._engine.loop:
            raise EngineError(
                f"engine {self.name!r} was started in another event loop: close it there first, "
                "or give each event loop an engine of its own"
            )
        return self._engine

    @property
    def num_open_requests(self) -> int:
        """How many requests vLLM is working on, or has queued."""
        return 0 if self._engine is None else self._engine.num_open_requests

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes, so that the next measurement starts from none.

        Raises:
            EngineError: Requests are open, whose blocks cannot be dropped.
            EngineDied: The engine's processes are gone; `start` makes new ones.
        """
        await self._running().reset_prefix_cache()

    # --- requests ------------------------------------------------------------------------------

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> Sequence[int]:
        """Token ids of the conversation in the model's own template, ready for the answer.

        None of one with images: what they are in tokens is found out when it is computed.

        Raises:
            RequestError: The template refuses the conversation, or knows no tools; or the model
                sees no images.
        """
        return await self._running().render(messages, tools)

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        """Compute the request; cancelling this aborts it.

        Raises:
            RequestError: The request is too long for the model, or not valid.
            TransientEngineError: It may work when tried again.
            EngineDied: The engine's processes are gone; `start` makes new ones.
        """
        return await self._running().complete(request, on_delta)

    @cached_property
    def _truncator(self) -> Truncator | None:
        arguments = self._settings.engine_args
        if arguments.get("tokenizer_mode", "auto") != "auto":
            return None  # vLLM then detokenizes in another way
        tokenizer = arguments.get("tokenizer")
        return truncator_of(self._source if tokenizer is None else find_model(tokenizer))

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The greedy answer cut to `max_tokens`, exactly as if it had been asked for so.

        Works without a started engine. `None` where that cannot be done exactly.
        """
        if len(choice.token_ids) <= max_tokens:
            return choice
        if self._settings.reasoning_parser is not None:
            return None  # where the reasoning would end is the parser's to say
        truncator = self._truncator
        return None if truncator is None else truncator.truncate(choice, max_tokens)
