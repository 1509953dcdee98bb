"""The command line: ``python -m benchmarks run``, ``report`` and ``list``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import httpx

from benchmarks.harness.case import WrongResult
from benchmarks.harness.groups import OURS
from benchmarks.harness.measure import BoundBeaten, Plan, SystemFailed
from benchmarks.harness.model import SHAPES
from benchmarks.harness.presets import DEFAULT, FULL, GPU, NAMED, QUICK, Preset
from benchmarks.harness.records import Record, read_records, write_records
from benchmarks.harness.report import replace_section, report, summary
from benchmarks.harness.runner import Selection, run_selection
from benchmarks.harness.settings import KV_TOKENS
from benchmarks.harness.workload import Inputs
from benchmarks.systems import systems
from benchmarks.workloads import workloads

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 1 and one line where something is wrong."""
    options = make_parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, OSError, RuntimeError, SystemFailed, WrongResult, BoundBeaten) as error:
        sys.exit(f"error: {error}")
    except httpx.HTTPError as error:
        sys.exit(f"error: the vLLM server does not answer: {error or type(error).__name__}")
    except KeyboardInterrupt:
        sys.exit(130)


def make_parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="How fast helium_agents is beside other systems, and beside what is possible.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="measure, and print a table"))
    render = commands.add_parser("report", help="render results that were measured before")
    render.add_argument("files", nargs="+", type=Path, help="JSON files that `run` wrote")
    render.add_argument("--readme", type=Path, help="put the tables into this file, between marks")
    render.add_argument("--plots", type=Path, help="write SVG plots into this directory")
    render.set_defaults(command=_report)
    predict = commands.add_parser("predict", help="add what the exact simulator says to results")
    predict.add_argument("files", nargs="+", type=Path, help="JSON files that `run` wrote")
    predict.add_argument("--data", type=Path, help="the directory that `run` was given")
    predict.set_defaults(command=_predict)
    commands.add_parser("list", help="show workloads and systems").set_defaults(command=_list)
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    size = run.add_mutually_exclusive_group()
    for name, preset, text in (
        ("quick", QUICK, "a look in under six minutes; one round resolves nothing"),
        ("full", FULL, "every system, setting and grid point at full size; hours"),
        ("gpu", GPU, "a model of Qwen3-8B's shape on a GPU"),
    ):
        size.add_argument(f"--{name}", dest="preset", action="store_const", const=preset, help=text)
    run.add_argument(
        "--workload",
        metavar="NAMES",
        help="comma-separated, see `list`; without a preset these have full size and the medium "
        "model (all together: a quarter and the small one)",
    )
    run.add_argument("--systems", metavar="NAMES", help="comma-separated; see `list`")
    run.add_argument(
        "--setting", choices=[*KV_TOKENS, "both"], help="whether the working set fits the KV cache"
    )
    run.add_argument(
        "--variant",
        choices=["published", "distinct", "both"],
        default="both",
        help="repeated calls as published, or made to differ (default: both, where it matters)",
    )
    run.add_argument("--rounds", type=int, metavar="N", help="runs of each system on each case")
    run.add_argument("--scale", type=float, help="size relative to the full workloads")
    run.add_argument("--batches", metavar="FACTORS", help="batch sizes to try, e.g. 1,2,4,8,16")
    run.add_argument("--model", choices=list(SHAPES), help="shape of the model")
    run.add_argument("--data", type=Path, help="directory with mmlu.jsonl and tatqa.jsonl")
    run.add_argument("--seed", type=int, default=1, help="of generated text")
    run.add_argument(
        "--tool-scale", type=float, help="multiplies the times of tools (0.15: median 0.3 s)"
    )
    run.add_argument("--rows-per-s", type=float, help="arrivals of tools-open (3.5)")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the records")
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    start_s = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - start_s:6.0f} s  {line}", file=sys.stderr, flush=True)

    if options.json is not None and not options.json.parent.is_dir():
        raise ValueError(f"--json {options.json}: there is no directory {options.json.parent}")
    selection = selection_of(options)
    records: list[Record] = []

    def on_records(found: list[Record]) -> None:
        records[:] = found
        if options.json is not None:
            write_records(options.json, records)

    try:
        asyncio.run(run_selection(selection, progress, on_records))
    finally:
        if records:
            print(report(records))


