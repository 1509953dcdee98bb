"""What the plan saves on document QA: the plain program against optimised runs, interleaved.

    python -m benchmarks.savings --rows 12 --pairs 5

One engine, started once, serves all runs; its prefix cache is emptied before each. The plain
program is the same code under `Session(rules=(), share=False, memo=None)`: all rows at once as
the engine has slots, prefix caching on. Reported are medians of the paired ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from agents_examples.document_qa import answer
from agents_examples.rows import DATA, Document
from helium_agents import VLLM, Session
from helium_agents.telemetry.summary import Summary


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, default=DATA / "documents.jsonl")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--model", default="random", help="a directory or hub name; default: random"
    )
    arguments = parser.parse_args()
    with arguments.input.open(encoding="utf-8") as lines:
        rows = [Document.model_validate_json(line) for line in islice(lines, arguments.rows)]
    asyncio.run(compare(rows, arguments.pairs, arguments.model))


async def compare(rows: Sequence[Document], num_pairs: int, model: str) -> None:
    """Time plain, cold and warm runs in turn and print what they cost."""
    engine = VLLM(model)
    await engine.start()
    seconds: dict[str, list[float]] = {"plain": [], "optimised, cold": [], "optimised, warm": []}
    summaries: dict[str, Summary] = {}
    try:
        await run(engine, rows, rules=(), share=False)  # warm up what compiles and allocates
        for _ in range(num_pairs):
            with tempfile.TemporaryDirectory() as memo:
                options: tuple[dict[str, Any], ...] = (
                    {"rules": (), "share": False},
                    {"memo": memo},
                    {"memo": memo},
                )
                results = []
                for name, each in zip(seconds, options, strict=True):
                    await engine.reset_prefix_cache()
                    start_s = time.perf_counter()
                    result, summaries[name] = await run(engine, rows, **each)
                    seconds[name].append(time.perf_counter() - start_s)
                    results.append(result)
                assert results[0] == results[1] == results[2], "the answers differ"
    finally:
        await engine.close()
    print("| run | median s | time / plain | calls | computed | prompt tokens sent | hit rate |")
    print("|---|---|---|---|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(t / p for t, p in zip(times, seconds["plain"], strict=True))
        s = summaries[name]
        print(
            f"| {name} | {statistics.median(times):.2f} | {ratio:.2f} | {s.num_calls} "
            f"| {s.num_computed} | {s.prompt_tokens} | {s.prefix_hit_rate:.0%} |"
        )


async def run(engine: VLLM, rows: Sequence[Document], **options: Any) -> tuple[list[Any], Summary]:
    """One run over all rows."""
    async with Session(engine, **options) as session:
        return [result async for result in session.map(answer, rows)], session.summary


if __name__ == "__main__":
    main()
