"""A request in vLLM's terms: nothing that was asked is lost on the way."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from helium_agents.engines.engine import Request
from helium_agents.engines.vllm.request import sampling_params
from helium_agents.graph.sampling import Sampling

OTHERS: dict[str, Any] = {
    "max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125,
    "presence_penalty": 0.75, "frequency_penalty": -0.5, "repetition_penalty": 1.5,
    "stop": ("end",), "seed": 11, "n": 2,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what importing vLLM and torch warns of is not ours
def test_every_parameter_reaches_vllm() -> None:
    assert {field.name for field in fields(Sampling) if field.init} == OTHERS.keys()
    request = Request("a", (), [1], Sampling(**OTHERS), hints={"helium_session": "s"})
    found = sampling_params(request, 7, is_streamed=False)
    asked = {name: getattr(found, name) for name in OTHERS}
    assert asked == OTHERS | {"stop": ["end"]}
    assert found.detokenize
    assert found.extra_args == {"helium_request": 7, "helium_session": "s"}
