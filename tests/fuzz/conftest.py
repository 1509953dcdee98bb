"""What all tests of random programs need."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def small_heap() -> Iterator[None]:
    """Garbage is collected after each run: what is there already (torch, say) is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
