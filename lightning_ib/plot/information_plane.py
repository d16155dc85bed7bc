"""The picture of the information plane: from a history of points to a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_ib.functional.checks import logarithm
from lightning_ib.plot.labels import (
    VERBATIM,
    Color,
    depth_colors,
    extents,
    free_places,
    legend,
    short_labels,
    spread_out,
)
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.record import IN_WORDS, STANDARD_ERRORS, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICT_MARKERS = {
    "constant": "h",
    "saturated": "s",
    "clipped": "D",
    "undersampled": "^",
    "too_coarse": "v",
    "target_saturated": "P",
    "target_undersampled": "X",
    "above_bound": "p",
    "outgrown": "d",
    "at_chance": "<",
}
"""The hollow marker of each verdict but ``ok``, which is a disc."""

# Of the picture, in inches: its size, its margins, and what a row of the legend takes below it.
_SIZE = (7.2, 5.6)
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_ROW = 0.72, 1.2, 0.42, 0.82, 0.2
# In characters: what fits below the picture, and what a marker takes of it.
_LEGEND_WIDTH, _MARKER_WIDTH = 92, 5

# Of the names of layers: how many there are at most, how many of more layers, and how long and large they are.
_MOST_LABELS, _OF_MORE, _LONGEST_LABEL, _LABEL_SIZE = 14, 8, 24, 9.0
_LONGEST_RUN = 40
# A path has at most so many corners, and small dots at all of them where there are few.
_MOST_CORNERS, MOST_DOTS = 120, 24
# A bound is drawn in the picture where that widens an axis by at most this share of what the points span.
_NEAR = 0.3
# The least that an axis spans, as a share of the bound: rounding does not fill the picture.
_LEAST_SPAN = 0.05
# Above the points, for each name, as a share of what the axis spans.
_HEADROOM = 0.015
# Areas of markers, in square points: a dot, and from the first measurement to the last.
_DOT, _FIRST, _LAST = 7.0, 16.0, 58.0

_DOWN: Any = 7  # matplotlib's caret that points down, its tip at the place
BOUND: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": (0, (5, 4)), "zorder": 1}
_GRAY, _CHANCE = "0.3", "permuted labels"
_WHITE: Color = (1.0, 1.0, 1.0)


class _Path(NamedTuple):
    """What one layer was measured to know, in the order of time."""

    layer: str
    color: Color
    points: list[InformationPoint]
    times: list[int]
    x: list[float]
    y: list[float]


class _Bound(NamedTuple):
    """A level that an axis marks, drawn as a line where it is near and named at the edge where it is far."""

    value: float
    label: str
    style: Mapping[str, Any] = BOUND


def plot_information_plane(
    history: Iterable[InformationPoint], estimates: Iterable[Record] = (), run: str = ""
) -> Figure:
    """Draw the information plane: I(X;T) to the right, I(T;Y) up, a path for each layer, named at its last point.

    - The color is the depth of the layer, from dark (first) to light (last).
    - A path becomes stronger with time. Its larger markers are the first measurements at or after the epochs 0, 1, 10,
      100, … and the last one, which has bars of two standard errors where these are longer than the marker. Where
      points share an epoch, time is the optimizer step.
    - A disc is ``ok``; each other verdict has a hollow shape of its own.
    - A cross at the same I(X;T) is what a linear probe reads of the rows of the last point. A dash, or a triangle at
      the edge where it is far below, marks I(T;Y) under permuted labels there.
    - The axes end around the points. The bounds are H(Y), which I(T;Y) cannot exceed, and H(X), or log N where X is
      the identity of the sample, which I(X;T) cannot exceed; and Fano's (dotted), which the layers that predictions are
      computed from alone hold at least. Near bounds are lines, far ones are named with an arrow at the edge.

    Where there is no target, no point has a finite I(T;Y), and I(X;T) is drawn over the epochs instead.

    Args:
        history: the points of one run, of any number of layers and epochs, all in one unit. Points that are NaN are
            left out.
        estimates: those of the same run; the ones of ``"probe"`` about the target are drawn.
        run: the name of the run, for the line below the picture.

    Returns:
        A figure that belongs to nobody: no pyplot, no global state.

    Raises:
        ValueError: there is no point to draw.
    """
    from matplotlib.figure import Figure

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
    paths = _paths(points, clock, _thinned(times, marked), about_target)
    last = max(points, key=lambda point: (point.epoch, point.step))
    read = {(one.layer, one.step, one.epoch): one.value for one in estimates if _is_read(one)} if about_target else {}
    crosses = [
        (path.x[-1], read[key], path.color)
        for path in paths
        if (key := (path.layer, path.points[-1].step, path.points[-1].epoch)) in read
    ]

    figure = Figure(figsize=_SIZE, dpi=130)
    axes = figure.add_subplot()
    spines = axes.spines
    spines["top"].set_visible(False)
    spines["right"].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    chance = about_target and any(math.isfinite(path.points[-1].i_ty_permuted) for path in paths)
    entries = _marker_entries(paths, marked, clock, crosses=bool(crosses), chance=chance)
    n_rows = math.ceil(len(entries) / _columns([label for label, _ in entries]))
    # Margins in inches, known beforehand: a layout engine would draw everything twice to find them, at every epoch.
    (width, height), bottom = _SIZE, _BOTTOM + n_rows * _LEGEND_ROW
    height += max(0, n_rows - 3) * _LEGEND_ROW  # a long legend does not squeeze the plane
    figure.set_size_inches(width, height)
    figure.subplots_adjust(_LEFT / width, bottom / height, 1 - _RIGHT / width, 1 - _TOP / height)
    room = (72 * (width - _LEFT - _RIGHT), 72 * (height - bottom - _TOP))

    unit, bound = last.unit, _bound_of_x(points)
    if about_target:
        axes.set(xlabel=f"I(X;T) [{unit}]", ylabel=f"I(T;Y) [{unit}]")
        if not _draw_plane(axes, paths, [y for _, y, _ in crosses], bound, last, room):
            entries = [(label, style) for label, style in entries if label != _CHANCE]  # named at the edge
    else:
        axes.set(xlabel=clock, ylabel=f"I(X;T) [{unit}]")
        _draw_over_time(axes, paths, bound, room)
    title = "Information plane" if about_target else "Information about the input"
    moments = f"{clock} {times[0]}" if len(times) == 1 else f"{clock}s {times[0]}–{times[-1]}"
    axes.set_title(f"{title}, {moments}", loc="left", fontsize=11.5)
    _draw_paths(axes, paths, marked, times)
    if crosses:
        x, y, colors = zip(*crosses)
        axes.scatter(x, y, s=18, marker="x", c=list(colors), linewidths=1.2, zorder=2.5)
    _draw_names(axes, paths, crosses, room)
    _draw_legend(figure, entries)
    figure.text(0.14 / width, 0.1 / height, _measured(points, times, run), fontsize=7.5, color=_GRAY, **VERBATIM)
    return figure


# -- what is drawn -----------------------------------------------------------------------------------------------------


def marked_times(times: Sequence[int]) -> set[int]:
    """The times with a larger marker: the first at or after each of 0, 1, 10, 100, …, and the last.

    Example:
        >>> sorted(marked_times([0, 5, 10, 15, 20]))
        [0, 5, 10, 20]
    """
    decades = [10**k for k in range(len(str(times[-1])))]
    return {times[0], times[-1], *(next(t for t in times if t >= d) for d in decades if d <= times[-1])}


def _thinned(times: Sequence[int], marked: set[int]) -> set[int]:
    """The times at which a path has corners: all of them, or of many some in equal ratios."""
    if len(times) <= _MOST_CORNERS:
        return set(times)
    ratios = (len(times) ** (k / _MOST_CORNERS) for k in range(_MOST_CORNERS + 1))
    return marked | {times[min(len(times), round(ratio)) - 1] for ratio in ratios}


def _paths(points: Sequence[InformationPoint], clock: str, kept: set[int], about_target: bool) -> list[_Path]:
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
        paths.append(_Path(layer, color, of, times, x, y) if about_target else _Path(layer, color, of, times, times, x))
    return paths


def _is_read(estimate: Record) -> bool:
    """Whether an estimate is what the probe reads of the target."""
    return estimate.source == "probe" and estimate.quantity == "I_TY" and math.isfinite(estimate.value)


def _bound_of_x(points: Sequence[InformationPoint]) -> _Bound:
    """H(X), or log N where X is the identity of the sample."""
    log_n = logarithm(points[-1].unit)(max(point.n_samples for point in points))
    h_x = max((point.h_x for point in points if math.isfinite(point.h_x)), default=log_n)
    return _Bound(h_x, "log N =" if math.isclose(h_x, log_n, rel_tol=1e-6) else "H(X) =")


# -- axes and bounds ---------------------------------------------------------------------------------------------------


def _limits(values: Sequence[float], levels: Sequence[float], least: float) -> tuple[float, float]:
    """The ends of an axis around values, and around those of the levels that are near."""
    low, high = min(values), max(values)
    widened = max(0.0, (least or 1.0) - (high - low)) / 2
    low, high = low - widened, high + widened
    reach = _NEAR * (high - low)
    near = [level for level in levels if low - reach <= level <= high + reach]
    low, high = min(low, *near, high), max(high, *near, low)
    pad = 0.05 * (high - low)
    return low - pad, high + pad


def _draw_plane(
    axes: Axes,
    paths: Sequence[_Path],
    read: Sequence[float],
    bound: _Bound,
    last: InformationPoint,
    room: tuple[float, float],
) -> bool:
    """Axes, bounds and baselines; whether there is a baseline in the picture."""
    chance = [(path.x[-1], path.points[-1].i_ty_permuted, path.color) for path in paths]
    chance = [one for one in chance if math.isfinite(one[1])]
    bounds = [_Bound(max(point.h_y for path in paths for point in path.points), "H(Y) =")]
    if math.isfinite(last.i_ty_fano) and last.i_ty_fano > 0:
        bounds.append(_Bound(last.i_ty_fano, "Fano ≥", BOUND | {"linestyle": ":", "linewidth": 1.3}))
    levels = [one.value for one in bounds] + [level for _, level, _ in chance]
    axes.set_xlim(_limits([x for path in paths for x in path.x], [bound.value], _LEAST_SPAN * bound.value))
    low, high = _limits([*read, *(y for path in paths for y in path.y)], levels, _LEAST_SPAN * bounds[0].value)
    # Layers that know the target end side by side at the top; their names stand above them.
    axes.set_ylim(low, high + _HEADROOM * _n_named(len(paths)) * (high - low))
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 5), "textcoords": "offset points"}
    above |= {"fontsize": 8.5, "color": _GRAY, "ha": "right"}
    if bound.value < right:
        axes.axvline(bound.value, **bound.style)
        if axes.transLimits.transform((bound.value, bottom))[0] < 0.8:  # the title is to the left
            above["ha"] = "left"
        axes.annotate(f"{bound.label} {bound.value:.2f}", (bound.value, 1), **above)
    else:
        axes.annotate(f"{bound.label} {bound.value:.2f} →", (right, 1), **above)
    near, far = ([one for one in chance if (one[1] < bottom) == below] for below in (False, True))
    _draw_levels(axes, bounds, [level for _, level, _ in far], room)
    if near:
        x, y, colors = zip(*near)
        axes.scatter(x, y, s=110, marker="_", c=list(colors), linewidths=2.0, zorder=2)
    if far:
        x, _, colors = zip(*far)
        at_the_edge = axes.get_xaxis_transform()
        axes.scatter(x, [0.0] * len(x), s=34, marker=_DOWN, c=list(colors), linewidths=0, transform=at_the_edge)
    return bool(near)


def _draw_over_time(axes: Axes, paths: Sequence[_Path], bound: _Bound, room: tuple[float, float]) -> None:
    scale_time(axes, [time for path in paths for time in path.times], room_for_names=True)
    axes.set_ylim(_limits([y for path in paths for y in path.y], [bound.value], _LEAST_SPAN * bound.value))
    _draw_levels(axes, [bound], [], room)


def scale_time(axes: Axes, times: Sequence[int], *, room_for_names: bool = False) -> None:
    """The axis of epochs or steps: logarithmic from 1 on where there are many."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    first, last = min(times), max(times)
    if last > MOST_DOTS:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlim(first * 0.8 - 0.2, last * (1 + last) ** (0.25 if room_for_names else 0.04))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        span = max(1, last - first)
        axes.set_xlim(first - 0.05 * span, last + (0.25 if room_for_names else 0.05) * span)


