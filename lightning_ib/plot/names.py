"""The names of layers in the information plane: near the ends of their paths, clear of lines and of one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.labels import VERBATIM, Color, extents, free_places, short_labels
from lightning_ib.plot.paths import Path
from lightning_ib.plot.style import SCREEN, Style
from lightning_ib.plot.timeline import MOST_DOTS
from lightning_ib.records.record import STANDARD_ERRORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of more layers than these, names are cut to so many characters where they can be told apart: long ones find no place.
_FEW, _SHORT = 8, 12


def n_named(n_layers: int, style: Style = SCREEN) -> int:
    """The number of layers whose names are drawn."""
    return n_layers if n_layers <= style.most_names else style.of_more


def draw_names(
    axes: Axes,
    paths: Sequence[Path],
    crosses: Sequence[tuple[float, float, Color]],
    room: tuple[float, float],
    style: Style = SCREEN,
) -> None:
    """The name of each layer near its last point; of many layers, of some that are spread over the depth."""
    import numpy as np
    from matplotlib.collections import LineCollection

    n = n_named(len(paths), style)
    named = [paths[round(k * (len(paths) - 1) / max(1, n - 1))] for k in range(n)]
    longest = style.longest_name if n <= _FEW else _SHORT
    labels = short_labels([path.layer for path in named], longest)
    to_points = 72 / axes.figure.dpi
    origin = axes.transAxes.transform((0.0, 0.0))

    def in_points(x: Sequence[float], y: Sequence[float]) -> Any:
        return (axes.transData.transform(np.column_stack((x, y))) - origin) * to_points

    n_along = 2 if max(len(path.x) for path in paths) > MOST_DOTS else 40
    along = np.linspace(0, 1, n_along, endpoint=False)[:, None, None]
    # A cross counts as much as a line that is crossed.
    covered = [np.repeat(in_points([c[0] for c in crosses], [c[1] for c in crosses]), 12, 0)] if crosses else []
    for line in axes.lines:  # the bounds
        ends = axes.transAxes.inverted().transform(line.get_transform().transform(line.get_xydata())) * room
        n_each = max(2, 120 // max(1, len(ends) - 1))
        pieces = zip(ends, ends[1:])
        covered += [start + np.linspace(0, 1, n_each)[:, None] * (end - start) for start, end in pieces]
    for path in paths:
        chance = path.points[-1].i_ty_permuted
        corners = in_points(path.x, path.y)
        covered += [bar for bar in _bars(path, in_points) if len(bar)]
        if math.isfinite(chance):
            covered.append(in_points(path.x[-1:], [max(chance, axes.get_ylim()[0])]) + [[-4, 0], [0, 0], [4, 0]])
        covered += [(corners[:-1] + along * (corners[1:] - corners[:-1])).reshape(-1, 2), corners[-1:]]
    anchors = in_points([path.x[-1] for path in named], [path.y[-1] for path in named])
    sizes = extents(labels, style.names)
    places = free_places(anchors, sizes, np.concatenate(covered), room)
    back = axes.transData.inverted()
    leaders = []
    for path, label, anchor, place, size in zip(named, labels, anchors, places, sizes):
        half = np.array(size) / 2
        end = np.clip(anchor, place - half, place + half)
        if np.hypot(*(end - anchor)) > 9:
            leaders.append(back.transform(np.stack((anchor, end)) / to_points + origin))
        x, y = back.transform(place / to_points + origin)
        color = tuple(0.72 * part for part in path.color)
        how: dict[str, Any] = {"fontsize": style.names, "ha": "center", "va": "center_baseline", "zorder": 5}
        axes.text(x, y, label, color=color, **how, **VERBATIM)
    axes.add_collection(LineCollection(leaders, colors="0.5", linewidths=0.6, zorder=2.8), autolim=False)


def _bars(path: Path, in_points: Callable[[Any, Any], Any]) -> list[Any]:
    """Points along the error bars of the last point of a path, each counting as much as a line that is crossed."""
    import numpy as np

    point, x, y = path.points[-1], path.x[-1], path.y[-1]
    over_time = path.y[-1] == point.i_xt and path.x[-1] != point.i_xt
    errors = (0.0, point.i_xt_se) if over_time else (point.i_xt_se, point.i_ty_se)
    found = []
    for k, error in enumerate(errors):
        if math.isfinite(error) and error > 0:
            along = STANDARD_ERRORS * error * np.linspace(-1, 1, 24)
            found.append(in_points(x + along * (k == 0), y + along * (k == 1)))
    return found
