"""`planned(graph)`: a compiled graph whose runs are in a session, and whose batches are a `map`."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Unpack

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list

from helium_agents.engines.default import EngineLike
from helium_agents.errors import ItemError
from helium_agents.graph.trace import Frame, entered, entered_frame, set_frame
from helium_agents.integrations.langgraph.loop_thread import LoopThread
from helium_agents.integrations.langgraph.nodes import name_nodes, named_nodes
from helium_agents.integrations.langgraph.own_task import HandOver, in_own_task
from helium_agents.integrations.langgraph.where import session_loop
from helium_agents.integrations.langgraph.work import Work
from helium_agents.runtime.options import SessionOptions
from helium_agents.runtime.session import Session

_END = object()

_NO_V3 = (
    "a planned graph has astream_events of version 'v1' and 'v2': for 'v3' open a Session, and "
    "call the graph itself in it"
)

_OWN = frozenset({"graph", "_engine", "_options", "_thread"})


def planned(
    graph: Any, engine: EngineLike | Session | None = None, **options: Unpack[SessionOptions]
) -> PlannedGraph:
    """A compiled graph as it is, but that each run of it is in a session.

    `ainvoke`, `abatch` and `astream` open a session, in which `ChatHelium` and `llm` make their
    calls; the runs of an `abatch` are items of a `map`, so that all of them are known, merged and
    ordered together. `invoke`, `batch` and `stream` open one on an event loop in a thread of its
    own, which those that run at once share; there a batch is LangChain's own, in threads.

    Args:
        graph: What `compile()` gave, or an `@entrypoint`.
        engine: As for `Session`; start one before, and it outlives the calls. Or an open session,
            which is used instead.
        options: As for `Session`: `memo=`, `max_open=`, ...

    Example:
        ``app = planned(graph, VLLM("Qwen/Qwen3-8B"), memo="memo")``

    Raises:
        TypeError: `graph` cannot be run.
    """
    if not isinstance(graph, Runnable):
        raise TypeError(
            f"planned(...) takes a compiled graph (graph.compile()), not a {type(graph).__name__}"
        )
    return PlannedGraph(graph, engine, options)


def _of_graph(name: str) -> Any:
    """The graph's own, where LangChain would say what it says of any runnable."""
    return property(lambda self: getattr(self.graph, name))


class PlannedGraph(Runnable[Any, Any]):
    """Made by `planned`. What is not here is the graph's own: its state, its picture, and so on."""

    InputType = _of_graph("InputType")
    OutputType = _of_graph("OutputType")
    config_schema = _of_graph("config_schema")
    get_config_jsonschema = _of_graph("get_config_jsonschema")
    get_input_jsonschema = _of_graph("get_input_jsonschema")
    get_input_schema = _of_graph("get_input_schema")
    get_output_jsonschema = _of_graph("get_output_jsonschema")
    get_output_schema = _of_graph("get_output_schema")

    def __init__(
        self, graph: Any, engine: EngineLike | Session | None, options: SessionOptions
    ) -> None:
        self.graph = graph
        self._engine = engine
        self._options = options
        thread_engine = None if isinstance(engine, Session) else engine
        self._thread = LoopThread(thread_engine, dict(options))  # for callers without await

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__.get("graph"), name)  # none while it is copied

    def __setattr__(self, name: str, value: Any) -> None:
        """What is set is the graph's, too: its `step_timeout`, for example."""
        super().__setattr__(name, value) if name in _OWN else setattr(self.graph, name, value)

    def __repr__(self) -> str:
        return f"planned({self.graph!r})"

    @property
    def _workflow(self) -> str:
        """What a profile calls the graph: its name and those of its nodes."""
        nodes = ", ".join(map(str, getattr(self.graph, "nodes", ())))
        return f"{self.graph.get_name()}({nodes})"

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        if isinstance(self._engine, Session):
            yield self._engine
            return
        async with Session(self._engine, **self._options) as session:
            yield session

    @contextmanager
    def _frame(self) -> Iterator[Frame]:
        """A frame of a session, for code that waits for its calls in this thread."""
        if isinstance(self._engine, Session):
            where = session_loop(is_sync=True, frame=self._engine.root)
            assert where is not None
            yield Work.on(where.loop, where.thread_id, self._engine.run(_frame)).result()
            return
        with self._thread.used():
            yield self._thread.submit(_frame()).result()

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As the graph's own, in a session."""
        with self._frame() as frame, entered(frame), named_nodes():
            return self.graph.invoke(input, config, **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As the graph's own, in a session."""
        with self._frame() as frame:
            context = contextvars.copy_context()  # not the consumer's, as in `in_own_task`
            context.run(set_frame, frame)
            context.run(name_nodes)
            chunks = self.graph.stream(input, config, **kwargs)
            try:
                while (chunk := context.run(next, chunks, _END)) is not _END:
                    yield chunk
            finally:
                context.run(chunks.close)

    def batch(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As the graph's own, in a session."""
        with self._frame() as frame, entered(frame), named_nodes():
            results: list[Any] = self.graph.batch(inputs, config, **kwargs)
            return results

    def get_graph(self, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The graph's own."""
        return self.graph.get_graph(config, **kwargs)

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> PlannedGraph:
        """The graph's own, planned."""
        return PlannedGraph(self.graph.with_config(config, **kwargs), self._engine, self._options)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As the graph's own, in a session."""
        async with self._session() as session:
            with named_nodes():
                return await session.run(self.graph.ainvoke, input, config, **kwargs)

    def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As the graph's own, in a session."""
        return self._streamed(self.graph.astream, input, config, kwargs)

    def astream_events(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As the graph's own, in a session.

        Raises:
            NotImplementedError: Of version 3, whose runs are driven by whoever reads them.
        """
        if kwargs.get("version") == "v3":
            raise NotImplementedError(_NO_V3)
        return self._streamed(self.graph.astream_events, input, config, kwargs)

    def stream_events(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Not there: LangChain has it for version 3 alone."""
        raise NotImplementedError(_NO_V3)

    def _streamed(
        self,
        stream: Callable[..., AsyncGenerator[Any, None]],
        input: Any,
        config: RunnableConfig | None,
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[Any, None]:
        async def pour(hand_over: HandOver) -> None:
            async with aclosing(stream(input, config, **kwargs)) as chunks:
                async for chunk in chunks:
                    await hand_over(chunk)

        async def run(hand_over: HandOver) -> None:
            async with self._session() as session:
                name_nodes()
                await session.run(pour, hand_over)

        return in_own_task(run)

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """As the graph's own, with the runs as items of one `map`; `max_concurrency` means nothing.

        What limits them is what the engine holds (`max_open=`).
        """
        configs = get_config_list(config, len(inputs))

        async def run(at: int) -> Any:
            name_nodes()
            return await self.graph.ainvoke(inputs[at], configs[at], **kwargs)

        run.__qualname__ = self._workflow  # of each graph other things are learned
        results: list[Any] = []
        async with (
            self._session() as session,
            session.map(run, range(len(inputs)), on_error="collect") as found,
        ):
            async for result in found:
                if isinstance(result, ItemError):
                    error = result.__cause__ or result
                    if not return_exceptions:
                        raise error
                    result = error
                results.append(result)
        return results


async def _frame() -> Frame:
    frame = entered_frame()
    assert frame is not None
    return frame
