"""The points of a run as a table, and the Vega-Lite specification that draws it, for custom charts of W&B."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from lightning_ib.records.history import History

COLUMNS = (
    *("run", "epoch", "step", "layer", "unit", "I_XT", "I_TY", "H_T"),
    *("I_XT_se", "I_TY_se", "H_T_se", "I_TY_permuted", "verdict"),
)
"""The columns of the table."""

MOST_ROWS = 10_000
"""W&B shows at most so many rows of a table."""


def spec() -> str:
    """The specification, as it is pasted into a custom chart of W&B.

    Example:
        >>> import json
        >>> json.loads(spec())["data"]
        {'name': 'wandb'}
    """
    return (Path(__file__).parent / "information_plane.vl.json").read_text("utf-8")


def rows_of(history: History, run: str) -> list[list[Any]]:
    """A row for each point, with ``None`` for what is missing; of a long run, evenly spaced measurements and the last.

    Args:
        history: of a run.
        run: its name; where several targets were measured, that of the target follows it: a plane each.

    Example:
        >>> from lightning_ib.records import InformationPoint
        >>> point = InformationPoint.missing("out", n_samples=8, unit="bits")._replace(i_xt=3.0, verdict="ok")
        >>> rows_of(History.of([point]), "a/b")[0][:8]
        ['a/b', 0, 0, 'out', 'bits', 3.0, None, None]
    """
    points = [point for target in history.targets for point in history.points(target)] or history.points()
    moments = sorted({(point.epoch, point.step) for point in points})
    most = max(Counter((point.epoch, point.step) for point in points).values(), default=1)
    stride = math.ceil(len(moments) / max(1, MOST_ROWS // most)) or 1
    kept = set(moments[::-stride])
    return [
        [
            *(f"{run}, {point.target}" if point.target else run, point.epoch, point.step, point.layer, point.unit),
            *(_known(value) for value in (point.i_xt, point.i_ty, point.h_t)),
            *(_known(value) for value in (point.i_xt_se, point.i_ty_se, point.h_t_se, point.i_ty_permuted)),
            point.verdict,
        ]
        for point in points
        if (point.epoch, point.step) in kept
    ]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
