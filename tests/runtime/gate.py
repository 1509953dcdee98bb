"""Scripts that answer when a test lets them, and waiting by event loop ticks instead of seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from helium_agents.engines.engine import Request


class Gate:
    """A script of an engine: echoes the last message once the gate is open.

    Args:
        clean_up_ticks: Event loop ticks that a request takes to end after it was cancelled.
    """

    def __init__(self, *, is_open: bool = False, clean_up_ticks: int = 0) -> None:
        self._opened = asyncio.Event()
        self._clean_up_ticks = clean_up_ticks
        self.num_cleaned_up = 0
        if is_open:
            self.open()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, request: Request) -> str:
        try:
            await self._opened.wait()
        except asyncio.CancelledError:
            await ticks(self._clean_up_ticks)
            self.num_cleaned_up += 1
            raise
        return request.messages[-1].content


async def ticks(count: int = 20) -> None:
    """Let everything run that can run without the passing of time."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_so: Callable[[], object]) -> None:
    """Wait for a state that is reached without the passing of time."""
    for _ in range(2000):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("the state was never reached")


async def cancel_when(scope: anyio.CancelScope, is_so: Callable[[], object]) -> None:
    """Cancel an anyio scope as soon as a state is reached."""
    await until(is_so)
    await ticks(3)
    scope.cancel()
