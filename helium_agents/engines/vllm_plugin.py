"""Runs inside vLLM's own processes, which vLLM offers no other way to adjust from within.

vLLM calls `register` in every process it starts (entry point group ``vllm.general_plugins``); it
acts only where `MARKER` says that the engine is ours.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os

from helium_agents.engines.engine_log import redirect_output
from helium_agents.engines.vllm_watcher import MARKER


def register() -> None:
    """Send this process's output to our log and let it end at once, if it is of our engine."""
    if MARKER not in os.environ or multiprocessing.parent_process() is None:
        return
    redirect_output()
    # A process that crashes says so, and one that says nothing was killed from outside.
    faulthandler.enable(2)
    # After its clean-up a process spends two seconds on taking torch's modules apart, the worker
    # first and then the engine core; this, run after the exit handlers of all that is imported
    # from here on, makes closing an engine take half a second in place of four.
    atexit.register(os._exit, 0)
