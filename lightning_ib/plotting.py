"""The picture of the information plane: from a history of points to a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.functional.checks import logarithm
from lightning_ib.history import STANDARD_ERRORS, Estimate, InformationPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[float, float, float, float]
Place = Callable[[InformationPoint], tuple[float, float]]

MARKERS = "os^DvPX*<>ph"
_LONGEST_NAME = 32

# In characters: what fits below the picture, and what a marker takes of it.
_LEGEND_WIDTH, _MARKER_WIDTH = 88, 6

# Of the picture, in inches: its size, its margins, and what a row of the legend takes below it.
_SIZE = (7.2, 5.6)
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_ROW = 0.72, 0.96, 0.42, 0.68, 0.2

# The share of log N from which on the plane is drawn up to log N.
_NEAR = 0.6
BOUND: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": (0, (5, 4)), "zorder": 1}
_LABEL: dict[str, Any] = {"fontsize": 9, "color": "0.25", "textcoords": "offset points"}


def plot_information_plane(history: Sequence[InformationPoint], estimates: Sequence[Estimate] = ()) -> Figure:
    """Draw the information plane: I(X;T) to the right, I(T;Y) up, one path a layer, one colour an epoch.

    The marker is the layer, the color the epoch. Hollow markers are flagged as unreliable, and the legend names the
    verdicts. The bars reach two standard errors to either side. A cross at the same I(X;T) is what a linear probe reads
    of the same rows. A dash below the last point of each layer marks I(T;Y) under permuted labels. The broken lines are
    bounds: H(Y), which I(T;Y) cannot exceed, and log N, which no entropy of N samples can. The dotted line is Fano's:
    the layers that predictions are computed from alone hold at least this much I(T;Y) after the last epoch, by the
    accuracy of the head.

    Where there is no target, no point has a finite I(T;Y), and I(X;T) is drawn over the epochs instead.

    Args:
        history: the points of one run, of any number of layers and epochs, all in one unit. Points that are NaN are
            left out.
        estimates: those of the same run; the ones of ``"probe"`` about the target are drawn.

    Returns:
        A figure that belongs to nobody: no pyplot, no global state.

    Raises:
        ValueError: there is no point to draw.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    points = [point for point in history if math.isfinite(point.i_xt)]
    about_target = any(math.isfinite(point.i_ty) for point in points)
    if about_target:
        points = [point for point in points if math.isfinite(point.i_ty)]
    if not points:
        raise ValueError("there is no point to draw: the history has none with a finite I(X;T).")
    place: Place = (lambda point: (point.i_xt, point.i_ty)) if about_target else lambda point: (point.epoch, point.i_xt)
    read = {(one.layer, one.step, one.epoch): one.value for one in estimates if _is_read(one)} if about_target else {}
    layers = list(dict.fromkeys(point.layer for point in points))
    epochs = [point.epoch for point in points]
    scale = Normalize(min(epochs), max(*epochs, min(epochs) + 1))
    viridis = colormaps["viridis"]

    figure = Figure(figsize=_SIZE, dpi=130)
    axes = figure.add_subplot()
    unit = points[-1].unit
    if about_target:
        _draw_bounds(axes, points)
        axes.set(xlabel=f"I(X;T) [{unit}]", ylabel=f"I(T;Y) [{unit}]", title="Information plane")
    else:
        _draw_bound_over_epochs(axes, points)
        axes.set(xlabel="epoch", ylabel=f"I(X;T) [{unit}]", title="Information about the input")
    for k, layer in enumerate(layers):
        path = sorted((point for point in points if point.layer == layer), key=lambda point: (point.epoch, point.step))
        colours = [viridis(float(scale(point.epoch))) for point in path]
        _draw_path(axes, path, place, MARKERS[k % len(MARKERS)], colours)
        _draw_bars(axes, path, place, about_target)
        if about_target:
            _draw_chance(axes, path[-1], colours[-1])
            _draw_probe(axes, path, read, colours)
    axes.grid(alpha=0.25, linewidth=0.6)
    chance = about_target and any(math.isfinite(point.i_ty_shuffled) for point in points)
    doubts = sorted({point.verdict for point in points} - {"", "ok"})
    n_rows = _draw_legend(figure, layers, doubts, chance=chance, probe=bool(read))
    # Margins in inches, known beforehand: a layout engine would draw everything twice to find them, at every epoch.
    (width, height), bottom = _SIZE, _BOTTOM + n_rows * _LEGEND_ROW
    height += max(0, n_rows - 3) * _LEGEND_ROW  # a long legend does not squeeze the plane
    figure.set_size_inches(width, height)
    figure.subplots_adjust(_LEFT / width, bottom / height, 1 - _RIGHT / width, 1 - _TOP / height)
    right = (1 - (_RIGHT - 0.14) / width, bottom / height, 0.2 / width, 1 - (bottom + _TOP) / height)
    shades = ScalarMappable(scale, viridis)
    figure.colorbar(shades, cax=figure.add_axes(right), label="epoch", ticks=MaxNLocator(integer=True))
    return figure


