"""The picture of the information plane: from a history of points to a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.history import SATURATED, InformationPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[float, float, float, float]

_MARKERS = "os^DvPX*<>ph"
_LONGEST_NAME = 32


def plot_information_plane(history: Sequence[InformationPoint]) -> Figure:
    """Draw the information plane: I(X;T) to the right, I(T;Y) up, one path a layer, one colour an epoch.

    A layer is told by its marker, an epoch by its colour. Points with H(T) above 0.9 log N are drawn hollow: they are
    saturated, and say more of the number of samples than of the layer. The broken lines are the bounds: H(Y), which
    I(T;Y) cannot exceed, and log N, which no entropy of N samples can.

    Args:
        history: the points of one run, of any number of layers and epochs, all in one unit. Points that are NaN are
            left out.

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

    points = [point for point in history if math.isfinite(point.i_xt) and math.isfinite(point.i_ty)]
    if not points:
        raise ValueError("there is no point to draw: the history has none with a finite I(X;T) and I(T;Y).")
    layers = list(dict.fromkeys(point.layer for point in points))
    epochs = [point.epoch for point in points]
    scale = Normalize(min(epochs), max(*epochs, min(epochs) + 1))
    viridis = colormaps["viridis"]

    figure = Figure(figsize=(7.2, 5.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    _draw_bounds(axes, points)
    for k, layer in enumerate(layers):
        path = sorted((point for point in points if point.layer == layer), key=lambda point: (point.epoch, point.step))
        _draw_path(axes, path, _MARKERS[k % len(_MARKERS)], [viridis(float(scale(point.epoch))) for point in path])
    unit = points[-1].unit
    axes.set_xlabel(f"I(X;T) [{unit}]")
    axes.set_ylabel(f"I(T;Y) [{unit}]")
    axes.set_title("Information plane")
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.colorbar(ScalarMappable(scale, viridis), ax=axes, label="epoch", ticks=MaxNLocator(integer=True), pad=0.02)
    _draw_legend(figure, layers, any(point.saturation > SATURATED for point in points))
    return figure


def _draw_bounds(axes: Axes, points: Sequence[InformationPoint]) -> None:
    last = points[-1]
    h_y = max(point.h_y for point in points)
    n = max(point.n_samples for point in points)
    log_n = math.log2(n) if last.unit == "bits" else math.log(n)
    style: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": (0, (5, 4)), "zorder": 1}
    axes.axhline(h_y, **style)
    axes.axvline(log_n, **style)
    label: dict[str, Any] = {"fontsize": 9, "color": "0.25", "textcoords": "offset points"}
    axes.annotate(f"H(Y) = {h_y:.2f} {last.unit}", (0, h_y), xytext=(4, 4), **label)
    axes.annotate(f"log N = {log_n:.2f} {last.unit}", (log_n, 0), xytext=(-4, 6), rotation=90, ha="right", **label)
    # From zero to the bounds, and as far below zero as a narrowed X or rounding may lead.
    axes.set_xlim(min(0.0, *(point.i_xt for point in points)) - 0.02 * log_n, 1.04 * log_n)
    axes.set_ylim(min(0.0, *(point.i_ty for point in points)) - 0.03 * h_y, 1.1 * h_y)


def _draw_path(axes: Axes, path: Sequence[InformationPoint], marker: str, colours: Sequence[Colour]) -> None:
    x, y = [point.i_xt for point in path], [point.i_ty for point in path]
    faces = [(0, 0, 0, 0) if point.saturation > SATURATED else colour for point, colour in zip(path, colours)]
    axes.plot(x, y, color="0.6", linewidth=0.9, zorder=2)
    axes.scatter(x, y, s=46, marker=marker, facecolors=faces, edgecolors=colours, linewidths=1.3, zorder=3)
    # The first and the last point have a dark rim, and the last is larger: which way the path goes.
    for k, size in ((0, 46), (-1, 90)):
        axes.scatter(
            x[k], y[k], s=size, marker=marker, facecolors=[faces[k]], edgecolors="0.1", linewidths=1.0, zorder=4
        )


def _draw_legend(figure: Figure, layers: Sequence[str], any_saturated: bool) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, marker: str, face: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=7, mfc=face, mec="0.2", label=label)

    entries = [entry(label, _MARKERS[k % len(_MARKERS)], "0.6") for k, label in enumerate(_labels(layers))]
    if any_saturated:
        entries.append(entry(f"hollow: saturated, H(T) > {SATURATED} log N", "o", "none"))
    longest = max(len(str(line.get_label())) for line in entries)
    columns = max(1, min(len(entries), 88 // (longest + 6)))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def _labels(names: Sequence[str]) -> list[str]:
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
