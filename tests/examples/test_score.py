"""An answer is scored as TAT-QA scores: numbers equal, text by token F1."""

from __future__ import annotations

import pytest

from agents_examples.rows import Question
from agents_examples.score import score


def question(answer: str | float | list[str]) -> Question:
    return Question(id="1", question="What?", answer=answer, scale="")


@pytest.mark.parametrize(
    ("truth", "answer", "expected"),
    [
        (41, "41", 1),
        (41, "For 41 days.", 1),
        (41, "14", 0),
        (41, "41 or 42", 0),
        (41, "many", 0),
        (1480, "1,480 metres", 1),
        (40.66, "40.66", 1),
        (40.66, "40.6", 0),
        (-25.5, "-25.5 %", 1),
        (["Ostrevik"], "Ostrevik.", 1),
        (["the river Esk"], "River Esk", 1),
        (["a broken oven"], "because of a broken oven", 2 * 2 / (2 + 4)),
        (["Auk", "Dunlin"], "Dunlin and Auk", 2 * 2 / (2 + 3)),
        ("eleven", "twelve", 0),
        ("eleven", "", 0),
        ("new new", "new", 2 / 3),
    ],
)
def test_score(truth: str | float | list[str], answer: str, expected: float) -> None:
    assert score(answer, question(truth)) == pytest.approx(expected)
