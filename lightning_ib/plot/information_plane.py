"""The picture of the information plane: from a history of points to a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_ib.plot.labels import VERBATIM, VERDICT_MARKERS, Color, legend, short_labels
from lightning_ib.plot.levels import BASELINE, GRAY, draw_over_time, draw_plane
from lightning_ib.plot.names import draw_names, n_named
from lightning_ib.plot.paths import Path, bound_of_x, paths_of
from lightning_ib.plot.timeline import MOST_DOTS, marked_times, progress, thinned
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import IN_WORDS, STANDARD_ERRORS, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In inches: the size of the picture, its margins, and the height of a row of the legend below it.
_SIZE = (7.2, 5.6)
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_ROW = 0.72, 1.2, 0.42, 0.82, 0.2
# In characters: the width of the legend, and of a marker in it.
_LEGEND_WIDTH, _MARKER_WIDTH = 92, 5
_LONGEST_RUN = 40
# Areas of markers, in square points: a dot, and from the first measurement to the last.
_DOT, _FIRST, _LAST = 7.0, 16.0, 58.0
_WHITE: Color = (1.0, 1.0, 1.0)

Entries = list[tuple[str, dict[str, Any]]]


class _Content(NamedTuple):
    """The content of a picture.

    Attributes:
        points: those that are finite.
        about_target: whether I(T;Y) is drawn; else I(X;T) over time.
        clock: ``"epoch"``, or ``"step"`` with several measurements in an epoch.
        times: the moments of the measurements.
        marked: those with a larger marker.
        paths: one for each layer.
        crosses: the probe of each layer at its last point: place and color.
    """

    points: list[InformationPoint]
    about_target: bool
    clock: str
    times: list[int]
    marked: set[int]
    paths: list[Path]
    crosses: list[tuple[float, float, Color]]


def plot_information_plane(
    history: Iterable[InformationPoint], estimates: Iterable[Record] = (), run: str = ""
) -> Figure:
    """Draw the information plane: I(X;T) to the right, I(T;Y) up, a path for each layer, named at its last point.

    - The color is the depth of the layer, from dark (first) to light (last).
    - A path becomes stronger with time. Its larger markers are the first measurements at or after the epochs 0, 1, 10,
      100, … and the last one, which has bars of two standard errors where these are longer than the marker. Where
      points share an epoch, time is the optimizer step.
    - A disc is ``ok``; each other verdict has a hollow shape of its own.
    - A cross at the same I(X;T) is I(T;Y) of a linear probe on the rows of the last point. A dash, or a triangle at
      the edge where it is far below, marks I(T;Y) under permuted labels there.
    - The axes end around the points. The bounds are H(Y), the upper bound of I(T;Y), and H(X), or log N where X is
      the identity of the sample, the upper bound of I(X;T); and Fano's (dotted), a lower bound for the layers that
      predictions are computed from alone. Near bounds are lines, far ones are named with an arrow at the edge.

    If all I(T;Y) are NaN, as without a target, I(X;T) is drawn over the epochs instead.

    Args:
        history: the points of one run, of any number of layers and epochs, all in one unit. Points that are NaN are
            left out.
        estimates: those of the same run; the ones of ``"probe"`` about the target are drawn.
        run: the name of the run, for the line below the picture.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: all points are NaN.
    """
    content = _content(history, estimates)
    entries = _marker_entries(content)
    figure, axes, room = _framed(entries)
    last = max(content.points, key=lambda point: (point.epoch, point.step))
    unit, bound = last.unit, bound_of_x(content.points)
    if content.about_target:
        axes.set(xlabel=f"I(X;T) [{unit}]", ylabel=f"I(T;Y) [{unit}]")
        if not draw_plane(axes, content.paths, [y for _, y, _ in content.crosses], bound, last, room):
            entries = [(label, style) for label, style in entries if label != BASELINE]  # named at the edge
    else:
        axes.set(xlabel=content.clock, ylabel=f"I(X;T) [{unit}]")
        draw_over_time(axes, content.paths, bound, room)
    title = "Information plane" if content.about_target else "Information about the input"
    first, end = content.times[0], content.times[-1]
    moments = f"{content.clock} {first}" if len(content.times) == 1 else f"{content.clock}s {first}–{end}"
    axes.set_title(f"{title}, {moments}", loc="left", fontsize=11.5)
    _draw_paths(axes, content)
    draw_names(axes, content.paths, content.crosses, room)
    _draw_legend(figure, entries)
    width, height = figure.get_size_inches()
    line = _measured(content.points, content.times, run)
    figure.text(0.14 / width, 0.1 / height, line, fontsize=7.5, color=GRAY, **VERBATIM)
    return figure


def _content(history: Iterable[InformationPoint], estimates: Iterable[Record]) -> _Content:
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
    shown = estimates if about_target else ()
    read = {(one.layer, one.step, one.epoch): one.value for one in shown if _is_probe_information(one)}
    crosses = [
        (path.x[-1], read[key], path.color)
        for path in paths
        if (key := (path.layer, path.points[-1].step, path.points[-1].epoch)) in read
    ]
    return _Content(points, about_target, clock, times, marked, paths, crosses)


def _is_probe_information(estimate: Record) -> bool:
    """Whether an estimate is I(T;Y) of the probe."""
    return estimate.source == "probe" and estimate.quantity == "I_TY" and math.isfinite(estimate.value)


def _framed(entries: Entries) -> tuple[Figure, Axes, tuple[float, float]]:
    """A figure with room for its legend, its axes, and their size in points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=130)
    axes = figure.add_subplot()
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    n_rows = math.ceil(len(entries) / _columns([label for label, _ in entries]))
    # Margins in inches, known beforehand: a layout engine would draw everything twice to find them, at every epoch.
    (width, height), bottom = _SIZE, _BOTTOM + n_rows * _LEGEND_ROW
    height += max(0, n_rows - 3) * _LEGEND_ROW  # a long legend leaves the plane its size
    figure.set_size_inches(width, height)
    figure.subplots_adjust(_LEFT / width, bottom / height, 1 - _RIGHT / width, 1 - _TOP / height)
    return figure, axes, (72 * (width - _LEFT - _RIGHT), 72 * (height - bottom - _TOP))


