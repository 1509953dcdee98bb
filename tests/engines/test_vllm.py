"""VLLM on the real engine: answers are exact, requests fail alone, and none is left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from helium_agents.engines.cpu_cores import NUM_SPINS, computes_on_all_cores
from helium_agents.engines.detokenize import detokenizer_of
from helium_agents.engines.engine import ChatMessage, Choice, Completion, Delta, Request
from helium_agents.engines.engine_watcher import shared_memory
from helium_agents.engines.vllm import VLLM
from helium_agents.errors import EngineDied, EngineError, RequestError, TransientEngineError
from helium_agents.graph.sampling import Sampling

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

WORDS = """
company market revenue growth profit margin stock bond interest inflation risk return asset quarter
demand supply customer product cloud energy policy election strategy evidence
""".split()  # noqa: SIM905

numbers = itertools.count()


def words(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def request(token_ids: Sequence[int], schema: str | None = None, **sampling: object) -> Request:
    return Request(
        request_id=f"test-{next(numbers)}",
        messages=(),
        prompt_token_ids=token_ids,
        sampling=Sampling(**{"max_tokens": 32, **sampling}),  # type: ignore[arg-type]
        json_schema=schema,
    )


async def ask(engine: VLLM, text: str, schema: str | None = None, **sampling: object) -> Completion:
    token_ids = await engine.render([ChatMessage("user", text)])
    return await engine.complete(request(token_ids, schema, **sampling))


# --- exactness ---------------------------------------------------------------------------------


async def test_a_greedy_answer_does_not_depend_on_what_else_is_computed(engine: VLLM) -> None:
    shared = words(1, 200)
    texts = [f"{shared} Question {number}: {words(number, 20)}" for number in range(16)]
    alone = [await ask(engine, text) for text in texts]
    together = await asyncio.gather(*(ask(engine, text) for text in texts))
    assert [c.choices for c in together] == [c.choices for c in alone]
    assert alone[0].cached_tokens < 64 < 160 < alone[1].cached_tokens
    assert len({c.choices[0].text for c in alone}) == len(texts)


async def test_every_part_of_the_prompt_decides_the_answer(engine: VLLM) -> None:
    token_ids = list(await engine.render([ChatMessage("user", words(2, 400))]))[:420]
    cuts = range(5, len(token_ids) - 60, 23)
    prompts = [token_ids] + [token_ids[:cut] + token_ids[cut + 50 :] for cut in cuts]
    answers = await asyncio.gather(*(engine.complete(request(prompt)) for prompt in prompts))
    whole, *shortened = (answer.choices[0].token_ids for answer in answers)
    assert len(whole) > 8
    assert whole not in shortened


async def test_a_seed_repeats_a_draw_and_no_seed_does_not(engine: VLLM) -> None:
    async def draw(seed: int | None) -> str:
        return (await ask(engine, words(3, 50), temperature=1.0, seed=seed)).choices[0].text

    one, again, two = await draw(1), await draw(1), await draw(2)
    assert one == again != two
    assert await draw(None) != await draw(None)


async def test_seeded_prompts_longer_than_a_usual_chunk_do_not_kill_the_engine(
    engine: VLLM,
) -> None:
    long = [5 + number % 4000 for number in range(9_000)]
    short = list(range(100, 200))
    sampled = [request(p, max_tokens=4, temperature=1.0, seed=7) for p in (long, short, long)]
    first, _, second = await asyncio.gather(*map(engine.complete, sampled))
    assert first.choices == second.choices


async def test_n_answers_are_different_draws(engine: VLLM) -> None:
    answer = await ask(engine, words(4, 50), n=3, temperature=1.0, seed=5)
    assert len({choice.text for choice in answer.choices}) == 3
    assert answer.choices == (await ask(engine, words(4, 50), n=3, temperature=1.0, seed=5)).choices


# --- what can be asked for ---------------------------------------------------------------------


async def test_answers_end_by_length_by_themselves_and_by_stop_strings(engine: VLLM) -> None:
    whole = (await ask(engine, words(5, 50))).choices[0]
    assert (whole.finish_reason, len(whole.token_ids)) == ("length", 32)
    assert whole.text.isprintable()
    stop = whole.text.split()[5]
    stopped = (await ask(engine, words(5, 50), stop=(stop,))).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(stop)]
    asked = [ask(engine, words(100 + number, 30), max_tokens=256) for number in range(32)]
    ends = [answer.choices[0].finish_reason for answer in await asyncio.gather(*asked)]
    assert 4 <= ends.count("stop") <= 28  # some of both, as with a real model


async def test_a_schema_gives_valid_json(engine: VLLM) -> None:
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["positive", "negative", "neutral"]},
            "reason": {"type": "string", "maxLength": 40},
        },
        "required": ["label", "reason"],
        "additionalProperties": False,
    }
    for number in range(4):
        answer = await ask(engine, words(number, 20), json.dumps(schema), max_tokens=128)
        record = json.loads(answer.choices[0].text)
        assert record["label"] in ("positive", "negative", "neutral")
        assert isinstance(record["reason"], str)


@pytest.mark.parametrize("sampling", [{}, {"n": 2, "temperature": 0.9, "seed": 1}, {"stop": ["a"]}])
async def test_streamed_pieces_add_up_to_the_answer(
    engine: VLLM, sampling: dict[str, object]
) -> None:
    if "stop" in sampling:
        sampling = {"stop": tuple(sampling["stop"])}  # type: ignore[arg-type]
    token_ids = await engine.render([ChatMessage("user", words(6, 40))])
    deltas: list[Delta] = []
    streamed = await engine.complete(request(token_ids, **sampling), deltas.append)
    for index, choice in enumerate(streamed.choices):
        assert "".join(delta.text for delta in deltas if delta.index == index) == choice.text
    assert streamed.choices == (await engine.complete(request(token_ids, **sampling))).choices


async def test_the_conversation_is_rendered_by_the_models_template(engine: VLLM) -> None:
    assert engine._engine is not None
    tokenizer = engine._engine.llm.get_tokenizer()
    messages = [ChatMessage("system", "Be brief."), ChatMessage("user", "Hi <|im_end|> 🤖")]
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|> 🤖<|im_end|>\n"
    assert tokenizer.decode(await engine.render(messages)) == f"{text}<|im_start|>assistant\n"
    long = [ChatMessage("user", "word " * 10_000)]  # rendered in a thread
    assert len(await engine.render(long)) > 10_000


# --- truncation --------------------------------------------------------------------------------


async def test_a_truncated_answer_is_the_answer_to_a_smaller_limit(engine: VLLM) -> None:
    asked = [ask(engine, words(200 + number, 30), max_tokens=60) for number in range(24)]
    answers = [answer.choices[0] for answer in await asyncio.gather(*asked)]
    assert {answer.finish_reason for answer in answers} == {"length", "stop"}

    async def check(number: int, answer: Choice, limit: int) -> None:
        smaller = await ask(engine, words(200 + number, 30), max_tokens=limit)
        assert engine.truncate(answer, limit) == smaller.choices[0]

    # An answer that its limit ended says nothing of a larger one.
    limits = {"length": (1, 2, 3, 7, 20, 41, 59, 60), "stop": (1, 2, 5, 13, 33, 59, 61, 100)}
    await asyncio.gather(
        *(
            check(number, answer, limit)
            for number, answer in enumerate(answers)
            for limit in limits[answer.finish_reason]
        )
    )


async def test_a_stopped_answer_is_truncated_exactly(engine: VLLM) -> None:
    text = words(7, 30)
    stop = (await ask(engine, text)).choices[0].text[40:50]
    stopped = (await ask(engine, text, stop=(stop,))).choices[0]
    for limit in range(1, len(stopped.token_ids) + 1):
        smaller = await ask(engine, text, stop=(stop,), max_tokens=limit)
        assert engine.truncate(stopped, limit) == smaller.choices[0]


async def test_text_is_made_as_vllm_makes_it(engine: VLLM) -> None:
    """Of random tokens, most of them bytes, whole and cut, against vLLM's own detokenizer."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    assert engine._engine is not None
    tokenizer = engine._engine.llm.get_tokenizer()
    detokenizer = detokenizer_of(tokenizer)
    assert detokenizer is not None
    rendered = list(await engine.render([ChatMessage("user", "x")]))
    draws = random.Random(0)
    emoji = tokenizer.encode("🤖日本語é", add_special_tokens=False)

    def text_of(prompt: list[int], token_ids: list[int]) -> str:
        params = SamplingParams(max_tokens=100)
        core_request = EngineCoreRequest(
            "r", prompt, None, params, None, 0.0, None, cache_salt=None, data_parallel_rank=None
        )
        by_vllm = IncrementalDetokenizer.from_new_request(tokenizer, core_request)
        by_vllm.update(token_ids, stop_terminated=False)
        return str(by_vllm.get_next_output_text(finished=True, delta=False))

    for _ in range(50):
        token_ids = [draws.randrange(3, 300) for _ in range(10)] + draws.choices(emoji, k=10)
        token_ids += emoji + [draws.randrange(4096) for _ in range(10)]
        whole = Choice(text_of(rendered, token_ids), tuple(token_ids), "length")
        for limit in range(1, len(token_ids)):
            cut = engine.truncate(whole, limit)
            text = text_of(rendered, token_ids[:limit])
            assert cut == Choice(text, tuple(token_ids[:limit]), "length")
            assert detokenizer.text(rendered, token_ids[:limit]) == text
    specials = [tokenizer.eos_token_id] * 9
    plain = tokenizer.encode(words(9, 20), add_special_tokens=False)
    for tail in ([], emoji, emoji[:1], emoji[:2], [*emoji[:2], *specials], specials):
        for answer in ([], plain, emoji, emoji[1:], [*emoji[2:], *plain], [*specials, *emoji]):
            found = detokenizer.text([*plain, *tail], answer)
            assert found == text_of([*plain, *tail], answer)


