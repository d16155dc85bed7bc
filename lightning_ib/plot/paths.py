"""The path of each layer through the information plane, and the levels that its axes mark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lightning_ib.functional.checks import logarithm
from lightning_ib.plot.labels import Color, depth_colors
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.points import InformationPoint

BOUND: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": (0, (5, 4)), "zorder": 1}
"""The line of a bound."""


def bound_style(bound: BoundLine) -> dict[str, Any]:
    """The line of the information-bottleneck bound: thin and dotted where it is known at recorded points alone."""
    return {"color": "0.35", "linewidth": 1.4 if bound.whole else 0.8, "linestyle": "-" if bound.whole else (0, (1, 2))}


class Path(NamedTuple):
    """The points of one layer, in the order of time."""

    layer: str
    color: Color
    points: list[InformationPoint]
    times: list[int]
    x: list[float]
    y: list[float]


class Bound(NamedTuple):
    """A level that an axis marks, drawn as a line where it is near and named at the edge where it is far."""

    value: float
    label: str
    style: Mapping[str, Any] = BOUND


def paths_of(points: Sequence[InformationPoint], clock: str, kept: set[int], about_target: bool) -> list[Path]:
    """A path for each layer, with corners at the times that are kept."""
    by_layer: dict[str, list[InformationPoint]] = {}
    for point in points:
        by_layer.setdefault(point.layer, []).append(point)
    paths = []
    for color, (layer, of) in zip(depth_colors(len(by_layer)), by_layer.items()):
        of.sort(key=lambda point: (point.epoch, point.step))
        # The end of a path, and where a verdict first appears, stay in a thinned one.
        ends = {id(of[-1]), *map(id, {point.verdict: point for point in reversed(of)}.values())}
        of = [point for point in of if getattr(point, clock) in kept or id(point) in ends]
        times = [getattr(point, clock) for point in of]
        x, y = [point.i_xt for point in of], [point.i_ty for point in of]
        paths.append(Path(layer, color, of, times, x, y) if about_target else Path(layer, color, of, times, times, x))
    return paths


def bound_of_x(points: Sequence[InformationPoint]) -> Bound:
    """H(X), or log N where X is the identity of the sample."""
    log_n = logarithm(points[-1].unit)(max(point.n_samples for point in points))
    h_x = max((point.h_x for point in points if math.isfinite(point.h_x)), default=log_n)
    return Bound(h_x, "log N =" if math.isclose(h_x, log_n, rel_tol=1e-6) else "H(X) =")