def _is_read(estimate: Estimate) -> bool:
    """Whether an estimate is what the probe reads of the target."""
    return estimate.estimator == "probe" and estimate.figure == "I_TY" and math.isfinite(estimate.value)


def _draw_bounds(axes: Axes, points: Sequence[InformationPoint]) -> None:
    unit = points[-1].unit
    h_y, log_n = max(point.h_y for point in points), _log_n(points)
    far = max(point.i_xt for point in points)
    # Where the points stay far from log N, the plane ends where they do.
    right = log_n if far > _NEAR * log_n else 1.15 * far or 1.0
    axes.axhline(h_y, **BOUND)
    axes.annotate(f"H(Y) = {h_y:.2f} {unit}", (0, h_y), xytext=(4, 4), **_LABEL)
    n = " and ".join(f"{n:,}".replace(",", " ") for n in sorted({point.n_samples for point in points}))
    told = f"N = {n}, log N = {log_n:.2f} {unit}"
    if right == log_n:
        axes.axvline(log_n, **BOUND)
        axes.annotate(told, (log_n, 0), xytext=(-4, 6), rotation=90, ha="right", **_LABEL)
    else:
        axes.annotate(told, (1, 1), xycoords="axes fraction", xytext=(0, 6), ha="right", **_LABEL)
    last = max(points, key=lambda point: (point.epoch, point.step))
    if math.isfinite(last.i_ty_fano) and last.i_ty_fano > 0:
        axes.axhline(last.i_ty_fano, color="0.35", linewidth=1.0, linestyle=":", zorder=1)
        # Above H(Y), where no point lies.
        fano = f"dotted: ≥ {last.i_ty_fano:.2f} {unit} by Fano, epoch {last.epoch}"
        axes.annotate(fano, (right, h_y), xytext=(-4, 4), ha="right", **_LABEL)
    # From zero to the bounds, and as far below zero as a narrowed X or rounding may lead.
    axes.set_xlim(min(0.0, *(point.i_xt for point in points)) - 0.02 * right, 1.04 * right)
    axes.set_ylim(min(0.0, *(point.i_ty for point in points)) - 0.03 * h_y, 1.1 * h_y)


def _draw_bound_over_epochs(axes: Axes, points: Sequence[InformationPoint]) -> None:
    from matplotlib.ticker import MaxNLocator

    log_n = _log_n(points)
    axes.axhline(log_n, **BOUND)
    label = f"log N = {log_n:.2f} {points[-1].unit}"
    axes.annotate(label, (0, log_n), xycoords=("axes fraction", "data"), xytext=(4, 4), **_LABEL)
    top = log_n or 1.0
    axes.set_ylim(min(0.0, *(point.i_xt for point in points)) - 0.03 * top, 1.1 * top)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _log_n(points: Sequence[InformationPoint]) -> float:
    n = max(point.n_samples for point in points)
    return logarithm(points[-1].unit)(n)


def _draw_path(
    axes: Axes, path: Sequence[InformationPoint], place: Place, marker: str, colours: Sequence[Colour]
) -> None:
    x, y = zip(*map(place, path))
    faces = [colour if point.verdict in ("", "ok") else (0, 0, 0, 0) for point, colour in zip(path, colours)]
    axes.plot(x, y, color="0.6", linewidth=0.9, zorder=2)
    axes.scatter(x, y, s=46, marker=marker, facecolors=faces, edgecolors=colours, linewidths=1.3, zorder=3)
    # The first and the last point have a dark rim, and the last is larger: which way the path goes.
    for k, size in ((0, 46), (-1, 90)):
        axes.scatter(
            x[k], y[k], s=size, marker=marker, facecolors=[faces[k]], edgecolors="0.1", linewidths=1.0, zorder=4
        )


