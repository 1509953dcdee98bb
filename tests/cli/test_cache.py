"""`helium cache`: looking into a memo, finding out what it misses, and making it smaller."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonl import Helium

from helium_agents.cli.units import age, duration, num_bytes, size
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.memo.lmdb import LmdbStore
from helium_agents.memo.lmdb.tables import DATA_FILE

FLOW = """
from dataclasses import dataclass

from helium_agents import llm, operator, prompt, system, user


@dataclass(frozen=True)
class Row:
    question: str


@operator(pure=True)
async def tidy(text):
    return text.strip()


@operator
async def draft(question):
    return (await llm(system("You are brief."), user(question), max_tokens=8)).text


@operator
async def answer(row: Row):
    question = await tidy(row.question)
    first = await draft(question)
    second = llm(user(f"Improve: {first}"), max_tokens=8)
    return (await llm(user(prompt("Translate: {it}", it=second)), max_tokens=8)).text
"""

RUN = "run flow.py:answer --input rows.jsonl --output out.jsonl --memo memo --overwrite"
NUM_OF_ROW = 4
"""A row's calls: tidy, draft, improve, translate; the last has an alias too."""


@pytest.fixture
def memo(helium: Helium, folder: Path, engine: ScriptedEngine, monkeypatch: Any) -> Path:
    """The memo of a run over three rows; `explain-miss` has the same engine."""
    questions = ("What is a fox?", "What is a dog?", "Why?")
    rows = "".join(json.dumps({"question": text}) + "\n" for text in questions)
    (folder / "rows.jsonl").write_text(rows)
    (folder / "flow.py").write_text(FLOW)
    helium(RUN)
    monkeypatch.setattr("helium_agents.cli.execute.VLLM", lambda model, **settings: engine)
    return folder / "memo"


@pytest.fixture
def listed(helium: Helium, memo: Path) -> Any:
    """The entries that `ls` lists."""

    def call(arguments: str = "") -> list[dict[str, Any]]:
        entries = report(helium, f"ls {arguments}")["entries"]
        assert isinstance(entries, list)
        return entries

    return call


def report(helium: Helium, arguments: str, **options: Any) -> dict[str, Any]:
    """What a cache command says as JSON."""
    found = json.loads(helium(f"cache {arguments} --memo memo --json", **options).stdout)
    assert isinstance(found, dict)
    return found


def change(folder: Path, old: str, new: str) -> None:
    """Edit the program, as if it was another process that runs it next."""
    assert old in FLOW
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    (folder / "flow.py").write_text(FLOW.replace(old, new))
    sys.modules.pop("flow", None)


# --- ls ----------------------------------------------------------------------------------------


def test_ls(helium: Helium, memo: Path) -> None:
    lines = helium("cache ls --memo memo").stdout.splitlines()
    assert len(lines) == 3 * NUM_OF_ROW, "aliases are not listed"
    assert any("llm in draft" in line and "What is a fox?" in line for line in lines)
    assert any("tidy in answer" in line and "text='Why?'" in line for line in lines)


def test_ls_limit(helium: Helium, memo: Path) -> None:
    done = helium("cache ls --memo memo --limit 2")
    assert len(done.stdout.splitlines()) == 2
    assert "there are more (see --limit)" in done.stderr
    found = report(helium, "ls --limit 2")
    assert (len(found["entries"]), found["has_more"]) == (2, True)
    assert not report(helium, f"ls --limit {3 * NUM_OF_ROW}")["has_more"]


def test_ls_of_an_operator(listed: Any) -> None:
    assert {entry["label"] for entry in listed("--operator tidy")} == {"tidy"}
    assert [entry["asked"] for entry in listed("--operator draft")][::-1] == [
        "What is a fox?", "What is a dog?", "Why?",
    ]  # fmt: skip
    assert len(listed("--operator flow:draft")) == 3
    assert len(listed("--operator answer")) == 3 * 3
    assert listed("--operator unknown") == []


def test_ls_of_a_text(listed: Any, helium: Helium) -> None:
    assert len(listed("--contains dog?")) == 2
    assert len(listed("--contains DOG?")) == 2
    assert "No such entry" in helium("cache ls --memo memo --contains cat").stdout


def test_what_has_no_provenance_is_listed_all_the_same(helium: Helium, memo: Path) -> None:
    with_other(memo)
    assert "(what was asked is not known)" in helium("cache ls --memo memo --limit 1").stdout


def with_other(memo: Path, key: bytes = b"k" * 32) -> None:
    """Put an entry into the memo that is not one of ours."""
    store = LmdbStore(memo)
    store.put(key, b"value", label="other")
    store.close()


# --- show --------------------------------------------------------------------------------------