def _draw_levels(axes: Axes, bounds: Sequence[_Bound], below: Sequence[float], room: tuple[float, float]) -> None:
    """Bounds across the picture, with their names to the right of it; far ones, and the baselines, at its ends."""
    bottom, top = axes.get_ylim()
    named = []
    for bound in bounds:
        arrow = " ↑" if bound.value > top else " ↓" if bound.value < bottom else ""
        if not arrow:
            axes.axhline(bound.value, **bound.style)
        named.append((min(max(bound.value, bottom), top), f"{bound.label} {bound.value:.2f}{arrow}"))
    if below:
        low, high = f"{min(below):.2f}", f"{max(below):.2f}"
        named += [(bottom, f"{low if low == high else f'{low}–{high}'} ↓"), (bottom, _CHANCE)]
    named.sort(key=lambda one: one[0])
    heights = [room[1] * (level - bottom) / (top - bottom) for level, _ in named]
    for (_, label), height in zip(named, spread_out(heights, 11.0, 2.0, room[1] - 9)):
        how: dict[str, Any] = {"fontsize": 8.5, "color": _GRAY, "va": "center", "textcoords": "offset points"}
        axes.annotate(label, (1, 0), xycoords="axes fraction", xytext=(5, height), **how)


# -- paths and names ---------------------------------------------------------------------------------------------------


