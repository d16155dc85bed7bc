"""The axes of the information plane: around the points, with bounds and baselines inside or named at the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.labels import spread_out
from lightning_ib.plot.names import n_named
from lightning_ib.plot.paths import BOUND, Bound, Path
from lightning_ib.plot.style import SCREEN, Style
from lightning_ib.plot.timeline import scale_time
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import STANDARD_ERRORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRAY, BASELINE = "0.3", "permuted labels"

# A bound is drawn in the picture where that widens an axis by at most this fraction of the points' range.
_NEAR = 0.3
# The least range of an axis, as a fraction of the bound, so that rounding errors stay small in the picture.
_LEAST_SPAN = 0.05
# Above the points, for each name, as a fraction of the axis range.
_HEADROOM = 0.015
_DOWN: Any = 7  # matplotlib's caret that points down, its tip at the place


def limits(values: Sequence[float], levels: Sequence[float], least: float) -> tuple[float, float]:
    """The ends of an axis around values, and around those of the levels that are near."""
    low, high = min(values), max(values)
    widened = max(0.0, (least or 1.0) - (high - low)) / 2
    low, high = low - widened, high + widened
    reach = _NEAR * (high - low)
    near = [level for level in levels if low - reach <= level <= high + reach]
    low, high = min(low, *near, high), max(high, *near, low)
    pad = 0.05 * (high - low)
    return low - pad, high + pad


def draw_plane(
    axes: Axes,
    paths: Sequence[Path],
    read: Sequence[float],
    bound: Bound,
    last: InformationPoint,
    room: tuple[float, float],
    style: Style = SCREEN,
    shown: Sequence[Path] | None = None,
    near: Sequence[float] = (),
    rates: Sequence[float] = (),
) -> bool:
    """Axes, bounds and baselines; whether there is a baseline in the picture.

    Args:
        axes: to draw on.
        paths: all that the axes end around.
        read: I(T;Y) of the probes.
        bound: that of I(X;T).
        last: the last point that is shown, with Fano's bound of its moment.
        room: width and height of the axes in points.
        style: of the picture.
        shown: the paths whose baselines are drawn, if these are parts of ``paths``.
        near: further levels that the axes include where they are near.
        rates: upper bounds of I(X;T), which widen the axis to twice its length at most.
    """
    ends = paths if shown is None else shown
    chance = [(path.x[-1], path.points[-1].i_ty_permuted, path.color) for path in ends]
    chance = [one for one in chance if math.isfinite(one[1])]
    bounds = [Bound(max(point.h_y for path in paths for point in path.points), "H(Y) =")]
    if math.isfinite(last.i_ty_fano) and last.i_ty_fano > 0:
        bounds.append(Bound(last.i_ty_fano, "Fano ≥", BOUND | {"linestyle": ":", "linewidth": 1.3}))
    # The axes stay from frame to frame of a film: they go by the ends of the whole run.
    at_the_end = [path.points[-1] for path in paths]
    levels = [level for point in at_the_end for level in (point.i_ty_permuted, point.i_ty_fano)]
    levels = [bounds[0].value, *near, *filter(math.isfinite, levels)]
    all_x, all_y = with_bars(paths)
    left, right = limits(all_x, [bound.value], _LEAST_SPAN * bound.value)
    at_hand = [rate for rate in rates if rate <= right + (right - left)]
    axes.set_xlim(left, max([right, *(rate + 0.05 * (rate - left) for rate in at_hand)]))
    low, high = limits([*read, *all_y], levels, _LEAST_SPAN * bounds[0].value)
    # Layers that know the target end side by side at the top; their names stand above them.
    axes.set_ylim(low, high + _HEADROOM * n_named(len(paths), style) * (high - low))
    _draw_bound_of_x(axes, bound, style)
    bottom = axes.get_ylim()[0]
    inside, far = ([one for one in chance if (one[1] < bottom) == below] for below in (False, True))
    _draw_levels(axes, bounds, [level for _, level, _ in far], room, style)
    if inside:
        x, y, colors = zip(*inside)
        axes.scatter(x, y, s=110 * style.area, marker="_", c=list(colors), linewidths=2.0, zorder=2)
    if far:
        x, _, colors = zip(*far)
        at_the_edge = axes.get_xaxis_transform()
        axes.scatter(
            x, [0.0] * len(x), s=34 * style.area, marker=_DOWN, c=list(colors), linewidths=0, transform=at_the_edge
        )
    return bool(inside)


def _draw_bound_of_x(axes: Axes, bound: Bound, style: Style) -> None:
    """The bound of I(X;T) as a line with its name above, or named at the right edge where it is far."""
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 5), "textcoords": "offset points"}
    above |= {"fontsize": style.levels, "color": GRAY, "ha": "right"}
    if bound.value < right:
        axes.axvline(bound.value, **_scaled(bound, style))
        if axes.transLimits.transform((bound.value, bottom))[0] < 0.8:  # the title is to the left
            above["ha"] = "left"
        axes.annotate(f"{bound.label} {bound.value:.2f}", (bound.value, 1), **above)
    else:
        axes.annotate(f"{bound.label} {bound.value:.2f} →", (right, 1), **above)


def with_bars(paths: Sequence[Path], about_target: bool = True) -> tuple[list[float], list[float]]:
    """All x and all y of paths, with the ends of the bars of their last points."""
    x, y = [value for path in paths for value in path.x], [value for path in paths for value in path.y]
    for path in paths:
        point = path.points[-1]
        dx, dy = (point.i_xt_se, point.i_ty_se) if about_target else (math.nan, point.i_xt_se)
        x += _ends(path.x[-1], dx)
        y += _ends(path.y[-1], dy)
    return x, y


def _ends(value: float, error: float) -> list[float]:
    """The ends of a bar; none where the error is unknown."""
    reach = STANDARD_ERRORS * error
    return [value - reach, value + reach] if math.isfinite(error) else []


def _scaled(bound: Bound, style: Style) -> dict[str, Any]:
    return {**bound.style, "linewidth": style.width * bound.style["linewidth"]}


def draw_over_time(
    axes: Axes, paths: Sequence[Path], bound: Bound, room: tuple[float, float], style: Style = SCREEN
) -> None:
    """Axes and bound where I(X;T) is drawn over time."""
    scale_time(axes, [time for path in paths for time in path.times], room_for_names=True)
    axes.set_ylim(limits(with_bars(paths, False)[1], [bound.value], _LEAST_SPAN * bound.value))
    _draw_levels(axes, [bound], [], room, style)


def _draw_levels(
    axes: Axes, bounds: Sequence[Bound], below: Sequence[float], room: tuple[float, float], style: Style
) -> None:
    """Bounds across the picture, with their names to the right of it; far ones, and the baselines, at its ends."""
    bottom, top = axes.get_ylim()
    named = []
    for bound in bounds:
        arrow = " ↑" if bound.value > top else " ↓" if bound.value < bottom else ""
        if not arrow:
            axes.axhline(bound.value, **_scaled(bound, style))
        named.append((min(max(bound.value, bottom), top), f"{bound.label} {bound.value:.2f}{arrow}"))
    if below:
        low, high = f"{min(below):.2f}", f"{max(below):.2f}"
        named += [(bottom, f"{low if low == high else f'{low}–{high}'} ↓"), (bottom, BASELINE)]
    named.sort(key=lambda one: one[0])
    heights = [room[1] * (level - bottom) / (top - bottom) for level, _ in named]
    for (_, label), height in zip(named, spread_out(heights, style.levels + 2.5, 2.0, room[1] - 9)):
        how: dict[str, Any] = {"fontsize": style.levels, "color": GRAY, "va": "center", "textcoords": "offset points"}
        axes.annotate(label, (1, 0), xycoords="axes fraction", xytext=(5, height), **how)
