"""Images on the real engine: rendered by vLLM, and cached by it by their content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from benchmarks.harness.server import MODEL_NAME, Server
from helium_agents import (
    VLLM,
    Image,
    MemoryStore,
    Message,
    OpenAIServer,
    Session,
    gather,
    image,
    llm,
    system,
)
from helium_agents import user as ask
from helium_agents.engines.engine import Engine
from helium_agents.engines.vllm.settings import Settings
from helium_agents.errors import EngineStartError, RequestError
from helium_agents.telemetry.events import CallSettled, Event, Usage
from tests.conftest import started
from tests.engines.server_arguments import server_arguments
from tests.engines.tiny_vision import IMAGE_TOKENS, make_vision_model

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def vision(cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vision")
    make_vision_model(directory)
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeing(vision: Path) -> AsyncIterator[VLLM]:
    # vLLM's own LLaVA needs torchvision, whose build for a CPU is not everywhere
    async with started(VLLM(vision, kv_tokens=2048, model_impl="transformers")) as engine:
        yield engine


def picture(red: int, blue: int = 0) -> Image:
    Pillow: Any = pytest.importorskip("PIL.Image")
    made = Pillow.new("RGB", (40, 28), (red, 0, 0))
    made.paste((0, 0, blue), (0, 0, 20, 28))
    return image(made)


RED, BLUE = picture(250), picture(0, 250)


async def answers(engine: Engine, *conversations: list[Message], **options: Any) -> list[str]:
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


async def test_a_prefix_is_cached_up_to_another_image(seeing: VLLM) -> None:
    seen: list[Usage] = []

    def watch(event: Event) -> None:
        if isinstance(event, CallSettled):
            seen.append(event.usage)

    before, after = "Look at it well. " * 20, "And now tell me what it is. " * 20
    await seeing.reset_prefix_cache()
    async with Session(seeing, share=False, observers=[watch]):
        await llm(ask(before, after), max_tokens=1)
        for each in (RED, RED, BLUE):
            await llm(ask(before, each, after), max_tokens=1)
    text, first, again, other = seen
    # where the image stands, two characters may be one token no more
    assert first.prompt_tokens - text.prompt_tokens in (IMAGE_TOKENS, IMAGE_TOKENS + 1)
    assert 64 <= first.cached_tokens == other.cached_tokens < again.cached_tokens - 64


async def test_what_it_cannot_take_fails_alone(seeing: VLLM) -> None:
    broken = image(RED.data[:40])
    async with Session(seeing):
        with pytest.raises(RequestError, match=r"refuses this conversation: .*image"):
            await llm(ask("What is this?", broken))
        with pytest.raises(RequestError, match=r"lower max_tokens|shorten the prompt"):
            await llm(ask("What is this?", RED), max_tokens=2047)
        assert (await llm(ask("What is this?", RED), max_tokens=4)).choices[0].token_ids


async def test_a_server_sees_the_same(seeing: VLLM, vision: Path) -> None:
    settings = Settings(str(vision), kv_tokens=2048, engine_args={"model_impl": "transformers"})
    shown = [[ask("One:", picture(25 * each), "another:", BLUE)] for each in range(8)]
    shown += [[ask("What is this?")], [system("Look."), ask(RED, "What is this?")]]
    expected = await answers(seeing, *shown)
    assert len({*expected}) == len(shown)
    server = Server(server_arguments(settings))
    await server.start()
    try:
        for tokenizer in (None, str(vision)):
            there = OpenAIServer(server.url, MODEL_NAME, tokenizer=tokenizer)
            assert await answers(there, *shown) == expected
    finally:
        await server.close()


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
async def test_the_package_that_is_missing_is_named(tmp_path: Path, cache_home: Path) -> None:
    make_vision_model(tmp_path)
    with pytest.raises(EngineStartError, match=r"needs torchvision: .* model_impl='transformers'"):
        await VLLM(tmp_path, kv_tokens=2048).start()
