"""Images on the real engine: rendered by vLLM, and told from one another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from helium_agents import VLLM, Image, MemoryStore, Message, Session, gather, image, llm, system
from helium_agents import user as ask
from tests.conftest import started
from tests.engines.tiny_vision import make_vision_model

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeing(cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VLLM]:
    directory = tmp_path_factory.mktemp("vision")
    make_vision_model(directory)
    # vLLM's own LLaVA needs torchvision, whose build for a CPU is not everywhere
    async with started(VLLM(directory, kv_tokens=2048, model_impl="transformers")) as engine:
        yield engine


def picture(red: int, blue: int = 0) -> Image:
    Pillow: Any = pytest.importorskip("PIL.Image")
    made = Pillow.new("RGB", (40, 28), (red, 0, 0))
    made.paste((0, 0, blue), (0, 0, 20, 28))
    return image(made)


RED, BLUE = picture(250), picture(0, 250)


async def answers(engine: VLLM, *conversations: list[Message], **options: Any) -> list[str]:
    async with Session(engine, **options):
        replies = await gather(*(llm(*messages, max_tokens=24) for messages in conversations))
    return [reply.text for reply in replies]


async def test_it_sees_what_it_is_shown(seeing: VLLM) -> None:
    shown = [
        [system("Look."), ask("What is this?", RED)],
        [system("Look."), ask("What is this?", BLUE)],
        [system("Look."), ask("What is this?", picture(250))],
        [system("Look."), ask("What is this?")],
        [system("Look."), ask(RED, "What is this?")],
        [ask("One:", RED, "another:", BLUE)],
        [ask("One:", BLUE, "another:", RED)],
    ]
    memo = MemoryStore()
    found = await answers(seeing, *shown, memo=memo)
    assert found[0] == found[2] and len(set(found)) == len(shown) - 1
    alone = [text for each in shown for text in await answers(seeing, each, share=False)]
    assert alone == found, "whatever else is computed"
    async with Session(seeing, memo=memo) as session:
        assert [(await llm(*each, max_tokens=24)).text for each in shown] == found
        assert session.summary.num_computed == 0
