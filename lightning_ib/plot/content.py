"""The content of a picture of the information plane: what is drawn, before it is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_ib.plot.labels import VERDICT_MARKERS, Color
from lightning_ib.plot.levels import BASELINE
from lightning_ib.plot.paths import Path, bound_style, paths_of
from lightning_ib.plot.timeline import marked_times, progress, thinned
from lightning_ib.records.bound import BoundLine, line_of
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import VARIATIONAL, Record

# Areas of markers, in square points: a dot, and from the first measurement to the last.
DOT, FIRST, LAST = 7.0, 16.0, 58.0

VARIATIONAL_BOUNDS = "variational bounds: rate, H(Y) − cross-entropy"

Entries = list[tuple[str, dict[str, Any]]]


class BoundPath(NamedTuple):
    """The variational bounds of a stochastic layer: at most that far to the right, at least that far up.

    Attributes:
        x: the rate at each moment, an upper bound of I(X;T).
        y: H(Y) less the cross-entropy, a lower bound of I(T;Y).
        color: of the layer.
    """

    x: list[float]
    y: list[float]
    color: Color


class Content(NamedTuple):
    """The content of a picture.

    Attributes:
        points: those that are finite.
        about_target: whether I(T;Y) is drawn; else I(X;T) over time.
        clock: ``"epoch"``, or ``"step"`` with several measurements in an epoch.
        times: the moments of the measurements.
        marked: those with a larger marker.
        paths: one for each layer.
        crosses: the probe of each layer at its last point: place and color.
        bound: the information-bottleneck bound behind the points, where there is one.
        variational: the bounds of each layer that draws its representation.
        target: the name of the target, where there are several.
    """

    points: list[InformationPoint]
    about_target: bool
    clock: str
    times: list[int]
    marked: set[int]
    paths: list[Path]
    crosses: list[tuple[float, float, Color]]
    bound: BoundLine | None = None
    variational: Sequence[BoundPath] = ()
    target: str = ""


def content_of(
    history: Iterable[InformationPoint],
    estimates: Iterable[Record] = (),
    colors: Mapping[str, Color] | None = None,
    bound: BoundLine | None = None,
) -> Content:
    """The content of a picture.

    Args:
        history: points in one unit; those that are NaN are left out.
        estimates: of the same run.
        colors: layer → color; by default by depth.
        bound: that of the run; by default the line through the recorded bounds of its points.

    Raises:
        ValueError: all points are NaN.
    """
    points = [point for point in history if math.isfinite(point.i_xt)]
    about_target = any(math.isfinite(point.i_ty) for point in points)
    if about_target:
        points = [point for point in points if math.isfinite(point.i_ty)]
    if not points:
        raise ValueError("there is no point to draw: the history has none with a finite I(X;T).")
    # With several measurements in an epoch, time is counted in steps.
    clock = "step" if len({(point.layer, point.epoch) for point in points}) < len(points) else "epoch"
    times = sorted({getattr(point, clock) for point in points})
    marked = marked_times(times)
    paths = paths_of(points, clock, thinned(times, marked), about_target)
    if colors is not None:
        paths = [path._replace(color=colors[path.layer]) for path in paths]
    shown = estimates if about_target else ()
    read = {(one.layer, one.step, one.epoch): one.value for one in shown if _is_probe_information(one)}
    crosses = [
        (path.x[-1], read[key], path.color)
        for path in paths
        if (key := (path.layer, path.points[-1].step, path.points[-1].epoch)) in read
    ]
    bound = (bound or line_of(points)) if about_target else None
    variational = _bound_paths(shown, {path.layer: path.color for path in paths})
    target = points[-1].target
    return Content(points, about_target, clock, times, marked, paths, crosses, bound, variational, target)


def _bound_paths(estimates: Iterable[Record], colors: Mapping[str, Color]) -> list[BoundPath]:
    """The variational bounds of each layer where both are known, in the order of time."""
    found: dict[str, dict[tuple[int, int], dict[str, float]]] = {}
    for one in estimates:
        if one.source == VARIATIONAL and one.layer in colors and math.isfinite(one.value):
            found.setdefault(one.layer, {}).setdefault((one.epoch, one.step), {})[one.quantity] = one.value
    paths = []
    for layer, moments in found.items():
        known = [moments[at] for at in sorted(moments) if len(moments[at]) == 2]
        if known:
            paths.append(BoundPath([one["I_XT"] for one in known], [one["I_TY"] for one in known], colors[layer]))
    return paths


def _is_probe_information(estimate: Record) -> bool:
    """Whether an estimate is I(T;Y) of the probe."""
    return estimate.source == "probe" and estimate.quantity == "I_TY" and math.isfinite(estimate.value)


def content_until(
    content: Content, history: Iterable[InformationPoint], estimates: Iterable[Record], moment: int
) -> Content:
    """The part of a content up to a moment, with the colors and the sense of time of the whole."""
    until = [point for point in history if getattr(point, content.clock) <= moment]
    part = content_of(until, estimates, {path.layer: path.color for path in content.paths}, content.bound)
    return part._replace(
        about_target=content.about_target, clock=content.clock, times=content.times, marked=content.marked
    )


def marker_entries(content: Content, area: float = 1.0) -> Entries:
    """The markers of the legend: label and style.

    Args:
        content: of the picture.
        area: of markers, as a fraction of that on a screen.
    """
    side = math.sqrt(area)
    times = sorted(content.marked)
    entries: Entries = []
    for k, time in enumerate(times):
        of_time = FIRST + (LAST - FIRST) * progress(time, times)
        style = {"marker": "o", "markersize": side * math.sqrt(of_time), "mfc": "0.4", "mec": "white"}
        entries.append((f"{content.clock} {time}" if k == 0 else str(time), style))
    entries += probe_entries([content], side)
    if content.about_target and any(math.isfinite(path.points[-1].i_ty_permuted) for path in content.paths):
        entries.append((BASELINE, {"marker": "_", "markersize": 10 * side, "mec": "0.2", "mew": 2}))
    return entries + variational_entries([content], side) + bound_entries([content]) + verdict_entries([content], side)


def bound_entries(contents: Iterable[Content]) -> Entries:
    """The line of the information-bottleneck bound, where there is one."""
    bounds = {content.bound.label: content.bound for content in contents if content.bound is not None}
    return [(label, bound_style(bound)) for label, bound in bounds.items()]


def probe_entries(contents: Iterable[Content], side: float) -> Entries:
    """The cross of the probe, where there is one; ``side`` scales markers."""
    style = {"marker": "x", "markersize": 4.5 * side, "mec": "0.2"}
    return [("linear probe", style)] if any(content.crosses for content in contents) else []


def variational_entries(contents: Iterable[Content], side: float) -> Entries:
    """The mark of variational bounds, where there are some; ``side`` scales markers."""
    style = {"marker": "+", "markersize": 6.5 * side, "mec": "0.2", "mew": 1.4 * side}
    return [(VARIATIONAL_BOUNDS, style)] if any(content.variational for content in contents) else []


def verdict_entries(contents: Iterable[Content], side: float) -> Entries:
    """A hollow marker for each verdict but ``ok`` that is drawn; ``side`` scales markers."""
    seen = {point.verdict for content in contents for path in content.paths for point in path.points} - {"", "ok"}
    style = {"markersize": 6 * side, "mfc": "white", "mec": "0.2"}
    return [(f"flagged: {verdict}", {"marker": VERDICT_MARKERS.get(verdict, "*"), **style}) for verdict in sorted(seen)]
