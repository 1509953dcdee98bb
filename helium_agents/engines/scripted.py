"""A scripted engine: answers come from your test, not from a model.

It keeps the contract of a real engine (sampling, `max_tokens`, stop strings, streaming, schemas,
abort on cancellation), so that what passes here passes there. A token is a word with the white
space before it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Self

from xxhash import xxh3_64_hexdigest

from helium_agents.engines.engine import (
    Capacity,
    ChatMessage,
    Choice,
    Completion,
    Delta,
    Request,
    ToolCall,
)
from helium_agents.engines.schema_example import example_json
from helium_agents.engines.scripted_reply import (
    TOKEN,
    Answer,
    beside,
    choice_of,
    first_of,
    question_of,
    token_ids,
)
from helium_agents.engines.scripted_reply import ScriptedReply as ScriptedReply
from helium_agents.errors import EngineDied, EngineError, RequestError

Script = Callable[[Request], Answer | Awaitable[Answer]] | Mapping[str, Answer]
"""What answers a request: a function, plain or async, that returns the text or a `ScriptedReply`
(or raises; to raise `EngineDied` kills the engine); or a mapping from the last message's text,
without its images, to one of these."""


class ScriptedEngine:
    """An engine for tests.

    Args:
        script: What answers. By default a few words that depend on the whole conversation; under
            `schema=` a valid example, and a call with valid arguments where a tool must be called.
            A sampled request gets another answer for each seed, and without a seed for each
            request.
        name: What a person calls it.
        identity: Stands for the model in keys; give another one for another script where both
            use one memo.
        latency_s: Seconds that each request takes.
        capacity: What the engine claims to hold; `None` for no limit.
        keep_requests: Whether to keep every request in `requests`.

    Attributes:
        requests: The requests so far, in order of arrival.
        aborted: Ids of the requests that were cancelled while open.
        num_requests: How many requests came.
        num_open: How many are open now.
        most_open: How many were open at once at most.
        num_starts: How often the engine was started.
        num_deaths: How often it died.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        name: str = "scripted",
        identity: str = "scripted",
        latency_s: float = 0.0,
        capacity: Capacity | None = None,
        keep_requests: bool = True,
    ) -> None:
        if not (script is None or callable(script) or isinstance(script, Mapping)):
            raise TypeError(f"script={script!r} must be a function, a mapping, or None")
        self._script = script
        self._name = name
        self._identity = identity
        self._latency_s = latency_s
        self._capacity = capacity
        self._keeps_requests = keep_requests
        self._is_started = False
        self._draws = count()
        self._is_dead = False
        self._death = EngineDied("")
        self._open: set[asyncio.Timeout] = set()
        self.requests: list[Request] = []
        self.aborted: list[str] = []
        self.num_requests = 0
        self.num_open = 0
        self.most_open = 0
        self.num_starts = 0
        self.num_deaths = 0

    follows_schemas = True
    calls_tools = True
    takes_images = True

    @property
    def name(self) -> str:
        """What a person calls the engine."""
        return self._name

    @property
    def capacity(self) -> Capacity | None:
        """What it claims to hold, once started."""
        return self._capacity if self._is_started else None

    @property
    def is_started(self) -> bool:
        """Whether it was started and not closed since; one that died counts."""
        return self._is_started

    def identity(self) -> str:
        """The identity it was given."""
        return self._identity

    async def start(self) -> None:
        """Be started, anew if it died."""
        if not self._is_started or self._is_dead:
            self._is_started, self._is_dead = True, False
            self.num_starts += 1

    async def close(self) -> None:
        """Be stopped."""
        self._is_started = self._is_dead = False

    async def __aenter__(self) -> Self:
        """Start it for a block, in which any number of sessions may use it."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def die(self, error: EngineDied | None = None) -> None:
        """Be gone like an engine whose process is killed: what is open fails, until `start`.

        Args:
            error: What open and later requests raise; by default that it was killed from outside.
        """
        if self._is_started and not self._is_dead:
            message = f"the scripted engine {self._name!r} was killed"
            self._death = error or EngineDied(message, was_killed=True)
            self._is_dead = True
            self.num_deaths += 1
            now_s = asyncio.get_running_loop().time()
            for scope in self._open:
                scope.reschedule(now_s)
            self._open.clear()

    async def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]] = ()
    ) -> list[int]:
        """One token for each word, and one for each role; none where there are images."""
        if any(message.images for message in messages):
            return []
        ids = token_ids(TOKEN.findall(" ".join(map(json.dumps, tools))))
        for message in messages:
            ids += token_ids([message.role, *TOKEN.findall(message.content)])
            ids += token_ids(TOKEN.findall(beside(message)))
        return ids

    async def complete(
        self, request: Request, on_delta: Callable[[Delta], None] | None = None
    ) -> Completion:
        """Answer by the script."""
        if not self._is_started:
            raise EngineError("the scripted engine was asked before it was started")
        if self._is_dead:
            raise self._died()
        self.num_requests += 1
        if self._keeps_requests:
            self.requests.append(request)
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        life = self.num_deaths
        scope = asyncio.timeout(None)  # it runs out when the engine dies
        try:
            async with scope:
                self._open.add(scope)
                try:
                    completion = await self._answer(request, on_delta)
                finally:
                    self._open.discard(scope)
        except TimeoutError:
            if scope.expired():
                raise self._died() from None
            raise
        except EngineDied as error:
            if self.num_deaths == life:  # by the script, not by what befell other requests
                self.die(error)
            raise
        except asyncio.CancelledError:
            self.aborted.append(request.request_id)
            raise
        finally:
            self.num_open -= 1
        if self.num_deaths != life:  # it ended in the same moment
            raise self._died()
        return completion

    def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
        """The first `max_tokens` words."""
        tokens = TOKEN.findall(choice.text)
        return first_of(tokens, max_tokens) if len(tokens) > max_tokens else choice

    def _died(self) -> EngineDied:
        """What one request raises: an exception of its own, so that tracebacks do not mix."""
        return EngineDied(str(self._death), was_killed=self._death.was_killed)

    async def _answer(
        self, request: Request, on_delta: Callable[[Delta], None] | None
    ) -> Completion:
        await asyncio.sleep(self._latency_s)
        choices, first_token_s = [], None
        for index in range(request.sampling.n):
            choice = choice_of(await self._reply(request, index), request)
            first_token_s = first_token_s or asyncio.get_running_loop().time()
            if on_delta is not None:
                for piece in TOKEN.findall(choice.text):
                    on_delta(Delta(index, piece))
                    await asyncio.sleep(0)
            choices.append(choice)
        return Completion(tuple(choices), first_token_s=first_token_s)

    async def _reply(self, request: Request, index: int) -> Answer:
        if self._script is None:
            return self._default(request, index)
        if isinstance(self._script, Mapping):
            question = question_of(request)
            try:
                return self._script[question]
            except KeyError:
                raise RequestError(f"the script has no answer to {question!r}") from None
        answer = self._script(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if not isinstance(answer, str | ScriptedReply):
            raise TypeError(f"the script of {self._name!r} gave {answer!r} in place of text")
        return answer

    def _default(self, request: Request, index: int) -> Answer:
        sampling = request.sampling
        draw: Any = 0
        if not sampling.is_greedy:
            draw = next(self._draws) if sampling.seed is None else f"{sampling.seed}/{index}"
        asked = [f"{draw}:{request.json_schema}"]
        for message in request.messages:
            role, content = message.role, message.content
            asked.append(f"{len(role)},{len(content)}:{role}{content}{beside(message)}")
        digest = xxh3_64_hexdigest("".join(asked).encode("utf-8", "surrogatepass"))
        if request.json_schema is not None:
            return example_json(request.json_schema, digest)
        if request.tool_choice not in ("auto", "none"):
            return _default_call(request, digest)
        return f"{digest[:4]} {digest[4:8]} {digest[8:12]} {digest[12:]}"


def _default_call(request: Request, digest: str) -> ScriptedReply:
    """A call of the tool that is asked for, or of any where that is left open."""
    functions = {tool["function"]["name"]: tool["function"] for tool in request.tools}
    at = int(digest, 16) % len(functions)
    function = functions.get(request.tool_choice) or [*functions.values()][at]
    arguments = json.loads(example_json(json.dumps(function["parameters"]), digest))
    return ScriptedReply(tool_calls=[ToolCall(function["name"], arguments)])
