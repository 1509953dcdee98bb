"""Programs with a small unknown: an agent with tools, and three that decide before they go on.

How often the unknown is what it usually is can be chosen, for each program alike. What the model
says depends on the conversation alone.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from benchmarks.speculation.engine import Said, Truth
from benchmarks.workloads.texts import seeded
from helium_agents import Message, agent_loop, llm, operator, prompt, system, user
from helium_agents.engines.engine import ChatMessage, WrittenCall

Options = Mapping[str, Any]
"""What `llm(...)` is told where its answer may be guessed: nothing, or `predict=`."""

Workflow = Callable[[str], Awaitable[str]]

NUM_TURNS = 8
CALL_TOKENS = 24
THOUGHT_TOKENS = 48
ANSWER_WORDS = 96
KINDS = ("figures", "sums", "style", "other")

Kind = Literal["figures", "sums", "style", "other"]
Verdict = Literal["pass", "figures", "sums", "style"]


class Review(BaseModel):
    """What a critic says: the verdict first, then why."""

    verdict: Verdict
    remarks: str


@dataclass(frozen=True, eq=False)
class Program:
    """A program, and what a model says to it.

    Args:
        name: What it is called in tables.
        make: Makes the operator, of an item's text.
        truth: The model, by seed and by how often an unknown is as usual.
        answers: All answers where it decides, where these are few.
    """

    name: str
    make: Callable[[Options], Workflow]
    truth: Callable[[int, float], Truth]
    answers: tuple[Any, ...] = ()


def item_text(seed: int, number: int) -> str:
    """What an item asks: a hundred words."""
    return f"item {number}: {words(100, 'item', seed, number)}"


def words(number: int, *seed: str | int) -> str:
    """So many, for each seed others."""
    draws = seeded(*seed)
    return " ".join(f"w{draws.randrange(10_000)}" for _ in range(number))


def _briefing(role: str) -> str:
    return f"You are {role}. {words(200, role)}"


# --- an agent with tools -------------------------------------------------------------------------


def page_text(page: str) -> str:
    """What is on a page."""
    following = f"page-{seeded('next', page).randrange(10**9)}"
    return json.dumps({"text": words(60, page), "next": following})


def _react(options: Options) -> Workflow:
    @operator(pure=True, version="1", predict=page_text if options else None)
    async def lookup(page: str) -> str:
        """Read a page; it says which one to read next."""
        await asyncio.sleep(0.05 * 10 ** seeded("page", page).random())  # 50 to 500 ms
        return page_text(page)

    @operator(pure=True, version="1")
    async def react(task: str) -> str:
        messages = (system(_briefing("a researcher")), user(task))
        reply = await agent_loop(*messages, tools=[lookup], max_turns=NUM_TURNS + 1, **options)
        return reply.text

    return react


def _says_react(seed: int, usual: float) -> Truth:
    def truth(messages: Sequence[ChatMessage]) -> Said:
        item, results = item_of(messages), [m.content for m in messages if m.role == "tool"]
        if len(results) == NUM_TURNS:
            return Said(words(ANSWER_WORDS, "answer", seed, item))
        draws = seeded("react", seed, item, len(results))
        page = f"page-{draws.randrange(10**9)}"
        if results and draws.random() < usual:
            page = json.loads(results[-1])["next"]
        arguments = json.dumps({"page": page})
        return Said(hidden_tokens=CALL_TOKENS, calls=(WrittenCall("lookup", arguments),))

    return truth


# --- those that decide ---------------------------------------------------------------------------


async def _decision(messages: Sequence[Message], schema: Any, options: Options) -> Any:
    return (await llm(*messages, schema=schema, max_tokens=256, **options)).parsed


def _classify(options: Options) -> Workflow:
    @operator(pure=True, version="1")
    async def classify(task: str) -> str:
        asked = (system(_briefing("a dispatcher")), user(task))
        kind = await _decision(asked, Kind, options)
        return (await llm(system(_briefing(f"a specialist of {kind}")), user(task))).text

    return classify


def _guard(options: Options) -> Workflow:
    @operator(pure=True, version="1")
    async def guard(task: str) -> str:
        asked = (system(_briefing("a guard")), user(task))
        if not await _decision(asked, bool, options):
            return "refused"
        return (await llm(system(_briefing("an assistant")), user(task))).text

    return guard


def _reflect(options: Options) -> Workflow:
    @operator(pure=True, version="1")
    async def reflect(task: str) -> str:
        written = (system(_briefing("a writer")), user(task))
        draft = (await llm(*written)).text
        for _ in range(3):
            asked = (system(_briefing("a critic")), user(prompt("{t} {d}", t=task, d=draft)))
            verdict = await _decision(asked, Verdict, options)
            if verdict == "pass":
                break
            draft = (await llm(*written, user(f"{draft} Mind the {verdict}. {_REVISE}"))).text
        return (await llm(system(_briefing("an editor")), user(draft))).text

    return reflect


def _review(options: Options) -> Workflow:
    @operator(pure=True, version="1")
    async def review(task: str) -> str:
        written = (system(_briefing("a writer")), user(task))
        draft = (await llm(*written)).text
        asked = (system(_briefing("a reviewer")), user(prompt("{t} {d}", t=task, d=draft)))
        found = await _decision(asked, Review, options)
        if found.verdict != "pass":
            draft = (await llm(*written, user(f"{draft} {found.remarks} {_REVISE}"))).text
        return (await llm(system(_briefing("an editor")), user(draft))).text

    return review


def _says(usual: Sequence[Any], others: Sequence[Any]) -> Callable[[int, float], Truth]:
    """A model that decides as usual, or in one of the other ways; and writes.

    Args:
        usual: What it usually says of a first text, of a revised one, and so on.
        others: All that it may say.
    """

    def make(seed: int, probability: float) -> Truth:
        def truth(messages: Sequence[ChatMessage]) -> Said:
            role, last = messages[0].content, messages[-1].content
            number = max(map(int, re.findall(r"revision (\d+)", last)), default=0)
            draws = seeded(role[:20], seed, last)
            if not role.startswith(_DECIDING):
                number += last.endswith(_REVISE)
                text = words(ANSWER_WORDS, "answer", draws.randrange(2**32))
                return Said(f"{item_of(messages)}: revision {number} {text}")
            answer = usual[min(number, len(usual) - 1)]
            if draws.random() >= probability:
                answer = draws.choice([each for each in others if each != answer])
            if role.startswith("You are a reviewer"):
                remarks = words(THOUGHT_TOKENS, draws.randrange(2**32))
                return Said(json.dumps({"verdict": answer, "remarks": remarks}))
            return Said(json.dumps(answer), THOUGHT_TOKENS)

        return truth

    return make


_DECIDING = ("You are a dispatcher", "You are a guard", "You are a critic", "You are a reviewer")
_REVISE = "Revise it."


def item_of(messages: Sequence[ChatMessage]) -> str:
    """Which item a conversation is of."""
    return next(each for each in messages if each.role == "user").content.partition(":")[0]


_VERDICTS = ("pass", "figures", "sums", "style")
_REVIEWS = tuple({"verdict": verdict, "remarks": ""} for verdict in _VERDICTS)

PROGRAMS = (
    Program("react", _react, _says_react),
    Program("classify", _classify, _says(["figures"], KINDS), KINDS),
    Program("guard", _guard, _says([True], (True, False)), (True, False)),
    Program("reflect", _reflect, _says(["figures", "pass"], _VERDICTS), _VERDICTS),
    Program("review", _review, _says(["pass"], _VERDICTS), _REVIEWS),
)
"""A ReAct loop with tools of 50 to 500 ms; a dispatcher before a specialist; a guard before an
answer; a critic whose verdict alone decides; and one that says its verdict first, then why."""
