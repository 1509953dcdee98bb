"""The workloads: each is defined once, in a file of its own, and found by being here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from benchmarks.harness.workload import Workload


@cache
def workloads() -> dict[str, Workload]:
    """All workloads by name: what the modules of this package list as ``WORKLOADS``."""
    found: dict[str, Workload] = {}
    for module in sorted(iter_modules(__path__), key=lambda module: module.name):
        for workload in getattr(import_module(f"{__name__}.{module.name}"), "WORKLOADS", ()):
            found[workload.name] = workload
    return found
