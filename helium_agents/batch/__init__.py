"""A workflow over a file of rows: for Python programs, the command line and servers alike."""

from helium_agents.batch.batch import Batch

__all__ = ["Batch"]
