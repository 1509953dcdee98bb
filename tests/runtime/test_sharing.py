"""What is shared, and what never is: draws, refused calls, calls that differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from enum import StrEnum
from typing import Any

import pytest
from gate import Gate, ticks, until
from pydantic import BaseModel

from helium_agents import (
    Ref,
    Reply,
    Session,
    assistant,
    gather,
    llm,
    operator,
    prompt,
    system,
    user,
)
from helium_agents.engines.engine import Choice, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import (
    EncodingError,
    InvalidReply,
    MemoError,
    RequestError,
    SessionError,
)
from helium_agents.graph.plan import LogicalPlan, PlanError
from helium_agents.memo.memory import MemoryStore

WORDS = " ".join(f"w{i}" for i in range(600))


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def session(engine: ScriptedEngine) -> AsyncIterator[Session]:
    async with Session(engine) as session:
        yield session


async def one_by_one(*refs: Ref[Any]) -> list[Any]:
    return [await ref for ref in refs]


# --- draws ---------------------------------------------------------------------------------------


class TestDraws:
    async def test_five_samples_are_five_requests(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        replies = await gather(*(llm(user("q"), temperature=1) for _ in range(5)))
        assert engine.num_requests == 5
        assert len({reply.text for reply in replies}) == 5

    async def test_one_after_the_other_too(self, engine: ScriptedEngine, session: Session) -> None:
        await one_by_one(*(llm(user("q"), temperature=1) for _ in range(5)))
        assert engine.num_requests == 5

    async def test_one_ref_is_one_draw(self, engine: ScriptedEngine, session: Session) -> None:
        ref = llm(user("q"), temperature=1)
        first, second = await asyncio.gather(ref, ref)
        assert first is second is await ref
        assert engine.num_requests == 1

    @pytest.mark.parametrize("memo_mode", ["read-write", "refresh", "off"])
    async def test_nothing_above_two_draws_is_merged_even_if_they_are_alike(
        self, memo_mode: Any
    ) -> None:
        @operator(pure=True)
        async def shorten(reply: Reply[None]) -> str:
            runs.append(reply.text)
            return reply.text[:3]

        runs: list[str] = []
        engine = ScriptedEngine(lambda request: "the same text")
        async with Session(engine, memo_mode=memo_mode):
            ends = []
            for _ in range(5):
                draw = llm(user("q"), temperature=1)
                better = llm(user(prompt("improve {it}", it=draw)))
                ends += [better, shorten.defer(draw)]
            replies = await gather(*ends)
            assert engine.num_requests == 10
            assert len(runs) == 5
            assert {str(reply) for reply in replies} == {"the same text", "the"}
            # and it stays so for those who ask later
            again = [llm(user("q"), temperature=1) for _ in range(2)]
            await gather(*(llm(user(prompt("improve {it}", it=draw))) for draw in again))
            assert engine.num_requests == 14

    async def test_calls_above_one_draw_are_merged(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        draw = llm(user("q"), temperature=1)
        first, second = await gather(*(llm(user(prompt("it {x}", x=draw))) for _ in range(2)))
        assert first == second
        assert engine.num_requests == 2

    async def test_seeds(self, engine: ScriptedEngine, session: Session) -> None:
        seeds = [1, 2, 1, 2, 1]
        replies = await gather(*(llm(user("q"), temperature=1, seed=seed) for seed in seeds))
        assert engine.num_requests == 2
        assert len({(seed, reply.text) for seed, reply in zip(seeds, replies, strict=True)}) == 2
        assert (await llm(user("q"), temperature=1, seed=1)).text == replies[0].text
        assert engine.num_requests == 2

    async def test_a_seeded_sample_is_not_a_greedy_answer(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        greedy, seeded = await gather(llm(user("q")), llm(user("q"), temperature=1, seed=0))
        assert engine.num_requests == 2
        assert greedy.text != seeded.text

    async def test_several_answers_of_one_call(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        three, two, again = await gather(
            llm(user("q"), temperature=1, seed=1, n=3),
            llm(user("q"), temperature=1, seed=1, n=2),
            llm(user("q"), temperature=1, seed=1, n=3),
        )
        assert engine.num_requests == 2
        assert len(set(three.texts)) == len(three.choices) == 3
        assert three.texts == again.texts
        assert len(two.texts) == 2

    async def test_several_greedy_answers_are_no_prefix_of_longer_ones(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        await gather(llm(user("q"), n=2, max_tokens=2), llm(user("q"), n=2, max_tokens=9))
        assert engine.num_requests == 2


# --- deterministic calls -------------------------------------------------------------------------


class TestGreedy:
    async def test_concurrent_calls_are_one(self, engine: ScriptedEngine, session: Session) -> None:
        replies = await gather(*(llm(user("q")) for _ in range(5)))
        assert engine.num_requests == 1
        assert len(set(replies)) == 1
        assert session.summary.calls_by_source == {"engine": 1, "merged": 4}

    async def test_sequential_calls_are_one(self, engine: ScriptedEngine, session: Session) -> None:
        replies = await one_by_one(*(llm(user("q")) for _ in range(5)))
        assert engine.num_requests == 1
        assert len(set(replies)) == 1
        assert session.summary.calls_by_source == {"engine": 1, "earlier": 4}

    async def test_later_calls_join_the_one_in_flight(self) -> None:
        gate = Gate()
        engine = ScriptedEngine(gate)
        async with Session(engine, memo_mode="off") as session:
            first = llm(user("q")).start()
            await until(lambda: engine.num_open)
            second = llm(user("q")).start()
            await ticks()
            gate.open()
            assert await first == await second
            assert engine.num_requests == 1
            assert session.summary.calls_by_source == {"engine": 1, "joined": 1}

    async def test_calls_that_turn_out_alike_are_one(self) -> None:
        # nothing tells them apart once their inputs are known
        engine = ScriptedEngine(
            lambda request: "same" if request.messages[-1].content[0] == "q" else "end"
        )
        async with Session(engine):
            ends = [llm(user(prompt("x {it}", it=llm(user(f"q{i}"))))) for i in range(3)]
            ends.append(llm(user("x same")))
            assert {reply.text for reply in await gather(*ends)} == {"end"}
        assert engine.num_requests == 4

    async def test_a_call_above_one_in_flight_is_planned(self) -> None:
        gate = Gate()
        engine = ScriptedEngine(gate)
        async with Session(engine):
            first = llm(user("a"))
            second = llm(user(prompt("b {it}", it=first))).start()
            await until(lambda: engine.num_open)
            third = llm(user(prompt("c {it}", it=second))).start()
            await ticks()
            gate.open()
            assert (await third).text == "c b a"
        assert engine.num_requests == 3

    async def test_calls_above_different_calls_in_flight_stay_apart(self) -> None:
        gate = Gate()
        engine = ScriptedEngine(gate)
        async with Session(engine):
            lower = [llm(user(prompt("b {it}", it=llm(user(text))))).start() for text in "xy"]
            await until(lambda: engine.num_open == 2)
            upper = [llm(user(prompt("c {it}", it=ref))).start() for ref in lower]
            await ticks()
            gate.open()
            assert [reply.text for reply in await gather(*upper)] == ["c b x", "c b y"]

    async def test_the_caller_may_change_what_a_shared_operator_returned(
        self, session: Session
    ) -> None:
        @operator(pure=True, version="1")
        async def words() -> list[str]:
            return ["a"]

        first, second = await gather(words(), words())
        first.append("b")
        assert second == ["a"]
        assert await words() == ["a"]


class TestRefusal:
    async def test_of_a_call(self, engine: ScriptedEngine, session: Session) -> None:
        await gather(*(llm(user("q"), share=False) for _ in range(3)))
        await one_by_one(*(llm(user("q"), share=False) for _ in range(2)))
        assert engine.num_requests == 5
        await gather(llm(user("q")), llm(user("q"), share=False), llm(user("q")))
        assert engine.num_requests == 7

    async def test_of_a_call_in_flight(self) -> None:
        gate = Gate()
        engine = ScriptedEngine(gate)
        async with Session(engine):
            calls = []
            for share in (True, False, True, False):
                calls.append(llm(user("q"), share=share).start())
                await ticks()
            assert engine.num_open == 3
            gate.open()
            assert {reply.text for reply in await gather(*calls)} == {"q"}

    async def test_of_a_call_with_inputs(self, engine: ScriptedEngine, session: Session) -> None:
        draft = llm(user("q"))
        calls = [llm(user(prompt("x {it}", it=draft)), share=False) for _ in range(3)]
        await gather(*calls)
        assert engine.num_requests == 4
        await llm(user(prompt("x {it}", it=draft)))
        assert engine.num_requests == 5, "nor does it answer others"

    async def test_of_lengths(self, engine: ScriptedEngine, session: Session) -> None:
        await gather(
            llm(user("q"), max_tokens=2, share=False), llm(user("q"), max_tokens=4, share=False)
        )
        assert engine.num_requests == 2

    @pytest.mark.parametrize("memo", [False, True])
    async def test_of_a_session(self, engine: ScriptedEngine, memo: bool) -> None:
        store = MemoryStore() if memo else None
        async with Session(engine, share=False, memo=store) as session:
            await gather(*(llm(user("q")) for _ in range(3)))
            await one_by_one(*(llm(user("q")) for _ in range(2)))
            await gather(llm(user("q"), max_tokens=2), llm(user("q"), max_tokens=4))
            draft = llm(user("draft"))
            await gather(*(llm(user(prompt("x {it}", it=draft))) for _ in range(3)))
            assert engine.num_requests == 11
            assert session.summary.calls_by_source == {"engine": 11}
        assert store is None or store.stats().num_entries == 0

    async def test_of_pure_operators(self) -> None:
        @operator(pure=True, version="1")
        async def double(number: int) -> int:
            runs.append(number)
            return 2 * number

        runs: list[int] = []
        async with Session(ScriptedEngine(), share=False):
            assert await gather(double(1), double(1)) == (2, 2)
            assert await double(1) == 2
        assert runs == [1, 1, 1]


# --- models --------------------------------------------------------------------------------------


class TestModels:
    async def test_by_name(self) -> None:
        big = ScriptedEngine(lambda request: "big", identity="big")
        small = ScriptedEngine(lambda request: "small", identity="small")
        async with Session({"big": big, "small": small}):
            names = [None, "big", "small", "small", None]
            replies = await gather(*(llm(user("q"), model=name) for name in names))
        assert [reply.text for reply in replies] == ["big", "big", "small", "small", "big"]
        assert (big.num_requests, small.num_requests) == (1, 1)

    async def test_two_names_of_one_model_share(self) -> None:
        one, other = ScriptedEngine(identity="same"), ScriptedEngine(identity="same")
        async with Session({"one": one, "other": other}):
            await gather(llm(user("q"), model="one"), llm(user("q"), model="other"))
        assert one.num_requests + other.num_requests == 1

    async def test_only_the_engine_that_is_asked_is_started(self) -> None:
        big, small = ScriptedEngine(identity="big"), ScriptedEngine(identity="small")
        async with Session({"big": big, "small": small}):
            await llm(user("q"), model="small")
            assert (big.num_starts, small.num_starts) == (0, 1)
        assert not small.is_started

    async def test_an_unknown_name(self, session: Session) -> None:
        with pytest.raises(SessionError, match=r"llm\(model='huge'\).*engines are 'scripted'"):
            await llm(user("q"), model="huge")

    async def test_no_engine(self) -> None:
        with pytest.raises(SessionError, match="names no engine"):
            Session({})

    async def test_an_answer_of_one_model_in_the_prompt_of_another(self) -> None:
        big = ScriptedEngine(lambda request: "draft", identity="big")
        small = ScriptedEngine(lambda request: request.messages[-1].content, identity="small")
        async with Session({"big": big, "small": small}):
            draft = llm(user("q"))
            reply = await llm(user(prompt("shorten {it}", it=draft)), model="small")
        assert reply.text == "shorten draft"


# --- schemas -------------------------------------------------------------------------------------


class Verdict(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Review(BaseModel):
    verdict: Verdict
    score: int


class TestSchemas:
    async def test_parsed(self, session: Session) -> None:
        reply = await llm(user("q"), schema=Review)
        assert type(reply.parsed) is Review
        assert reply.parsed == Review.model_validate_json(reply.text)

    async def test_enum(self, session: Session) -> None:
        reply = await llm(user("q"), schema=Verdict)
        assert isinstance(reply.parsed, Verdict)
        assert reply.text == f'"{reply.parsed.value}"'

    async def test_other_types(self, session: Session) -> None:
        reply = await llm(user("q"), schema=list[int])
        assert isinstance(reply.parsed, list) and type(reply.parsed[0]) is int

    async def test_no_schema(self, session: Session) -> None:
        reply = await llm(user("q"))
        with pytest.raises(AttributeError, match="schema="):
            _ = reply.parsed

    async def test_all_parsed(self, session: Session) -> None:
        reply = await llm(user("q"), schema=Review, temperature=1, n=3)
        assert len(reply.all_parsed) == 3
        assert reply.parsed == reply.all_parsed[0]

    async def test_is_part_of_the_question(self, engine: ScriptedEngine, session: Session) -> None:
        await gather(
            llm(user("q")),
            llm(user("q"), schema=Review),
            llm(user("q"), schema=Verdict),
            llm(user("q"), schema=Review),
        )
        assert engine.num_requests == 3

    async def test_each_sharer_has_a_value_of_its_own(self, session: Session) -> None:
        first, second = await gather(*(llm(user("q"), schema=Review) for _ in range(2)))
        first.parsed.score = -1
        assert second.parsed.score != -1
        third = await llm(user("q"), schema=Review)
        assert third.parsed == second.parsed

    async def test_an_invalid_greedy_reply_is_not_asked_for_again(self) -> None:
        engine = ScriptedEngine(lambda request: "no json")
        async with Session(engine):
            with pytest.raises(InvalidReply, match="does not fit"):
                await llm(user("q"), schema=Review)
            assert engine.num_requests == 1

    async def test_an_invalid_sample_is_drawn_anew(self) -> None:
        texts = iter(["no json", "nor this", '{"verdict": "good", "score": 1}'])
        engine = ScriptedEngine(lambda request: next(texts))
        async with Session(engine):
            reply = await llm(user("q"), schema=Review, temperature=1, seed=7)
            assert reply.parsed.score == 1
        seeds = [request.sampling.seed for request in engine.requests]
        assert len(set(seeds)) == 3 and seeds[0] == 7

    async def test_a_reply_that_was_cut_says_so(self) -> None:
        engine = ScriptedEngine(lambda request: '{"verdict": "good", "score": 1}')
        async with Session(engine):
            with pytest.raises(InvalidReply, match="cut at max_tokens=2"):
                await llm(user("q"), schema=Review, max_tokens=2)
            assert (await llm(user("q"), schema=Review)).parsed.score == 1


# --- subsumption ---------------------------------------------------------------------------------


def words(num: int) -> str:
    return " ".join(WORDS.split()[:num])


class TestSubsumption:
    @pytest.fixture
    def engine(self) -> ScriptedEngine:
        return ScriptedEngine(lambda request: WORDS)

    async def test_in_a_plan(self, engine: ScriptedEngine, session: Session) -> None:
        lengths = [256, 512, 256, 1]
        replies = await gather(*(llm(user("q"), max_tokens=length) for length in lengths))
        assert [request.sampling.max_tokens for request in engine.requests] == [512]
        assert [reply.text for reply in replies] == [words(length) for length in lengths]
        assert {reply.finish_reason for reply in replies} == {"length"}
        assert [len(reply.choices[0].token_ids) for reply in replies] == lengths
        assert session.summary.calls_by_source["prefix"] == 2

    async def test_in_flight(self) -> None:
        async def script(request: Request) -> str:
            await gate(request)
            return WORDS

        gate = Gate()
        engine = ScriptedEngine(script)
        async with Session(engine, memo_mode="off") as session:
            longer = llm(user("q"), max_tokens=512).start()
            await until(lambda: engine.num_open)
            shorter = llm(user("q"), max_tokens=256).start()
            longest = llm(user("q"), max_tokens=1024).start()
            other = llm(user("other"), max_tokens=256).start()
            await until(lambda: engine.num_open == 3)
            between = llm(user("q"), max_tokens=600).start()
            await ticks()
            gate.open()
            assert (await shorter).text == words(256)
            assert (await longer).text == words(512)
            assert (await longest).text == (await between).text == WORDS
            assert (await other).text == words(256)
            assert session.summary.calls_by_source == {"engine": 3, "prefix": 2}
        assert engine.num_requests == 3

    async def test_in_flight_when_the_longer_is_given_up(self) -> None:
        gate = Gate()
        engine = ScriptedEngine(gate)
        async with Session(engine):
            longer = asyncio.create_task(llm(user("q"), max_tokens=512))
            await until(lambda: engine.num_open)
            shorter = asyncio.create_task(llm(user("q"), max_tokens=256))
            await ticks()
            longer.cancel()
            await ticks()
            gate.open()
            assert (await shorter).text == "q"
        assert engine.num_requests == 1 and not engine.aborted

    async def test_from_the_memo(self, engine: ScriptedEngine, session: Session) -> None:
        await llm(user("q"), max_tokens=512)
        reply = await llm(user("q"), max_tokens=256)
        assert engine.num_requests == 1
        assert reply.text == words(256)
        assert reply.finish_reason == "length"
        assert session.summary.calls_by_source == {"engine": 1, "earlier": 1}

    async def test_a_shorter_answer_does_not_reach_further(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        short = await llm(user("q"), max_tokens=256)
        long = await llm(user("q"), max_tokens=512)
        assert engine.num_requests == 2
        assert (short.text, long.text) == (words(256), words(512))

    async def test_a_longer_answer_that_came_meanwhile_is_not_replaced(self) -> None:
        gate, store = Gate(), MemoryStore()

        async def script(request: Request) -> str:
            if request.sampling.max_tokens < 512:
                await gate(request)
            return WORDS

        engine = ScriptedEngine(script)
        async with Session(engine, memo=store):
            shorter = asyncio.create_task(llm(user("q"), max_tokens=256))
            await until(lambda: engine.num_open)
            await llm(user("q"), max_tokens=512)
            gate.open()
            assert (await shorter).text == words(256)
        async with Session(ScriptedEngine(), memo=store) as session:
            for length in (512, 256):
                assert (await llm(user("q"), max_tokens=length)).text == words(length)
            assert session.summary.calls_by_source == {"memo": 2}

    async def test_a_finished_answer_answers_every_length(self) -> None:
        engine = ScriptedEngine(lambda request: "four words and done")
        async with Session(engine):
            first = await llm(user("q"), max_tokens=256)
            longer = await llm(user("q"), max_tokens=512)
            exact = await llm(user("q"), max_tokens=4)
            shorter = await llm(user("q"), max_tokens=3)
        assert engine.num_requests == 1
        assert first == longer == exact
        assert first.finish_reason == "stop"
        assert (shorter.text, shorter.finish_reason) == ("four words and", "length")

    async def test_as_the_engine_itself_would_cut(self) -> None:
        text = "  one two\n\nthree   four "
        lengths = range(1, 6)

        async def ask(**options: Any) -> list[Reply[None]]:
            async with Session(ScriptedEngine(lambda request: text), **options):
                calls = [llm(user("q"), max_tokens=length) for length in lengths]
                return list(await gather(*calls))

        assert await ask() == await ask(share=False, rules=())

    async def test_falls_back_where_the_longer_call_fails(self) -> None:
        def script(request: Request) -> str:
            if request.sampling.max_tokens > 300:
                raise RequestError("too long for the model")
            return WORDS

        engine = ScriptedEngine(script)
        async with Session(engine):
            short, long = await gather(
                llm(user("q"), max_tokens=256),
                llm(user("q"), max_tokens=512),
                return_exceptions=True,
            )
        assert isinstance(short, Reply) and short.text == words(256)
        assert isinstance(long, RequestError)
        assert engine.num_requests == 2

    async def test_falls_back_where_the_longer_answer_cannot_be_cut(self) -> None:
        class Uncuttable(ScriptedEngine):
            def truncate(self, choice: Choice, max_tokens: int) -> Choice | None:
                return None

        store = MemoryStore()
        engine = Uncuttable(lambda request: WORDS)
        async with Session(engine, memo=store):
            short, long = await gather(
                llm(user("q"), max_tokens=256), llm(user("q"), max_tokens=512)
            )
            assert (short.text, long.text) == (words(256), words(512))
            assert engine.num_requests == 2
        async with Session(engine, memo=store, memo_mode="replay-only"):  # both were remembered
            assert (await llm(user("q"), max_tokens=256)).text == words(256)
            assert (await llm(user("q"), max_tokens=512)).text == words(512)
        assert engine.num_requests == 2

    async def test_a_short_answer_that_comes_late_does_not_replace_the_long_one(self) -> None:
        short_gate, long_gate = Gate(), Gate()

        async def script(request: Request) -> str:
            await (short_gate if request.sampling.max_tokens == 256 else long_gate)(request)
            return WORDS

        store = MemoryStore()
        engine = ScriptedEngine(script)
        async with Session(engine, memo=store):
            short = llm(user("q"), max_tokens=256).start()
            await until(lambda: engine.num_open == 1)
            long = llm(user("q"), max_tokens=512).start()
            await until(lambda: engine.num_open == 2)
            long_gate.open()
            await long
            short_gate.open()
            await short
        async with Session(engine, memo=store, memo_mode="replay-only"):
            assert (await llm(user("q"), max_tokens=512)).text == words(512)
            assert (await llm(user("q"), max_tokens=256)).text == words(256)
        assert engine.num_requests == 2

    async def test_not_of_samples(self, engine: ScriptedEngine, session: Session) -> None:
        await gather(
            *(
                llm(user("q"), temperature=1, seed=1, max_tokens=length)
                for length in (256, 512, 256)
            )
        )
        assert engine.num_requests == 2

    async def test_above_it_values_are_shared(
        self, engine: ScriptedEngine, session: Session
    ) -> None:
        lengths = (3, 9, 3)
        drafts = [llm(user("q"), max_tokens=length) for length in lengths]
        await gather(*(llm(user(prompt("x {it}", it=draft)), max_tokens=2) for draft in drafts))
        contents = [request.messages[-1].content for request in engine.requests]
        assert contents[0] == "q"
        assert sorted(contents[1:]) == [f"x {words(3)}", f"x {words(9)}"]

    async def test_with_inputs(self, engine: ScriptedEngine, session: Session) -> None:
        draft = llm(user("q"), max_tokens=2)
        short, long = await gather(
            llm(user(prompt("x {it}", it=draft)), max_tokens=3),
            llm(user(prompt("x {it}", it=draft)), max_tokens=5),
        )
        assert (short.text, long.text) == (words(3), words(5))
        assert engine.num_requests == 2


# --- one question, many ways to ask it -----------------------------------------------------------


SAME: Mapping[str, tuple[Callable[[], Ref[Any]], Callable[[], Ref[Any]]]] = {
    "a slot with text": (
        lambda: llm(user(prompt("a{b}", b="c"))),
        lambda: llm(user("ac")),
    ),
    "a prompt in a prompt": (
        lambda: llm(user(prompt("{x}!", x=prompt("{a}-{b}", a=1, b="2")))),
        lambda: llm(user("1-2!")),
    ),
    "braces": (lambda: llm(user(prompt("{{a}}"))), lambda: llm(user("{a}"))),
    "an empty slot": (lambda: llm(user(prompt("{x}a{x}", x=""))), lambda: llm(user("a"))),
    "greedy and a seed": (lambda: llm(user("q"), seed=1), lambda: llm(user("q"), seed=2)),
    "greedy and top_p": (lambda: llm(user("q"), top_p=0.5, top_k=3), lambda: llm(user("q"))),
    "greedy and min_p": (lambda: llm(user("q"), min_p=0.5), lambda: llm(user("q"))),
    "0 and 0.0": (lambda: llm(user("q"), temperature=0), lambda: llm(user("q"), temperature=0.0)),
    "0 and -0.0": (
        lambda: llm(user("q"), presence_penalty=0),
        lambda: llm(user("q"), presence_penalty=-0.0),
    ),
    "1 and 1.0": (
        lambda: llm(user("q"), temperature=1, seed=1, top_p=1, presence_penalty=1),
        lambda: llm(user("q"), temperature=1.0, seed=1, top_p=1.0, presence_penalty=1.0),
    ),
    "a stop string": (lambda: llm(user("q"), stop="x"), lambda: llm(user("q"), stop=["x"])),
    "retries and timeout": (
        lambda: llm(user("q"), retries=0, timeout=60),
        lambda: llm(user("q")),
    ),
}

DIFFERENT: Mapping[str, tuple[Callable[[], Ref[Any]], Callable[[], Ref[Any]]]] = {
    "text": (lambda: llm(user("a")), lambda: llm(user("b"))),
    "role": (lambda: llm(user("a")), lambda: llm(system("a"))),
    "order": (lambda: llm(user("a"), user("b")), lambda: llm(user("b"), user("a"))),
    "where a message ends": (
        lambda: llm(user("ab"), assistant("c")),
        lambda: llm(user("a"), assistant("bc")),
    ),
    "one message or two": (lambda: llm(user("ab")), lambda: llm(user("a"), user("b"))),
    "an empty message": (lambda: llm(user("a")), lambda: llm(user("a"), user(""))),
    "white space": (lambda: llm(user("a")), lambda: llm(user("a "))),
    "1 and 1.0 as text": (
        lambda: llm(user(prompt("{x}", x=1))),
        lambda: llm(user(prompt("{x}", x=1.0))),
    ),
    "max_tokens": (lambda: llm(user("a"), max_tokens=1), lambda: llm(user("a"), max_tokens=2)),
    "temperature": (
        lambda: llm(user("a"), temperature=1, seed=1),
        lambda: llm(user("a"), temperature=0.5, seed=1),
    ),
    "seed": (
        lambda: llm(user("a"), temperature=1, seed=1),
        lambda: llm(user("a"), temperature=1, seed=2),
    ),
    "top_p of a sample": (
        lambda: llm(user("a"), temperature=1, seed=1, top_p=0.5),
        lambda: llm(user("a"), temperature=1, seed=1),
    ),
    "penalties": (
        lambda: llm(user("a"), repetition_penalty=1.5),
        lambda: llm(user("a"), frequency_penalty=1.5),
    ),
    "stop": (lambda: llm(user("a"), stop=["x", "y"]), lambda: llm(user("a"), stop="xy")),
    "n": (lambda: llm(user("a"), n=1), lambda: llm(user("a"), n=2)),
    "schema": (lambda: llm(user("a"), schema=int), lambda: llm(user("a"), schema=str)),
    "two draws": (
        lambda: llm(user("a"), temperature=1),
        lambda: llm(user("a"), temperature=1),
    ),
    "which input is where": (
        lambda: llm(user(prompt("{x}{y}", x=llm(user("a")), y=llm(user("b"))))),
        lambda: llm(user(prompt("{x}{y}", x=llm(user("b")), y=llm(user("a"))))),
    ),
    "an input once or twice": (
        lambda: llm(user(prompt("{x}{y}", x=(a := llm(user("a"))), y=a))),
        lambda: llm(user(prompt("{x}{y}", x=llm(user("a")), y=llm(user("b"))))),
    ),
}


@pytest.mark.parametrize("name", SAME)
async def test_the_same_question(name: str, engine: ScriptedEngine, session: Session) -> None:
    first, second = (ask() for ask in SAME[name])
    assert first.node.key == second.node.key
    await gather(first, second)
    assert engine.num_requests == 1


@pytest.mark.parametrize("name", DIFFERENT)
async def test_different_questions(name: str, session: Session) -> None:
    first, second = (ask() for ask in DIFFERENT[name])
    assert first.node.key is not None
    assert first.node.key != second.node.key


async def test_inputs_that_ask_the_same_make_the_same_question(
    engine: ScriptedEngine, session: Session
) -> None:
    first, second = (llm(user(prompt("it {x}", x=llm(user("a"))))) for _ in range(2))
    assert first.node.key == second.node.key
    await gather(first, second)
    assert first.node.key == second.node.key
    assert engine.num_requests == 2


async def test_different_models_ask_differently() -> None:
    keys = set()
    for identity in ("a", "b"):
        async with Session(ScriptedEngine(identity=identity)):
            keys.add(llm(user("q")).node.key)
    assert len(keys) == 2


@pytest.mark.parametrize("options", [{}, {"rules": (), "share": False}])
async def test_the_plain_program_refuses_the_same_arguments(options: dict[str, Any]) -> None:
    @operator
    async def opaque() -> object:
        return object()

    @operator(pure=True, version="1")
    async def use(thing: object) -> str:
        return "used"

    async with Session(ScriptedEngine(), **options):
        with pytest.raises(EncodingError, match="thing cannot be part of a key"):
            await use(object())
        with pytest.raises(EncodingError, match="thing cannot be part of a key"):
            await use.defer(opaque())


# --- planning that fails -------------------------------------------------------------------------


async def test_the_error_of_a_rule_reaches_those_who_asked(engine: ScriptedEngine) -> None:
    def restless(plan: LogicalPlan, known: Any) -> LogicalPlan:
        return LogicalPlan(plan, plan.sinks)

    async with asyncio.timeout(60), Session(engine, rules=(restless,)):
        found = await gather(llm(user("a")), llm(user("b")), return_exceptions=True)
    assert [type(error) for error in found] == [PlanError, PlanError]
    assert engine.num_requests == 0


async def test_the_error_of_a_store_reaches_those_who_asked(engine: ScriptedEngine) -> None:
    class Broken(MemoryStore):
        def get(self, key: bytes) -> bytes | None:
            raise MemoError("the disk is gone")

    async with asyncio.timeout(60), Session(engine, memo=Broken()):
        with pytest.raises(MemoError, match="the disk is gone"):
            await llm(user("a"))


async def test_what_is_built_from_an_unshared_call_is_not_answered_without_asking_it() -> None:
    engine = ScriptedEngine(lambda request: request.messages[-1].content)

    async def row(_: int) -> str:
        own = llm(user("own"), share=False)
        return (await llm(user(prompt("about {own}", own=own)))).text

    async with Session(engine) as session:
        assert [text async for text in session.map(row, [1, 1, 1])] == ["about own"] * 3
        assert await row(1) == "about own"
    asked = [request.messages[-1].content for request in engine.requests]
    assert sorted(asked) == ["about own"] + ["own"] * 4
