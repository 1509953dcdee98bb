"""What a call asked is kept beside its answer: for models, operators and rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents import MemoryStore, Session, llm, operator, prompt, system, user
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM
from helium_agents.graph.encoding import fingerprint
from helium_agents.runtime.facts import Facts, LlmFacts, OperatorFacts, read_facts, row_name


class Answer(BaseModel):
    text: str


@dataclass(frozen=True)
class Row:
    question: str


@operator(pure=True, version="2")
async def clean(text: str, *more: str, limit: int = 3, **options: Any) -> str:
    return text


@operator(pure=True)
async def trim(text: Any) -> str:
    return _strip(text)


def _strip(text: Any) -> str:
    return str(text).strip()


@operator
async def ask(row: Row) -> str:
    return (await llm(system("Be short."), user(row.question), max_tokens=8)).text


class PartedEngine(ScriptedEngine):
    def identity_parts(self) -> dict[str, str]:
        return {"weights": "w1", "dtype": "float32"}


def stored(memo: MemoryStore) -> list[Facts]:
    """The facts of all entries that have some, the oldest first."""
    found = [read_facts(memo.facts(entry.key)) for entry in memo.entries() if entry.has_facts]
    return [facts for facts in found[::-1] if facts is not None]


async def only(call: Any, engine: ScriptedEngine | None = None) -> Any:
    """The facts of the one call that an awaitable makes."""
    memo = MemoryStore()
    async with Session(engine or ScriptedEngine(), memo=memo):
        await call()
    (facts,) = stored(memo)
    return facts


async def test_a_model_call() -> None:
    facts = await only(
        lambda: llm(
            system("Be short."), user("Why?"), max_tokens=8, temperature=0.5, seed=3, schema=Answer
        ),
        PartedEngine(name="small", identity="abc"),
    )
    assert isinstance(facts, LlmFacts)
    assert facts.messages == (("system", "Be short."), ("user", "Why?"))
    assert facts.sampling == {"max_tokens": 8, "temperature": 0.5, "seed": 3}
    assert '"Answer"' in str(facts.schema)
    assert (facts.model.name, facts.model.identity) == ("small", "abc")
    assert facts.model.parts == {"weights": "w1", "dtype": "float32"}
    assert (facts.label, facts.caller, facts.row, facts.item) == ("llm", None, None, None)


async def test_an_operator_with_a_version_of_its_own() -> None:
    facts = await only(lambda: clean("a", "b", "c", limit=2, colour="red"))
    assert isinstance(facts, OperatorFacts)
    assert (facts.label, facts.identity) == ("clean", f"{__name__}:clean")
    assert (facts.version, facts.sources) == ("2", {})
    assert {name: each.text for name, each in facts.arguments.items()} == {
        "text": "'a'", "[1]": "'b'", "[2]": "'c'", "limit": "2", "colour": "'red'",
    }  # fmt: skip


async def test_an_operator_s_source_is_named_by_its_parts() -> None:
    facts = await only(lambda: trim(" a "))
    assert set(facts.sources) == {f"{__name__}:trim", f"{__name__}:_strip"}
    assert facts.version == trim.body.version.hex()  # type: ignore[union-attr]


async def test_arguments_are_told_apart_though_their_text_is_cut() -> None:
    first, second = [await only(lambda text=text: trim(text)) for text in ("x" * 600, "x" * 601)]
    assert first.arguments["text"].text == second.arguments["text"].text
    assert first.arguments["text"].digest != second.arguments["text"].digest
    assert len(first.arguments["text"].text) < 600


async def test_a_call_with_inputs_is_kept_as_it_was_resolved() -> None:
    memo = MemoryStore()
    engine = ScriptedEngine({"draft": "one", "improve one": "two"})
    async with Session(engine, memo=memo):
        draft = llm(user("draft"))
        await llm(user(prompt("improve {it}", it=draft)))
    texts = [facts.messages[-1].text for facts in stored(memo) if isinstance(facts, LlmFacts)]
    assert texts == ["draft", "improve one"]
    assert memo.stats().num_entries == 3, "the alias has no facts"


async def test_the_row_and_the_caller() -> None:
    memo, rows = MemoryStore(), [Row("a"), Row("b")]
    async with Session(ScriptedEngine(), memo=memo) as session:
        async for _ in session.map(ask, rows):
            pass
    found = {facts.item: facts for facts in stored(memo)}
    for index, row in enumerate(rows):
        assert found[index].row == row_name(fingerprint(row))
        assert found[index].caller == f"{__name__}:ask"


async def test_the_row_of_a_nested_map_is_the_outer_one() -> None:
    @operator
    async def both(row: Row) -> list[str]:
        parts = [Row(f"{row.question} {part}") for part in "xy"]
        return [text async for text in session.map(ask, parts)]

    memo = MemoryStore()
    async with Session(ScriptedEngine(), memo=memo) as session:
        async for _ in session.map(both, [Row("other"), Row("a")]):
            pass
    rows = [facts.row for facts in stored(memo) if facts.item == 1]
    assert rows == [row_name(fingerprint(Row("a")))] * 2


async def test_draws_are_not_described() -> None:
    memo = MemoryStore()
    async with Session(ScriptedEngine(), memo=memo):
        await llm(user("a"), temperature=1)
        await llm(user("a"), share=False)
    assert stored(memo) == []


async def test_text_that_is_no_unicode_is_described_all_the_same() -> None:
    facts = await only(lambda: llm(user("a \ud800 b")))
    assert facts.messages[0].text.startswith("a ?")


async def test_a_long_text_is_cut_but_told_apart() -> None:
    long = "word " * 100_000
    first, second = [
        await only(lambda text=text: llm(user(text)))
        for text in (long, long[:-6] + "x" + long[-5:])
    ]
    assert len(first.messages[0].text) < 70_000
    assert "characters left out" in first.messages[0].text
    assert first.messages != second.messages


@pytest.mark.parametrize("data", [None, b"", b"{}", b"not json", b'{"kind":"other"}'])
def test_what_is_no_facts_is_none(data: bytes | None) -> None:
    assert read_facts(data) is None


async def test_facts_cost_microseconds() -> None:
    memo = MemoryStore()
    async with Session(ScriptedEngine(), memo=memo) as session:
        async for _ in session.map(ask, [Row("What is it? " * 100)]):
            pass
    data = next(memo.facts(entry.key) for entry in memo.entries())
    best_s = min(_seconds(lambda: read_facts(data)) for _ in range(50))
    assert best_s < 1e-3, "a million of them are read in minutes, not hours"


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- what a model's identity is made of ----------------------------------------------------------


def test_a_model_names_the_part_of_it_that_differs(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"):
        (tmp_path / name).write_text("{}")
    before = VLLM(tmp_path).identity_parts()
    assert before.keys() >= {"weights", "tokenizer", "chat template", "configuration", "dtype"}
    changes = {
        "model.safetensors": "weights", "tokenizer.json": "tokenizer",
        "chat_template.jinja": "chat template", "config.json": "configuration",
    }  # fmt: skip
    for name, part in changes.items():
        (tmp_path / name).write_text('{"a": 1}')
        after = VLLM(tmp_path).identity_parts()
        assert [key for key in after if after[key] != before[key]] == [part]
        before = after
    after = VLLM(tmp_path, dtype="bfloat16", enforce_eager=True).identity_parts()
    assert (after["dtype"], after["enforce_eager"]) == ("bfloat16", "true")
    assert "max_model_tokens" not in after