def _progress(time: int, times: Sequence[int]) -> float:
    """How far along a run a moment is, from 0 to 1, on a logarithmic scale."""
    if time == times[-1]:
        return 1.0
    return math.log1p(time - times[0]) / math.log1p(times[-1] - times[0])


def _draw_paths(axes: Axes, paths: Sequence[_Path], marked: set[int], times: Sequence[int]) -> None:
    from matplotlib.collections import LineCollection

    pieces, shades, bars = [], [], []
    markers: dict[str, list[tuple[float, float, float, Color, Color]]] = {}
    few = len(times) <= MOST_DOTS
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for path in paths:
        start, end, seen = 0, len(path.times) - 1, set[str]()
        for k, (time, point) in enumerate(zip(path.times, path.points)):
            large = time in marked or k == end
            if large and k > start:
                pieces.append(list(zip(path.x[start : k + 1], path.y[start : k + 1])))
                shades.append((*path.color, 0.25 + 0.6 * _progress(time, times)))
                start = k
            if large or few or point.verdict not in seen:
                sound = point.verdict in ("", "ok")
                area = _FIRST + (_LAST - _FIRST) * _progress(time, times) if large else _DOT if sound else 2 * _DOT
                rim = _WHITE if sound and large else path.color
                marker = "o" if sound else VERDICT_MARKERS.get(point.verdict, "*")
                face = path.color if sound else _WHITE
                markers.setdefault(marker, []).append((path.x[k], path.y[k], area, face, rim))
            seen.add(point.verdict)
        bars += _bars(path, axes.get_xlabel().startswith("I("), (right - left) / 380, (top - bottom) / 290)
    axes.add_collection(LineCollection(pieces, colors=shades, linewidths=1.3, zorder=2), autolim=False)
    for marker, of in markers.items():
        x, y, areas, faces, rims = zip(*of)
        axes.scatter(
            x, y, s=areas, marker=marker, facecolors=list(faces), edgecolors=list(rims), linewidths=0.9, zorder=3
        )
    if bars:
        axes.add_collection(LineCollection(bars, colors=_GRAY, linewidths=0.9, zorder=2.7), autolim=False)


