"""The command line: replay the checkpoints of a run, and draw what was measured."""

from lightning_ib.cli.main import main

__all__ = ["main"]