def _draw_bars(axes: Axes, path: Sequence[InformationPoint], place: Place, about_target: bool) -> None:
    """Bars of two standard errors to either side, where they are known."""
    errors = [(point.i_xt_se, point.i_ty_se) if about_target else (0.0, point.i_xt_se) for point in path]
    known = [(place(point), error) for point, error in zip(path, errors) if all(map(math.isfinite, error))]
    if known:
        (x, y), (dx, dy) = (zip(*values) for values in zip(*known))
        bars = [[STANDARD_ERRORS * error for error in errors] for errors in (dx, dy)]
        axes.errorbar(x, y, xerr=bars[0], yerr=bars[1], fmt="none", ecolor="0.25", elinewidth=0.9, zorder=5)


def _draw_chance(axes: Axes, point: InformationPoint, colour: Colour) -> None:
    if math.isfinite(point.i_ty_shuffled):
        axes.plot(
            [point.i_xt] * 2, [point.i_ty_shuffled, point.i_ty], color=colour, linewidth=1.0, linestyle=":", zorder=1
        )
        axes.plot(point.i_xt, point.i_ty_shuffled, marker="_", color=colour, markersize=11, markeredgewidth=2, zorder=2)


def _draw_probe(
    axes: Axes, path: Sequence[InformationPoint], read: Mapping[tuple[str, int, int], float], colours: Sequence[Colour]
) -> None:
    """What the probe reads of the same rows, above or below each point."""
    marks = [
        (point.i_xt, read[key], colour)
        for point, colour in zip(path, colours)
        if (key := (point.layer, point.step, point.epoch)) in read
    ]
    if marks:
        x, y, shades = zip(*marks)
        axes.scatter(x, y, s=16, marker="x", c=shades, linewidths=0.9, zorder=2.5)


def _draw_legend(figure: Figure, layers: Sequence[str], doubts: Sequence[str], *, chance: bool, probe: bool) -> int:
    """The legend below the picture, and how many rows it has."""
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, face: str) -> Line2D:
        """What stands for a marker."""
        return Line2D([], [], linestyle="", marker=marker, markersize=7, mfc=face, mec="0.2", label=label)

    entries = [entry(label, MARKERS[k % len(MARKERS)], "0.6") for k, label in enumerate(short_labels(layers))]
    if doubts:
        entries.append(entry(f"hollow: {', '.join(doubts)}", "o", "none"))
    if chance:
        entries.append(entry("permuted labels", "_", "0.2"))
    if probe:
        entries.append(entry("linear probe", "x", "0.2"))
    columns = _columns([str(line.get_label()) for line in entries])
    figure.legend(handles=entries, loc="lower center", ncols=columns, fontsize=9, frameon=False, borderaxespad=0.5)
    return math.ceil(len(entries) / columns)


def _columns(labels: Sequence[str]) -> int:
    """The most columns, each as wide as its longest label, that fit side by side; a legend fills them one by one."""
    for n in range(len(labels), 1, -1):
        size, longer = divmod(len(labels), n)
        ends = [size * k + min(k, longer) for k in range(n + 1)]
        widths = [max(map(len, labels[start:end])) + _MARKER_WIDTH for start, end in zip(ends, ends[1:])]
        if sum(widths) <= _LEGEND_WIDTH:
            return n
    return 1


def short_labels(names: Sequence[str]) -> list[str]:
    """Module names short enough for a legend, and still different: what they share in front goes first."""
    if all(len(name) <= _LONGEST_NAME for name in names):
        return list(names)
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts)) - 1
    front = next((k for k in range(shortest) if len({p[k] for p in parts}) > 1), shortest) if len(names) > 1 else 0
    middles = ["…" * (front > 0) + ".".join(p[front:]) for p in parts]
    half = _LONGEST_NAME // 2
    short = [m if len(m) <= _LONGEST_NAME else f"{m[:half]}…{m[-half + 1 :]}" for m in middles]
    return short if len(set(short)) == len(set(names)) else list(names)
