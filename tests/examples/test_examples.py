"""The bundled examples give what their plain programs give, and share work while they do."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

from agents_examples.debate import debate
from agents_examples.document_qa import QUESTION, READERS, answer
from agents_examples.reading import shown
from agents_examples.reflection import MAX_ROUNDS, reflect
from agents_examples.rows import Document, MultipleChoice, read_rows
from agents_examples.tools import investigate
from helium_agents import Session, ToolCall
from helium_agents.engines.engine import ChatMessage, Request
from helium_agents.engines.scripted import ScriptedEngine, ScriptedReply

REPO = Path(__file__).resolve().parents[2]
TOPIC = '{"answer":"a bakery"}'
TATQA = REPO.parent / "shared" / "data" / "tatqa.jsonl"


class Example(NamedTuple):
    name: str
    fn: Callable[[Any], Awaitable[BaseModel]]
    row_type: type[Document] | type[MultipleChoice]
    file: str

    @property
    def rows(self) -> Sequence[BaseModel]:
        return read_rows(self.row_type, self.file)


EXAMPLES = [
    Example("document_qa", answer, Document, "documents.jsonl"),
    Example("debate", debate, MultipleChoice, "questions.jsonl"),
    Example("reflection", reflect, Document, "documents.jsonl"),
    Example("tools", investigate, Document, "documents.jsonl"),
]


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    found: Example = request.param
    return found


def is_of_number(request: Request) -> bool:
    return "integer" in (request.json_schema or "")


async def results_of(session: Session, example: Example, rows: Sequence[Any]) -> list[Any]:
    return [result async for result in session.map(example.fn, rows)]


async def plain_results(example: Example, rows: Sequence[Any]) -> list[Any]:
    async with Session(ScriptedEngine(), rules=(), share=False, memo=None) as session:
        return await results_of(session, example, rows)


async def test_optimised_equals_plain(example: Example) -> None:
    rows = example.rows
    async with Session(ScriptedEngine()) as session:
        results = await results_of(session, example, rows)
    assert results == await plain_results(example, rows)
    assert len(results) == len(rows)


async def test_order_of_the_rows_does_not_matter(example: Example) -> None:
    rows = list(example.rows)
    expected = await plain_results(example, rows)
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    async with Session(ScriptedEngine()) as session:
        results = await results_of(session, example, [rows[index] for index in order])
    assert results == [expected[index] for index in order]


async def test_warm_memo_asks_for_nothing(example: Example, tmp_path: Path) -> None:
    rows = example.rows
    cold, warm = ScriptedEngine(), ScriptedEngine()
    async with Session(cold, memo=tmp_path / "memo") as session:
        first = await results_of(session, example, rows)
    async with Session(warm, memo=tmp_path / "memo") as session:
        second = await results_of(session, example, rows)
    assert first == second == await plain_results(example, rows)
    assert cold.num_requests > 0
    assert warm.num_requests == warm.num_starts == 0


async def test_results_are_plain_json(example: Example) -> None:
    rows = example.rows[:1]
    (result,) = await plain_results(example, rows)
    assert type(result).model_validate_json(result.model_dump_json()) == result


async def test_questions_about_a_document_share_its_topic() -> None:
    documents = read_rows(Document, "documents.jsonl")
    num_questions = sum(len(document.questions) for document in documents)
    engine = ScriptedEngine()
    async with Session(engine) as session:
        await results_of(session, EXAMPLES[0], documents)
    calls = session.summary.calls_by_source
    assert calls["merged"] + calls["joined"] == num_questions - len(documents)
    decided = [request for request in engine.requests if "enum" in (request.json_schema or "")]
    # three readers for each question, the topic for each document, an editor where they disagree
    assert engine.num_requests == 3 * num_questions + len(documents) + len(decided)
    assert 0 < len(decided) <= num_questions


async def test_where_the_readers_agree_nobody_decides() -> None:
    (document, *_) = read_rows(Document, "documents.jsonl")
    engine = ScriptedEngine(lambda request: '{"answer":7}' if is_of_number(request) else TOPIC)
    async with Session(engine) as session:
        (result,) = await results_of(session, EXAMPLES[0], [document])
    assert engine.num_requests == 1 + 3 * len(document.questions)
    assert [each.answer for each in result.answers] == ["a bakery", "a bakery", "7"]


async def test_what_the_same_reader_is_asked_begins_alike() -> None:
    documents = read_rows(Document, "documents.jsonl")[:2]
    engine = ScriptedEngine()
    async with Session(engine) as session:
        await results_of(session, EXAMPLES[0], documents)
    num_questions = sum(len(document.questions) for document in documents)
    first = shown(READERS["first"], QUESTION)
    beginning = tuple(ChatMessage(message.role, message.content) for message in first)
    asked = [r for r in engine.requests if r.messages[:-1] == beginning]
    assert len(asked) == num_questions
    texts = {r.messages[-1].content.rpartition("Question:")[0] for r in asked}
    assert len(texts) == len(documents)


async def test_second_round_of_a_debate_keeps_the_history() -> None:
    rows = read_rows(MultipleChoice, "questions.jsonl")[:1]
    engine = ScriptedEngine()
    async with Session(engine) as session:
        await results_of(session, EXAMPLES[1], rows)
    firsts, seconds, judges = engine.requests[:3], engine.requests[3:6], engine.requests[6:]
    openings = {request.messages for request in firsts}
    assert {request.messages[:-2] for request in seconds} == openings
    assert len(openings) == 3
    assert all(request.messages[-2].role == "assistant" for request in seconds)
    assert len(judges) == 1


async def test_the_critic_decides_how_many_rounds_there_are() -> None:
    documents = read_rows(Document, "documents.jsonl")
    async with Session(ScriptedEngine()) as session:
        results = [refined async for refined in session.map(reflect, documents)]
    answers = [answer for refined in results for answer in refined.answers]
    assert {answer.num_rounds for answer in answers} == {1, 2, 3, MAX_ROUNDS}
    assert all(answer.is_approved for answer in answers if answer.num_rounds < MAX_ROUNDS)
    rounds_of_rows = {tuple(answer.num_rounds for answer in row.answers) for row in results}
    assert len(rounds_of_rows) > 1


async def test_an_agent_looks_up_what_it_answers() -> None:
    def model(request: Request) -> str | ScriptedReply:
        results = [m.content for m in request.messages if m.role == "tool"]
        if not results:
            return ScriptedReply(tool_calls=[ToolCall("look_up", {"word": "Bakers"})])
        if len(results) == 1:
            half = {"first": 11, "operation": "/", "second": 0}
            return ScriptedReply(tool_calls=[ToolCall("calculate", half)])
        return " and ".join(results)

    (document, *_) = read_rows(Document, "documents.jsonl")
    async with Session(ScriptedEngine(model)) as session:
        (found,) = await results_of(session, EXAMPLES[3], [document])
        searches = session.summary.operators_by_source
    expected = "Bakers | 11 and Error: ZeroDivisionError: "
    assert all(each.answer.startswith(expected) for each in found.answers)
    assert (searches["body"], sum(searches.values())) == (1, len(document.questions))


def test_bundled_rows_are_well_formed() -> None:
    documents = read_rows(Document, "documents.jsonl")
    ids = [question.id for document in documents for question in document.questions]
    assert len({document.id for document in documents}) == len(documents) == 12
    assert len(set(ids)) == len(ids) == 36
    questions = read_rows(MultipleChoice, "questions.jsonl")
    assert len(questions) == 8
    assert all(len(row.choices) == 4 and row.answer in "ABCD" for row in questions)


@pytest.mark.skipif(not TATQA.exists(), reason="needs ../shared/data/tatqa.jsonl")
def test_every_row_of_tatqa_is_a_document() -> None:
    lines = TATQA.read_text(encoding="utf-8").splitlines()
    documents = [Document.model_validate_json(line) for line in lines]
    assert len(documents) == 120
    for line, document in zip(lines, documents, strict=True):
        # as text, since 5 and 5.0 are equal as values
        assert json.dumps(document.model_dump()) == json.dumps(json.loads(line))
