"""`planned(graph)`: a compiled graph whose runs are in a session, and whose batches are a `map`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Unpack

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list

from helium_agents.engines.default import EngineLike
from helium_agents.errors import ItemError
from helium_agents.graph.trace import Frame, entered, entered_frame
from helium_agents.runtime.options import SessionOptions
from helium_agents.runtime.session import Session


def planned(
    graph: Any, engine: EngineLike | Session | None = None, **options: Unpack[SessionOptions]
) -> PlannedGraph:
    """A compiled graph as it is, but for `ainvoke`, `abatch` and `astream`.

    Each of them opens a session, in which `ChatHelium` and `llm` make their calls; the runs of a
    batch are items of a `map`, so that all of them are known, merged and ordered together.

    Args:
        graph: What `compile()` gave, or an `@entrypoint`.
        engine: As for `Session`; start one before, and it outlives the calls. Or an open session,
            which is used instead.
        options: As for `Session`: `memo=`, `max_open=`, ...

    Example:
        ``app = planned(graph, VLLM("Qwen/Qwen3-8B"), memo="memo")``
    """
    return PlannedGraph(graph, engine, options)


class PlannedGraph(Runnable[Any, Any]):
    """Made by `planned`. What is not here is the graph's own: its state, its picture, and so on."""

    def __init__(
        self, graph: Any, engine: EngineLike | Session | None, options: SessionOptions
    ) -> None:
        self.graph = graph
        self._engine = engine
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["graph"], name)

    def __repr__(self) -> str:
        return f"planned({self.graph!r})"

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        if isinstance(self._engine, Session):
            yield self._engine
            return
        async with Session(self._engine, **self._options) as session:
            yield session

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As the graph's own, without a session: `ChatHelium` then uses one of its own."""
        return self.graph.invoke(input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `invoke`."""
        return self.graph.stream(input, config, **kwargs)

    def batch(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """As `invoke`."""
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
            return await session.run(self.graph.ainvoke, input, config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As the graph's own, in a session."""
        async for chunk in self._streamed(self.graph.astream, input, config, kwargs):
            yield chunk

    async def astream_events(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As the graph's own, in a session."""
        async for event in self._streamed(self.graph.astream_events, input, config, kwargs):
            yield event

    async def _streamed(
        self,
        stream: Callable[..., AsyncGenerator[Any, None]],
        input: Any,
        config: RunnableConfig | None,
        kwargs: dict[str, Any],
    ) -> AsyncIterator[Any]:
        async with self._session() as session, aclosing(stream(input, config, **kwargs)) as chunks:
            frame = await session.run(_frame)  # one for all steps, which tells their draws apart
            while True:
                try:
                    with entered(frame):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                yield chunk

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
            return await self.graph.ainvoke(inputs[at], configs[at], **kwargs)

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
