"""A traced run as a workflow: its calls again, each when what it waited for has come."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from helium_agents.authoring.llm import llm
from helium_agents.authoring.messages import prompt, user
from helium_agents.engines.engine import Request
from helium_agents.engines.simulated.tokens import token_text
from helium_agents.errors import TraceError
from helium_agents.graph.ref import Ref
from helium_agents.graph.reply import Reply
from helium_agents.runtime.map.map_run import MOST_OPEN
from helium_agents.runtime.session import Session
from helium_agents.trace.dependencies import Step, steps_of
from helium_agents.trace.run import TracedItem, TracedRun

Question = tuple[str, bytes]
"""A model, and the token ids of a prompt as bytes."""


class Replay:
    """The calls of a traced run, to be made anew on engines whose texts are token ids.

    Attributes:
        steps: The calls.
        rows: Those of each item; of `None` those outside of any.
        drawn: Model and prompt of what engines answered more than once: equal calls of these are
            not one.

    Raises:
        TraceError: Its engine told no token ids.
    """

    def __init__(self, run: TracedRun) -> None:
        self.steps = [_on_its_engine(run, step) for step in steps_of(run)]
        self.rows: dict[int | None, list[Step]] = {None: []}
        self._answers: dict[Question, deque[Sequence[int]]] = defaultdict(deque)
        asked: Counter[Question] = Counter()
        for step in self.steps:
            answer, question = step.answer, question_of(step)
            if not answer.prompt:
                raise TraceError(
                    f"the engine of {step.call.model!r} told no token ids of its prompts, so that "
                    "nobody knows what they share: such a trace cannot be simulated"
                )
            item = step.call.item if step.call.item in run.items else None
            self.rows.setdefault(item, []).append(step)
            asked[question] += step.call.is_computed
            if step.call.is_computed:
                self._answers[question].extend(outputs_of(step))
        self.drawn = {question for question, number in asked.items() if number > 1}
        items = (item for item in run.items.values() if item.item in self.rows)
        self._items = sorted(items, key=lambda item: item.opened_s)
        self._after_s = {item.item: self._after(item) for item in self._items}

    def answer(self, model: str, request: Request) -> Sequence[int]:
        """What the engine of a model answers: what it did then, the draws of a prompt in turn."""
        answers = self._answers[model, array("I", request.prompt_token_ids).tobytes()]
        answers.rotate(-1)
        return answers[-1][: request.max_tokens]

    async def run(self, session: Session) -> list[float]:
        """Make all calls in a session; how long each item took, in the order of their items."""
        attempt = _Attempt(self.drawn)
        clock = asyncio.get_running_loop().time
        start_s = clock()

        async def row(item: int) -> float:
            began_s = clock()
            await attempt.make(self.rows[item])
            await asyncio.sleep(self._after_s[item])
            return clock() - began_s

        async with asyncio.TaskGroup() as group:
            group.create_task(attempt.make(self.rows[None]))
            seconds = [each async for each in session.map(row, self._arrivals(start_s))]
        return seconds

    def _after(self, item: TracedItem) -> float:
        """How long an item went on after its last call."""
        last_s = max(step.call.end_s for step in self.rows[item.item])
        return 0.0 if item.ended_s is None else max(0.0, item.ended_s - last_s)

    async def _arrivals(self, start_s: float) -> AsyncIterator[int]:
        """The items, each when it was there; at once where there was only no room for it."""
        clock = asyncio.get_running_loop().time
        ends = sorted(item.closed_s for item in self._items if item.closed_s is not None)
        for number, item in enumerate(self._items):
            if number - bisect_right(ends, item.opened_s) < MOST_OPEN - 1:
                await asyncio.sleep(item.opened_s - self._items[0].opened_s - (clock() - start_s))
            yield item.item

    def most_kv_tokens(self, block_tokens: int) -> int:
        """What all calls together fill of a KV cache, whatever they share."""
        return sum(
            (len(step.answer.prompt) // block_tokens + len(output) // block_tokens + 2)
            * block_tokens
            for step in self.steps
            for output in outputs_of(step)
        )


def _on_its_engine(run: TracedRun, step: Step) -> Step:
    """A step with the model that answered it: equal engines may go by several names."""
    call = step.call
    while call.leader != call.number and call.leader in run.by_number:
        call = run.by_number[call.leader]
    return replace(step, call=replace(step.call, model=call.model))


class _Attempt:
    """One time that the calls are made."""

    def __init__(self, drawn: set[Question]) -> None:
        self._drawn = drawn
        self._done: dict[int, asyncio.Event] = defaultdict(asyncio.Event)

    async def make(self, steps: Sequence[Step]) -> None:
        """Make the calls of an item; those that only wait for declared inputs are known at once."""
        declared: dict[int, tuple[Step, Ref[Reply[None]]]] = {}
        for step in steps:
            if set(step.after) == set(step.declared) <= declared.keys():
                declared[step.call.number] = step, self._asked(step, declared)
        async with asyncio.TaskGroup() as group:
            for step in steps:
                known = declared.get(step.call.number)
                group.create_task(self._make(step, None if known is None else known[1]))

    async def _make(self, step: Step, ref: Ref[Reply[None]] | None) -> None:
        if ref is None or not step.after:
            for number in step.after:
                await self._done[number].wait()
            await asyncio.sleep(step.pause_s)
        further = [self._asked(step, {}) for _ in step.answer.outputs[1:]]
        await asyncio.gather(self._asked(step, {}) if ref is None else ref, *further)
        self._done[step.call.number].set()

    def _asked(self, step: Step, known: Mapping[int, tuple[Step, Ref[Reply[None]]]]) -> Any:
        """The call, with the Refs of its inputs in its prompt where these are known."""
        template = token_text(step.answer.prompt)
        slots = {}
        for number in step.declared if known else ():
            source, ref = known[number]
            slots[f"call_{number}"] = ref
            template = _with_slot(template, outputs_of(source)[0], source, f"{{call_{number}}}")
        return llm(
            user(prompt(template, **slots) if slots else template),
            model=step.call.model,
            max_tokens=step.answer.max_tokens,
            share=question_of(step) not in self._drawn and len(step.answer.outputs) == 1,
        )


def question_of(step: Step) -> Question:
    """What was asked of whom."""
    return step.call.model, step.answer.prompt.tobytes()


def outputs_of(step: Step) -> Sequence[Sequence[int]]:
    """The token ids of the answers; of an engine that tells none as many of any kind."""
    if any(step.answer.outputs):
        return step.answer.outputs
    return [[7] * max(1, step.call.output_tokens)]


def _with_slot(template: str, output: Sequence[int], source: Step, slot: str) -> str:
    """A prompt with a slot in place of an answer; where its tokens are not there, out of sight."""
    has_ended = len(output) < source.answer.max_tokens
    text = f" {token_text(output[:-1] if has_ended else output)} "
    if text in template:
        return template.replace(text, f" {slot} ", 1)
    return f"{template} [{slot}]"
