"""Why a call is not in the memo: a program is run, changed, and replayed on what was stored."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helium_agents import MemoryStore, Session, llm, user
from helium_agents.diagnose.explain_miss import Miss, Stored, explain_misses, likeness
from helium_agents.diagnose.provenance import read_provenance
from helium_agents.diagnose.replay import Replayed, replay
from helium_agents.engines.engine import Request
from helium_agents.engines.scripted import ScriptedEngine

FLOW = """
from pydantic import BaseModel

from helium_agents import llm, operator, system, user

LIMIT = 3


class Verdict(BaseModel):
    fits: bool


def shorten(text):
    return text[:100]


def mark(text):
    return text + "!" * LIMIT


@operator(pure=True)
async def clean(text, style="plain"):
    return mark(shorten(text).strip())


@operator(pure=True, version="1")
async def count(text):
    return len(text)


@operator
async def answer(row):
    text = await clean(row["text"], "plain")
    number = await count(text)
    summary = await llm(user(f"Sum up in {number} words, please: {text}"), max_tokens=4)
    verdict = await llm(
        system("You are careful."),
        user(f"Does the text {text!r} fit the summary?"),
        temperature=0.5, seed=7, schema=Verdict,
    )
    return summary.text, verdict.text
"""

ROW = {"text": "the quick brown fox"}

Flow = Callable[..., Any]


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flow]:
    """Imports the program, with `old` replaced by `new`, as the module `flow`."""
    versions = iter(range(100))
    modules = set(sys.modules)

    def load(old: str = "", new: str = "") -> Any:
        assert old in FLOW
        folder = tmp_path / str(next(versions))
        folder.mkdir()
        (folder / "flow.py").write_text(FLOW.replace(old, new) if old else FLOW)
        sys.modules.pop("flow", None)
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module("flow").answer

    yield load
    for name in set(sys.modules) - modules:
        del sys.modules[name]


class PartedEngine(ScriptedEngine):
    def __init__(self, dtype: str = "float32") -> None:
        super().__init__(_reply, name="small", identity=f"identity {dtype}")
        self.dtype = dtype

    def identity_parts(self) -> dict[str, str]:
        return {"weights": "w", "dtype": self.dtype}


def _reply(request: Request) -> str:
    return '{"fits": true}' if request.json_schema else "one two three four five six seven"


async def run(workflow: Any, memo: MemoryStore, rows: Any = (ROW,), **options: Any) -> None:
    async with Session(options.pop("engine", PartedEngine()), memo=memo) as session:
        async for _ in session.map(workflow, rows):
            pass


def stored(memo: MemoryStore, age_s: float = 60.0) -> Iterator[Stored]:
    for entry in memo.entries():
        found = memo.find(entry.key)
        provenance = read_provenance(found.provenance if found else b"")
        if provenance is not None:
            yield Stored(entry.key, age_s, provenance)


async def misses(workflow: Any, memo: MemoryStore, row: Any = ROW, **options: Any) -> list[Miss]:
    """Why the row's calls miss; nothing may be asked of the engine or written meanwhile."""
    engine, before = options.pop("engine", PartedEngine()), memo.stats()
    replayed = await replay(workflow, row, engine, memo, patience_s=0.1)
    assert (engine.num_starts, engine.num_requests) == (0, 0)
    assert memo.stats() == before
    assert replayed.failure is None
    return explain_misses(replayed.misses, stored(memo), **options)


async def explained(flow: Flow, old: str, new: str, **options: Any) -> Miss:
    """Why the first call misses, of a program in which `old` became `new`."""
    memo = MemoryStore()
    await run(flow(), memo)
    return (await misses(flow(old, new), memo, **options))[0]


_MESSAGES = """        system("You are careful."),
        user(f"Does the text {text!r} fit the summary?"),
"""
_SWAPPED = """        user(f"Does the text {text!r} fit the summary?"),
        system("You are careful."),
"""