def _bars(path: _Path, about_target: bool, a_point_right: float, a_point_up: float) -> list[Any]:
    """Two standard errors to either side of the last point, where that is longer than its marker."""
    point, x, y = path.points[-1], path.x[-1], path.y[-1]
    dx, dy = (point.i_xt_se, point.i_ty_se) if about_target else (0.0, point.i_xt_se)
    dx, dy = STANDARD_ERRORS * dx, STANDARD_ERRORS * dy
    radius = math.sqrt(_LAST) / 2
    bars = [[(x - dx, y), (x + dx, y)]] if dx > radius * a_point_right else []
    return bars + ([[(x, y - dy), (x, y + dy)]] if dy > radius * a_point_up else [])


def _n_named(n_layers: int) -> int:
    return n_layers if n_layers <= _MOST_LABELS else _OF_MORE


def _draw_names(
    axes: Axes, paths: Sequence[_Path], crosses: Sequence[tuple[float, float, Color]], room: tuple[float, float]
) -> None:
    """The name of each layer near its last point; of many layers, of some that are spread over the depth."""
    import numpy as np
    from matplotlib.collections import LineCollection

    n = _n_named(len(paths))
    named = [paths[round(k * (len(paths) - 1) / max(1, n - 1))] for k in range(n)]
    labels = short_labels([path.layer for path in named], _LONGEST_LABEL)
    to_points = 72 / axes.figure.dpi
    origin = axes.transAxes.transform((0.0, 0.0))

    def in_points(x: Sequence[float], y: Sequence[float]) -> Any:
        return (axes.transData.transform(np.column_stack((x, y))) - origin) * to_points

    n_along = 2 if max(len(path.x) for path in paths) > MOST_DOTS else 40
    along = np.linspace(0, 1, n_along, endpoint=False)[:, None, None]
    # A cross counts as much as a line that is crossed.
    covered = [np.repeat(in_points([c[0] for c in crosses], [c[1] for c in crosses]), 12, 0)] if crosses else []
    for line in axes.lines:  # the bounds
        start, end = axes.transAxes.inverted().transform(line.get_transform().transform(line.get_xydata())) * room
        covered.append(start + np.linspace(0, 1, 120)[:, None] * (end - start))
    for path in paths:
        chance = path.points[-1].i_ty_permuted
        corners = in_points(path.x, path.y)
        if math.isfinite(chance):
            covered.append(in_points(path.x[-1:], [max(chance, axes.get_ylim()[0])]) + [[-4, 0], [0, 0], [4, 0]])
        covered += [(corners[:-1] + along * (corners[1:] - corners[:-1])).reshape(-1, 2), corners[-1:]]
    anchors = in_points([path.x[-1] for path in named], [path.y[-1] for path in named])
    sizes = extents(labels, _LABEL_SIZE)
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
        how: dict[str, Any] = {"fontsize": _LABEL_SIZE, "ha": "center", "va": "center_baseline", "zorder": 5}
        axes.text(x, y, label, color=color, **how, **VERBATIM)
    axes.add_collection(LineCollection(leaders, colors="0.5", linewidths=0.6, zorder=2.8), autolim=False)


