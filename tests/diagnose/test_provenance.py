"""What a call asked is kept beside its answer: for models, operators and rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents import MemoryStore, Session, llm, operator, prompt, system, user
from helium_agents.diagnose.provenance import (
    MAX_CHARACTERS,
    Provenance,
    read_provenance,
    row_name,
)
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.vllm import VLLM
from helium_agents.keys.encoding import fingerprint
from helium_agents.telemetry.events import CallMissed, Event


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


def stored(memo: MemoryStore) -> list[Provenance]:
    """The provenance of all entries that have one, the oldest first."""
    found = (memo.find(entry.key) for entry in reversed(memo.entries()))
    calls = (read_provenance(entry.provenance) for entry in found if entry)
    return [call for call in calls if call is not None]


async def only(make: Any, engine: ScriptedEngine | None = None) -> Any:
    """The provenance of the one call that an awaitable makes."""
    memo = MemoryStore()
    async with Session(engine or ScriptedEngine(), memo=memo):
        await make()
    (call,) = stored(memo)
    return call


async def test_a_model_call() -> None:
    call = await only(
        lambda: llm(
            system("Be short."), user("Why?"), max_tokens=8, temperature=0.5, seed=3, schema=Answer
        ),
        PartedEngine(name="small", identity="abc"),
    )
    assert call.kind == "llm"
    assert call.messages == (("system", "Be short.", ""), ("user", "Why?", ""))
    settings = {name: each.text for name, each in call.settings.items()}
    assert '"Answer"' in settings.pop("schema")
    assert settings == {"model": "small", "max_tokens": "8", "temperature": "0.5", "seed": "3"}
    assert call.settings["model"].digest == "abc"
    assert call.made_of == {"model: weights": "w1", "model: dtype": "float32"}
    assert (call.label, call.caller, call.row, call.item) == ("llm", None, None, None)


async def test_an_operator_with_a_version_of_its_own() -> None:
    call = await only(lambda: clean("a", "b", "c", limit=2, colour="red"))
    assert (call.kind, call.label, call.made_of) == ("operator", "clean", {})
    assert call.settings.pop("model").text == "scripted"
    assert call.settings == {"operator": (f"{__name__}:clean", ""), "version": ("2", "")}
    assert {name: each.text for name, each in call.arguments.items()} == {
        "text": "'a'", "[1]": "'b'", "[2]": "'c'", "limit": "2", "colour": "'red'",
    }  # fmt: skip


async def test_an_operator_s_source_is_named_by_its_parts() -> None:
    call = await only(lambda: trim(" a "))
    assert set(call.made_of) == {f"{__name__}:trim", f"{__name__}:_strip"}
    version = trim.body.version.hex()  # type: ignore[union-attr]
    assert version.startswith(call.settings["version"].text)


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
    texts = [call.messages[-1].text for call in stored(memo)]
    assert texts == ["draft", "improve one"]
    assert memo.stats().num_entries == 3, "the alias has none"


async def test_the_row_and_the_caller() -> None:
    memo, rows = MemoryStore(), [Row("a"), Row("b")]
    async with Session(ScriptedEngine(), memo=memo) as session:
        async for _ in session.map(ask, rows):
            pass
    found = {call.item: call for call in stored(memo)}
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
    rows = [call.row for call in stored(memo) if call.item == 1]
    assert rows == [row_name(fingerprint(Row("a")))] * 2


async def test_draws_are_not_described() -> None:
    memo = MemoryStore()
    async with Session(ScriptedEngine(), memo=memo):
        await llm(user("a"), temperature=1)
        await llm(user("a"), share=False)
    assert stored(memo) == []


async def test_text_that_is_no_unicode_is_described_all_the_same() -> None:
    call = await only(lambda: llm(user("a \ud800 b")))
    assert call.messages[0].text.startswith("a ?")


async def test_a_long_text_is_cut_but_told_apart() -> None:
    long = "word " * 100_000
    first, second = [
        await only(lambda text=text: llm(user(text)))
        for text in (long, long[:-6] + "x" + long[-5:])
    ]
    assert first.messages[0].text == second.messages[0].text == long[:MAX_CHARACTERS]
    assert first.messages != second.messages


async def test_a_name_that_is_no_unicode_is_described_all_the_same() -> None:
    call = await only(lambda: clean("a", **{"\ud800": 1}))
    assert call.arguments["?"].text == "1"


async def test_long_parts_of_a_model_are_cut_but_told_apart() -> None:
    class Templated(ScriptedEngine):
        def identity_parts(self) -> dict[str, str]:
            return {"template": "x" * 10_000 + self.identity()}

    first, second = [
        await only(lambda: llm(user("a")), Templated(identity=name)) for name in ("one", "two")
    ]
    assert len(first.made_of["model: template"]) < MAX_CHARACTERS + 20
    assert first.made_of != second.made_of


async def test_observers_see_what_misses_with_the_provenance_that_is_kept() -> None:
    memo, missed = MemoryStore(), []

    def observe(event: Event) -> None:
        if isinstance(event, CallMissed):
            missed.append((event.kind, event.label, read_provenance(event.record())))

    for _ in range(2):  # the second time nothing misses
        async with Session(ScriptedEngine(), memo=memo, observers=[observe]):
            await trim((await llm(user("a"), max_tokens=8)).text)
    first, second = stored(memo)
    assert missed == [("llm", "llm", first), ("operator", "trim", second)]


@pytest.mark.parametrize("data", [None, b"", b"{}", b"not json", b'{"kind":"other"}', b"x\x9c?"])
def test_what_is_no_provenance_is_none(data: bytes | None) -> None:
    assert read_provenance(data) is None


async def test_a_long_conversation_is_kept_compressed() -> None:
    memo, shots = MemoryStore(), [user(f"What is {n} and {n}? " * 20) for n in range(40)]
    async with Session(ScriptedEngine(), memo=memo):
        await llm(*shots)
    (call,) = stored(memo)
    assert [text for _, text, _ in call.messages] == [
        (f"What is {n} and {n}? " * 20)[:MAX_CHARACTERS] for n in range(40)
    ]
    (entry,) = memo.entries()
    found = memo.find(entry.key)
    assert found is not None
    kept = found.provenance
    assert len(kept) < 40 * MAX_CHARACTERS / 4
    assert read_provenance(kept[:-9]) is None


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