def _draw_paths(axes: Axes, content: _Content) -> None:
    """The lines, their markers, the bars of the last points, and the crosses of the probe."""
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
                area = _FIRST + (_LAST - _FIRST) * progress(time, times) if large else _DOT if sound else 2 * _DOT
                rim = _WHITE if sound and large else path.color
                marker = "o" if sound else VERDICT_MARKERS.get(point.verdict, "*")
                face = path.color if sound else _WHITE
                markers.setdefault(marker, []).append((path.x[k], path.y[k], area, face, rim))
            seen.add(point.verdict)
        bars += _bars(path, content.about_target, (right - left) / 380, (top - bottom) / 290)
    axes.add_collection(LineCollection(pieces, colors=shades, linewidths=1.3, zorder=2), autolim=False)
    for marker, of in markers.items():
        x, y, areas, faces, rims = zip(*of)
        axes.scatter(
            x, y, s=areas, marker=marker, facecolors=list(faces), edgecolors=list(rims), linewidths=0.9, zorder=3
        )
    if bars:
        axes.add_collection(LineCollection(bars, colors=GRAY, linewidths=0.9, zorder=2.7), autolim=False)
    if content.crosses:
        x, y, colors = zip(*content.crosses)
        axes.scatter(x, y, s=18, marker="x", c=list(colors), linewidths=1.2, zorder=2.5)


def _bars(path: Path, about_target: bool, a_point_right: float, a_point_up: float) -> list[Any]:
    """Two standard errors to either side of the last point, where that is longer than its marker."""
    point, x, y = path.points[-1], path.x[-1], path.y[-1]
    dx, dy = (point.i_xt_se, point.i_ty_se) if about_target else (0.0, point.i_xt_se)
    dx, dy = STANDARD_ERRORS * dx, STANDARD_ERRORS * dy
    radius = math.sqrt(_LAST) / 2
    bars = [[(x - dx, y), (x + dx, y)]] if dx > radius * a_point_right else []
    return bars + ([[(x, y - dy), (x, y + dy)]] if dy > radius * a_point_up else [])


def _marker_entries(content: _Content) -> Entries:
    """The markers of the legend: label and style."""
    times = sorted(content.marked)
    entries: Entries = []
    for k, time in enumerate(times):
        area = _FIRST + (_LAST - _FIRST) * progress(time, times)
        style = {"marker": "o", "markersize": math.sqrt(area), "mfc": "0.4", "mec": "white"}
        entries.append((f"{content.clock} {time}" if k == 0 else str(time), style))
    if content.crosses:
        entries.append(("linear probe", {"marker": "x", "markersize": 4.5, "mec": "0.2"}))
    if content.about_target and any(math.isfinite(path.points[-1].i_ty_permuted) for path in content.paths):
        entries.append((BASELINE, {"marker": "_", "markersize": 10, "mec": "0.2", "mew": 2}))
    seen = {point.verdict for path in content.paths for point in path.points} - {"", "ok"}
    for verdict in sorted(seen):
        style = {"marker": VERDICT_MARKERS.get(verdict, "*"), "markersize": 6, "mfc": "white", "mec": "0.2"}
        entries.append((f"flagged: {verdict}", style))
    return entries


def _draw_legend(figure: Figure, entries: Entries) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="", **style) for _, style in entries]
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.22 / figure.get_figheight())}
    spacing: dict[str, Any] = {"handletextpad": 0.2, "columnspacing": 1.4, "borderaxespad": 0.0, "borderpad": 0.2}
    labels = [label for label, _ in entries]
    legend(figure, handles, labels, ncols=_columns(labels), fontsize=9, **place, **spacing)


def _columns(labels: Sequence[str]) -> int:
    """The most columns, each as wide as its longest label, that fit side by side; a legend fills them one by one."""
    for n in range(len(labels), 1, -1):
        size, longer = divmod(len(labels), n)
        ends = [size * k + min(k, longer) for k in range(n + 1)]
        widths = [max(map(len, labels[start:end])) + _MARKER_WIDTH for start, end in zip(ends, ends[1:])]
        if sum(widths) <= _LEGEND_WIDTH:
            return n
    return 1


def _measured(points: Sequence[InformationPoint], times: Sequence[int], run: str) -> str:
    """The measurements in one line."""
    sources = dict.fromkeys(point.source for point in points)
    samples = []
    for source in sources:
        numbers = sorted({point.n_samples for point in points if point.source == source})
        n_shown = "–".join(f"{n:,}".replace(",", " ") for n in dict.fromkeys((numbers[0], numbers[-1])))
        samples.append(f"{n_shown} in {IN_WORDS[source]}")
    n_layers = len({point.layer for point in points})
    parts = [f"N = {' and '.join(samples)}", f"{n_layers} layer{'s' * (n_layers > 1)}"]
    if n_named(n_layers) < n_layers:
        parts[-1] += f", {n_named(n_layers)} of them named"
    parts += [f"{len(times)} measurement{'s' * (len(times) > 1)}", points[-1].unit]
    corrections = sorted({point.correction for point in points} - {""})
    return " · ".join(
        parts + [f"corrected: {name}" for name in corrections] + short_labels([run], _LONGEST_RUN) * bool(run)
    )
