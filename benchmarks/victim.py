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
from typing import Any, Protocol

from xxhash import xxh3_64_hexdigest

from helium_agents.cli import main
from helium_agents.cli.job import Job
from helium_agents.engines.engine import Capacity, Completion, Delta, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM

_MAX_LATENCY_S = 0.03
_CAPACITY = Capacity(kv_tokens=400, block_tokens=1, max_model_tokens=100, max_requests=16)


class _Completes(Protocol):
    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion: ...


class Noted(_Completes):
    """Adds the notes to an engine."""

    notes: int

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        os.write(self.notes, f"{question(request)}\n".encode())
        return await super().complete(request, on_delta)


class NotedScripted(Noted, ScriptedEngine):
    """Answers quickly, and not all at the same speed."""


class NotedVLLM(Noted, VLLM):
    """The real engine."""


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


def _engine(kind: str) -> Callable[[Job], Noted]:
    def scripted(job: Job) -> Noted:
        return NotedScripted(script, capacity=_CAPACITY, keep_requests=False)

    def real(job: Job) -> Noted:
        return NotedVLLM(job.model)

    return {"scripted": scripted, "real": real}[kind]


if __name__ == "__main__":
    _, kind, notes, *arguments = sys.argv
    Noted.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    patched: Any = Job
    patched.engine = _engine(kind)
    print("ready", flush=True)
    main(arguments, prog_name="helium")
