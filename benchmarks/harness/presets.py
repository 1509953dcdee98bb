"""How much is measured: a quick look, the default table, named workloads, or everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.harness.model import SHAPES, ModelShape

DEFAULT_WORKLOADS = (
    "mapred-mmlu", "mapred-tatqa", "debate", "reflect", "iterative", "parallel", "trading",
)  # fmt: skip
PEERS = ("raw", "raw-tuned", "langgraph", "agentscope", "opwise", "lspf")


@dataclass(frozen=True)
class Preset:
    """What is measured where the command line does not say otherwise.

    Args:
        workloads: Names.
        systems: Names, in the order of the tables.
        settings: ``pressure``, ``fits``, or both.
        num_rounds: How often each system runs on each case.
        fewer_rounds: Systems that run less often, because they are slow or beside the point.
        scale: Size relative to the full workloads.
        shape: The model.
    """

    workloads: tuple[str, ...]
    systems: tuple[str, ...]
    settings: tuple[str, ...]
    num_rounds: int
    scale: float
    shape: ModelShape
    fewer_rounds: Mapping[str, int] = field(default_factory=dict)


QUICK = Preset(
    workloads=DEFAULT_WORKLOADS,
    systems=("ours", "raw", "langgraph"),
    settings=("pressure",),
    num_rounds=1,
    scale=0.25,
    shape=SHAPES["small"],
)

DEFAULT = Preset(
    workloads=DEFAULT_WORKLOADS,
    systems=("ours", *PEERS),
    settings=("pressure",),
    num_rounds=7,
    fewer_rounds={"agentscope": 1, "opwise": 1, "lspf": 1},
    scale=0.25,
    shape=SHAPES["small"],
)

NAMED = replace(DEFAULT, scale=1.0, shape=SHAPES["medium"])
"""Where workloads are named there is time for their full size, and for a model that prefills more
than it decodes."""

FULL = Preset(
    workloads=(
        *DEFAULT_WORKLOADS,
        *(f"grid-{shape}-p{number}" for shape in ("mapred", "debate") for number in range(1, 7)),
    ),
    systems=(
        *("ours", *PEERS, "querywise"),
        *("ours-without-memo", "ours-without-sharing", "ours-without-substitute-known"),
        *("ours-without-merge-identical", "ours-without-subsume-shorter"),
        "ours-without-drop-unneeded",
    ),
    settings=("pressure", "fits"),
    num_rounds=7,
    fewer_rounds={"querywise": 1},
    scale=NAMED.scale,
    shape=NAMED.shape,
)

GPU = Preset(
    workloads=("debate", "trading"),
    systems=("ours", "raw", "raw-tuned", "langgraph"),
    settings=("pressure",),
    num_rounds=7,
    scale=8.0,
    shape=SHAPES["qwen3-8b"],
)
