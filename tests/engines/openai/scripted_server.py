"""A server with the OpenAI API that answers by itself, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from helium_agents.engines.schema_example import example_json

MODEL = "scripted"
KEY = "sk-very-secret-0123456789"


@dataclass
class Refusal:
    """An answer in place of the right one."""

    status: int
    body: str = '{"error": {"message": "scripted"}}'
    headers: dict[str, str] = field(default_factory=dict)


Misbehaviour = str | Refusal
"""A refusal, or "break off", "drop", "hang", "garbage", "wrong ids", "stream error", "drip"."""


def reply_to(prompt: str) -> str:
    return f"You said {prompt[-40:]!r}, which is true."


async def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so; the time that a test has ends it otherwise."""
    for _ in range(100_000):
        if is_so():
            return
        await asyncio.sleep(0.01)


class ScriptedServer:
    """The server.

    Attributes:
        misbehaviours: What happens to the next requests, one each.
        bodies: What was asked, in order of arrival.
        headers: With which headers.
        num_aborted: How many hanging requests the client left.
        num_connections: How many connections the client opened.
    """

    def __init__(
        self,
        *,
        is_vllm: bool = True,
        key: str = "",
        refuse: Callable[[dict[str, Any]], Refusal | None] = lambda body: None,
    ) -> None:
        self.is_vllm = is_vllm
        self.key = key
        self.refuse = refuse
        self.version = "0.32.0"
        self.fingerprint: str | None = "vllm-0.32.0-aaaa"
        self.misbehaviours: deque[Misbehaviour] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.num_aborted = 0
        self.num_connections = 0
        self.num_open = 0
        self.most_open = 0
        self.is_released = asyncio.Event()
        self.has_request = asyncio.Event()
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone, like a process that is killed: all connections break."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            # a rude one, which repeats what it was sent
            said = f"wrong key in {headers.get('authorization')}"
            return await self._send(writer, Refusal(401, json.dumps({"error": {"message": said}})))
        if method == "GET":
            return await self._send(writer, self._about(path))
        body = json.loads(data)
        if body.get("max_tokens") == 1:  # it is asked for its fingerprint
            return await self._send(writer, Refusal(200, json.dumps(self._page(body, []))))
        self.bodies.append(body | {"path": path})
        self.headers.append(headers)
        self.has_request.set()
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            return await self._answer(reader, writer, body)
        finally:
            self.num_open -= 1

    def _about(self, path: str) -> Refusal:
        if path == "/v1/models":
            model = {"id": MODEL, "owned_by": "vllm" if self.is_vllm else "somebody"}
            length = {"max_model_len": 4096} if self.is_vllm else {}
            return Refusal(200, json.dumps({"data": [model | length]}))
        if path == "/version" and self.is_vllm and self.version:
            return Refusal(200, json.dumps({"version": self.version}))
        return Refusal(404, '{"detail": "Not Found"}')

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, Any]
    ) -> bool:
        how = self.misbehaviours.popleft() if self.misbehaviours else self.refuse(body)
        if isinstance(how, Refusal):
            return await self._send(writer, how)
        if how == "drop":
            return False
        if how == "hang":
            gone = asyncio.create_task(reader.read(1))
            released = asyncio.create_task(self.is_released.wait())
            await asyncio.wait([gone, released], return_when=asyncio.FIRST_COMPLETED)
            released.cancel()
            if gone.done():
                self.num_aborted += 1
                return False
            gone.cancel()
            await asyncio.wait([gone])
        if how == "drip":
            await self._drip(writer, b": alive\n\n" if body.get("stream") else b" ")
        if how == "garbage":
            return await self._send(writer, Refusal(200, "<html>a proxy's page</html>"))
        if how == "wrong ids":
            body = body | {"prompt": [*body["prompt"][:-1], 7]}
        if body.get("stream"):
            return await self._stream(writer, body, how)
        pieces = self._choices(body, whole=True)
        return await self._send(writer, Refusal(200, json.dumps(self._page(body, pieces))))

    async def _stream(
        self, writer: asyncio.StreamWriter, body: dict[str, Any], how: str | None
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for number, piece in enumerate(self._choices(body, whole=False)):
            if number == 3 and how == "break off":
                await writer.drain()
                return False
            if number == 3 and how == "stream error":
                error = {"message": "the engine is out of luck", "code": 500}
                self._chunk(writer, json.dumps({"error": error}))
                break
            self._chunk(writer, json.dumps(self._page(body, [piece], has_usage=False)))
        else:
            self._chunk(writer, json.dumps(self._page(body, [])))
        self._chunk(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _drip(self, writer: asyncio.StreamWriter, drop: bytes) -> None:
        """Send what is no answer, until the client leaves."""
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n")
        writer.write(b"content-type: text/event-stream\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(drop), drop))
            await writer.drain()
            await asyncio.sleep(0.02)

    def _chunk(self, writer: asyncio.StreamWriter, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))

    def _prompt(self, body: dict[str, Any]) -> str:
        return str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])

    def _choices(self, body: dict[str, Any], *, whole: bool) -> list[dict[str, Any]]:
        words = reply_to(self._prompt(body)).split(" ")
        words = [words[0], *(f" {word}" for word in words[1:])]
        reason = "stop" if len(words) < body.get("max_tokens", 1 << 20) else "length"
        words = words[: body.get("max_tokens")]
        if body.get("response_format"):
            schema = json.dumps(body["response_format"]["json_schema"]["schema"])
            words = [example_json(schema, self._prompt(body))]
        pieces = []
        for index in range(body.get("n", 1)):
            for number, word in enumerate(words):
                text, is_last = ("".join(words) if whole else word), number == len(words) - 1
                piece = {"index": index, "finish_reason": reason if is_last or whole else None}
                if "prompt" in body:
                    piece["text"] = text
                else:
                    piece["message" if whole else "delta"] = {"content": text}
                if self.is_vllm:
                    piece["token_ids"] = list(range(len(words))) if whole else [number]
                    piece["prompt_token_ids"] = body.get("prompt")
                pieces.append(piece)
                if whole:
                    break
        return pieces

    def _page(
        self, body: dict[str, Any], choices: list[dict[str, Any]], *, has_usage: bool = True
    ) -> dict[str, Any]:
        page: dict[str, Any] = {"choices": choices, "system_fingerprint": self.fingerprint}
        if has_usage:
            num_prompt = len(body["prompt"]) if "prompt" in body else 9
            details = {"cached_tokens": 2}
            page["usage"] = {
                "prompt_tokens": num_prompt,
                "completion_tokens": 4,
                "prompt_tokens_details": details,
            }
        return page

    async def _send(self, writer: asyncio.StreamWriter, answer: Refusal) -> bool:
        data = answer.body.encode()
        headers = {"content-length": str(len(data)), **answer.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} Scripted\r\n{head}\r\n".encode() + data)
        await writer.drain()
        return True