# -- below the picture -------------------------------------------------------------------------------------------------


def _marker_entries(
    paths: Sequence[_Path], marked: set[int], clock: str, *, crosses: bool, chance: bool
) -> list[tuple[str, dict[str, Any]]]:
    """What the markers mean: label and style."""
    times = sorted(marked)
    entries: list[tuple[str, dict[str, Any]]] = []
    for k, time in enumerate(times):
        area = _FIRST + (_LAST - _FIRST) * _progress(time, times)
        style = {"marker": "o", "markersize": math.sqrt(area), "mfc": "0.4", "mec": "white"}
        entries.append((f"{clock} {time}" if k == 0 else str(time), style))
    if crosses:
        entries.append(("linear probe", {"marker": "x", "markersize": 4.5, "mec": "0.2"}))
    if chance:
        entries.append((_CHANCE, {"marker": "_", "markersize": 10, "mec": "0.2", "mew": 2}))
    seen = {point.verdict for path in paths for point in path.points} - {"", "ok"}
    for verdict in sorted(seen):
        style = {"marker": VERDICT_MARKERS.get(verdict, "*"), "markersize": 6, "mfc": "white", "mec": "0.2"}
        entries.append((f"flagged: {verdict}", style))
    return entries


def _draw_legend(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
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
    """What was measured, in one line."""
    sources = dict.fromkeys(point.source for point in points)
    samples = []
    for source in sources:
        numbers = sorted({point.n_samples for point in points if point.source == source})
        told = "–".join(f"{n:,}".replace(",", " ") for n in dict.fromkeys((numbers[0], numbers[-1])))
        samples.append(f"{told} in {IN_WORDS[source]}")
    n_layers = len({point.layer for point in points})
    parts = [f"N = {' and '.join(samples)}", f"{n_layers} layer{'s' * (n_layers > 1)}"]
    if _n_named(n_layers) < n_layers:
        parts[-1] += f", {_n_named(n_layers)} of them named"
    parts += [f"{len(times)} measurement{'s' * (len(times) > 1)}", points[-1].unit]
    corrections = sorted({point.correction for point in points} - {""})
    return " · ".join(
        parts + [f"corrected: {name}" for name in corrections] + short_labels([run], _LONGEST_RUN) * bool(run)
    )
