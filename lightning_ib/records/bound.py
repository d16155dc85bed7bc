"""The information-bottleneck bound beside the points: a line over I(X;T), and the one that recorded points imply."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from lightning_ib.records.points import InformationPoint


class BoundLine(NamedTuple):
    """The largest I(T;Y) at each I(X;T), as the corners of a line.

    Attributes:
        i_xt: I(X;T), ascending, from 0.
        i_ty: the largest I(T;Y) there.
        unit: ``"bits"`` or ``"nats"``.
        label: the name of the bound in a legend.
        whole: whether the corners are those of the curve; else they are at recorded points alone, and the concave curve
            lies above the line between them.
    """

    i_xt: list[float]
    i_ty: list[float]
    unit: str
    label: str
    whole: bool = True

    def at(self, i_xt: float) -> float:
        """The height of the line, between its corners by a straight segment; past the last one it is level."""
        xs, ys = self.i_xt, self.i_ty
        k = next((k for k, x in enumerate(xs) if x >= i_xt), len(xs))
        if k == len(xs) or k == 0:
            return ys[min(k, len(xs) - 1)]
        return ys[k - 1] + (ys[k] - ys[k - 1]) * (i_xt - xs[k - 1]) / (xs[k] - xs[k - 1])


def line_of(points: Iterable[InformationPoint]) -> BoundLine | None:
    """The line through the recorded bounds of points, from the origin; ``None`` where none was recorded.

    It touches the curve at the points, and lies below it elsewhere.

    The bound rises with I(X;T): where several were recorded at one I(X;T), or one falls, the greatest so far holds.

    Example:
        >>> point = InformationPoint.missing("out", n_samples=8, unit="bits")._replace(i_xt=2.0, i_ty_bound=0.5)
        >>> line_of([point]).at(1.0)
        0.25
    """
    points = [one for one in points if math.isfinite(one.i_xt) and math.isfinite(one.i_ty_bound)]
    if not points:
        return None
    xs, ys = [0.0], [0.0]
    for x, y in sorted((one.i_xt, one.i_ty_bound) for one in points):
        if x > xs[-1]:
            xs.append(x)
            ys.append(max(y, ys[-1]))
        elif x == xs[-1] and x > 0:
            ys[-1] = max(y, ys[-1])
    return BoundLine(xs, ys, points[-1].unit, "IB bound at the points", whole=False)
