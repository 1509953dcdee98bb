"""Traces: what a run asked, when, and what came of it, kept in a file while the run goes on."""

from helium_agents.trace.file import TraceFile
from helium_agents.trace.read import read_trace
from helium_agents.trace.run import TracedCall, TracedItem, TracedRun

__all__ = ["TraceFile", "TracedCall", "TracedItem", "TracedRun", "read_trace"]
