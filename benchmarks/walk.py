"""`python -m benchmarks.walk`: the walk of one cold call, in Python calls and changes of file.

Counts the calls of Python functions in the package while one `await llm(user("q"))` is answered by
an engine that is started and answers at once. A change of file is a call whose caller (or whatever
ran before it, after a turn of the event loop) is in another file.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import helium_agents
from helium_agents import Session, llm, prompt, user
from helium_agents.engines.scripted import ScriptedEngine

_ROOT = str(Path(helium_agents.__file__).parent)


class Walk:
    """The calls of the package's functions, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """What `sys.setprofile` calls."""
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_ROOT):
            file = code.co_filename[len(_ROOT) + 1 :]
            if not file.startswith("engines/scripted"):
                self.calls.append((file, code.co_qualname))

    @property
    def num_changes(self) -> int:
        """How often the next call is in another file."""
        return sum(one[0] != two[0] for one, two in zip(self.calls, self.calls[1:], strict=False))

    @property
    def num_files(self) -> int:
        """Files that are seen at all."""
        return len({file for file, _ in self.calls})


async def walk_of(ask: Callable[[str], Awaitable[Any]]) -> Walk:
    """The walk of a call that has not been asked before; the second of its kind."""
    async with Session(ScriptedEngine()):
        await ask("warm")
        await asyncio.sleep(0.1)
        walk = Walk()
        sys.setprofile(walk)
        try:
            await ask("q")
        finally:
            sys.setprofile(None)
        return walk


async def _one(text: str) -> Any:
    return await llm(user(text))


async def _with_input(text: str) -> Any:
    return await llm(user(prompt("{a} t", a=llm(user(text)))))


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print each call")
    arguments = parser.parse_args()
    for name, ask in (("await llm(user(...))", _one), ("the same with an input", _with_input)):
        walk = asyncio.run(walk_of(ask))
        print(
            f"{name}: {len(walk.calls)} Python calls, {walk.num_changes} changes of file, "
            f"{walk.num_files} files"
        )
        if arguments.list:
            for file, call in walk.calls:
                print(f"    {file:32} {call}")


if __name__ == "__main__":
    main()
