"""The coarse simulation: one event a call, where vLLM's scheduler is not there or would take long.

Pauses between calls and the times at which items came count for nothing here: all items are there
at the beginning, and calls are asked as soon as what they waited for has come.
"""

from __future__ import annotations

from array import array

from helium_agents.capacity.machine import Machine
from helium_agents.capacity.outcome import Outcome
from helium_agents.capacity.replayed import Replay, outputs_of, question_of
from helium_agents.optimizer.choose_policy import choose_policy
from helium_agents.optimizer.forecast import Forecast, ForecastCall
from helium_agents.optimizer.policy import Policy
from helium_agents.optimizer.prefix_tree import PrefixTree
from helium_agents.optimizer.simulate import SimulatedRoom, simulate


def simulate_coarsely(replay: Replay, machine: Machine, policy: Policy | None) -> Outcome:
    """About how long a traced run would take.

    Args:
        replay: Its calls, all of one model.
        machine: What they run on. Several engines get equal shares of the items.
        policy: Says which items are open; `None` for the one that a session would choose.
    """
    held = machine.held
    room = SimulatedRoom(held.kv_tokens, held.max_requests, machine.cost, held.block_tokens)
    seconds = 0.0
    every = forecast_of(replay)
    for first in range(min(machine.num_engines, len(every.rows))):
        share = slice(first, None, machine.num_engines)
        forecast = Forecast(every.rows[share], every.piece_tokens, every.items[share])
        chosen = choose_policy(forecast, room).policy if policy is None else policy
        seconds = max(seconds, simulate(forecast, room, chosen).seconds)
    return Outcome(seconds, mean_s=None, p95_s=None, prefill_tokens=None, steps=None)


def forecast_of(replay: Replay) -> Forecast:
    """The calls of a traced run, as what is known of rows that are to come."""
    prompts = {}
    tree = PrefixTree()
    for step in replay.steps:
        prompt = step.answer.prompt
        whole = prompt + array("I", outputs_of(step)[0])
        prompts[step.call.number] = prompt, whole
        tree.insert(prompt, None)
        tree.insert(whole, None)
    numbers: dict[int, int] = {}
    piece_tokens: list[int] = []

    def pieces(sequence: array[int]) -> tuple[int, ...]:
        found = []
        for edge, tokens in tree.edges(sequence):
            if edge not in numbers:
                numbers[edge] = len(piece_tokens)
                piece_tokens.append(len(tokens))
            found.append(numbers[edge])
        return tuple(found)

    rows = []
    for steps in filter(None, replay.rows.values()):
        row: list[ForecastCall] = []
        places: dict[int, int] = {}
        for step in sorted(steps, key=lambda step: step.call.end_s):  # inputs first
            number, question = step.call.number, question_of(step)
            asked, with_answer = map(pieces, prompts[number])
            row.append(
                ForecastCall(
                    inputs=tuple(places[each] for each in step.after if each in places),
                    prompt=asked,
                    answer=with_answer[len(asked) :],
                    prompt_tokens=len(step.answer.prompt),
                    output_tokens=max(1, len(outputs_of(step)[0])),
                    question=number if question in replay.drawn else question,
                )
            )
            places[number] = len(places)
        rows.append(row)
    return Forecast(rows, piece_tokens, range(len(rows)))
