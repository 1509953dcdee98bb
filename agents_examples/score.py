"""How good an answer is, between 0 and 1, after TAT-QA: numbers equal, text by token F1."""

from __future__ import annotations

import math
import re
from collections import Counter

from agents_examples.rows import Question

_ARTICLES = {"a", "an", "the"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"\w+(?:\.\d+)?")


def score(answer: str, question: Question) -> float:
    """How well an answer agrees with the true one.

    Where that is a number, 1.0 if the answer names it and no other, else 0.0; where it is text,
    the harmonic mean of precision and recall of words, case and articles aside. The scale is not
    asked for, so a number that is right counts with any unit.

    Args:
        answer: The model's.
        question: With the true one.
    """
    truth = question.answer
    if isinstance(truth, int | float):
        found = [float(number) for number in _NUMBER.findall(_THOUSANDS.sub("", answer))]
        is_right = all(math.isclose(number, truth, abs_tol=0.005) for number in found)
        return float(bool(found) and is_right)
    true, given = _words(question.true_answer()), _words(answer)
    common = sum((true & given).values())
    return 2 * common / (true.total() + given.total()) if common else 0.0


def _words(text: str) -> Counter[str]:
    words = _WORD.findall(_THOUSANDS.sub("", text.lower()))
    return Counter(word for word in words if word not in _ARTICLES)