def test_show_a_model_call(helium: Helium, listed: Any) -> None:
    (entry,) = [each for each in listed("--operator draft") if "fox" in each["asked"]]
    text = helium(f"cache show {entry['key'][:12]} --memo memo").stdout
    for expected in (
        entry["key"], "llm, called by draft", "max_tokens=8", "scripted", "item 0",
        "system\nYou are brief.", "user\nWhat is a fox?", "answer (",
    ):  # fmt: skip
        assert expected in text
    found = report(helium, f"show {entry['key']}")
    assert found["provenance"]["messages"][1][:2] == ["user", "What is a fox?"]
    assert found["answer"]["choices"][0]["text"] in text


def test_show_an_operator_s_call(helium: Helium, listed: Any) -> None:
    key = listed("--operator tidy --contains fox")[0]["key"]
    text = helium(f"cache show {key} --memo memo").stdout
    for expected in ("flow:tidy", "text = 'What is a fox?'", "value\n'What is a fox?'"):
        assert expected in text


def test_show_an_alias(helium: Helium, memo: Path, listed: Any) -> None:
    known = {entry["key"] for entry in listed()}
    with LmdbReader(memo) as store:
        alias = next(e.key.hex() for e in store.entries() if e.key.hex() not in known)
    assert report(helium, f"show {alias}")["answer"]["alias_of"] in known


def test_show_what_cannot_be_read(helium: Helium, memo: Path) -> None:
    with_other(memo)
    text = helium(f"cache show {b'k'.hex() * 32} --memo memo").stdout
    assert "what was asked is not known" in text
    assert "it cannot be shown here" in text


def test_show_needs_a_key_that_is_there_once(helium: Helium, memo: Path) -> None:
    for key in (b"k" * 32, b"kk" + b"x" * 30):
        with_other(memo, key)
    assert (
        "no entry's key begins with 'xyz'" in helium("cache show xyz --memo memo", expect=1).stderr
    )
    text = helium("cache show 6b6b --memo memo", expect=1).stderr
    assert "several keys begin with '6b6b' (6b6b78787878, 6b6b6b6b6b6b): give more" in text


class LmdbReader:
    def __init__(self, memo: Path) -> None:
        self.store = LmdbStore(memo, read_only=True)

    def __enter__(self) -> LmdbStore:
        return self.store

    def __exit__(self, *error: object) -> None:
        self.store.close()


# --- explain-miss ------------------------------------------------------------------------------

EXPLAIN = "cache explain-miss flow.py:answer --input rows.jsonl --memo memo"


def test_nothing_is_missing(helium: Helium, memo: Path, engine: ScriptedEngine) -> None:
    num_requests, before = engine.num_requests, digests(memo)
    text = helium(EXPLAIN).stdout
    assert "3 calls answered from the memo, none missing" in text, "an alias spares one"
    assert (engine.num_requests, digests(memo)) == (num_requests, before)


def test_a_change_is_named(
    helium: Helium, memo: Path, engine: ScriptedEngine, folder: Path
) -> None:
    num_requests, num_starts, before = engine.num_requests, engine.num_starts, digests(memo)
    change(folder, "You are brief.", "You are very brief.")
    text = helium(f"{EXPLAIN} --row 2").stdout
    assert "on row 3 (line 3 of rows.jsonl): 1 call answered from the memo, 1 missing" in text
    assert "llm in draft: Why?" in text
    assert "the message 0 (system) differs from the nearest stored call" in text
    assert "You are brief. -> You are very brief." in text
    assert ", for this row" in text
    assert "What the row would ask after these answers is not known." in text
    assert (engine.num_requests, engine.num_starts) == (num_requests, num_starts)
    assert digests(memo) == before, "nothing was written"


def test_a_change_as_json(helium: Helium, memo: Path, folder: Path) -> None:
    change(folder, "text.strip()", "text.rstrip()")
    text = helium(f"{EXPLAIN} --json").stdout
    (miss,) = json.loads(text)["misses"]
    assert (miss["label"], miss["cause"]) == ("tidy", "differs")
    assert [each["field"] for each in miss["differences"]] == ["source of flow:tidy"]


def test_a_renamed_operator(helium: Helium, memo: Path, folder: Path) -> None:
    change(folder, "tidy", "clean")
    (miss,) = json.loads(helium(f"{EXPLAIN} --json").stdout)["misses"]
    assert "operator" in [each["field"] for each in miss["differences"]]


def test_a_row_that_was_never_run(helium: Helium, memo: Path, folder: Path) -> None:
    with (folder / "rows.jsonl").open("a") as rows:
        rows.write('{"question": "What is a log?"}\n')
    misses = json.loads(helium(f"{EXPLAIN} --row 3 --json").stdout)["misses"]
    assert [miss["cause"] for miss in misses] == ["never run", "never run"]
    assert "What is a dog?" in misses[0]["differences"][0]["stored"]


