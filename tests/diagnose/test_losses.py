"""Planted problems are found, and named with what to do about them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from helium_agents.diagnose.analyze import by_operator, cacheable_tokens
from helium_agents.diagnose.losses import Loss, losses
from helium_agents.trace.run import TracedCall, TracedRun
from tests.trace.made import call, made_run

RNG = random.Random(0)


def text(number: int) -> list[int]:
    return [RNG.randrange(10**5) for _ in range(number)]


def largest(run: TracedRun) -> Loss:
    seconds = max(each.end_s for each in run.calls)
    return losses(run, seconds)[0]


def side_by_side(prompts: list[list[int]], **options: object) -> Iterator[TracedCall]:
    """Calls of as many rows, ten at a time, each second."""
    for index, prompt in enumerate(prompts):
        start_s = float(index // 10)
        yield call(100 + index, start_s, start_s + 1, body=1, item=index, prompt=prompt, **options)  # type: ignore[arg-type]


def test_a_document_after_the_question() -> None:
    document = text(600)
    run = made_run(*side_by_side([text(20) + document for _ in range(30)]), bodies=[(1, "f:qa", 0)])
    loss = losses(run, 60.0)[0]
    assert loss.kind == "layout" and loss.what.startswith("qa: about 1")
    assert "before what differs" in loss.advice
    assert loss.seconds == pytest.approx(29 * 600 * 560e-6, rel=0.15)
    assert largest(run).seconds == 3.0, "not more than the run took"


def test_a_document_before_the_question() -> None:
    document = text(600)
    prompts = [document + text(20) for _ in range(30)]
    calls = [replace(each, cached_tokens=600) for each in side_by_side(prompts)]
    run = made_run(*calls, bodies=[(1, "f:qa", 0)])
    assert "layout" not in {loss.kind for loss in losses(run, 1.0)}


def test_a_cache_too_small() -> None:
    document = text(608)
    run = made_run(*side_by_side([document + text(20) for _ in range(30)]), bodies=[(1, "f:qa", 0)])
    loss = largest(run)
    assert loss.kind == "cache" and "17,632 prompt tokens" in loss.what
    assert "of 2,048 tokens" in loss.what and "--kv-tokens 2x" in loss.advice
    run.engines["tiny"] = replace(run.engines["tiny"], capacity=None)
    unknown = largest(run)
    assert unknown.kind == "uncached" and unknown.seconds == loss.seconds
    assert "--enable-prompt-tokens-details" in unknown.advice, "a server may not tell"


def test_a_loop_that_runs_to_its_limit() -> None:
    calls, prompts = [], {item: text(64) for item in range(8)}
    for turn in range(10):
        for item in range(8):
            number, answer = 100 + turn * 8 + item, text(8)
            calls.append(
                call(
                    number, turn, turn + 0.8, body=1 + item, item=item, prompt=prompts[item],
                    output=answer, max_tokens=64, cached_tokens=len(prompts[item]) // 32 * 32,
                )
            )  # fmt: skip
            prompts[item] = [*prompts[item], *answer, *text(20)]
    run = made_run(*calls, bodies=[(1 + item, "f:refine", 0) for item in range(8)])
    loss = largest(run)
    assert loss.kind == "loop" and "refine: each of its 8 runs makes 10 calls" in loss.what
    others = [each for each in calls if each.number != 100 + 9 * 8]
    run = made_run(*others, bodies=[(1 + item, "f:refine", 0) for item in range(8)])
    assert "loop" not in {each.kind for each in losses(run, 8.0)}, "one ended earlier"


def test_answers_that_are_cut() -> None:
    prompts = [text(40) for _ in range(30)]
    calls = side_by_side(prompts, output=text(64), max_tokens=64, finish="length")
    loss = largest(made_run(*calls, bodies=[(1, "f:essay", 0)]))
    assert loss.kind == "cut" and "essay: 30 of 30 answers were cut at max_tokens=64" in loss.what


def test_few_requests_at_once() -> None:
    calls = [call(number, number, number + 1, prompt=text(30)) for number in range(1, 20)]
    loss = largest(made_run(*calls))
    assert loss.kind == "idle" and "on average 1.0 requests" in loss.what


def test_the_same_question_computed_again() -> None:
    prompt = text(31)
    run = made_run(*side_by_side([prompt] * 30), bodies=[(1, "f:vote", 0)])
    kinds = {loss.kind: loss for loss in losses(run, 1.0)}
    assert "29 calls asked what had been asked before" in kinds["repeated"].what


def test_nothing_is_lost_where_nothing_is() -> None:
    assert losses(made_run(call(1, 0, 0, source="memo")), 1.0) == []


def test_small_losses_are_not_told() -> None:
    calls = list(side_by_side([text(64) for _ in range(40)]))
    assert losses(made_run(*calls, bodies=[(1, "f:a", 0)]), 1000.0) == []
    alone = made_run(call(1, 0, 0.03))
    assert losses(alone, 0.03) == []
    assert losses(made_run(call(1, 0, 3)), 3.0) != []


# --- by operator ---------------------------------------------------------------------------------


def test_rows_stand_below_their_callers() -> None:
    run = made_run(
        call(4, 0, 1, body=3), call(5, 0, 1, body=3, source="merged", leader=4),
        call(6, 1, 2, body=1), call(7, 2, 3, source="memo"),
        replace(call(8, 2, 3, body=3), error="ValueError: no"),
        bodies=[(1, "f:outer", 0), (2, "f:middle", 1), (3, "f:inner.<locals>.leaf", 2)],
    )  # fmt: skip
    rows = by_operator(run)
    assert [row.path for row in rows] == [
        (), ("outer",), ("outer", "middle"), ("outer", "middle", "inner.leaf"),
    ]  # fmt: skip
    none, outer, middle, inner = rows
    assert (none.num_calls, none.num_remembered) == (1, 1)
    assert (outer.num_calls, middle.num_calls) == (1, 0)
    counts = (inner.num_calls, inner.num_computed, inner.num_merged, inner.num_failed)
    assert counts == (3, 1, 1, 1)
    assert (inner.prompt_tokens, inner.output_tokens, inner.most_output_tokens) == (4, 3, 8)


def test_recursion_is_one_row() -> None:
    bodies = [(number, "f:again", number - 1) for number in range(1, 50)]
    rows = by_operator(made_run(call(60, 0, 1, body=49), bodies=bodies))
    assert [row.path for row in rows] == [("again",)]


def test_what_could_be_cached_is_whole_blocks_of_what_came_before() -> None:
    start = text(100)
    first = call(1, 0, 1, prompt=start, output=text(30))
    assert first.answer is not None
    follow = [*start, *first.answer.outputs[0][:-1], *text(40)]
    run = made_run(first, call(2, 1, 2, prompt=follow), call(3, 2, 3, prompt=start))
    assert cacheable_tokens(run) == {1: 0, 2: 128, 3: 96}


def test_what_a_row_asks_again_from_the_start_is_not_late() -> None:
    documents = [text(600) for _ in range(10)]
    calls, number = [], 100
    for turn in range(3):
        for item, document in enumerate(documents):
            number += 1
            prompt = [*document, *text(10)]
            calls.append(call(number, turn, turn + 0.9, body=1 + item, item=item, prompt=prompt))
    run = made_run(*calls, bodies=[(1 + item, "f:read", 0) for item in range(10)])
    assert {each.kind for each in losses(run, 1.0)} >= {"cache"}
    assert "layout" not in {each.kind for each in losses(run, 1.0)}
