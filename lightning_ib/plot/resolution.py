"""The picture of a resolution sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_ib.functional.checks import logarithm
from lightning_ib.plot.estimates import _GRAY, _HOLLOW, _LINES, _MARKERS, _MOST_COLUMNS
from lightning_ib.plot.labels import VERBATIM, Color, depth_colors, legend, short_labels, tinted
from lightning_ib.plot.paths import BOUND
from lightning_ib.records.reliability import SATURATED
from lightning_ib.records.resolution import Resolution


def plot_resolution(rows: Sequence[Resolution]) -> Figure:
    """Draw how values depend on resolution: H(T) and below it I(T;Y) of every layer, against the number of bins.

    The color is the depth of the layer, as in the information plane; it is stronger and the line wider, the more
    samples. A line style and marker is a pool. Points with H(T) above 0.9 log N are drawn hollow: they are saturated.
    The thin lines are the bounds log N of H(T), one for each number of samples, and the broken one is H(Y), which
    I(T;Y) cannot exceed. Without a target H(T) alone is drawn.

    Args:
        rows: those of a sweep, all in one unit. Rows that are NaN are left out.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: all rows are NaN.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if math.isfinite(row.h_t)]
    if not rows:
        raise ValueError("there is nothing to draw: no row has a finite H(T).")
    layers, pools = (list(dict.fromkeys(names)) for names in zip(*((row.layer, row.pool) for row in rows)))
    sizes = sorted({row.n_samples for row in rows})
    quantities = ["H(T)", "I(T;Y)"] if any(math.isfinite(row.i_ty) for row in rows) else ["H(T)"]
    n_blocks = math.ceil(len(layers) / _MOST_COLUMNS)
    n_columns = math.ceil(len(layers) / n_blocks)
    # How strong the lines of each number of samples are.
    shares = {n: 0.35 + 0.65 * (k + 1) / len(sizes) if len(sizes) > 1 else 1.0 for k, n in enumerate(sizes)}

    n_rows = n_blocks * len(quantities)
    figure = Figure(figsize=(max(8.8, 0.8 + 2.9 * n_columns), 1.4 + 2.1 * n_rows), dpi=130, layout="constrained")
    grid = figure.add_gridspec(n_rows, n_columns)
    first: dict[str, Axes] = {}
    for k, (layer, title, color) in enumerate(zip(layers, short_labels(layers), depth_colors(len(layers)))):
        block, column = divmod(k, n_columns)
        for j, quantity in enumerate(quantities):
            axes = figure.add_subplot(grid[block * len(quantities) + j, column], sharey=first.get(quantity))
            first.setdefault(quantity, axes)
            _draw_quantity(axes, [row for row in rows if row.layer == layer], quantity, color, shares, pools)
            _draw_scales(axes, rows, quantity, shares)
            axes.tick_params(labelleft=column == 0, labelbottom=j == len(quantities) - 1, labelsize=8)
            axes.set_title(title if j == 0 else "", fontsize=9, color=tinted(color, 1.28), **VERBATIM)
            axes.set_xlabel("bins a coordinate" if j == len(quantities) - 1 else "", fontsize=9)
            axes.set_ylabel(f"{quantity} [{rows[0].unit}]" if column == 0 else "", fontsize=9)
    figure.align_ylabels()
    _draw_resolution_legend(figure, rows, shares, pools, about_target=len(quantities) > 1)
    return figure


def _draw_quantity(
    axes: Axes,
    rows: Sequence[Resolution],
    quantity: str,
    color: Color,
    shares: Mapping[int, float],
    pools: Sequence[str],
) -> None:
    for n, share in shares.items():
        shade = tinted(color, share)
        for k, pool in enumerate(pools):
            line = sorted((r for r in rows if (r.n_samples, r.pool) == (n, pool)), key=lambda row: row.n_bins)
            if not line:
                continue
            x, y = [row.n_bins for row in line], [row.h_t if quantity == "H(T)" else row.i_ty for row in line]
            faces = ["white" if row.saturation > SATURATED else shade for row in line]
            axes.plot(x, y, color=shade, linewidth=1.6 * share, linestyle=_LINES[k % len(_LINES)], zorder=2)
            marker = _MARKERS[k % len(_MARKERS)]
            axes.scatter(x, y, s=20, marker=marker, facecolors=faces, edgecolors=[shade], linewidths=1.1, zorder=3)


def _draw_scales(axes: Axes, rows: Sequence[Resolution], quantity: str, shares: Mapping[int, float]) -> None:
    """The bounds, and axes from zero to them; the same in every panel of a quantity."""
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    if quantity == "H(T)":
        tops = {n: logarithm(rows[0].unit)(n) for n in shares}
        for n, share in shares.items():
            axes.axhline(tops[n], color=tinted(_GRAY, share), linewidth=0.7, zorder=1)
        top = max(tops.values())
    else:
        top = max(rows, key=lambda row: row.n_samples).h_y
        axes.axhline(top, **BOUND)
    axes.set_ylim(-0.04 * (top or 1.0), 1.08 * (top or 1.0))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_tick_numbers([row.n_bins for row in rows])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.25, linewidth=0.6)


def _tick_numbers(numbers: Sequence[int]) -> list[int]:
    """The numbers with room for a label on a logarithmic axis, the least and the greatest among them."""
    low, high = min(numbers), max(numbers)
    kept = [low]
    for n in sorted(set(numbers)):
        if min(math.log(n / kept[-1]), math.log(high / n) or math.inf) > 0.11 * math.log(high / low):
            kept.append(n)
    return kept


def _draw_resolution_legend(
    figure: Figure, rows: Sequence[Resolution], shares: Mapping[int, float], pools: Sequence[str], *, about_target: bool
) -> None:
    from matplotlib.lines import Line2D

    numbers: list[tuple[str, Line2D]] = [
        (f"N = {n}", Line2D([], [], color=tinted(_GRAY, share), linewidth=2.5 * share)) for n, share in shares.items()
    ]
    names = []
    for k, label in enumerate(short_labels(pools)):
        line, marker = _LINES[k % len(_LINES)], _MARKERS[k % len(_MARKERS)]
        style: dict[str, Any] = {"color": _GRAY, "linewidth": 1.2, "markersize": 5}
        names.append((f"pool: {label}", Line2D([], [], linestyle=line, marker=marker, **style)))
    rest = [("log N", Line2D([], [], color=_GRAY, linewidth=0.7))]
    if about_target:
        rest.append(("H(Y), all samples", Line2D([], [], **BOUND)))
    if any(row.saturation > SATURATED for row in rows):
        rest.append((_HOLLOW, Line2D([], [], linestyle="", marker="o", markersize=5, mfc="none", mec="0.2")))
    groups = [numbers, names, rest]
    # A legend fills its columns one after the other: blank entries keep each group in a column of its own.
    height = max(map(len, groups))
    blank = (" ", Line2D([], [], linestyle=""))
    labels, lines = zip(*(one for group in groups for one in (*group, *[blank] * (height - len(group)))))
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(groups), "handlelength": 3.0}
    legend(figure, lines, labels, fontsize=9, **place)
