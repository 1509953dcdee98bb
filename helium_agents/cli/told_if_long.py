"""Tells a person of work that takes a while that it goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

_PATIENCE_S = 2.0


@contextmanager
def told_if_long(message: str) -> Iterator[None]:
    """Say so on stderr if the block takes longer than two seconds."""
    timer = threading.Timer(_PATIENCE_S, click.echo, [message], {"err": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
