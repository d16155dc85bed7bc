"""Paths through the information plane, and the legend below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.content import DOT, FIRST, LAST, Content, Entries
from lightning_ib.plot.labels import VERDICT_MARKERS, Color, legend
from lightning_ib.plot.levels import GRAY
from lightning_ib.plot.paths import Path, bound_style
from lightning_ib.plot.style import SCREEN, Style
from lightning_ib.plot.timeline import MOST_DOTS, progress
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.record import STANDARD_ERRORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In characters: the width of a marker in the legend.
_MARKER_WIDTH = 5
_WHITE: Color = (1.0, 1.0, 1.0)


def draw_paths(axes: Axes, content: Content, room: tuple[float, float], style: Style = SCREEN) -> None:
    """The lines, their markers, the bars of the last points, and the crosses of the probe.

    Args:
        axes: with their limits set.
        content: of the picture.
        room: width and height of the axes in points.
        style: of the picture.
    """
    from matplotlib.collections import LineCollection

    pieces, shades, bars = [], [], []
    markers: dict[str, list[tuple[float, float, float, Color, Color]]] = {}
    few = len(content.times) <= MOST_DOTS
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    times, marked = content.times, content.marked
    for path in content.paths:
        start, end, seen = 0, len(path.times) - 1, set[str]()
        for k, (time, point) in enumerate(zip(path.times, path.points)):
            large = time in marked or k == end
            if large and k > start:
                pieces.append(list(zip(path.x[start : k + 1], path.y[start : k + 1])))
                shades.append((*path.color, 0.25 + 0.6 * progress(time, times)))
                start = k
            if large or few or point.verdict not in seen:
                sound = point.verdict in ("", "ok")
                area = FIRST + (LAST - FIRST) * progress(time, times) if large else DOT if sound else 2 * DOT
                rim = _WHITE if sound and large else path.color
                marker = "o" if sound else VERDICT_MARKERS.get(point.verdict, "*")
                face = path.color if sound else _WHITE
                markers.setdefault(marker, []).append((path.x[k], path.y[k], area, face, rim))
            seen.add(point.verdict)
        bars += _bars(path, content.about_target, (right - left) / room[0], (top - bottom) / room[1])
    axes.add_collection(LineCollection(pieces, colors=shades, linewidths=1.3 * style.width, zorder=2), autolim=False)
    for marker, of in markers.items():
        x, y, areas, faces, rims = zip(*of)
        axes.scatter(
            x,
            y,
            s=[style.area * area for area in areas],
            marker=marker,
            facecolors=list(faces),
            edgecolors=list(rims),
            linewidths=0.9 * style.width,
            zorder=3,
        )
    if bars:
        axes.add_collection(LineCollection(bars, colors=GRAY, linewidths=0.9, zorder=2.7), autolim=False)
    if content.crosses:
        x, y, colors = zip(*content.crosses)
        axes.scatter(x, y, s=18 * style.area, marker="x", c=list(colors), linewidths=1.2 * style.width, zorder=2.5)


def draw_variational(axes: Axes, content: Content, style: Style = SCREEN) -> None:
    """The paths of variational bounds: a dashed line to a plus; an arrow at the edge where its rate lies beyond.

    The axes stay as they are.
    """
    right = axes.get_xlim()[1]
    for path in content.variational:
        line: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 0.9 * style.width, "zorder": 2.2}
        if len(path.x) > 1:
            axes.plot(path.x, path.y, color=(*path.color, 0.7), scalex=False, scaley=False, **line)
        x, y = path.x[-1], path.y[-1]
        if x <= right:
            size = 42 * style.area
            axes.scatter([x], [y], s=size, marker="+", c=[path.color], linewidths=1.4 * style.width, zorder=3.2)
        else:
            axes.annotate(
                f"rate {x:.1f} →",
                (right, y),
                xytext=(-4, 5),
                textcoords="offset points",
                ha="right",
                fontsize=style.levels,
                color=path.color,
                annotation_clip=False,
            )


def draw_bound(axes: Axes, bound: BoundLine | None, style: Style = SCREEN) -> bool:
    """The information-bottleneck bound, and shade above it: no representation is there.

    Where it is known at recorded points alone it is a thin line, without shade.

    Returns whether a part of it is in the picture.

    Args:
        axes: with their limits set, which stay.
        bound: the curve; ``None`` draws nothing.
        style: of the picture.
    """
    if bound is None:
        return False
    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    x, y = [*bound.i_xt, max(right, bound.i_xt[-1])], [*bound.i_ty, bound.i_ty[-1]]
    how = bound_style(bound)
    axes.plot(x, y, zorder=1.2, **how | {"linewidth": how["linewidth"] * style.width})
    if bound.whole:
        above = [max(top, one) for one in y]
        axes.fill_between(x, y, above, color="0.5", alpha=0.12, linewidth=0, zorder=0.5)
    return bound.at(max(left, 0.0)) < top


def _bars(path: Path, about_target: bool, a_point_right: float, a_point_up: float) -> list[Any]:
    """Two standard errors to either side of the last point, where that is longer than its marker."""
    point, x, y = path.points[-1], path.x[-1], path.y[-1]
    dx, dy = (point.i_xt_se, point.i_ty_se) if about_target else (0.0, point.i_xt_se)
    dx, dy = STANDARD_ERRORS * dx, STANDARD_ERRORS * dy
    radius = math.sqrt(LAST) / 2
    bars = [[(x - dx, y), (x + dx, y)]] if dx > radius * a_point_right else []
    return bars + ([[(x, y - dy), (x, y + dy)]] if dy > radius * a_point_up else [])


def draw_legend(figure: Figure, entries: Entries, style: Style = SCREEN) -> None:
    """The legend at the lower end of a picture."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **{"linestyle": "", **how}) for _, how in entries]
    place: dict[str, Any] = {
        "loc": "lower center",
        "bbox_to_anchor": (0.5, (0.22 if style.line else 0.06) / figure.get_figheight()),
    }
    has_lines = any("linestyle" in how for _, how in entries)
    spacing: dict[str, Any] = {
        "handletextpad": 0.5 if has_lines else 0.2,
        "columnspacing": 1.4,
        "borderaxespad": 0.0,
        "borderpad": 0.2,
    }
    labels = [label for label, _ in entries]
    legend(
        figure,
        handles,
        labels,
        ncols=legend_columns(labels, style.legend_width),
        fontsize=style.legend,
        **place,
        **spacing,
    )


def legend_columns(labels: Sequence[str], width: int) -> int:
    """The most columns, each as wide as its longest label, that fit side by side; a legend fills them one by one."""
    for n in range(len(labels), 1, -1):
        size, longer = divmod(len(labels), n)
        ends = [size * k + min(k, longer) for k in range(n + 1)]
        widths = [max(map(len, labels[start:end])) + _MARKER_WIDTH for start, end in zip(ends, ends[1:])]
        if sum(widths) <= width:
            return n
    return 1
