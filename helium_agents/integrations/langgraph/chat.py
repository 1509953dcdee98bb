"""`ChatHelium`: LangChain's chat model whose calls are calls of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from operator import itemgetter
from typing import Any, Literal, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableMap,
    RunnablePassthrough,
)
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PrivateAttr

from helium_agents.integrations.langgraph.asked import Asked, check_fits
from helium_agents.integrations.langgraph.loop_thread import LoopThread
from helium_agents.integrations.langgraph.where import SessionLoop, session_loop
from helium_agents.integrations.langgraph.work import Work, pieces, pieces_async

T = TypeVar("T")

_LETTERS_PER_TOKEN = 4


class ChatHelium(BaseChatModel):
    """A chat model for LangChain and LangGraph.

    Where a session is open in the caller's context, it is used: equal calls are merged, and what is
    remembered is not asked again. Elsewhere the model has a session of its own, on an event loop in
    a thread of its own, that begins with the first call: for sync callers, threads, and programs
    that run one event loop after another. Each caller has callbacks and a run id of its own; of
    merged calls the one that was computed reports its tokens, the others none.

    Args:
        model: Name of one of the session's engines; the first by default. Of the model's own
            session it is the model to load, where `engine` says nothing.
        engine: The engine of the model's own session, as for `Session`; by default the embedded
            SmolLM2-135M-Instruct.
        session_options: More arguments of the model's own `Session`, e.g. ``{"memo": "memo"}``.
        max_tokens: Most tokens of one answer.
        temperature: 0 is greedy.
        top_p: Nucleus mass, in (0, 1].
        seed: Makes a sampled answer reproducible.
        stop: Strings that end the answer.
        timeout: Seconds granted to one call.
        max_retries: Further attempts after an error that may pass.
        share: `False` keeps calls from being merged and from the memo.
        streaming: LangChain's: `True` streams in `invoke` as well, so that callbacks see pieces;
            `False` set never streams.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | None = None
    engine: Any = Field(default=None, exclude=True)
    session_options: dict[str, Any] = Field(default_factory=dict, exclude=True)
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    max_retries: int = 2
    share: bool = True
    streaming: bool = False
    cache: Any = Field(default=False, exclude=True)  # LangChain's own would sit in front of ours

    _own: LoopThread | None = PrivateAttr(default=None)

    @property
    def _llm_type(self) -> str:
        return "helium"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model", "max_tokens", "temperature", "top_p", "seed", "stop")
        return {name: getattr(self, name) for name in names}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop, **kwargs)
        params.setdefault("ls_model_name", self._name_for(self.model))
        return params

    def close(self) -> None:
        """Close the model's own session, and stop what that has started. Idempotent."""
        if self._own is not None:
            self._own.close()

    # --- LangChain's four ways to ask ----------------------------------------------------------

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        where = session_loop(is_sync=False)
        asked = self._asked(where, messages, stop, run_manager, kwargs)
        if where is not None and where.is_here:
            return await asked.answer()
        return await self._there(where, asked.answer()).result_async()

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        where = session_loop(is_sync=True)
        asked = self._asked(where, messages, stop, run_manager, kwargs)
        return self._there(where, asked.answer()).result()

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        where = session_loop(is_sync=False)
        asked = self._asked(where, messages, stop, run_manager, kwargs)
        if where is not None and where.is_here:
            chunks = asked.chunks()
        else:
            chunks = pieces_async(lambda put: self._there(where, asked.pour(put)))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        where = session_loop(is_sync=True)
        asked = self._asked(where, messages, stop, run_manager, kwargs)
        yield from pieces(lambda put: self._there(where, asked.pour(put)))

    def batch(self, *args: Any, **kwargs: Any) -> list[AIMessage]:
        """As LangChain's own, which asks in threads."""
        session_loop(is_sync=True)  # raises where it would block those
        replies: list[AIMessage] = super().batch(*args, **kwargs)
        return replies

    # --- where -----------------------------------------------------------------------------------

    def _there(self, where: SessionLoop | None, work: Coroutine[Any, Any, T]) -> Work[T]:
        """Begin it on the event loop of the caller's session, or of the model's own."""
        if where is not None:
            return Work.on(where.loop, where.thread_id, work)
        engine = self.engine if self.engine is not None else self.model
        own = self._own
        if own is None or own.engine is not engine or own.options is not self.session_options:
            own = self._own = LoopThread(engine, self.session_options)  # a copy may differ
        return own.submit(work)

    def __deepcopy__(self, memo: Any = None) -> ChatHelium:
        """A copy with the same engine: what runs cannot be copied."""
        copy: ChatHelium = self.model_copy()
        return copy

    # --- asking ----------------------------------------------------------------------------------

    def _asked(
        self,
        where: SessionLoop | None,
        messages: list[BaseMessage],
        stop: Any,
        run_manager: Any,
        given: dict[str, Any],
    ) -> Asked:
        options: dict[str, Any] = {
            name: given.pop(name, getattr(self, name))
            for name in ("max_tokens", "temperature", "top_p", "seed", "timeout", "share")
        }
        model = given.pop("model", self.model)
        names_engine = where is not None or isinstance(self.engine, dict)
        options["model"] = model if names_engine else None
        options["retries"] = self.max_retries
        options["stop"] = (stop or self.stop) or None
        for name in ("tools", "tool_choice", "schema"):
            if name in given:
                options[name] = given.pop(name)
        given.pop("ls_structured_output_format", None)
        keeps_invalid = given.pop("keeps_invalid", False)
        if given:
            raise TypeError(f"ChatHelium takes no {', '.join(given)}")
        # where callbacks want pieces, LangChain streams without telling of the run
        run = ensure_config() if run_manager is None else {"metadata": run_manager.metadata}
        metadata = run.get("metadata") or {}
        return Asked(messages, options, self._name_for(model), metadata, keeps_invalid)

    def _name_for(self, model: str | None) -> str:
        return model or getattr(self.engine, "name", None) or "helium"

    # --- how long it is ------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids by `custom_get_token_ids`.

        Raises:
            NotImplementedError: There is none: LangChain would fetch another model's tokenizer.
        """
        if self.custom_get_token_ids is None:
            raise NotImplementedError("ChatHelium(custom_get_token_ids=...) says what tokens are")
        ids: list[int] = self.custom_get_token_ids(text)
        return ids

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text, a quarter of its letters without `custom_get_token_ids`."""
        if self.custom_get_token_ids is None:
            return -(-len(text) // _LETTERS_PER_TOKEN)
        return len(self.get_token_ids(text))

    # --- tools and schemas -----------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, AIMessage]:
        """The model with tools that it may call.

        Args:
            tools: What LangChain takes for one: functions, pydantic models, `BaseTool`, schemas.
            tool_choice: ``"auto"``, ``"none"``, ``"any"`` or `True` (``"required"``), or a name.
            strict: Has no effect: calls that must be made fit their schema in any case.
            kwargs: Bound as they are.
        """
        if not tools:
            return self.bind(**kwargs)
        schemas = [convert_to_openai_tool(tool) for tool in tools]
        if isinstance(tool_choice, dict):
            tool_choice = tool_choice["function"]["name"]
        named: dict[Any, str] = {True: "required", "any": "required", None: "auto", False: "auto"}
        choice = named.get(tool_choice, tool_choice)
        return self.bind(tools=schemas, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Literal["json_schema", "json_mode", "function_calling"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """The model with answers that fit a schema.

        Args:
            schema: A pydantic model, a TypedDict, or a JSON schema.
            method: ``"json_schema"`` and ``"json_mode"`` constrain decoding to the schema;
                ``"function_calling"`` takes it for a tool that must be called.
            include_raw: Give a dict of `raw`, `parsed` and `parsing_error` instead, also where an
                answer does not fit, which otherwise raises `InvalidReply`: one that was cut.
            strict: Has no effect: answers fit in any case.
            kwargs: None are known.
        """
        if method not in ("json_schema", "json_mode", "function_calling"):
            raise ValueError(
                f"method={method!r}: 'json_schema', 'json_mode' or 'function_calling' is meant"
            )
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        asked = convert_to_json_schema(schema)
        told = {"kwargs": {"method": method}, "schema": asked}
        model = self.bind(
            schema=asked, ls_structured_output_format=told, keeps_invalid=include_raw, **kwargs
        )
        is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
        if not include_raw:
            return model | parser
        parse = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | RunnableLambda(check_fits) | parser,
            parsing_error=lambda _: None,
        )
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        parsed = parse.with_fallbacks([failed], exception_key="parsing_error")
        return RunnableMap(raw=model) | parsed
