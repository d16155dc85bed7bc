"""The summary of a fit for the log: a table of the layers, and where the files are."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_ib.records.points import InformationPoint


def table(history: Sequence[InformationPoint], of: str = "epoch") -> str:
    """The first and the last measurement of each layer, beside one another.

    Args:
        history: the points of a run, in order; at least one.
        of: the unit of moments, ``"epoch"`` or ``"step"``.

    Example:
        >>> first = InformationPoint.missing("out", n_samples=80, unit="bits")
        >>> first = first._replace(i_xt=3.0, i_ty=0.25, h_t=3.0, verdict="saturated")
        >>> print(table([first, first._replace(epoch=2, i_ty=1.5, verdict="ok")]))
        epochs 0 and 2, in bits
        layer         I(X;T)          I(T;Y)            H(T)  verdict
        out     3.000  3.000    0.250  1.500    3.000  3.000  saturated, ok
    """
    moments = sorted({getattr(point, of) for point in history})
    ends = sorted({moments[0], moments[-1]})
    found = {(getattr(point, of), point.layer): point for point in history}
    layers = list(dict.fromkeys(point.layer for point in history if getattr(point, of) in ends))
    width = max(5, *map(len, layers))
    columns = 7 * len(ends)
    names = "".join(f"  {name:>{columns}}" for name in ("I(X;T)", "I(T;Y)", "H(T)"))
    when = f"{of}{'s' * (len(ends) - 1)} {' and '.join(map(str, ends))}"
    lines = [f"{when}, in {history[-1].unit}", f"{'layer':{width}}{names}  verdict"]
    for layer in layers:
        points = [found.get((end, layer)) for end in ends]
        values = ((None if point is None else getattr(point, name) for point in points) for name in _SHOWN)
        verdicts = dict.fromkeys(point.verdict or "not measured" for point in points if point is not None)
        shown = "".join("  " + "".join(map(_shown, of_layer)) for of_layer in values)
        lines.append(f"{layer:{width}}{shown}  {', '.join(verdicts)}")
    return "\n".join(lines)


_SHOWN = ("i_xt", "i_ty", "h_t")


def _shown(value: float | None) -> str:
    return f"{'-' if value is None or math.isnan(value) else f'{value:.3f}':>7}"


def file_locations(csv: Path | None, picture: Path | None, board: Path | None) -> str:
    """Where the files of a run are, and how to look at them; empty without files."""
    lines = [
        f"{name}: {_relative_path(path)}"
        for name, path in (("CSV", csv), ("picture", picture))
        if path and path.is_file()
    ]
    if board is not None:
        command = shlex.join(["tensorboard", "--logdir", _relative_path(board)])
        lines.append(f"TensorBoard: {command}")
    return "\n".join(lines)


def _relative_path(path: Path) -> str:
    """A path as it is typed in the working directory."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