async def test_an_answer_has_the_text_of_its_stream(engine: VLLM) -> None:
    ends = set()
    for seed in range(8):
        token_ids = await engine.render([ChatMessage("user", words(seed, 40))])
        asked = {"temperature": 1.5, "seed": seed, "n": 2, "max_tokens": 64}
        schema = '{"enum": ["é", "🤖"]}' if seed < 2 else None
        pieces: list[Delta] = []
        streamed = await engine.complete(request(token_ids, schema, **asked), pieces.append)
        whole = await engine.complete(request(token_ids, schema, **asked))
        ends |= {choice.finish_reason for choice in whole.choices}
        assert whole.choices == streamed.choices
        for index, choice in enumerate(whole.choices):
            assert "".join(piece.text for piece in pieces if piece.index == index) == choice.text
    assert ends == {"stop", "length"}


async def test_tokens_that_nobody_looks_at_come_with_the_last(
    engine: VLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine._engine is not None
    processor = engine._engine.llm.output_processor
    process, num_parts = processor.process_outputs, 0

    def counting(parts: list[object], *args: object, **kwargs: object) -> object:
        nonlocal num_parts
        num_parts += len(parts)
        return process(parts, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(processor, "process_outputs", counting)
    token_ids = await engine.render([ChatMessage("user", words(5, 50))])
    drawn: dict[str, object] = {"n": 2, "temperature": 1.0, "seed": 7}
    whole = await engine.complete(request(token_ids, **drawn))
    assert num_parts == 2
    streamed = await engine.complete(request(token_ids, **drawn), lambda delta: None)
    num_tokens = sum(len(choice.token_ids) for choice in streamed.choices)
    assert num_parts == 2 + num_tokens > 4
    assert whole.choices == streamed.choices


async def test_what_cannot_be_reproduced_is_not_truncated(engine: VLLM) -> None:
    assert engine.truncate(Choice("another text", (300, 301, 302), "length"), 2) is None
    assert engine.truncate(Choice("", (10**9, 301), "length"), 1) is None


# --- failing and leaving -----------------------------------------------------------------------


async def test_a_cancelled_request_is_aborted(engine: VLLM) -> None:
    token_ids = await engine.render([ChatMessage("user", words(8, 50))])
    started = asyncio.Event()
    sampling = {"max_tokens": 8_000, "n": 2, "temperature": 1.0}
    task = asyncio.ensure_future(
        engine.complete(request(token_ids, **sampling), lambda _: started.set())
    )
    await started.wait()
    assert engine.num_open_requests == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.num_open_requests == 0


async def test_an_error_of_the_listener_aborts_the_request_and_is_its_own(engine: VLLM) -> None:
    def fail(delta: Delta) -> None:
        raise ZeroDivisionError

    token_ids = await engine.render([ChatMessage("user", words(9, 50))])
    with pytest.raises(ZeroDivisionError):
        await engine.complete(request(token_ids, max_tokens=8_000), fail)
    assert engine.num_open_requests == 0


async def test_a_request_that_is_too_long_names_the_numbers(engine: VLLM) -> None:
    assert engine.capacity is not None
    limit = engine.capacity.max_model_tokens
    with pytest.raises(RequestError, match=rf"100 tokens .* {limit}, .*lower max_tokens to"):
        await engine.complete(request([5] * 100, max_tokens=limit))
    with pytest.raises(RequestError, match=rf"{limit} tokens, but 'random' holds {limit}"):
        await engine.complete(request([5] * limit))


@pytest.mark.parametrize(
    "wrong",
    [
        {"json_schema": "{"},
        {"json_schema": '{"type": "nonsense"}'},
        {"prompt_token_ids": ()},
        {"prompt_token_ids": (10**6,)},
    ],
)
async def test_a_wrong_request_fails_alone(engine: VLLM, wrong: dict[str, object]) -> None:
    right = request([5, 6, 7])
    results = await asyncio.gather(
        engine.complete(right),
        engine.complete(replace(request([5, 6, 7]), **wrong)),  # type: ignore[arg-type]
        return_exceptions=True,
    )
    assert isinstance(results[0], Completion)
    assert isinstance(results[1], RequestError)
    assert engine.num_open_requests == 0


async def test_vllms_errors_are_told_apart(engine: VLLM) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    from helium_agents.engines.vllm.request import translated

    launched = engine._running().launched
    wrapped = EngineGenerateError()
    wrapped.__cause__ = ValueError("too hot")
    assert type(translated(EngineDeadError(), launched)) is EngineDied
    assert type(translated(wrapped, launched)) is RequestError
    assert type(translated(EngineGenerateError(), launched)) is TransientEngineError


# vLLM leaves its ZeroMQ context to the garbage collector when a start fails.
@pytest.mark.filterwarnings("ignore:Unclosed context:ResourceWarning")
async def test_a_cancelled_start_leaves_nothing(engine: VLLM) -> None:
    def children() -> set[int | None]:
        return {child.pid for child in multiprocessing.active_children()}

    def shared() -> set[str]:
        """What this program and its engines share; others may be at work beside it."""
        return shared_memory([os.getpid(), *filter(None, children())])

    environment, older, shared_before = dict(os.environ), children(), shared()
    other = VLLM("random", kv_tokens=8192)
    start = asyncio.ensure_future(other.start())
    waiting = asyncio.ensure_future(other.start())
    waiting.cancel()
    while children() == older:  # noqa: ASYNC110 - nobody sets an event for it
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    shared_meanwhile = shared()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert children() == older
    left = (shared_meanwhile | shared()) - shared_before
    assert not list(filter(os.path.exists, left))
    gc.collect()
    assert (os.environ, other.is_started) == (environment, False)
    assert (await ask(engine, "And this one?")).choices  # the other engine was left alone


async def test_another_event_loop_is_refused(engine: VLLM) -> None:
    def elsewhere() -> None:
        asyncio.run(engine.complete(request([5])))

    with pytest.raises(EngineError, match="another event loop"):
        await asyncio.to_thread(elsewhere)


async def test_what_the_engine_can_hold_is_known(engine: VLLM) -> None:
    assert engine.capacity is not None
    assert engine.capacity.kv_tokens == 65_536
    assert engine.capacity.max_model_tokens == 32_768
    assert engine.capacity.max_requests == 64
    assert (engine.is_started, engine.name) == (True, "random")


@pytest.mark.skipif(not computes_on_all_cores(), reason="many cores, or somebody has said which")
async def test_all_of_few_cores_compute(engine: VLLM) -> None:
    """And do so in the engine core, for which vLLM by itself leaves one."""
    (core,) = (psutil.Process(child.pid) for child in multiprocessing.active_children())
    assert not core.children()

    def thread_s() -> dict[int, float]:
        return {thread.id: thread.user_time for thread in core.threads()}

    before = thread_s()
    await asyncio.gather(*(ask(engine, words(seed, 400)) for seed in range(16)))
    used = [seconds - before.get(id_, 0.0) for id_, seconds in thread_s().items()]
    assert sum(each > 0.3 * max(used) for each in used) == len(os.sched_getaffinity(0))
    assert core.environ()["GOMP_SPINCOUNT"] == str(NUM_SPINS), "which soon wait asleep"


async def test_the_keys_that_a_terminal_sends_to_all_processes_do_not_end_the_engine(
    engine: VLLM,
) -> None:
    processes = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    assert "VLLM::EngineCore" in {each.name() for each in processes}
    for process in processes:
        assert_ends_by_no_key(process)


def assert_ends_by_no_key(process: psutil.Process) -> None:
    """Ctrl-C and Ctrl-Backslash mean the program; only it knows what to do."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        assert is_handled(process.pid, number), f"{process.name()} would end at {number.name}"


def is_handled(pid: int, number: int) -> bool:
    """Whether a process blocks, ignores, or handles a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t") for line in status.splitlines())
    masks = [int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")]
    return any(mask >> (number - 1) & 1 for mask in masks)
