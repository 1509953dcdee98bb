"""Capacity questions by the coarse simulator, which needs no vLLM, and by the command."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from helium_agents.capacity import what_if
from helium_agents.capacity.machine import Change, machines_of
from helium_agents.capacity.outcome import measured
from helium_agents.capacity.replayed import Replay
from helium_agents.capacity.what_if import Alternative, ask
from helium_agents.cli import main, simulate_command
from helium_agents.errors import EngineStartError, TraceError
from helium_agents.optimizer.step_cost import STEP_COSTS
from helium_agents.trace.run import TracedRun
from tests.trace.made import call, made_run


def agents(num_rows: int = 12) -> TracedRun:
    """Rows of four turns, each prompt the last one with something after it."""
    calls = []
    for item in range(num_rows):
        prompt = [random.Random(item).randrange(1000, 9000) for _ in range(200)]
        for turn in range(4):
            number = 1 + 4 * item + turn
            output = [number * 10 + k for k in range(8)]
            calls.append(call(number, turn, turn + 0.9, item=item, prompt=prompt, output=output))
            prompt = [*prompt, *output, *(random.Random(number).choices(range(9000), k=60))]
    return made_run(*calls)


def test_what_was_measured() -> None:
    run = made_run(call(1, 1, 2), call(2, 2, 3.5), call(3, 1, 4, item=1), call(4, 1, 1, item=2))
    outcome = measured(run)
    assert outcome.seconds == 3 and outcome.mean_s == pytest.approx((2.5 + 3 + 0) / 3)
    assert outcome.p95_s == 3 and outcome.prefill_tokens == 16


def test_a_run_that_failed_or_knew_everything_took_time_too() -> None:
    failed = replace(call(1, 1, 3), error="ValueError: no", sent_s=2.0)
    run = made_run(failed)
    run.items[0].ended_s = 3.5
    assert measured(run).seconds == 1.5
    known = made_run(replace(call(1, 1, 1, source="memo"), sent_s=None))
    known.items[0].opened_s, known.items[0].ended_s = 0.5, 1.25
    assert measured(known).seconds == 0.75


def test_equal_engines_may_have_two_names() -> None:
    """The engine of a merged call may never have started."""
    prompt = list(range(64))
    asked = call(1, 0, 1, item=0, prompt=prompt)
    merged = call(2, 0, 1, item=1, prompt=prompt, source="merged", leader=1)
    run = made_run(asked, replace(merged, model="another name"))
    assert {step.call.model for step in Replay(run).steps} == {asked.model}


def test_an_engine_that_tells_nothing_takes_what_its_cache_holds() -> None:
    run = made_run(call(1, 0, 1))
    (model,) = run.engines
    run.engines[model] = replace(run.engines[model], capacity=None)
    machine = machines_of(run, Change(kv_tokens=262_144, cost=STEP_COSTS["h100-8b"]))[model]
    assert machine.held.max_model_tokens == 262_144


def test_alternatives_are_compared_with_the_same_settings() -> None:
    alternatives = [
        Alternative("more memory", Change(kv_factor=8.0)),
        Alternative("two engines", Change(num_engines=2)),
        Alternative("slow", Change(cost=replace(STEP_COSTS["cpu-medium"], step_s=1.0))),
        Alternative("one row", schedule=1),
        Alternative("park", schedule="park"),
    ]
    answer = ask(agents(), alternatives, "coarse")
    more, two, slow, one, park = answer.found
    assert more.outcome and two.outcome and slow.outcome and one.outcome
    assert more.outcome.seconds < answer.same.seconds
    assert two.outcome.seconds < answer.same.seconds
    assert slow.outcome.seconds > 2 * answer.same.seconds
    assert one.outcome.seconds != answer.same.seconds
    assert park.outcome is None and "does not know --schedule park" in park.why_not
    assert "no pauses" in answer.note


def test_rows_that_paused_were_all_open_and_are_so_in_a_coarse_simulation() -> None:
    run = agents()
    chosen = ask(run, [Alternative("all", schedule="everything-open")], "coarse")
    assert chosen.found[0].outcome and chosen.found[0].outcome.seconds > chosen.same.seconds
    run.choices = [{"why_not_compared": "rows pause"}]
    all_open = ask(run, [], "coarse").same
    assert all_open.seconds == chosen.found[0].outcome.seconds


def test_without_vllm_the_simulation_is_coarse_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise EngineStartError("there is no vLLM")

    monkeypatch.setattr(what_if, "simulate_exactly", fail)
    answer = ask(agents(), [])
    assert answer.simulator == "coarse" and "there is no vLLM; so the simul" in answer.note
    with pytest.raises(EngineStartError):
        ask(agents(), [], "exact")


def test_what_the_trace_does_not_say_must_be_given() -> None:
    run = agents()
    run.engines["tiny"] = replace(run.engines["tiny"], capacity=None, cost=None)
    with pytest.raises(TraceError, match="--kv-tokens N"):
        ask(run, [], "coarse")
    alternatives = [
        Alternative("kv", Change(kv_tokens=4096)),
        Alternative("cost", Change(cost=STEP_COSTS["h100-8b"])),
        Alternative("more", Change(kv_tokens=16_384)),
    ]
    answer = ask(run, alternatives, "coarse")
    same, kv, cost, more = (answer.same, *(each.outcome for each in answer.found))
    assert same == kv == cost and more and more.seconds < same.seconds


def test_a_run_without_tokens_cannot_be_simulated() -> None:
    first = call(1, 0, 1)
    assert first.answer is not None
    without = replace(first, answer=replace(first.answer, prompt=first.answer.prompt[:0]))
    with pytest.raises(TraceError, match="told no token ids"):
        ask(made_run(without), [])
    with pytest.raises(TraceError, match="no engine answered anything"):
        ask(made_run(call(1, 0, 0, source="memo")), [])


def test_engines_share_what_they_held_together() -> None:
    run = agents()
    run.engines["tiny"] = replace(run.engines["tiny"], num_engines=2)
    machine = machines_of(run, Change())["tiny"]
    assert (machine.num_engines, machine.held.kv_tokens, machine.held.max_requests) == (2, 1024, 8)
    machine = machines_of(run, Change(kv_factor=1.1, num_engines=3))["tiny"]
    assert (machine.num_engines, machine.held.kv_tokens) == (3, 1120), "whole blocks"


def test_a_change_of_a_change() -> None:
    both = Change(kv_factor=2.0, num_engines=2) | Change(kv_tokens=64)
    assert both == Change(kv_tokens=64, num_engines=2)


# --- the command ---------------------------------------------------------------------------------


def simulate(monkeypatch: pytest.MonkeyPatch, *arguments: str, expect: int = 0) -> Result:
    monkeypatch.setattr(simulate_command, "read_trace", lambda _: agents())
    result = CliRunner().invoke(main, ["simulate", "run.trace", "--coarse", *arguments])
    assert result.exit_code == expect, result.output
    return result


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = simulate(
        monkeypatch, "--kv-tokens", "2x", "--engines", "2", "--max-open", "1"
    ).stdout.splitlines()
    assert lines[0] == "run.trace: 12 rows, 48 computed calls; simulated by one event a call"
    names = [line.split("  ")[0] for line in lines[3:]]
    assert names == [
        "as it was", "simulated as it was", "--kv-tokens 2x", "--engines 2", "--max-open 1",
        "all of these",
    ]  # fmt: skip


def test_options_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    result = simulate(monkeypatch, "--kv-tokens", "2x", "--kv-tokens", "9000", "--json")
    report = json.loads(result.stdout)
    assert [each["name"] for each in report["alternatives"]] == [
        "--kv-tokens 2x", "--kv-tokens 9000",
    ]  # fmt: skip
    assert report["alternatives"][1]["ratio"] > 1
    assert report["simulator"] == "coarse" and report["measured"]["seconds"] > 0


def test_costs_have_names_or_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(STEP_COSTS["h100-8b"].as_dict()))
    found: list[Any] = json.loads(
        simulate(monkeypatch, "--model-cost", "h100-8b", "--model-cost", str(path), "--json").stdout
    )["alternatives"]
    assert found[0]["outcome"] == found[1]["outcome"]
    path.write_text('{"step_s": 1}')
    assert "cost of a step lacks decode_s" in simulate(
        monkeypatch, "--model-cost", str(path), expect=1
    ).stderr.replace("\n", " ")
    assert "no cost of that name" in simulate(monkeypatch, "--model-cost", "gpu", expect=1).stderr


@pytest.mark.parametrize("value", ["", "0", "-1", "twox", "0x", "nanx", "infx", "1.5"])
def test_wrong_sizes(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert "--kv-tokens" in simulate(monkeypatch, "--kv-tokens", value, expect=2).stderr
