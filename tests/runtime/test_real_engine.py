"""The plain program against optimised runs, token for token, on vLLM and the float32 model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from agents_examples.debate import debate
from agents_examples.document_qa import answer
from agents_examples.reflection import reflect
from agents_examples.rows import Document, MultipleChoice, read_rows
from helium_agents import VLLM, Budget, ItemError, Session, gather, llm, operator, user
from helium_agents.engines.engine import ChatMessage, Completion, Engine, Request
from helium_agents.trace import read_trace

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

Workflow = Callable[[Any], Awaitable[Any]]

DOCUMENTS = read_rows(Document, "documents.jsonl")[:3]
EXAMPLES = [
    pytest.param(answer, DOCUMENTS, id="document_qa"),
    pytest.param(debate, read_rows(MultipleChoice, "questions.jsonl")[:3], id="debate"),
    pytest.param(reflect, DOCUMENTS, id="reflection"),
]


class Recording:
    """An engine that notes which token ids it gave for which request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.answers: dict[Any, list[tuple[int, ...]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def complete(self, request: Request, on_delta: Any = None) -> Completion:
        completion = await self._engine.complete(request, on_delta)
        asked = (request.messages, request.sampling, request.json_schema)
        given = [choice.token_ids for choice in completion.choices]
        assert self.answers.setdefault(asked, given) == given  # the same whenever asked
        return completion


class Forgetful(Recording):
    """An engine whose prompts lack 50 tokens out of the middle, once."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.has_forgotten = False

    async def render(self, messages: Sequence[ChatMessage]) -> Sequence[int]:
        ids = list(await self._engine.render(messages))
        if not self.has_forgotten and len(ids) > 150:
            self.has_forgotten = True
            del ids[60:110]
        return ids


async def run_plain(engine: Engine, workflow: Workflow, rows: Sequence[Any]) -> list[Any]:
    async with Session(engine, rules=(), share=False, memo=None) as session:
        return [result async for result in session.map(workflow, rows)]


async def run_optimised(
    engine: Engine, workflow: Workflow, rows: Sequence[Any], **options: Any
) -> tuple[list[Any], Session]:
    async with Session(engine, **options) as session:
        return [result async for result in session.map(workflow, rows)], session


def same_tokens(plain: Recording, optimised: Recording) -> bool:
    return all(plain.answers.get(asked) == given for asked, given in optimised.answers.items())


@pytest.mark.parametrize(("workflow", "rows"), EXAMPLES)
async def test_optimised_runs_equal_the_plain_program(
    engine: VLLM, workflow: Workflow, rows: list[Any], tmp_path: Any
) -> None:
    plain, optimised = Recording(engine), Recording(engine)
    expected = await run_plain(plain, workflow, rows)

    cold, session = await run_optimised(optimised, workflow, rows, memo=tmp_path / "memo")
    assert cold == expected
    assert same_tokens(plain, optimised)
    assert 0 < session.summary.num_computed <= len(plain.answers)

    warm, session = await run_optimised(optimised, workflow, rows, memo=tmp_path / "memo")
    assert warm == expected
    assert session.summary.num_computed == 0

    order = random.Random(7).sample(range(len(rows)), len(rows))
    shuffled = [rows[index] for index in order]
    results, _ = await run_optimised(optimised, workflow, shuffled)
    assert results == [expected[index] for index in order]
    assert same_tokens(plain, optimised)


async def test_the_comparison_notices_fifty_dropped_prompt_tokens(engine: VLLM) -> None:
    plain, forgetful = Recording(engine), Forgetful(engine)
    expected = await run_plain(plain, answer, DOCUMENTS[:1])
    results, _ = await run_optimised(forgetful, answer, DOCUMENTS[:1])
    assert forgetful.has_forgotten
    assert not same_tokens(plain, forgetful)
    assert results != expected


@operator
async def poisoned(document: Document) -> Any:
    if document.id.endswith("2"):
        raise ValueError("poison")
    if document.id.endswith("3"):  # more than the model can read
        return (await llm(user("word " * 70_000), max_tokens=8)).text
    return await answer(document)


async def test_poisoned_rows_harm_nobody_else(engine: VLLM) -> None:
    rows = [
        document.model_copy(update={"id": f"row-{index}"})
        for index, document in enumerate([*DOCUMENTS, *DOCUMENTS[:2]])
    ]
    outcomes = []
    for options in ({"rules": (), "share": False}, {}):
        async with Session(engine, **options) as session:  # type: ignore[arg-type]
            outcomes.append([r async for r in session.map(poisoned, rows, on_error="collect")])
    for plain, optimised in zip(*outcomes, strict=True):
        if isinstance(plain, ItemError):
            assert isinstance(optimised, ItemError)
            assert str(plain) == str(optimised)
        else:
            assert plain == optimised
    assert [isinstance(result, ItemError) for result in outcomes[1]] == [
        False, False, True, True, False,
    ]  # fmt: skip


async def test_samples_stay_independent_and_greedy_calls_become_one(engine: VLLM) -> None:
    async with Session(engine) as session:
        samples = await gather(
            *(llm(user("Say something."), temperature=1.0, max_tokens=12) for _ in range(5))
        )
        assert session.summary.num_computed == 5
        assert len({reply.text for reply in samples}) > 1
        greedy = await gather(*(llm(user("Say something."), max_tokens=12) for _ in range(5)))
        assert session.summary.num_computed == 6
        assert len({reply.text for reply in greedy}) == 1


async def test_the_engine_aborts_once_nobody_waits(engine: VLLM) -> None:
    async with Session(engine) as session:
        question = user("Tell a long story.")
        waiters = [asyncio.ensure_future(llm(question, max_tokens=400)) for _ in range(10)]
        await until_open(engine)
        waiters[0].cancel()
        replies = await asyncio.gather(*waiters, return_exceptions=True)
        assert isinstance(replies[0], asyncio.CancelledError)
        assert len({reply.text for reply in replies[1:]}) == 1  # type: ignore[union-attr]
        assert session.summary.num_computed == 1

        question = user("Tell another long story.")
        waiters = [asyncio.ensure_future(llm(question, max_tokens=4000)) for _ in range(10)]
        await until_open(engine)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        assert not engine.num_open_requests


Team = Literal["figures", "sums", "style"]
TEAMS = ("figures", "sums", "style")


@operator(pure=True, version="1", predict=lambda team: f"the {team} of it")
async def look_up(team: str) -> str:
    await asyncio.sleep(0.3)  # nothing but guesses is on the engine meanwhile
    return f"the {team} of it"


@operator(pure=True, version="1")
async def specialist(document: Document) -> str:
    asked = user(f"Who shall read this?\n{document.as_text()[:400]}")
    branches = [(team, 0.9) for team in TEAMS]
    team = (await llm(asked, schema=Team, max_tokens=16, predict=lambda _: branches)).parsed
    found = await look_up(team)
    return (await llm(user(f"{document.as_text()[:400]}\nTell of {found}."), max_tokens=24)).text


async def test_guesses_on_every_branch_change_no_token_and_leave_nothing_open(
    engine: VLLM,
) -> None:
    plain, guessing = Recording(engine), Recording(engine)
    expected = await run_plain(plain, specialist, DOCUMENTS)
    budget = Budget(max_extra_tokens=1e9, least_probability=0.0, caution=0.0, max_delay=1e9)
    results, session = await run_optimised(guessing, specialist, DOCUMENTS, speculate=budget)
    assert results == expected
    assert {asked: guessing.answers[asked] for asked in plain.answers} == plain.answers
    assert session.summary.num_early > 0 and session.summary.num_given_up > 0
    assert not engine.num_open_requests
    await engine.reset_prefix_cache()  # which is refused while blocks are in use


async def until_open(engine: VLLM) -> None:
    while not engine.num_open_requests:  # noqa: ASYNC110 (vLLM tells nobody)
        await asyncio.sleep(0.01)


async def test_a_trace_has_what_the_engine_measured(engine: VLLM, tmp_path: Path) -> None:
    async def ask() -> None:
        texts = (f"{number}, and {number + 1} " * 40 for number in range(6))
        await gather(*(llm(user(text), max_tokens=24) for text in texts))

    async with Session(engine, trace=tmp_path / "run.trace") as session:
        await session.run(ask)
    run = read_trace(tmp_path / "run.trace")
    (windows,) = run.steps.values()
    calls = run.computed
    read = sum(call.prompt_tokens - call.cached_tokens for call in calls)
    assert sum(window.prefill_tokens for window in windows) == read
    assert sum(window.decode_tokens for window in windows) >= sum(
        call.output_tokens - 1 for call in calls
    )
    assert 1 < max(window.running for window in windows) <= len(calls) == 6
    assert 0 < max(window.kv_share for window in windows) <= 1
    for call in calls:
        assert call.sent_s is not None and call.begun_s is not None
        assert call.first_token_s is not None, "though nobody listened"
        assert call.sent_s <= call.begun_s < call.first_token_s <= call.end_s
