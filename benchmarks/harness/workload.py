"""What a workload is: a workflow, and the rows that it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Inputs:
    """What a workload makes its rows from.

    Args:
        num_items: How many rows.
        data: Directory with ``mmlu.jsonl`` and ``tatqa.jsonl``; `None` (or a file that is not
            there): readable text of equal shape is generated.
        is_distinct: Whether calls that the workload has twice are made to differ.
        day: Workloads whose inputs change from day to day (`Workload.num_warm_days`) are asked
            for each day's rows; the last day is what is measured.
        seed: Of everything that is generated.
        tool_scale: What the times of tools are multiplied by, where the workload uses tools.
        rows_per_s: How many rows arrive in a second, where they do not come all at once.
    """

    num_items: int
    data: Path | None = None
    is_distinct: bool = False
    day: int = 1
    seed: int = 1
    tool_scale: float = 0.15
    rows_per_s: float = 3.5


@dataclass(frozen=True)
class Workload:
    """A workflow and its rows.

    Args:
        name: What it is called in tables, e.g. ``mapred-mmlu``.
        workflow: An operator of one row. It makes all of its `llm` calls before it awaits any, or
            awaits them one after another, each with the answer before it in its prompt; and it
            returns the texts of the replies that it awaits, in the order in which it awaits them.
            That makes a row's calls a graph which every system can execute.
        rows: Makes the rows; the same ones for the same inputs. The first n of more rows are the
            rows of n.
        num_items: The batch of a full-size run.
        has_duplicates: Whether the workload as published asks for equal calls in one row, so
            that `Inputs.is_distinct` makes a difference.
        num_warm_days: Earlier days, which fill what a system remembers and are not measured.
        arrivals: When each row arrives, in seconds from the start, rising; `None`: all at once.
    """

    name: str
    workflow: Callable[[Any], Awaitable[Sequence[str]]]
    rows: Callable[[Inputs], Sequence[Any]]
    num_items: int
    has_duplicates: bool = False
    num_warm_days: int = 0
    arrivals: Callable[[Inputs], Sequence[float]] | None = None