def test_what_has_expired(helium: Helium, memo: Path) -> None:
    misses = json.loads(helium(f"{EXPLAIN} --ttl 0s --json").stdout)["misses"]
    assert {miss["cause"] for miss in misses} == {"expired"}
    assert "none missing" in helium(f"{EXPLAIN} --ttl 1d").stdout


def test_a_row_that_is_not_there(helium: Helium, memo: Path) -> None:
    assert "has 3 rows" in helium(f"{EXPLAIN} --row 3", expect=1).stderr


def test_a_row_that_fails(helium: Helium, memo: Path, folder: Path) -> None:
    change(folder, "first = await", "raise ValueError('oh'); first = await")
    assert "the row failed: ValueError: oh" in helium(EXPLAIN).stderr


def digests(memo: Path) -> bytes:
    return (memo / DATA_FILE).read_bytes()


# --- prune and clear ---------------------------------------------------------------------------


def test_clear_an_operator(helium: Helium, memo: Path, listed: Any, engine: ScriptedEngine) -> None:
    assert report(helium, "clear --operator draft --yes")["removed"] == 3
    assert {entry["caller"] for entry in listed()} == {"flow:answer"}
    num_requests = engine.num_requests
    helium(RUN)
    assert engine.num_requests == num_requests + 3, "only its calls are computed again"


def test_clear_asks(helium: Helium, memo: Path) -> None:
    text = helium("cache clear --operator draft --memo memo", expect=1).stderr
    assert "there is nobody to ask: add --yes" in text
    assert "3 entries" not in helium("cache clear --memo memo --yes").stdout


def test_prune_by_age(helium: Helium, memo: Path, listed: Any) -> None:
    assert report(helium, "prune --older-than 1h --yes")["removed"] == 0
    done = report(helium, "prune --older-than 0s --yes")
    assert done["removed"] == 3 * (NUM_OF_ROW + 1)
    assert done["freed_bytes"] > 0
    assert listed() == []


def test_prune_by_size(helium: Helium, memo: Path) -> None:
    held = report(helium, "stats")["bytes"]
    report(helium, f"prune --max-bytes {held // 2}B --yes")
    assert 0 < report(helium, "stats")["bytes"] <= held // 2


def test_prune_an_operator_s_calls(helium: Helium, memo: Path, listed: Any) -> None:
    assert report(helium, "prune --operator draft --older-than 1h --yes")["removed"] == 0
    newest = listed("--operator draft")[0]
    bound = newest["bytes"] + 1
    assert report(helium, f"prune --operator draft --max-bytes {bound}B --yes")["removed"] == 2
    assert listed("--operator draft") == [newest]
    assert report(helium, "prune --operator draft --older-than 0s --yes")["removed"] == 1
    assert len(listed()) == 3 * (NUM_OF_ROW - 1)


def test_prune_needs_to_know_what(helium: Helium, memo: Path) -> None:
    assert "say what is to go" in helium("cache prune --memo memo --yes", expect=1).stderr


@pytest.mark.parametrize("value", ["30", "x", "3 fortnights", "-1d"])
def test_a_wrong_duration(value: str, helium: Helium, memo: Path) -> None:
    text = helium(f"cache prune --memo memo --older-than={value.replace(' ', '')}", expect=2).stderr
    assert "write a number and one of s, m, min, h, d, w, as in 30d" in " ".join(text.split())


def test_a_wrong_size(helium: Helium, memo: Path) -> None:
    text = helium("cache prune --memo memo --max-bytes 1parsec", expect=2).stderr
    assert "'1parsec' is no size: write a number and one of B, KiB," in " ".join(text.split())


def test_units() -> None:
    assert [duration(text) for text in ("90s", "1.5h", "2 min", "1W")] == [90, 5400, 120, 604_800]
    assert [num_bytes(text) for text in ("1_000B", "1kb", "1.5MiB", "2GB")] == [
        1000, 1000, 1_572_864, 2_000_000_000,
    ]  # fmt: skip
    assert [age(seconds) for seconds in (-3, 59.9, 61, 7300, 90_000)] == [
        "0 s", "59 s", "1 min", "2 h", "1 d",
    ]  # fmt: skip
    assert [size(number) for number in (12, 1536, 3 * 2**30)] == ["12 B", "1.5 KiB", "3.0 GiB"]


# --- verify, export, import --------------------------------------------------------------------


def test_verify(helium: Helium, memo: Path) -> None:
    assert "nothing is wrong" in helium("cache verify --memo memo").stdout
    assert report(helium, "verify")["problems"] == []


