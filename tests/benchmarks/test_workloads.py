"""The workloads have the published shapes, and rows that can be made anew."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents_examples.rows import Document, MultipleChoice, Question
from benchmarks.harness.calls import Call, CallGraph, call_graph
from benchmarks.harness.workload import Inputs, Workload
from benchmarks.workloads import workloads
from benchmarks.workloads.sentences import SENTENCES
from benchmarks.workloads.texts import SHORTEST_WORDS, briefing, prose
from benchmarks.workloads.trading_roles import DESKS
from helium_agents import Session
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.simulated.virtual_time import run_in_virtual_time
from helium_agents.graph.sampling import Sampling

NUM_CALLS = {
    "mapred-mmlu": 15,
    "mapred-tatqa": 8,
    "debate": 6,
    "reflect": 4,
    "iterative": 6,
    "parallel": 50,
    "trading": 88,
    **{f"grid-mapred-p{number}": 8 for number in range(1, 7)},
    **{f"grid-debate-p{number}": 6 for number in range(1, 7)},
}

AGENTS = {"tools", "tools-open"}
"""Their rows have as many calls as it takes."""

NUM_COPIES = {"mapred-mmlu": 7, "trading": 32}
"""Calls of a row that equal an earlier one, where there are any."""

ON_DOCUMENTS = ("mapred-tatqa", "debate", "reflect")

every_workload = pytest.mark.parametrize("workload", workloads().values(), ids=list(workloads()))


def graphs_of(workload: Workload, inputs: Inputs) -> list[CallGraph]:
    rows = workload.rows(inputs)
    return [asyncio.run(call_graph(workload.workflow, row)) for row in rows]


def graphs(name: str, num_items: int = 1, **inputs: Any) -> list[CallGraph]:
    return graphs_of(workloads()[name], Inputs(num_items, **inputs))


def keys(graph: CallGraph) -> list[bytes]:
    """Of two calls equal if both ask the same once equal calls have equal answers."""
    found: list[bytes] = []
    for call in graph.calls:
        messages = [
            (role, [part if isinstance(part, str) else found[part] for part in parts])
            for role, parts in call.messages
        ]
        found.append(hashlib.blake2b(repr((messages, call.max_tokens)).encode()).digest())
    return found


def own_text(call: Call, message: int) -> str:
    """A message without the answers in it."""
    return "".join(part for part in call.messages[message][1] if isinstance(part, str))


def num_words(call: Call, message: int) -> int:
    return len(own_text(call, message).split())


def topology(graph: CallGraph) -> Any:
    calls = [
        (call.inputs, call.max_tokens, [role for role, _ in call.messages]) for call in graph.calls
    ]
    return calls, graph.outputs


def test_all_workloads_are_there() -> None:
    assert set(workloads()) == set(NUM_CALLS) | AGENTS


@pytest.mark.parametrize("name", NUM_CALLS)
def test_every_row_has_the_same_topology(name: str) -> None:
    first, *others = graphs(name, 8)
    assert len(first.calls) == NUM_CALLS[name]
    assert all(topology(other) == topology(first) for other in others)
    assert min(call.max_tokens for call in first.calls) >= 16


@every_workload
def test_every_call_is_needed(workload: Workload) -> None:
    (graph,) = graphs_of(workload, Inputs(num_items=1))
    needed = set(graph.outputs)
    for index in reversed(range(len(graph.calls))):
        if index in needed:
            needed.update(graph.calls[index].inputs)
    assert needed == set(range(len(graph.calls)))


@every_workload
def test_rows_are_the_beginning_of_more_rows(workload: Workload) -> None:
    many = workload.rows(Inputs(num_items=14))
    assert list(workload.rows(Inputs(num_items=14))) == list(many)
    assert list(workload.rows(Inputs(num_items=5))) == list(many[:5])
    assert list(workload.rows(Inputs(num_items=5, seed=2))) != list(many[:5])
    questions = {str(row) for row in many}
    assert len(questions) == 14


@every_workload
def test_copies_are_as_published(workload: Workload) -> None:
    assert workload.has_duplicates == (workload.name in NUM_COPIES)
    for graph in graphs_of(workload, Inputs(num_items=2)):
        assert len(graph.calls) - len(set(keys(graph))) == NUM_COPIES.get(workload.name, 0)


@every_workload
def test_distinct_rows_have_no_copies_and_equal_sizes(workload: Workload) -> None:
    published = graphs_of(workload, Inputs(num_items=2))
    distinct = graphs_of(workload, Inputs(num_items=2, is_distinct=True))
    for before, after in zip(published, distinct, strict=True):
        assert len(set(keys(after))) == len(after.calls)
        assert topology(before) == topology(after)
        for one, other in zip(before.calls, after.calls, strict=True):
            for message in range(len(one.messages)):
                assert num_words(one, message) == num_words(other, message)


@every_workload
def test_a_session_gives_what_the_graph_gives(workload: Workload) -> None:
    run_in_virtual_time(compare(workload))  # agents wait for their tools


async def compare(workload: Workload) -> None:
    rows = workload.rows(Inputs(num_items=2))
    by_hand = []
    num_distinct = 0
    engine = ScriptedEngine(long_answer)
    await engine.start()
    for row in rows:
        graph = await call_graph(workload.workflow, row)
        num_distinct += len(set(keys(graph)))
        texts: list[str] = []
        for call in graph.calls:
            sampling = Sampling(max_tokens=call.max_tokens)
            request = Request("by hand", call.conversation(texts), (), sampling)
            texts.append((await engine.complete(request)).choices[0].text)
        by_hand.append([texts[index] for index in graph.outputs])
    engine = ScriptedEngine(long_answer)
    async with Session(engine) as session:
        assert [texts async for texts in session.map(workload.workflow, rows)] == by_hand
    assert engine.num_requests == num_distinct


def long_answer(request: Request) -> str:
    """Depends on the whole conversation, and is longer than any `max_tokens`."""
    digest = hashlib.blake2b(repr(request.messages).encode()).hexdigest()
    return " ".join(f"{digest[start : start + 8]}" for start in range(100)) * 5


# --- shapes ------------------------------------------------------------------------------------


def test_experts_share_all_but_a_sentence() -> None:
    for name in ("mapred-mmlu", "mapred-tatqa"):
        (graph,) = graphs(name)
        *experts, summariser = graph.calls
        assert {15 <= num_words(call, 0) <= 20 for call in experts} == {True}
        contents = [own_text(call, 1) for call in experts]
        shared, sentences = zip(
            *(text.split("\n\nAs the first ") for text in contents), strict=True
        )
        assert len(set(shared)) == 1
        assert len(set(sentences)) == 7
        assert all(len(sentence.split()) <= 15 for sentence in sentences)
        assert summariser.inputs == tuple(range(len(experts)))


def test_debaters_keep_their_histories() -> None:
    (graph,) = graphs("debate")
    for index, call in enumerate(graph.calls[3:]):
        assert call.messages[:2] == graph.calls[index].messages
        assert call.messages[2] == ("assistant", (index,))
        assert set(call.inputs) == {0, 1, 2}
        assert index not in call.messages[3][1]
    assert graph.outputs == (3, 4, 5)


def test_reflection_is_serial() -> None:
    (graph,) = graphs("reflect")
    assert [call.inputs for call in graph.calls] == [(), (0,), (0, 1), (0, 1, 2)]
    assert all(num_words(call, 0) == 100 for call in graph.calls)
    assert graph.calls[3].messages[:2] == graph.calls[0].messages
    assert len({call.messages[0] for call in graph.calls[:3]}) == 3


def test_steps_carry_the_summary_on() -> None:
    (graph,) = graphs("iterative")
    assert [call.inputs for call in graph.calls] == [(), (0,), (1,), (2,), (3,), (4,)]
    for call in graph.calls:
        instruction, _, rest = own_text(call, 1).partition("\n\nProduct: ")
        assert num_words(call, 0) == 5
        assert 120 <= len(instruction.split()) <= 130
        assert rest.count("\n- ") == 10


def test_readers_and_writer_of_reviews() -> None:
    (graph,) = graphs("parallel")
    *readers, writer = graph.calls
    assert num_words(writer, 0) == 190
    assert {150 <= num_words(call, 0) <= 170 for call in readers} == {True}
    assert len({call.messages[0] for call in readers}) == 7
    extracts = [call for call in readers if not call.inputs]
    assert len(extracts) == 42
    assert {len(own_text(call, 1).partition("\n\n")[0].split()) for call in extracts} == {100}
    assert [len(call.inputs) for call in readers if call.inputs] == [6] * 7


def test_trading_has_its_desks_and_branches() -> None:
    (graph,) = graphs("trading")
    calls = graph.calls
    sizes = [num_words(call, 0) for call in calls]
    assert sizes[5:8] == [570] * 3
    assert all(130 <= size <= 180 for size in sizes[:5] + sizes[8:])
    ends = [4, 7, 13, 17]  # each desk's documents, then its report
    assert [len(calls[end].inputs) for end in ends] == [len(desk.sources) for desk in DESKS]
    assert [len(desk.sources) for desk in DESKS] == [4, 2, 5, 3]
    assert [index for index, call in enumerate(calls[:18]) if call.inputs] == ends
    reports = tuple(ends)
    bull, bear, bull_again, bear_again, manager = calls[18:23]
    assert bull.inputs == bear.inputs == reports
    assert bull_again.messages[2] == ("assistant", (18,))
    assert bear_again.messages[2] == ("assistant", (19,))
    assert manager.inputs == (*reports, 18, 19, 20, 21)
    for trader in range(23, 87, 8):
        branch = calls[trader : trader + 8]
        assert branch[0].inputs == (*reports, 22)
        for analyst in (1, 2, 3):
            content = branch[analyst].messages[1][1]
            assert branch[analyst].inputs == (*reports, trader)
            assert content[-1] == trader  # the decision comes last
            assert branch[analyst + 3].messages[2] == ("assistant", (trader + analyst,))
        assert set(branch[7].inputs) == {*reports, *range(trader, trader + 7)}
    assert calls[87].inputs == (*reports, *range(30, 87, 8))
    assert graph.outputs == (87,)


def test_stocks_share_the_documents_of_the_market() -> None:
    rows = workloads()["trading"].rows(Inputs(num_items=2))
    one, other = ([text for desk in row.documents for text in desk] for row in rows)
    shared = [source.is_of_market for desk in DESKS for source in desk.sources]
    assert [a == b for a, b in zip(one, other, strict=True)] == shared
    assert 0 < sum(shared) < len(shared)
    assert len({row.name for row in workloads()["trading"].rows(Inputs(num_items=200))}) == 200


def test_the_second_day_has_some_documents_of_the_first() -> None:
    assert workloads()["trading"].num_warm_days == 1
    first, second = (workloads()["trading"].rows(Inputs(3, day=day)) for day in (1, 2))
    daily = [source.is_daily for desk in DESKS for source in desk.sources]
    for before, after in zip(first, second, strict=True):
        assert replace(after, documents=before.documents) == before
        pairs = zip(sum(before.documents, ()), sum(after.documents, ()), strict=True)
        assert [one != other for one, other in pairs] == daily
    assert daily.count(True) == 6
    (yesterday,), (today,) = graphs("trading", day=1), graphs("trading", day=2)
    known = set(keys(yesterday))
    # Extracts of the eight old documents, and the report that is made of four of them.
    assert [key in known for key in keys(today)].count(True) == 9


# --- data --------------------------------------------------------------------------------------


def test_questions_of_a_document_come_one_after_another(tmp_path: Path) -> None:
    write_documents(tmp_path, num_documents=3)
    for data in (None, tmp_path):
        for name in ("mapred-tatqa", "reflect"):
            rows = workloads()[name].rows(Inputs(num_items=13, data=data))
            assert [row.context == rows[0].context for row in rows] == [True] * 6 + [False] * 7
            assert rows[6].context == rows[11].context != rows[12].context
            assert len({row.question for row in rows[:6]}) == 6


def test_debates_have_a_document_each_while_there_are_any(tmp_path: Path) -> None:
    write_documents(tmp_path, num_documents=3)
    rows = workloads()["debate"].rows(Inputs(num_items=7, data=tmp_path))
    assert [row.context[:10] for row in rows[:4]] == [
        "document 0",
        "document 1",
        "document 2",
        "document 0",
    ]
    assert rows[0].question != rows[3].question
    generated = workloads()["debate"].rows(Inputs(num_items=7))
    assert len({row.context for row in generated}) == 7
    for row in (*rows, *generated):
        assert len(row.context) <= 440
        assert row.context == row.context.strip()


@pytest.mark.parametrize("name", ON_DOCUMENTS)
def test_documents_given_are_used(name: str, tmp_path: Path) -> None:
    write_documents(tmp_path, num_documents=2)
    for index, graph in enumerate(graphs(name, 2, data=tmp_path)):
        document, question = (index, 0) if name == "debate" else (0, index)
        content = own_text(graph.calls[0], 1)
        assert f"document {document}" in content
        assert f"question {question} of {document}?" in content


def test_choices_given_are_used(tmp_path: Path) -> None:
    write_choices(tmp_path, 3)
    for index, graph in enumerate(graphs("mapred-mmlu", 3, data=tmp_path)):
        content = own_text(graph.calls[0], 1)
        assert content.startswith(f"Question: choice question {index}?\nA. red\nB. green\n")


@pytest.mark.parametrize("name", ["mapred-mmlu", *ON_DOCUMENTS])
def test_files_that_are_not_there_are_stood_in_for(name: str, tmp_path: Path) -> None:
    workload = workloads()[name]
    assert workload.rows(Inputs(7, data=tmp_path)) == workload.rows(Inputs(7))


@pytest.mark.parametrize("name", ["mapred-mmlu", *ON_DOCUMENTS])
def test_bad_data_are_named(name: str, tmp_path: Path) -> None:
    rows = workloads()[name].rows
    with pytest.raises(NotADirectoryError, match=r"nowhere is no directory: name one with mmlu"):
        rows(Inputs(1, data=tmp_path / "nowhere"))
    path = tmp_path / ("mmlu.jsonl" if name == "mapred-mmlu" else "tatqa.jsonl")
    path.write_text("")
    with pytest.raises(ValueError, match=r"jsonl is empty"):
        rows(Inputs(1, data=tmp_path))
    write_choices(tmp_path, 1)
    write_documents(tmp_path, 1)
    with path.open("a") as file:
        file.write('{"question": 3}\n')
    with pytest.raises(ValueError, match=r"jsonl, line 2: "):
        rows(Inputs(1, data=tmp_path))


def test_too_few_data_are_named(tmp_path: Path) -> None:
    write_choices(tmp_path, 2)
    write_documents(tmp_path, 1)
    with pytest.raises(ValueError, match=r"3 items: mmlu.jsonl has 2 questions"):
        graphs("mapred-mmlu", 3, data=tmp_path)
    for name in ON_DOCUMENTS:
        assert len(graphs(name, 6, data=tmp_path)) == 6
        with pytest.raises(ValueError, match=r"7 items: document id0 of tatqa.jsonl has only 6"):
            graphs(name, 7, data=tmp_path)


def write_documents(directory: Path, num_documents: int) -> None:
    documents = [
        Document(
            id=f"id{document}",
            table=[[f"document {document}", "2019"], ["Revenue", str(1000 + document)]],
            paragraphs=["All amounts are in thousands of dollars. " * 20],
            questions=[
                Question(
                    id=str(number), question=f"question {number} of {document}?", answer=1, scale=""
                )
                for number in range(6)
            ],
        )
        for document in range(num_documents)
    ]
    lines = "".join(f"{document.model_dump_json()}\n" for document in documents)
    (directory / "tatqa.jsonl").write_text(lines)


def write_choices(directory: Path, num_questions: int) -> None:
    questions = [
        MultipleChoice(
            subject="colours",
            question=f"choice question {number}?",
            choices=["red", "green", "blue", "grey"],
            answer="A",
        )
        for number in range(num_questions)
    ]
    lines = "".join(f"{question.model_dump_json()}\n" for question in questions)
    (directory / "mmlu.jsonl").write_text(lines)


# --- texts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SENTENCES)
def test_texts_are_as_long_as_asked_for(kind: str) -> None:
    for length in range(SHORTEST_WORDS, 120):
        text = prose(kind, length, "seed", length)
        assert len(text.split()) == length
        assert text == prose(kind, length, "seed", length)
        assert text[0].isupper() or text[0].isdigit()
        assert text[-1] in ".?"
        assert "{" not in text
    assert prose(kind, 100, "seed") != prose(kind, 100, "other")
    with pytest.raises(ValueError, match="3 are the least"):
        prose(kind, 2)


def test_texts_are_the_same_in_every_process() -> None:
    assert prose("review", 12, 1) == (
        "I bought this drill for my neighbour, and the cable is heavy."
    )


def test_roles_have_rules_of_their_own() -> None:
    one, other = briefing("You are a poet.", 60), briefing("You are a clerk.", 60)
    assert len(one.split()) == len(other.split()) == 60
    assert one.removeprefix("You are a poet.") != other.removeprefix("You are a clerk.")
