"""Figures of many panels: what other estimators say, epoch by epoch, and how figures move with resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.functional.checks import logarithm
from lightning_ib.history import Estimate
from lightning_ib.plotting import BOUND, MARKERS, Colour, short_labels
from lightning_ib.verdict import SATURATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lightning_ib.resolution import Resolution

_COLUMNS = 3
_MOST_COLUMNS = 4
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
_HOLLOW = f"hollow: saturated, H(T) > {SATURATED} log N"
_TITLES = {
    "I_XT": "I(X;T)",
    "I_TY": "I(T;Y)",
    "H_T": "H(T)",
    "I_TY_floor": "I(T;Y), permuted labels",
    "I_TY_above_floor": "I(T;Y) above that",
    "accuracy": "held-out accuracy",
    "noise_variance": "σ²",
    "kernel_width": "kernel width",
}


def plot_estimates(estimates: Sequence[Estimate]) -> Figure:
    """Draw what estimators that do not bin say: a panel for each estimator and figure, a line for each layer.

    Where an estimator gives a lower bound beside an upper one, the band between them is shaded. Hollow markers are
    flagged as unreliable, and the legend names the verdicts.

    Args:
        estimates: those of one run. Values that are NaN are left out.

    Returns:
        A figure that belongs to nobody: no pyplot, no global state.

    Raises:
        ValueError: there is none that is finite.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    known = [estimate for estimate in estimates if math.isfinite(estimate.value)]
    if not known:
        raise ValueError("there is no estimate to draw: none is finite.")
    layers = list(dict.fromkeys(estimate.layer for estimate in known))
    names = dict.fromkeys((one.estimator, one.figure) for one in known)
    # A lower bound is drawn with its upper one, where there is one.
    panels = [
        (estimator, name)
        for estimator, name in names
        if not name.endswith("_lower") or (estimator, name.removesuffix("_lower")) not in names
    ]
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.5 * columns + 0.6, 2.8 * lines + 0.9), dpi=130, layout="constrained")
    shades = dict(zip(layers, (colormaps["viridis"](0.9 * k / max(1, len(layers) - 1)) for k in range(len(layers)))))
    for k, (estimator, name) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, k + 1)
        of = [one for one in known if (one.estimator, one.figure) == (estimator, name)]
        below = {
            (one.layer, one.step): one.value
            for one in known
            if (one.estimator, one.figure) == (estimator, f"{name}_lower")
        }
        for layer in layers:
            path = sorted((one.epoch, one.step, one.value, one.verdict) for one in of if one.layer == layer)
            epochs_of, values = [epoch for epoch, *_ in path], [value for _, _, value, _ in path]
            axes.plot(epochs_of, values, color=shades[layer], linewidth=1.2)
            faces = [shades[layer] if doubt in ("", "ok") else "white" for *_, doubt in path]
            axes.scatter(epochs_of, values, s=14, c=faces, edgecolors=[shades[layer]] * len(path), zorder=3)
            band = [(e, below[layer, step], value) for e, step, value, _ in path if (layer, step) in below]
            if band:
                epochs, low, high = zip(*band)
                axes.fill_between(epochs, low, high, color=shades[layer], alpha=0.18, linewidth=0)
        axes.set_title(f"{estimator}: {_TITLES.get(name, name)}", fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"[{of[0].unit}]" if of[0].unit else "share" if name == "accuracy" else "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25, linewidth=0.6)
    labels = short_labels(layers)
    handles = [
        axes.plot([], [], color=shades[layer], marker="o", label=label)[0] for layer, label in zip(layers, labels)
    ]
    if doubts := sorted({one.verdict for one in known} - {"", "ok"}):
        hollow = f"hollow: {', '.join(doubts)}"
        handles += axes.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.2", label=hollow)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=9, frameon=False)
    return figure


def plot_resolution(rows: Sequence[Resolution]) -> Figure:
    """Draw how figures move with resolution: H(T) and below it I(T;Y) of every layer, against the number of bins.

    A colour is a number of samples, a line style and marker a pool. Points with H(T) above 0.9 log N are drawn hollow:
    they are saturated. The thin lines are the bounds log N of H(T), one for each number of samples, and the broken one
    is H(Y), which I(T;Y) cannot exceed. Where there is no target, H(T) alone is drawn.

    Args:
        rows: what a sweep measured, all in one unit. Rows that are NaN are left out.

    Returns:
        A figure that belongs to nobody: no pyplot, no global state.

    Raises:
        ValueError: there is no row to draw.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = [row for row in rows if math.isfinite(row.h_t)]
    if not rows:
        raise ValueError("there is nothing to draw: no row has a finite H(T).")
    layers, pools = (list(dict.fromkeys(names)) for names in zip(*((row.layer, row.pool) for row in rows)))
    sizes = sorted({row.n_samples for row in rows})
    quantities = ["H(T)", "I(T;Y)"] if any(math.isfinite(row.i_ty) for row in rows) else ["H(T)"]
    n_blocks = math.ceil(len(layers) / _MOST_COLUMNS)
    n_columns = math.ceil(len(layers) / n_blocks)
    # The end of viridis is too light for lines on white.
    shades = [0.9 * (1 - k / max(1, len(sizes) - 1)) for k in range(len(sizes))]
    colours = dict(zip(sizes, map(colormaps["viridis"], shades)))

    n_rows = n_blocks * len(quantities)
    figure = Figure(figsize=(max(8.8, 0.8 + 2.9 * n_columns), 1.4 + 2.1 * n_rows), dpi=130, layout="constrained")
    grid = figure.add_gridspec(n_rows, n_columns)
    first: dict[str, Axes] = {}
    for k, (layer, title) in enumerate(zip(layers, short_labels(layers))):
        block, column = divmod(k, n_columns)
        for j, quantity in enumerate(quantities):
            axes = figure.add_subplot(grid[block * len(quantities) + j, column], sharey=first.get(quantity))
            first.setdefault(quantity, axes)
            _draw_quantity(axes, [row for row in rows if row.layer == layer], quantity, colours, pools)
            _draw_scales(axes, rows, quantity, colours)
            axes.tick_params(labelleft=column == 0, labelbottom=j == len(quantities) - 1, labelsize=8)
            axes.set_title(title if j == 0 else "", fontsize=9)
            axes.set_xlabel("bins a coordinate" if j == len(quantities) - 1 else "", fontsize=9)
            axes.set_ylabel(f"{quantity} [{rows[0].unit}]" if column == 0 else "", fontsize=9)
    figure.align_ylabels()
    _draw_resolution_legend(figure, rows, colours, pools, about_target=len(quantities) > 1)
    return figure


def _draw_quantity(
    axes: Axes, rows: Sequence[Resolution], quantity: str, colours: dict[int, Colour], pools: Sequence[str]
) -> None:
    for n, colour in colours.items():
        for k, pool in enumerate(pools):
            line = sorted((r for r in rows if (r.n_samples, r.pool) == (n, pool)), key=lambda row: row.n_bins)
            if not line:
                continue
            x, y = [row.n_bins for row in line], [row.h_t if quantity == "H(T)" else row.i_ty for row in line]
            faces = ["white" if row.saturation > SATURATED else colour for row in line]
            axes.plot(x, y, color=colour, linewidth=1.2, linestyle=_LINES[k % len(_LINES)], zorder=2)
            marker = MARKERS[k % len(MARKERS)]
            axes.scatter(x, y, s=20, marker=marker, facecolors=faces, edgecolors=[colour], linewidths=1.1, zorder=3)


def _draw_scales(axes: Axes, rows: Sequence[Resolution], quantity: str, colours: dict[int, Colour]) -> None:
    """The bounds, and axes from zero to them; the same in every panel of a quantity."""
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    if quantity == "H(T)":
        tops = {n: logarithm(rows[0].unit)(n) for n in colours}
        for n, colour in colours.items():
            axes.axhline(tops[n], color=colour, linewidth=0.7, zorder=1)
        top = max(tops.values())
    else:
        top = max(rows, key=lambda row: row.n_samples).h_y
        axes.axhline(top, **BOUND)
    axes.set_ylim(-0.04 * (top or 1.0), 1.08 * (top or 1.0))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart([row.n_bins for row in rows])))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.25, linewidth=0.6)


def _apart(numbers: Sequence[int]) -> list[int]:
    """Those of the numbers whose labels have room on a logarithmic axis, the least and the greatest among them."""
    low, high = min(numbers), max(numbers)
    kept = [low]
    for n in sorted(set(numbers)):
        if min(math.log(n / kept[-1]), math.log(high / n) or math.inf) > 0.11 * math.log(high / low):
            kept.append(n)
    return kept


def _draw_resolution_legend(
    figure: Figure, rows: Sequence[Resolution], colours: dict[int, Colour], pools: Sequence[str], *, about_target: bool
) -> None:
    from matplotlib.lines import Line2D

    numbers = [Line2D([], [], color=colour, linewidth=2.5, label=f"N = {n}") for n, colour in colours.items()]
    names = []
    for k, label in enumerate(short_labels(pools)):
        line, marker = _LINES[k % len(_LINES)], MARKERS[k % len(MARKERS)]
        style: dict[str, Any] = {"color": "0.35", "linewidth": 1.2, "markersize": 5}
        names.append(Line2D([], [], linestyle=line, marker=marker, label=f"pool: {label}", **style))
    rest = [Line2D([], [], color="0.35", linewidth=0.7, label="log N")]
    if about_target:
        rest.append(Line2D([], [], label="H(Y), all samples", **BOUND))
    if any(row.saturation > SATURATED for row in rows):
        rest.append(Line2D([], [], linestyle="", marker="o", markersize=5, mfc="none", mec="0.2", label=_HOLLOW))
    groups = [numbers, names, rest]
    # A legend fills its columns one after the other: blank entries keep each group in a column of its own.
    height = max(map(len, groups))
    entries = [line for group in groups for line in (*group, *_blank(height - len(group)))]
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(groups), "handlelength": 3.0}
    figure.legend(handles=entries, fontsize=9, frameon=False, **place)


def _blank(n: int) -> list[Line2D]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], linestyle="", label=" ") for _ in range(n)]