def test_verify_says_what_is_damaged(helium: Helium, memo: Path) -> None:
    damage(memo, b"What is a fox?")
    found = report(helium, "verify", expect=1)
    assert found["problems"]
    done = helium("cache verify --memo memo", expect=1)
    assert found["problems"][0] in done.stdout
    assert "memo is damaged" in done.stderr
    helium("cache export --memo memo whole.memo")
    helium("cache import --memo new whole.memo")
    assert "nothing is wrong" in helium("cache verify --memo new").stdout


def damage(memo: Path, text: bytes) -> None:
    """Change a letter of every such text in the file."""
    data = (memo / DATA_FILE).read_bytes()
    (memo / DATA_FILE).write_bytes(data.replace(text, text[:-1] + b"#"))


def test_export_and_import(helium: Helium, memo: Path, listed: Any, engine: ScriptedEngine) -> None:
    before = listed()
    assert report(helium, "export answers.memo")["exported"] == 3 * (NUM_OF_ROW + 1)
    shutil.rmtree(memo)
    text = helium("cache import --memo memo answers.memo").stdout
    assert f"answers.memo -> memo: {3 * (NUM_OF_ROW + 1)} entries" in text
    assert listed() == before
    num_requests = engine.num_requests
    helium(RUN)
    assert engine.num_requests == num_requests
    again = report(helium, "import answers.memo")
    assert (again["imported"], again["kept"]) == (0, 3 * (NUM_OF_ROW + 1))


def test_a_damaged_export(helium: Helium, memo: Path, folder: Path) -> None:
    helium("cache export --memo memo answers.memo")
    whole = (folder / "answers.memo").read_bytes()
    text = b"What is a fox?"
    (folder / "answers.memo").write_bytes(whole.replace(text, text[:-1] + b"#"))
    done = helium("cache import --memo new answers.memo", expect=1)
    assert "answers.memo: entry " in done.stderr
    assert "entries" in done.stdout
    (folder / "answers.memo").write_bytes(whole[: len(whole) // 2])
    done = helium("cache import --memo none answers.memo", expect=1)
    assert "answers.memo is not an exported memo, or is damaged" in done.stderr


def test_importing_what_is_no_export_makes_nothing(helium: Helium, folder: Path) -> None:
    helium("cache import --memo none none.memo", expect=1)
    assert (
        "is not an exported memo" in helium("cache import --memo none rows.jsonl", expect=1).stderr
    )
    assert not (folder / "none").exists()


# --- where there is no memo --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "stats", "ls", "show 12", "prune --older-than 1d --yes", "clear --yes", "verify",
        "export out.memo", "explain-miss flow.py:answer --input rows.jsonl",
    ],
)  # fmt: skip
def test_no_memo_is_an_error_and_none_is_made(
    command: str, helium: Helium, folder: Path, engine: ScriptedEngine, monkeypatch: Any
) -> None:
    monkeypatch.setattr("helium_agents.cli.execute.VLLM", lambda model, **settings: engine)
    for arguments in (f"cache {command} --memo none", f"cache {command} --memo none --json"):
        assert "there is no memo in none: check the path" in helium(arguments, expect=1).stderr
    assert {"none", "out.memo"}.isdisjoint(os.listdir(folder))


@pytest.mark.parametrize(
    "command", ["ls", "show", "explain-miss", "prune", "clear", "verify", "export", "import"]
)
def test_help_has_examples(command: str, helium: Helium) -> None:
    text = helium(f"cache {command} --help").stdout
    assert f"  Examples:\n    helium cache {command}" in text
    assert max(map(len, text.splitlines())) <= 100


class TestProfiles:
    def test_what_was_learned_of_a_workflow_is_shown(self, helium: Helium, memo: Path) -> None:
        text = helium("cache profiles --memo memo").stdout
        assert "flow:answer on" in text
        assert "rows: 3, calls a row: 3 / 3 / 3, each asked in its turn" in text
        (found,) = report(helium, "profiles")["profiles"]
        assert found["rows"] == 3
        assert found["sites"]["draft"]["calls_per_row"]["mean"] == 1
        assert found["sites"]["answer"]["calls_per_row"]["mean"] == 2

    def test_it_can_be_forgotten(self, helium: Helium, memo: Path) -> None:
        (found,) = report(helium, "profiles")["profiles"]
        helium("cache clear --memo memo --yes")
        assert report(helium, "profiles")["profiles"] == [found]
        refused = helium("cache profiles --memo memo --forget zz", expect=1)
        assert "no profile's key begins with 'zz'" in refused.stderr
        helium(f"cache profiles --memo memo --forget {found['key'][:6]}")
        assert "Nothing was learned yet" in helium("cache profiles --memo memo").stdout
