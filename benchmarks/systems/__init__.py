"""The systems that are compared: one adapter a file, found by being here."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from benchmarks.harness.system import System


@cache
def systems() -> dict[str, System]:
    """All systems by name: what the modules of this package list as ``SYSTEMS``."""
    found: dict[str, System] = {}
    for module in sorted(iter_modules(__path__), key=lambda module: module.name):
        for system in getattr(import_module(f"{__name__}.{module.name}"), "SYSTEMS", ()):
            found[system.name] = system
    return found
