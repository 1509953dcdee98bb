"""What a scheduler of vLLM sends of an answer that nobody streams, without a model."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helium_agents.engines.whole_answers import with_whole_answers

pytest.importorskip("vllm")
# What importing torch warns of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Scripted:
    """Stands for vLLM's scheduler: gives the parts that it is told of, step by step."""

    log_stats = False

    def __init__(self, requests: dict[str, Any], steps: list[dict[int, list[Any]]]) -> None:
        self.requests = requests
        self._steps = deque(steps)

    def update_from_output(self, output: Any) -> dict[int, Any]:
        from vllm.v1.engine import EngineCoreOutputs

        step = self._steps.popleft()
        for part in (part for parts in step.values() for part in parts):
            if part.finish_reason is not None:
                self.requests.pop(part.request_id, None)
        return {client: EngineCoreOutputs(outputs=parts) for client, parts in step.items()}


def request(**sampling: Any) -> Any:
    """A request as the scheduler has it."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    kind = sampling.pop("output_kind", RequestOutputKind.FINAL_ONLY)
    return SimpleNamespace(sampling_params=SamplingParams(output_kind=kind, **sampling))


def part(name: str, tokens: list[int], *, is_last: bool = False, **fields: Any) -> Any:
    """What vLLM sends of a request after a step."""
    from vllm.v1.engine import EngineCoreOutput, FinishReason

    reason = FinishReason.LENGTH if is_last else None
    return EngineCoreOutput(name, tokens, finish_reason=reason, **fields)


def sent(scheduler: Any, num_steps: int) -> list[Any]:
    """The parts that are sent to the first client, step by step."""
    output = SimpleNamespace(num_scheduled_tokens=dict.fromkeys(scheduler.requests, 1))
    found = [scheduler.update_from_output(output) for _ in range(num_steps)]
    return [step[0].outputs if step else None for step in found]


def of(requests: dict[str, Any], steps: list[list[Any]], kind: type[Any] = Scripted) -> Any:
    """The scheduler, over one that gives these parts to the first client."""
    return with_whole_answers(kind)(requests, [{0: parts} for parts in steps])


def test_an_answer_comes_at_its_end_and_steps_between_send_nothing() -> None:
    stats = object()
    first = part("a", [1], prefill_stats=stats)
    scheduler = of({"a": request()}, [[first], [part("a", [2, 3])], [part("a", [4], is_last=True)]])
    *before, last = sent(scheduler, 3)
    assert before == [None, None]
    (whole,) = last
    assert (whole.new_token_ids, whole.prefill_stats) == ([1, 2, 3, 4], stats)


def test_what_is_streamed_or_looked_through_comes_as_it_is_made() -> None:
    from vllm.sampling_params import RequestOutputKind

    for wanted in (
        request(output_kind=RequestOutputKind.DELTA),
        request(output_kind=RequestOutputKind.CUMULATIVE),
        request(stop=["no more"]),
    ):
        steps = [[part("a", [1])], [part("a", [2], is_last=True)]]
        tokens = [each[0].new_token_ids for each in sent(of({"a": wanted}, steps), 2)]
        assert tokens == [[1], [2]]


def test_a_part_that_says_more_than_tokens_is_sent_with_those_before() -> None:
    steps = [
        [part("a", [1])],
        [part("a", [2], kv_transfer_params={"host": "b"})],
        [part("a", [3])],
        [part("a", [4], is_last=True)],
    ]
    nothing, second, still, last = sent(of({"a": request()}, steps), 4)
    assert nothing is None and still is None
    assert (second[0].new_token_ids, last[0].new_token_ids) == ([1, 2], [3, 4])


def test_who_was_not_scheduled_is_told_at_once() -> None:
    """As of requests whose grammar does not compile, which vLLM ends beside the step."""
    scheduler = of({"a": request()}, [[part("a", [1]), part("b", [], is_last=True)]])
    assert [each.request_id for each in sent(scheduler, 1)[0]] == ["b"]


def test_statistics_see_each_token() -> None:
    class Counted(Scripted):
        log_stats = True

    steps = [[part("a", [1])], [part("a", [2], is_last=True)]]
    parts = sent(of({"a": request()}, steps, Counted), 2)
    assert [each[0].new_token_ids for each in parts] == [[1], [2]]


def test_what_is_no_scheduler_stays_as_it_is() -> None:
    assert with_whole_answers(object) is object


@given(st.data())
def test_every_client_gets_the_tokens_in_order(data: st.DataObject) -> None:
    """Requests of two clients, whole and streamed, of any lengths, one beginning with each step."""
    from vllm.sampling_params import RequestOutputKind

    kinds = st.sampled_from([RequestOutputKind.FINAL_ONLY, RequestOutputKind.DELTA])
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    requests = {f"{n}": request(output_kind=data.draw(kinds)) for n in range(len(lengths))}
    steps: list[dict[int, list[Any]]] = []
    for step in range(len(lengths) + 6):
        parts: dict[int, list[Any]] = {0: [], 1: []}
        for n, length in enumerate(lengths):
            if 0 <= step - n < length:
                made = part(f"{n}", [100 * n + step - n], is_last=step - n == length - 1)
                parts[n % 2].append(made)
        steps.append({client: each for client, each in parts.items() if each})
    scheduler = with_whole_answers(Scripted)(requests, steps)
    got: dict[str, list[int]] = {}
    num_sent = 0
    for _ in range(len(steps)):
        output = SimpleNamespace(num_scheduled_tokens=dict.fromkeys(scheduler.requests, 1))
        for client, outputs in scheduler.update_from_output(output).items():
            for each in outputs.outputs:
                assert int(each.request_id) % 2 == client
                got.setdefault(each.request_id, []).extend(each.new_token_ids)
                num_sent += 1
    assert got == {f"{n}": [100 * n + i for i in range(k)] for n, k in enumerate(lengths)}
    assert num_sent <= sum(lengths)
