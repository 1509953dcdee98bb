"""Images in messages: known by their content, wherever they come from and wherever they go."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from helium_agents import (
    Image,
    MemoryStore,
    Session,
    assistant,
    gather,
    image,
    llm,
    operator,
    prompt,
    system,
    user,
)
from helium_agents.diagnose.provenance import read_provenance
from helium_agents.engines.engine import Capacity, ChatMessage, Request
from helium_agents.engines.scripted import ScriptedEngine
from helium_agents.errors import PromptError, RequestError
from helium_agents.graph.image import pieces
from helium_agents.optimizer.park import Park
from helium_agents.optimizer.step_cost import StepCost

pytestmark = pytest.mark.usefixtures("quiet_loop")


def png(gray: int) -> bytes:
    """A file of one pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes([0, gray])))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


DARK, LIGHT = image(png(1)), image(png(250))


# --- what is an image ----------------------------------------------------------------------------


def test_an_image_is_its_bytes_wherever_they_are(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    path.write_bytes(png(1))

    class OfPillow:
        def save(self, file: Any, kind: str) -> None:
            assert kind == "PNG"
            file.write(png(1))

    for source in (path, str(path), bytearray(png(1)), DARK.data_url, OfPillow()):
        assert image(source) == DARK
    assert DARK.data_url.startswith("data:image/png;base64,iVBORw0KGgo")
    assert DARK.digest != LIGHT.digest


@pytest.mark.parametrize(
    ("data", "kind"), [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF0000WEBP", "webp")]
)
def test_the_kind_is_told_by_the_bytes(data: bytes, kind: str) -> None:
    assert image(data).kind == kind


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"%PDF-1.7", "8 bytes that are no PNG"),
        ("nowhere.png", "'nowhere.png'.* cannot be read"),
        ("https://example.com/a.png", "download it"),
        ("data:image/png,abc", "no data: URL in base64"),
        ("data:image/png;base64,%%%", "no data: URL in base64"),
        (3, "int.*must be a path"),
    ],
)
def test_what_is_none_is_refused(source: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        image(source)


def test_what_pillow_cannot_save_is_told() -> None:
    class Cmyk:
        def save(self, fp: Any, format: str) -> None:
            raise OSError(f"cannot write mode CMYK as {format}")

    with pytest.raises(PromptError, match=r"image\(Cmyk\) .* CMYK as PNG: convert it to RGB"):
        image(Cmyk())


def test_an_image_is_not_text() -> None:
    for use in (str, lambda it: f"{it}", lambda it: str(prompt("{it}", it=it))):
        with pytest.raises(PromptError, match="used as text"):
            use(DARK)
    assert "image of 67 bytes" in repr(DARK)


# --- in messages ---------------------------------------------------------------------------------


async def said(engine: ScriptedEngine, number: int = 0) -> list[list[str | Image]]:
    return [list(pieces(it.content, it.images)) for it in engine.requests[number].messages]


async def test_images_stand_where_they_were_put(session: Session, engine: ScriptedEngine) -> None:
    middle = llm(user("middle"))
    await llm(
        system("Look."),
        user("one", DARK, middle, LIGHT, DARK, "end"),
        assistant("hm"),
        user(prompt("{a} and {b}", a=LIGHT, b="text")),
        user(DARK),
    )
    assert await said(engine, 1) == [
        ["Look."],
        ["one", DARK, "middle", LIGHT, DARK, "end"],
        ["hm"],
        [LIGHT, " and text"],
        [DARK],
    ]


async def test_several_texts_are_one(session: Session, engine: ScriptedEngine) -> None:
    await gather(llm(user("a", " b")), llm(user("a b")))
    assert engine.num_requests == 1


async def test_an_image_is_part_of_the_key_by_its_content(
    session: Session, engine: ScriptedEngine
) -> None:
    asked = [
        user("what?", DARK),
        user("what?", image(png(1))),
        user("what?", LIGHT),
        user(DARK, "what?"),
        user("what?", DARK, LIGHT),
        user("what?", LIGHT, DARK),
        user("what?", DARK.mark),  # text that looks like one
        user("what?"),
    ]
    refs = [llm(each) for each in asked]
    assert refs[0].node.key == refs[1].node.key
    assert len({ref.node.key for ref in refs}) == len(refs) - 1
    await gather(*refs)
    assert engine.num_requests == len(refs) - 1


async def test_the_default_script_sees_images() -> None:
    async with Session(ScriptedEngine()):
        replies = await gather(llm(user("what?", DARK)), llm(user("what?", LIGHT)))
    assert replies[0].text != replies[1].text
    async with Session(ScriptedEngine({"what?": "a dot"})):
        assert (await llm(user("what?", DARK))).text == "a dot"


async def test_a_memo_keeps_the_digest_and_not_the_image() -> None:
    memo, counts = MemoryStore(), []
    for _ in range(2):
        async with Session(ScriptedEngine(), memo=memo) as session:
            await llm(user("what?", DARK))
            counts.append(session.summary.num_computed)
    assert counts == [1, 0]
    entries = [memo.find(entry.key) for entry in memo.entries()]
    (found,) = [entry for entry in entries if entry is not None and entry.provenance]
    assert DARK.data not in found.value + found.provenance
    about = read_provenance(found.provenance)
    assert about is not None
    assert f"what?[image of 67 bytes, {DARK.digest[:16]}]" in about.messages[0].text


async def test_a_short_answer_is_cut_from_a_long_one() -> None:
    async with Session(ScriptedEngine()) as session:
        long = await llm(user("what?", DARK), max_tokens=4)
        short = await llm(user("what?", DARK), max_tokens=2)
        await llm(user("what?", LIGHT), max_tokens=2)
        assert session.summary.num_computed == 2
    assert long.text.startswith(short.text)


async def test_operators_take_images() -> None:
    @operator(pure=True)
    async def describe(picture: Image) -> str:
        return (await llm(user("what?", picture))).text

    @operator
    async def load() -> Image:
        return DARK

    engine = ScriptedEngine()
    async with Session(engine, memo=MemoryStore()):
        first, again = await gather(describe(DARK), describe(image(png(1))))
        assert first == again == (await llm(user("what?", await load()))).text
        with pytest.raises(PromptError, match=r"load\(\.\.\.\).* is an image.*await it"):
            await llm(user("what?", load()))
    assert engine.num_requests == 1


async def test_the_example_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text("utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "docs/images.md", "exec"), names)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, gray in (("a", 1), ("b", 1), ("c", 2)):
        (folder / name).write_bytes(png(gray))
    for num_computed in (4, 0):
        await names["main"](ScriptedEngine(lambda request: "a dot"), folder)
        assert capsys.readouterr().out == "a dot a dot\n" * 3 + f"{num_computed}\n"
    assert "[image of 12,345 bytes, 5f3a8c1e90d2b417]" in page


# --- engines -------------------------------------------------------------------------------------


async def test_an_engine_that_takes_none_is_not_asked() -> None:
    class Blind(ScriptedEngine):
        takes_images = False

    engine = Blind()
    async with Session(engine):
        with pytest.raises(RequestError, match="takes no images"):
            await llm(user("what?", DARK))
        await llm(user("what?"))
    assert engine.num_requests == 1


class Hinted(ScriptedEngine):
    """One that schedules count on."""

    takes_hints = True
    cost = StepCost(0.01, 0.001, 0.0, 0.0001, 0.0)


@pytest.mark.parametrize("schedule", [None, Park()])
async def test_no_plan_counts_on_what_nobody_knows(schedule: Any) -> None:
    """A prompt with images has no token ids, of which 0 would be used by calls to come."""

    async def look(picture: Image) -> str:
        first = await llm(system("Look closely."), user("what?"))
        second = await llm(user("what?"), assistant(first), user("and this?", picture))
        return second.text

    engine = Hinted(capacity=Capacity(4096, 32, 4096, 8))
    options = {} if schedule is None else {"schedule": schedule}
    pictures = [image(png(gray)) for gray in range(40)]
    async with Session(engine, **options) as session:
        answers = [answer async for answer in session.map(look, pictures)]
    assert len(set(answers)) == 40
    seen: list[Request] = [request for request in engine.requests if request.has_images]
    assert len(seen) == 40
    assert all(not request.prompt_token_ids and request.hints is None for request in seen)


async def test_the_answer_tells_what_the_prompt_cost() -> None:
    class Counting(ScriptedEngine):
        async def complete(self, request: Request, on_delta: Any = None) -> Any:
            completion = await super().complete(request, on_delta)
            return completion._replace(prompt_tokens=77)

    async with Session(Counting()) as session:
        await llm(user("what?", DARK))
        assert session.summary.prompt_tokens == 77


def test_a_text_without_its_mark_comes_first() -> None:
    assert list(pieces("what?", [DARK])) == ["what?", DARK]
    assert ChatMessage("user", "a").images == ()
