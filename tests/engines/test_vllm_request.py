"""A request in vLLM's terms: nothing that was asked is lost on the way."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from helium_agents.engines.detokenize import Detokenizer
from helium_agents.engines.engine import OnDelta, Request
from helium_agents.engines.vllm.answer import Pieces
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
    plain = replace(request, sampling=Sampling())
    assert not sampling_params(plain, 7, is_streamed=False, makes_text=False).detokenize
    assert found.extra_args == {"helium_request": 7, "helium_session": "s"}


async def test_vllm_makes_text_only_where_somebody_reads_it_on_the_way() -> None:
    detokenizer = Detokenizer(Tokenizer(BPE()))

    def makes_text(sampling: Sampling, on_delta: OnDelta | None = None) -> bool:
        request = Request("a", (), [1], sampling)
        return Pieces(request, on_delta, None, detokenizer).vllm_makes_text

    assert not makes_text(Sampling())
    assert makes_text(Sampling(stop=("end",)))
    assert makes_text(Sampling(), lambda _: None)
    assert Pieces(Request("a", (), [1], Sampling()), None, None, None).vllm_makes_text
