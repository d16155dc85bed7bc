"""The entry of the command line: commands, exit codes, and one sentence for each fault."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.options import parser

_COMMANDS = {"replay": "replay", "plot": "pictures", "compare": "pictures", "movie": "movie", "page": "page"}
"""Command → the module of this room with a function of that name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its arguments; ``None`` takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed half-way, 2 wrong usage or input, 130 interrupted.
    """
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as end:  # of --help and of wrong options
        return end.code if isinstance(end.code, int) else 2
    command = arguments.command
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            run = getattr(importlib.import_module(f"lightning_ib.cli.{_COMMANDS[command]}"), command)
            return int(run(arguments))
        except UsageError as error:
            return _fail(command, str(error), 2)
        except KeyboardInterrupt:
            return _fail(command, "interrupted.", 130)
        except Exception as error:
            if getattr(arguments, "traceback", False):
                raise
            return _fail(command, f"{type(error).__name__}: {error} (--traceback shows where.)", 1)


def _fail(command: str, sentence: str, code: int) -> int:
    print(f"lightning-ib {command}: {sentence}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning in one line."""
    say(f"warning: {message}")
