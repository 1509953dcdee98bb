"""The `helium` command: workflows over files of rows, without writing a program around them."""

from helium_agents.cli.app import main

__all__ = ["main"]
