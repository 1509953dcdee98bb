"""The scripted model of the random programs: what it says, how long it takes, and how it fails.

The answer is a function of the question alone. Its first word decides how a question fares:
`boom` and `vex` always fail, `odd` raises what is no `Exception`, `never` is never answered,
`flaky1` and `flaky2` fail once or twice on each engine. An unseeded draw has a mark of its own,
`~000017~`; answers to a prompt carry on its marks, and are the same otherwise. So two runs can be
compared up to the names of their draws.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from xxhash import xxh3_64_hexdigest

from helium_agents.engines.engine import ChatMessage, Request
from helium_agents.errors import RequestError, TransientEngineError

MARK = re.compile(r"~\d+~")
_draws = itertools.count(1)


def begin_draws_at(number: int) -> None:
    """Give later draws marks from a number on: in another process they are others."""
    global _draws
    _draws = itertools.count(number)


class Odd(BaseException):
    """Neither an `Exception`, nor a cancellation, nor an exit."""


class Own(Exception):
    """The program's own."""


class Vexed(Exception):
    """One whose constructor takes other arguments than `args` holds."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Mood(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


Digit = Annotated[int, Field(ge=0, le=9)]


class Score(BaseModel):
    model_config = ConfigDict(title="Score")
    score: int


class EvenScore(BaseModel):  # the same JSON schema as `Score`: no docstring, which would be in it
    model_config = ConfigDict(title="Score")
    score: int

    @field_validator("score")
    @classmethod
    def _even(cls, score: int) -> int:
        if score % 2:
            raise ValueError("odd score")
        return score


SCHEMAS: dict[str, Any] = {"Mood": Mood, "Digit": Digit, "Score": Score, "EvenScore": EvenScore}
FITTING = ("Mood", "Score")
"""Those that every answer fits."""


def error_of(kind: str, text: str) -> BaseException:
    """What a program or a model raises."""
    match kind:
        case "boom":
            return RequestError(f"no answer to {text}")
        case "vex":
            return Vexed(7, text=text)
        case "odd":
            return Odd(text)
        case "own":
            return Own(text, len(text))
    raise AssertionError(kind)


class Model:
    """A script; one for each run, since it counts failures.

    Args:
        delay_seed: Decides how long answers take, and nothing else.
        least_s: Every answer takes so many seconds more.
    """

    def __init__(self, delay_seed: int, least_s: float = 0.0) -> None:
        self._delay_seed = delay_seed
        self._least_s = least_s
        self._asked: Counter[str] = Counter()

    async def __call__(self, request: Request) -> str:
        question = request.messages[-1].content
        number = self._asked[question]
        is_guess = request.is_guess
        self._asked[question] += not is_guess
        await self._delay(question, number)
        if is_guess and not request.is_guess:  # asked for meanwhile: from now on it counts
            number = self._asked[question]
            self._asked[question] += 1
        kind = question.partition(" ")[0]
        if kind == "never":
            await asyncio.Event().wait()
        if kind in ("boom", "vex", "odd"):
            raise error_of(kind, " ".join(question.split()[:2]))
        if kind.startswith("flaky") and number < int(kind[-1]):
            raise TransientEngineError(f"busy: {kind}")
        return _answer(request)

    async def _delay(self, question: str, number: int) -> None:
        if self._least_s:
            await asyncio.sleep(self._least_s)
        plain = MARK.sub("~", question)
        rng = random.Random(f"{self._delay_seed}/{plain}/{number}")
        if rng.random() < 0.15:
            await asyncio.sleep(rng.choice([0.0003, 0.0005, 0.001, 0.002]))
        else:
            for _ in range(rng.choice([0, 0, 1, 2, 3, 5, 8, 13])):
                await asyncio.sleep(0)


def _answer(request: Request) -> str:
    sampling = request.sampling
    is_draw = not sampling.is_deterministic
    return answer_to(request.messages, sampling.seed, request.json_schema, is_draw=is_draw)


def answer_to(
    messages: Sequence[ChatMessage], seed: int | None, json_schema: str | None, *, is_draw: bool
) -> str:
    """What the model says."""
    asked = MARK.sub("~", repr((messages, seed, json_schema)))
    digest = xxh3_64_hexdigest(asked.encode())
    if json_schema is not None:
        return _json_answer(json.loads(json_schema), int(digest, 16), is_draw)
    marks = "".join(MARK.findall(" ".join(content for _, content, *_ in messages)))
    if is_draw:
        marks += f"~{next(_draws):06}~"
    return marks + " ".join(digest[start : start + 2] for start in range(0, 12, 2))


def _json_answer(schema: dict[str, Any], number: int, is_draw: bool) -> str:
    """What fits the JSON schema's form; a draw always fits its validators too."""
    if "enum" in schema:
        return json.dumps(schema["enum"][number % len(schema["enum"])])
    if schema.get("type") == "integer":
        return "4" if is_draw else str(number % 13)
    return '{"score":4}' if is_draw else f'{{"score":{number % 10}}}'
