"""Small planes side by side: one for each layer of a run, or one for each run."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lightning_ib.plot.content import (
    FIRST,
    LAST,
    Content,
    Entries,
    bound_entries,
    content_of,
    marker_entries,
    probe_entries,
    verdict_entries,
)
from lightning_ib.plot.drawing import draw_bound, draw_paths
from lightning_ib.plot.labels import VERBATIM, Color, depth_colors, legend, short_labels, tinted
from lightning_ib.plot.levels import BASELINE, limits, with_bars
from lightning_ib.plot.paths import BOUND, bound_of_x
from lightning_ib.plot.style import Style, style_of
from lightning_ib.records.history import History
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import Record
from lightning_ib.records.units import in_unit, unit_of_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_MOST_COLUMNS = 4
_OTHERS = "0.82"
_FANO = BOUND | {"linestyle": ":", "linewidth": 1.3}
_LEAST_SPAN = 0.05  # of an axis, as a fraction of the bound


class _Grid(NamedTuple):
    """A figure of small planes with equal axes, and the size of each in points."""

    figure: Figure
    planes: list[Axes]
    room: tuple[float, float]


def plot_layers(
    history: Iterable[InformationPoint],
    estimates: Iterable[Record] = (),
    *,
    style: Literal["screen", "paper"] = "screen",
) -> Figure:
    """Draw a small information plane for each layer: its own path in color, those of the others in gray behind it.

    Axes, markers and bounds are those of :func:`plot_information_plane`, equal in all planes. If all I(T;Y) are NaN,
    I(X;T) is drawn over the epochs.

    Args:
        history: the points of one run, all in one unit. Points that are NaN are left out.
        estimates: those of the same run; the ones of ``"probe"`` about the target are drawn.
        style: ``"screen"``, or ``"paper"`` for fonts of 7 and 8 points and a width of 3.4 inches.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: all points are NaN, or there is no such style.
    """
    look = style_of(style)
    content = content_of(history, estimates)
    unit = content.points[-1].unit
    names = short_labels([path.layer for path in content.paths])
    entries = [(label, how) for label, how in marker_entries(content, look.area) if label != BASELINE]
    entries += _level_entries([content])
    grid = _grid(len(names), [content], unit, look, entries)
    for axes, name, path in zip(grid.planes, names, content.paths):
        for other in content.paths:
            if other is not path:
                axes.plot(other.x, other.y, color=_OTHERS, linewidth=0.8 * look.width, zorder=1.5)
        crosses = [cross for cross in content.crosses if cross[2] == path.color]
        _draw_bounds(axes, content, look)
        draw_paths(axes, content._replace(paths=[path], crosses=crosses), grid.room, look)
        axes.set_title(name, fontsize=look.names, color=tinted(path.color, 1.28), **VERBATIM)
    return grid.figure


def plot_runs(
    runs: Mapping[str, History], *, style: Literal["screen", "paper"] = "screen", unit: str | None = None
) -> Figure:
    """Draw the information planes of several runs side by side, on equal axes and in one unit, with one legend.

    A layer has one color in all planes, by its depth; of runs with other layers each has the colors of its own depth.
    The small marker is the first measurement, the
    large one the last.

    Args:
        runs: name → history. Points that are NaN are left out.
        style: ``"screen"``, or ``"paper"`` for fonts of 7 and 8 points and a width of 3.4 inches.
        unit: ``"bits"`` or ``"nats"``; by default that of the first run.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: a run has no finite point, some runs have a target and others none, or there is no such style.
    """
    if not runs:
        raise ValueError("there is no run to draw.")
    look = style_of(style)
    unit = unit or unit_of_history(next(iter(runs.values())))
    histories = [in_unit(history, unit) for history in runs.values()]
    layers = dict.fromkeys(point.layer for history in histories for point in history if math.isfinite(point.i_xt))
    of_runs = [dict.fromkeys(p.layer for p in history if math.isfinite(p.i_xt)) for history in histories]
    colors, labels = _of_layers(layers, of_runs, look.longest_name)
    contents = [content_of(history, history.estimates(), colors) for history in histories]
    if len({content.about_target for content in contents}) > 1:
        without = [name for name, content in zip(runs, contents) if not content.about_target]
        verb = "has" if len(without) == 1 else "have"
        raise ValueError(f"{' and '.join(without)} {verb} no I(T;Y) and the others do: draw them apart.")
    side = 5 * math.sqrt(look.area)
    entries: Entries = [
        (label, {"marker": "o", "markersize": side, "mfc": color, "mec": color})
        for label, color in ((labels[layer], colors[layer]) for layer in layers)
    ]
    grid = _grid(len(runs), contents, unit, look, entries + _common_entries(contents, look))
    for axes, name, content in zip(grid.planes, short_labels(list(runs)), contents):
        _draw_bounds(axes, content, look)
        draw_paths(axes, content, grid.room, look)
        axes.set_title(name, fontsize=look.names, **VERBATIM)
    return grid.figure


def _of_layers(
    layers: Collection[str], of_runs: Sequence[Collection[str]], longest: int
) -> tuple[dict[str, Color], dict[str, str]]:
    """A color and a label for each layer; a network whose layers have other names has the whole range of colors."""
    colors: dict[str, Color] = {}
    labels: dict[str, str] = {}
    for of_run in sorted(of_runs, key=len, reverse=True):
        if not colors.keys() & of_run:
            colors |= zip(of_run, depth_colors(len(of_run)))
            labels |= zip(of_run, short_labels(list(of_run), longest))
    if len(colors) < len(layers):
        colors = dict(zip(layers, depth_colors(len(layers))))
    if len(set(labels.values())) < len(layers):
        labels = dict(zip(layers, short_labels(list(layers), longest)))
    return colors, labels


def _common_entries(contents: Sequence[Content], look: Style) -> Entries:
    """The markers of the legend that several runs share."""
    side = math.sqrt(look.area)
    gray = {"marker": "o", "mfc": "0.4", "mec": "white"}
    entries: Entries = []
    if any(len(content.times) > 1 for content in contents):
        entries = [("first", gray | {"markersize": side * math.sqrt(FIRST)})]
    entries.append(("last", gray | {"markersize": side * math.sqrt(LAST)}))
    entries += probe_entries(contents, side) + bound_entries(contents)
    return entries + verdict_entries(contents, side) + _level_entries(contents)


def _level_entries(contents: Sequence[Content]) -> Entries:
    """The lines of the legend: the bounds."""
    about_target = contents[0].about_target
    of_y = sorted({round(_h_y(content), 2) for content in contents}) if about_target else []
    entries: Entries = []
    if len(of_y) == 1:
        entries.append((f"H(Y) = {of_y[0]:.2f}", {**BOUND, "marker": ""}))
    elif about_target:
        entries.append(("H(Y)", {**BOUND, "marker": ""}))
    else:
        entries.append((bound_of_x(contents[0].points).label.removesuffix(" ="), {**BOUND, "marker": ""}))
    if any(_fano(content) > 0 for content in contents):
        entries.append(("Fano’s bound", {**_FANO, "marker": ""}))
    return entries


def _h_y(content: Content) -> float:
    return max((point.h_y for point in content.points if math.isfinite(point.h_y)), default=math.nan)


def _fano(content: Content) -> float:
    """Fano's bound of the last measurement; 0 without one."""
    last = max(content.points, key=lambda point: (point.epoch, point.step)).i_ty_fano
    return last if content.about_target and math.isfinite(last) else 0.0


