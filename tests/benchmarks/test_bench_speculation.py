"""The benchmark of speculation: its programs ask what they should, and pairs are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.speculation.__main__ import main
from benchmarks.speculation.engine import Said, Truth
from benchmarks.speculation.measure import Arrivals, Cell, run
from benchmarks.speculation.programs import PROGRAMS, Program, item_text
from benchmarks.speculation.results import Result, read, report, write
from benchmarks.speculation.systems import SYSTEMS
from helium_agents import Session
from helium_agents.engines.engine import ChatMessage
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.engines.scripted_reply import ScriptedReply
from helium_agents.graph.tool_call import ToolCall
from helium_agents.optimizer.closed_values import closed_value

OFF = SYSTEMS[0]


async def said_to(program: Program, truth: Truth, num_items: int) -> list[Said]:
    """What a model said to a program's first items."""
    found: list[Said] = []

    def script(messages: Sequence[ChatMessage]) -> ScriptedReply:
        said = truth(messages)
        found.append(said)
        calls = [ToolCall(name, json.loads(text)) for name, text in said.calls]
        return ScriptedReply(said.text, calls)

    workflow = program.make({})
    async with Session(ScriptedEngine(lambda request: script(request.messages))):
        for number in range(num_items):
            await workflow(item_text(1, number))
    return found


@pytest.mark.parametrize("program", PROGRAMS[1:], ids=lambda program: program.name)
async def test_a_decision_is_as_usual_as_often_as_it_should(program: Program) -> None:
    for usual, low, high in ((1.0, 60, 60), (0.5, 15, 45)):
        answers = await said_to(program, program.truth(7, usual), 60)
        decided = [said.text for said in answers if said.hidden_tokens or "verdict" in said.text]
        schema = json.dumps({"enum": [*program.answers]})
        values = [json.loads(text) for text in decided]
        values = [each | {"remarks": ""} if isinstance(each, dict) else each for each in values]
        assert all(closed_value(schema, json.dumps(each)) for each in values)
        most = max(values.count(each) for each in program.answers)
        assert low <= most <= high


async def test_an_agent_reads_the_page_that_it_is_told_to() -> None:
    program = PROGRAMS[0]
    answers = await said_to(program, program.truth(7, 1.0), 2)
    assert [len(said.calls) for said in answers] == [*[1] * 8, 0] * 2
    pages = [said.calls[0].arguments for said in answers if said.calls]
    assert len(set(pages)) == 16


@pytest.mark.slow
def test_runs_are_kept_and_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.json"
    arguments = ["--programs", "guard", "--costs", "h100-8b", "--open", "8", "--systems", "off"]
    main([*arguments, "--seeds", "1", "--json", str(file)])
    assert "h100-8b" in capsys.readouterr().out
    (kept,) = read(file)
    assert kept.p95_s >= kept.p50_s > 0.5
    write(file, [kept])
    main([*arguments, "--seeds", "1", "--json", str(file)])
    assert read(file) == [kept]


@pytest.mark.slow
def test_a_run_is_the_same_each_time_and_others_are_counted() -> None:
    cell = Cell(PROGRAMS[2], "h100-8b", 0.9, 2)
    alone = run(cell, OFF, 1)
    assert alone == run(cell, OFF, 1)
    by_clock = run(cell, OFF, 1, Arrivals(item_s=0.3))
    assert by_clock.texts == alone.texts and not by_clock.others_s
    assert by_clock.p(50) > alone.p(50)
    beside = run(cell, OFF, 1, Arrivals(item_s=0.3, others_per_s=4.0))
    assert len(beside.others_s) > 10
    assert beside.texts == alone.texts
    assert beside.p(50) > alone.p(50)


def test_a_file_of_another_version_is_refused_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.json"
    for text in ('[{"program": "guard", "others": 1}]', "not json"):
        file.write_text(text)
        with pytest.raises(SystemExit):
            main(["--json", str(file)])
        assert "name another file" in capsys.readouterr().err
        assert file.read_text() == text


def test_pairs_are_compared() -> None:
    def result(system: str, seed: int, p50_s: float) -> Result:
        times = (p50_s, 2 * p50_s, 100, p50_s, 3 * p50_s, 1.0)
        return Result("guard", "h100-8b", 0.9, 1, system, seed, *times)

    results = [result("off", seed, float(seed)) for seed in range(1, 8)]
    results += [result("auto", seed, 0.75 * seed) for seed in range(1, 8)]
    line = report(results).splitlines()[-1]
    cells = [each.strip() for each in line.strip("|").split("|")]
    assert cells == [
        "guard",
        "0.90",
        "1",
        "4.00",
        "auto",
        *["0.750 [0.75, 0.75]"] * 2,
        "1.000 [1.00, 1.00]",
        *["0.750 [0.75, 0.75]"] * 2,
        "1.000 [1.00, 1.00]",
    ]


@pytest.mark.slow
def test_guesses_do_not_delay_calls_for_which_nothing_is_guessed() -> None:
    """Their prompts go when those have ended that gathered while another was computed."""
    reflect = Cell(next(each for each in PROGRAMS if each.name == "reflect"), "cpu-medium", 0.9, 2)
    auto = next(each for each in SYSTEMS if each.name == "auto")
    arrivals = Arrivals(item_s=3.2, others_per_s=4.0)
    off, early = (run(reflect, system, 2, arrivals) for system in (OFF, auto))
    assert len(off.others_s) > 200
    assert early.p(50) < 0.9 * off.p(50)
    assert early.others_mean_s < 1.02 * off.others_mean_s
