"""Input files: what rows they give, and which line is at fault."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from helium_agents.batch.rows import Rows, place_of_row
from helium_agents.batch.workflow import Workflow
from helium_agents.errors import InputError


class Row(BaseModel):
    question: str
    number: int = 0


async def answer(row: Row) -> None: ...


async def plain(row) -> None:  # type: ignore[no-untyped-def]
    ...


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(data: bytes, fn: Any = answer, limit: int | None = None) -> Rows:
    path = Path("input.jsonl")
    path.write_bytes(data)
    return Rows(path, Workflow.of(fn), limit)


def test_rows_are_what_the_parameter_says() -> None:
    rows = rows_of(b'{"question": "a"}\n{"question": "b", "number": 2}\n')
    assert len(rows) == 2
    assert [(row.question, row.number) for row in rows] == [("a", 0), ("b", 2)]
    assert len(list(rows)) == 2, "they can be read again"


def test_rows_without_annotation_are_json_values() -> None:
    assert list(rows_of(b'{"a": [1, null]}\n"text"\n3', plain)) == [
        {"a": [1, None]},
        "text",
        3,
    ]


def test_empty_lines_byte_order_mark_and_carriage_returns_do_not_matter() -> None:
    rows = rows_of(b'\xef\xbb\xbf{"question": "a"}\r\n\r\n  \n{"question": "b"}')
    assert [row.question for row in rows] == ["a", "b"]


def test_limit_leaves_the_rest_unread() -> None:
    rows = rows_of(b'{"question": "a"}\n{"question": "b"}\nnot JSON\n', limit=2)
    assert len(rows) == len(list(rows)) == 2


def test_a_row_is_named_as_a_person_counts() -> None:
    rows = rows_of(b'{"question": "a"}\n\n{"question": "b"}\n')
    assert place_of_row(rows.path, 0) == "row 1 (line 1 of input.jsonl)"
    assert place_of_row(rows.path, 1) == "row 2 (line 3 of input.jsonl)"


def test_no_rows() -> None:
    assert len(rows_of(b"")) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"question": "a"}\n\n{"question": \n', "input.jsonl:3 is not valid JSON (EOF"),
        (b'[\n{"question": "a"}\n]\n', "becomes such lines by: jq -c '.[]' input.jsonl"),
        (b'{"question": "\xff"}\n', "input.jsonl:1 is not valid JSON"),
        (
            b'{"question": "a"}\n{"number": "x"}\n',
            "input.jsonl:2 does not fit `row: Row` of answer:\n  question: Field required\n"
            "  number: Input should be a valid integer",
        ),
    ],
)
def test_a_wrong_line_is_named_before_anything_runs(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as raised:
        rows_of(data)
    assert message in str(raised.value)


def test_only_a_file_can_be_read_twice() -> None:
    workflow = Workflow.of(answer)
    os.mkfifo("pipe")
    for path, message in (
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("none", "cannot read the input none: No such file"),
    ):
        with pytest.raises(InputError, match=message):
            Rows(Path(path), workflow)
