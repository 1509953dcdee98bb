"""`helium run` with an engine that notes each request in a file: what `kill_runs` kills.

    python -m benchmarks.victim scripted|real NOTES run FILE:WORKFLOW --input ...

It prints "ready" once everything is imported. A note is made before the request is computed.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from collections.abc import Callable
from typing import Any

from xxhash import xxh3_64_hexdigest

from helium_agents.cli import execute, main
from helium_agents.engines.engine import Capacity, Completion, Delta, Engine, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM

_MAX_LATENCY_S = 0.03
_CAPACITY = Capacity(kv_tokens=400, block_tokens=1, max_model_tokens=100, max_requests=16)


class NotedScripted(ScriptedEngine):
    """Answers quickly, and not all at the same speed."""

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        note(request)
        return await super().complete(request, on_delta)


class NotedVLLM(VLLM):
    """The real engine."""

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        note(request)
        return await super().complete(request, on_delta)


def note(request: Request) -> None:
    """Add a request to the file of notes."""
    os.write(_notes_fd, f"{question(request)}\n".encode())


def question(request: Request) -> str:
    """Identifies a question, whoever asks it."""
    return xxh3_64_hexdigest(ascii((request.messages, request.sampling)).encode())


def without_chance(text: str) -> str:
    """A scripted answer, or text made of such, without what differs between runs."""
    return re.sub("<[^>]*>", "", text)


async def script(request: Request) -> str:
    """A text like ``5d1f<who asked>`` or, of a draw, ``5d1f<who asked:nonce>``.

    The first part depends on the conversation without what is in brackets in it.
    """
    await asyncio.sleep(random.uniform(0, _MAX_LATENCY_S))
    gist = xxh3_64_hexdigest(without_chance(ascii(request.messages)).encode())[:8]
    nonce = "" if request.sampling.is_deterministic else f":{os.urandom(6).hex()}"
    return f"{gist}<{question(request)}{nonce}>"


def scripted(model: str | None, **settings: Any) -> Engine:
    """The engine of a run, scripted."""
    return NotedScripted(script, capacity=_CAPACITY, keep_requests=False)


def real(model: str | None, **settings: Any) -> Engine:
    """The engine of a run, real."""
    return NotedVLLM(model or "random")


if __name__ == "__main__":
    _, _kind, _notes, *_arguments = sys.argv
    _notes_fd = os.open(_notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _patched: Any = execute
    _patched.VLLM = {"scripted": scripted, "real": real}[_kind]
    print("ready", flush=True)
    main(_arguments, prog_name="helium")
