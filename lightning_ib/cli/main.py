"""The entry of the command line: commands, exit codes, and one sentence for each fault."""

from __future__ import annotations

import importlib
import os
import select
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from lightning_ib.cli.console import say
from lightning_ib.cli.errors import UsageError
from lightning_ib.cli.options import parser

_COMMANDS = {
    "replay": "replay",
    "plot": "pictures",
    "compare": "pictures",
    "movie": "movie",
    "page": "page",
    "reproduce": "reproduce",
}
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
            code = int(run(arguments))
            sys.stdout.flush()
            return code
        except UsageError as error:
            return _fail(command, str(error), 2, error)
        except KeyboardInterrupt:
            return _fail(command, "interrupted.", 130)
        except SystemExit as error:
            return _fail(command, "code that it ran ended the program (sys.exit).", 2, error)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _silenced():
                return 1
            if getattr(arguments, "traceback", False):
                raise
            return _fail(command, f"{type(error).__name__}: {error} (--traceback shows where.)", 1, error)


def _fail(command: str, sentence: str, code: int, error: BaseException | None = None) -> int:
    """Print a sentence and the notes of an error; the exit code."""
    print(f"lightning-ib {command}: {sentence}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
    return code


def _silenced() -> bool:
    """Whether output went to a program that had ended, as ``head`` does; if so, the rest goes nowhere."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        if _is_closed(stream):
            found = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return found


def _is_closed(stream: Any) -> bool:
    """Whether no one reads the other end of a stream; unlike writing, asking also works for a buffer that failed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError):  # Windows has no poll, and not every stream is a file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning in one line."""
    say(f"warning: {message}")
