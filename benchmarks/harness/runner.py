"""Everything that one command measures: cases one after another, on one engine a setting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness.calibration import Calibration, best_of, calibrate
from benchmarks.harness.case import Case, make_batch, make_case
from benchmarks.harness.measure import Plan, measure_case, with_bounds
from benchmarks.harness.model import ModelShape
from benchmarks.harness.oracle import Oracle
from benchmarks.harness.records import Record
from benchmarks.harness.settings import EngineSettings
from benchmarks.harness.testbed import Testbed
from benchmarks.harness.workload import Inputs, Workload

_QUICK_S, _THOROUGH_S = 12.0, 25.0


@dataclass(frozen=True)
class Selection:
    """What is to be measured.

    Args:
        workloads: In the order of the table.
        variants: ``published``, ``distinct``, or both.
        settings: ``pressure``, ``fits``, or both.
        plan: The systems, and how often they run.
        scale: Size relative to the full workloads.
        batch_factors: Batches of so many times that size, on the same engine.
        shape: The model.
        defaults: What rows are made from; how many and in which variant is decided for each case.
        is_gpu: Whether there is a GPU.
    """

    workloads: Sequence[Workload]
    variants: Sequence[str]
    settings: Sequence[str]
    plan: Plan
    scale: float
    batch_factors: Sequence[float]
    shape: ModelShape
    defaults: Inputs
    is_gpu: bool

    def inputs(self, workload: Workload, engine: EngineSettings) -> Iterator[tuple[str, Inputs]]:
        """The variants and batches of a workload."""
        for variant in self.variants:
            if variant == "distinct" and not workload.has_duplicates:
                continue  # it is the same as published
            for factor in self.batch_factors:
                yield (
                    variant,
                    replace(
                        self.defaults,
                        num_items=engine.num_items(workload.num_items * factor),
                        is_distinct=variant == "distinct",
                    ),
                )


async def run_selection(
    selection: Selection,
    report: Callable[[str], None],
    on_records: Callable[[list[Record]], None],
) -> None:
    """Measure, and hand out all records so far whenever there are more or better ones.

    The engine is calibrated at both ends of a setting, since a machine may be slower at one of
    them; the bounds are then made of the best.

    Raises:
        WrongResult: A system returned something else than the plain program.
        BoundBeaten: A run was faster than the physical bound.
    """
    oracle = Oracle(selection.shape)
    finished: list[Record] = []
    for setting in selection.settings:
        settings = EngineSettings(setting, selection.scale, selection.shape, selection.is_gpu)
        async with Testbed(settings) as bed:
            measured = _Setting(selection, settings, bed, oracle, report)
            async for records in measured.run():
                on_records(finished + records)
            finished += records


class _Setting:
    """All cases on one engine."""

    def __init__(
        self,
        selection: Selection,
        settings: EngineSettings,
        bed: Testbed,
        oracle: Oracle,
        report: Callable[[str], None],
    ) -> None:
        self._selection = selection
        self._settings = settings
        self._bed = bed
        self._oracle = oracle
        self._report = report
        self._measured: list[tuple[Case, list[Record]]] = []

    async def run(self) -> AsyncIterator[list[Record]]:
        """All records so far, after each case and at the end."""
        settings, plan = self._settings, self._selection.plan
        self._report(f"starting the engine: {settings.setting}, {settings.kv_tokens:,} KV tokens")
        await self._bed.start(server=False)
        if any(system.uses_server for system in plan.systems):
            self._report("starting the HTTP server")
            await self._bed.start(server=True)
        first = await self._calibrate()
        for workload in self._selection.workloads:
            for variant, inputs in self._selection.inputs(workload, settings):
                case = make_case(await make_batch(workload, inputs), variant, self._oracle)
                bounds = case.bounds(first)
                self._report(
                    f"{workload.name} ({variant}): {len(case.batch.rows)} rows, "
                    f"{case.batch.num_calls} calls, possible in {bounds.attainable_s:.2f} s"
                )
                records = await measure_case(case, bounds, plan, self._bed, self._report)
                self._measured.append((case, records))
                yield self._records()
        calibration = best_of([first, await self._calibrate()])
        self._measured = [
            (case, with_bounds(records, case.bounds(calibration)))
            for case, records in self._measured
        ]
        yield self._records()

    def _records(self) -> list[Record]:
        return [record for _, records in self._measured for record in records]

    async def _calibrate(self) -> Calibration:
        self._report("calibrating")
        # One round resolves nothing, so its bounds need not be the sharpest either.
        is_quick = self._selection.plan.num_rounds == 1
        return await calibrate(self._bed.engine, _QUICK_S if is_quick else _THOROUGH_S)