def selection_of(options: argparse.Namespace) -> Selection:
    """What `run` is asked to measure.

    Raises:
        ValueError: Something that was named does not exist, or a number makes no sense.
    """
    preset: Preset = options.preset or (DEFAULT if options.workload is None else NAMED)
    chosen = _named(options.systems, preset.systems, systems(), "system")
    for system in chosen:
        if system.requirement is not None and find_spec(system.requirement) is None:
            raise ValueError(
                f"system {system.name!r} needs {system.requirement}: "
                "pip install --no-deps -r requirements/bench.txt"
            )
    if OURS not in {system.name for system in chosen}:
        print(f"without {OURS!r} there are no ratios, only times", file=sys.stderr)
    settings = preset.settings
    if options.setting is not None:
        settings = tuple(KV_TOKENS) if options.setting == "both" else (options.setting,)
    num_rounds = preset.num_rounds if options.rounds is None else options.rounds
    scale = preset.scale if options.scale is None else options.scale
    fewer = {name: min(n, num_rounds) for name, n in preset.fewer_rounds.items()}
    for name, value in (
        ("--rounds", num_rounds),
        ("--scale", scale),
        ("--tool-scale", options.tool_scale),
        ("--rows-per-s", options.rows_per_s),
    ):
        if value is not None and value <= 0:
            raise ValueError(f"{name} {value} must be above 0")
    return Selection(
        workloads=_named(options.workload, preset.workloads, workloads(), "workload"),
        variants=("published", "distinct") if options.variant == "both" else (options.variant,),
        settings=settings,
        plan=Plan(chosen, num_rounds, fewer),
        scale=scale,
        batch_factors=_factors(options.batches),
        shape=preset.shape if options.model is None else SHAPES[options.model],
        defaults=Inputs(
            num_items=0,
            data=options.data,
            seed=options.seed,
            **{
                name: value
                for name in ("tool_scale", "rows_per_s")
                if (value := getattr(options, name)) is not None
            },
        ),
        is_gpu=preset is GPU,
    )


def _factors(text: str | None) -> tuple[float, ...]:
    try:
        factors = tuple(float(factor) for factor in (text or "1").split(","))
    except ValueError:
        raise ValueError(f"--batches {text}: write numbers, e.g. 1,2,4") from None
    if min(factors) <= 0:
        raise ValueError(f"--batches {text}: factors must be above 0")
    return factors


def _named(text: str | None, default: Sequence[str], known: dict[str, T], kind: str) -> list[T]:
    names = list(default) if text is None else text.split(",")
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {kind} {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def _report(options: argparse.Namespace) -> None:
    records = [record for path in options.files for record in read_records(path)]
    if options.readme is not None:
        replace_section(options.readme, summary(records))
    if options.plots is not None:
        from benchmarks.harness.plots import write_plots  # matplotlib is not there for all

        for path in write_plots(records, options.plots):
            print(path)
    if options.readme is None and options.plots is None:
        print(report(records))


def _predict(options: argparse.Namespace) -> None:
    from benchmarks.harness.predict import predicted  # only this needs vLLM's scheduler

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    for path in options.files:
        write_records(path, predicted(read_records(path), options.data, progress))


def _list(_: argparse.Namespace) -> None:
    print("workloads:")
    for workload in workloads().values():
        print(f"  {workload.name:<20} {workload.num_items} rows at full size")
    print("systems:")
    for system in systems().values():
        module = sys.modules[type(system).__module__]
        print(f"  {system.name:<32} {(module.__doc__ or '').splitlines()[0]}")