def _grid(n: int, contents: Sequence[Content], unit: str, look: Style, entries: Entries) -> _Grid:
    """A figure with ``n`` empty planes whose axes end around all paths, and a legend below them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(n, max(1, min(_MOST_COLUMNS, int(look.size[0] / look.panel)) if not look.title else _MOST_COLUMNS))
    rows = math.ceil(n / columns)
    width = look.size[0] if not look.title else max(look.size[0] * 0.6, 0.5 + look.panel * columns)
    side = (width - 0.5) / columns
    height = 0.92 * side * rows + 0.55
    labels = [label for label, _ in entries]
    n_columns = _legend_columns(labels, width, look)
    height += 1.5 * look.legend / 72 * math.ceil(len(labels) / n_columns)
    figure = Figure(figsize=(width, height + 0.1), dpi=130, layout="constrained")
    spacing: dict[str, Any] = {"handletextpad": 0.2, "columnspacing": 1.2, "ncols": n_columns}
    handles = [_handle(style) for _, style in entries]
    legend(figure, handles, labels, fontsize=look.legend, loc="outside lower center", **spacing)
    planes: list[Axes] = []
    about_target = contents[0].about_target
    x, y = _limits(contents)
    for k in range(n):
        shared = planes[0] if planes else None
        axes = figure.add_subplot(rows, columns, k + 1, sharex=shared, sharey=shared)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=look.ticks - 1 if look.title else look.ticks)
        axes.tick_params(width=0.8 * look.width, labelleft=k % columns == 0, labelbottom=k + columns >= n)
        for spine in axes.spines.values():
            spine.set_linewidth(0.8 * look.width)
        if k + columns >= n:  # no plane is below
            axes.set_xlabel(f"I(X;T) [{unit}]" if about_target else contents[0].clock, fontsize=look.axes)
        if k % columns == 0:
            axes.set_ylabel(f"I(T;Y) [{unit}]" if about_target else f"I(X;T) [{unit}]", fontsize=look.axes)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=not about_target))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        planes.append(axes)
    planes[0].set_xlim(x)
    planes[0].set_ylim(y)
    return _Grid(figure, planes, (72 * side * 0.8, 72 * side * 0.75))


def _limits(contents: Sequence[Content]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of the axes: around the points of all contents, and the bounds that are near."""
    paths = [path for content in contents for path in content.paths]
    x, y = with_bars(paths, contents[0].about_target)
    y += [height for content in contents for _, height, _ in content.crosses]
    bounds_x = [bound_of_x(content.points).value for content in contents]
    if not contents[0].about_target:
        return limits(x, [], 1.0), limits(y, bounds_x, _LEAST_SPAN * max(bounds_x))
    bounds_y = [point.h_y for content in contents for point in content.points if math.isfinite(point.h_y)]
    least = _LEAST_SPAN * max(bounds_y, default=0.0)
    return limits(x, bounds_x, _LEAST_SPAN * max(bounds_x)), limits(y, sorted(set(bounds_y)), least)


def _draw_bounds(axes: Axes, content: Content, look: Style) -> None:
    """Lines at the bounds of a run; those outside the axes stay so."""
    style = BOUND | {"linewidth": look.width}
    bound = bound_of_x(content.points).value
    if not content.about_target:
        axes.axhline(bound, **style)
        return
    draw_bound(axes, content.bound, look)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    h_y, fano = _h_y(content), _fano(content)
    if left <= bound <= right:
        axes.axvline(bound, **style)
    if bottom <= h_y <= top:
        axes.axhline(h_y, **style)
    if max(bottom, 0) < fano <= top:
        axes.axhline(fano, **_FANO | {"linewidth": 1.3 * look.width})


def _legend_columns(labels: Sequence[str], width: float, look: Style) -> int:
    """As many columns as fit: a character takes about half of the font's size."""
    widest = look.legend * (0.55 * max(map(len, labels)) + 2.5)
    return max(1, min(len(labels), int(72 * width / widest)))


def _handle(style: Mapping[str, Any]) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"linestyle": "", **style})