CHANGES = {
    "operator source": (
        "mark(shorten(text).strip())", "mark(shorten(text).strip() )  .strip()",
        ["source of flow:clean"], "",
    ),
    "helper source": ("text[:100]", "text[:200]", ["source of flow:shorten"], ""),
    "constant": (
        "LIMIT = 3", "LIMIT = 1 + 3", ["constant LIMIT in flow:mark"], "",
    ),
    "explicit version": ('version="1"', 'version="2"', ["version"], "1 -> 2"),
    "system message": (
        "You are careful.", "You are very careful.",
        ["message 0 (system)"], "(from character 8): You are careful. -> You are very careful.",
    ),
    "one word of the user's": (
        "please: ", "kindly: ",
        ["message 0 (user)"],
        "(from character 20): Sum up in 22 words, please: the quick brown fox!!!"
        " -> Sum up in 22 words, kindly: the quick brown fox!!!",
    ),
    "temperature": ("temperature=0.5", "temperature=0.7", ["temperature"], "0.5 -> 0.7"),
    "max_tokens": ("max_tokens=4", "max_tokens=6", ["max_tokens"], "4 -> 6"),
    "stop": ("seed=7", 'seed=7, stop=["."]', ["stop"], 'none -> ["."]'),
    "seed": ("seed=7", "seed=8", ["seed"], "7 -> 8"),
    "schema": (
        "    fits: bool", "    fits: bool\n    why: str", ["schema"], "why",
    ),
    "argument": (
        'row["text"], "plain"', 'row["text"], "short"', ["argument `style`"], "'plain' -> 'short'",
    ),
    "order of messages": (
        _MESSAGES, _SWAPPED,
        [f"message {at} ({role})" for at, role in enumerate(("system", "user"))]
        + ["message 0 (user)", "message 1 (system)"],
        "You are careful. -> none",
    ),
    "another message": (
        'llm(user(f"Sum up in {number} words, please: {text}")',
        'llm(user(f"Sum up in {number} words, please: {text}"), system("Hi.")',
        ["message 1 (system)"], "none -> Hi.",
    ),
    "a message in two": (
        'user(f"Sum up in {number} words, please: {text}")',
        'user(text), user(f"Sum up in {number} words, please: ")',
        ["message 0 (user)", "message 1 (user)"], "the quick brown fox",
    ),
    "another argument": (
        "count(text):", "count(text, by=1):", ["argument `by`"], "none -> 1",
    ),
    "role of a message": (
        'system("You are careful.")', 'user("You are careful.")',
        ["message 0 (system)", "message 0 (user)"], "You are careful. -> none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
async def test_the_change_is_named(name: str, flow: Flow) -> None:
    old, new, fields, text = CHANGES[name]
    miss = await explained(flow, old, new)
    assert [difference.field for difference in miss.differences] == fields
    assert miss.cause == "differs"
    assert text in str(miss.differences[0])
    assert fields[0] in miss.reason
    assert miss.nearest is not None


async def test_nothing_misses_where_nothing_has_changed(flow: Flow) -> None:
    memo = MemoryStore()
    await run(flow(), memo)
    replayed = await replay(flow(), ROW, PartedEngine(), memo)
    assert replayed == Replayed(num_found=4, misses=(), failure=None)


async def test_a_shorter_answer_says_where_it_was_cut(flow: Flow) -> None:
    miss = await explained(flow, "max_tokens=4", "max_tokens=6")
    assert "whose answer was cut off at 4 tokens" in miss.reason


async def test_another_model(flow: Flow) -> None:
    miss = await explained(flow, "", "", engine=PartedEngine("bfloat16"))
    assert [str(each) for each in miss.differences] == ["model: dtype: float32 -> bfloat16"]
    unknown = ScriptedEngine(name="other", identity="other")
    miss = await explained(flow, "", "", engine=unknown)
    (difference,) = miss.differences
    assert difference.field == "model"
    assert str(difference) == "model: small -> other"


async def test_a_row_that_was_never_run(flow: Flow) -> None:
    memo = MemoryStore()
    await run(flow(), memo, [ROW, {"text": "something else"}])
    (clean, count, summary) = await misses(flow(), memo, {"text": "the quick brown box"})
    assert clean.cause == summary.cause == "never run"
    assert "no answer of this row is stored" in summary.reason
    assert clean.nearest is not None
    assert "brown fox" in str(clean.differences[0]), "the row that is most like it"
    assert count.cause == "never run"


async def test_a_new_row_of_a_program_that_has_changed(flow: Flow) -> None:
    memo = MemoryStore()
    await run(flow(), memo)
    *_, summary = await misses(flow("max_tokens=4", "max_tokens=6"), memo, {"text": "other"})
    assert summary.cause == "never run"
    assert [each.field for each in summary.differences] == ["max_tokens", "message 0 (user)"]


async def test_the_same_row_wins_over_one_that_is_more_alike(flow: Flow) -> None:
    memo = MemoryStore()
    await run(flow(), memo, [{"text": "a"}, {"text": "b"}])
    old, new = "Sum up in {number} words, please", "In no more than {number} words, sum up"
    (summary,) = await misses(flow(old, new), memo, {"text": "a"})
    assert summary.nearest is not None
    assert summary.nearest.provenance.row == summary.asked.row
    assert summary.cause == "differs"


async def test_a_draw(flow: Flow) -> None:
    miss = await explained(flow, "seed=7, ", "")
    assert miss.cause == "draw"
    assert "never remembered" in miss.reason


async def test_a_call_that_is_not_shared(flow: Flow) -> None:
    miss = await explained(flow, "max_tokens=4", "max_tokens=4, share=False")
    assert miss.cause == "not shared"


async def test_an_answer_that_has_expired(flow: Flow) -> None:
    now_s = 1e9
    memo = MemoryStore(ttl_s=3600, clock=lambda: now_s)
    await run(flow(), memo)
    kept = list(stored(memo, age_s=7200))
    now_s += 7200
    replayed = await replay(flow(), ROW, PartedEngine(), memo, patience_s=0.1)
    found = explain_misses(replayed.misses, kept, ttl_s=3600)
    assert [miss.cause for miss in found] == ["expired"] * 3
    found = explain_misses(replayed.misses, kept)
    assert [miss.cause for miss in found] == ["unusable"] * 3


async def test_an_empty_memo(flow: Flow) -> None:
    found = await misses(flow(), MemoryStore())
    assert {miss.cause for miss in found} == {"nothing stored"}
    assert "no call of flow:clean yet" in found[0].reason


# --- replays -------------------------------------------------------------------------------------


async def test_all_missing_calls_that_do_not_need_one_another_are_found(flow: Flow) -> None:
    async def slowly(row: Any) -> None:
        async def one(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            first = await llm(user(f"{name} of {row}"))
            await llm(user(f"after {name}: {first.text}"))

        await asyncio.gather(one("a", 0), one("b", 0.05), one("c", 0.1))

    replayed = await replay(slowly, "row", PartedEngine(), MemoryStore(), patience_s=0.2)
    texts = [call.messages[-1].text for call in replayed.misses if call.kind == "llm"]
    assert texts == ["a of row", "b of row", "c of row"]


async def test_a_program_does_not_go_on_after_a_miss() -> None:
    went_on = []

    async def tries(row: Any) -> None:
        try:
            await llm(user(row), timeout=0.01)
        except Exception as error:
            went_on.append(error)

    replayed = await replay(tries, "row", PartedEngine(), MemoryStore(), patience_s=0.1)
    assert (len(replayed.misses), went_on) == (1, [])


async def test_a_row_may_end_in_spite_of_a_miss() -> None:
    async def races(row: Any) -> None:
        call = llm(user(row))
        call.start()
        await asyncio.sleep(0.01)

    replayed = await replay(races, "row", PartedEngine(), MemoryStore())
    assert (len(replayed.misses), replayed.failure) == (1, None)


async def test_a_row_that_fails_says_why() -> None:
    async def fails(row: Any) -> None:
        raise ValueError(row)

    replayed = await replay(fails, "row", PartedEngine(), MemoryStore())
    assert isinstance(replayed.failure, ValueError)


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("", "", 1), ("a b", "b a", 1), ("a", "", 0), ("a x b", "a y b", 2 / 3)],
)
def test_likeness(first: str, second: str, expected: float) -> None:
    assert likeness(first, second) == likeness(second, first) == pytest.approx(expected)


async def test_two_long_messages_differ_where_nothing_is_kept_of_them() -> None:
    async def ask(row: Any) -> None:
        await llm(user("word " * 1000 + row))

    memo = MemoryStore()
    await run(ask, memo, ["one"])
    (miss,) = await misses(ask, memo, "two")
    (difference,) = miss.differences
    assert difference.field == "message 0 (user)"
    assert difference.stored.startswith("word word ")
    assert "equal as far as it is kept" in difference.asked
    digests = [text.partition("(digest ")[2] for text in (difference.stored, difference.asked)]
    assert len({*digests, ""}) == 3
