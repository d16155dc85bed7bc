"""The picture of ``phases.py``: information, gradients and the way of the weights side by side, a row for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phases_runs import BOUND, Run
from phases_table import compressions, layers_of, moment, phases, series

from lightning_ib.plot.labels import depth_colors
from lightning_ib.records.record import ALL_LAYERS, GRADIENT, IN_WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK, GRAY, RED = "0.15", "0.5", "tab:red"
DASHED, DOTTED = (0, (4, 1.5)), (0, (1, 1.2))


def draw(runs: Sequence[Run], *, source: str, noise: float) -> Figure:
    """Draw the runs of one task: a row each, time to the right on a logarithmic scale that begins with 0.

    Columns are H(T) of each layer; mean and spread of the gradients of all weights; the distance of the weights from
    their start; and, where it was computed, the bound on compression. A vertical line in all columns is the transition
    of all weights. On the curves of H(T) a cross is the transition of the layer itself, a triangle where it begins to
    compress.

    Args:
        runs: of one task and one seed.
        source: ``"binned"`` or ``"cells"``: the symbols that H(T) is of.
        noise: σ² of the bound.
    """
    from matplotlib.figure import Figure

    with_bound = any(series(runs[0], layer, BOUND, "compression_bound") for layer in layers_of(runs[0]))
    figure = Figure(figsize=(12, 2.25 * len(runs) + 0.75), dpi=100)
    figure.set_layout_engine("constrained", wspace=0.02, hspace=0.04)
    grid: Any = figure.subplots(len(runs), 3 + with_bound, sharex=True, sharey="col", squeeze=False)
    for row, run in zip(grid, runs):
        colors = dict(zip(layers_of(run), depth_colors(len(layers_of(run)))))
        draw_entropies(row[0], run, colors, source)
        draw_gradients(row[1], run)
        draw_distances(row[2], run, colors)
        if with_bound:
            draw_bounds(row[3], run, colors, noise)
        transition = phases(run, ALL_LAYERS).transition
        for axes in row:
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.tick_params(labelsize=9)
            if not math.isnan(transition):
                axes.axvline(transition, color=RED, linewidth=1.1, zorder=0.8)
    if with_bound:
        grid[0, 3].set_ylim(bottom=0)
    scale_time(grid[0, 0], runs[0])
    for axes in grid[-1]:
        axes.set_xlabel(runs[0].clock, fontsize=10)
    draw_legend(figure, runs)
    return figure


def draw_entropies(axes: Axes, run: Run, colors: Mapping[str, Any], source: str) -> None:
    """H(T) of each layer, with its own transition and where it begins to compress."""
    begins = {one.layer: one.begins for one in compressions(run) if one.source == source}
    for layer, color in colors.items():
        h_t = {time: one.value for time, one in series(run, layer, source, "H_T").items()}
        axes.plot(list(h_t), list(h_t.values()), color=color, linewidth=1.4)
        for time, marker, size in ((begins[layer], "v", 7), (phases(run, layer).transition, "X", 8)):
            if not math.isnan(time):
                axes.plot(time, h_t[int(time)], marker, color=color, markersize=size, mec="white", mew=0.7, zorder=3)
    axes.set_title(f"{run.activation}, batches of {run.batch_size}", fontsize=11, fontweight="bold", loc="left")
    axes.set_ylabel(f"H(T) in {IN_WORDS[source]} [bits]", fontsize=10)


def draw_gradients(axes: Axes, run: Run) -> None:
    """Mean and spread of the gradients of all weights, and the mean that would be seen without any signal."""
    values = {name: series(run, ALL_LAYERS, GRADIENT, name) for name in ("grad_mean", "grad_std", "grad_snr_floor")}
    norms = series(run, ALL_LAYERS, GRADIENT, "weight_norm")
    times = list(norms)
    mean, spread = ([values[name][t].value / norms[t].value for t in times] for name in ("grad_mean", "grad_std"))
    floor = [one * values["grad_snr_floor"][t].value for one, t in zip(spread, times)]
    axes.plot(times, floor, color=GRAY, linestyle=DOTTED, linewidth=1.5)
    axes.plot(times, spread, color=DARK, linestyle=DASHED, linewidth=1.4)
    axes.plot(times, mean, color=DARK, linewidth=1.6)
    axes.set_yscale("log")
    axes.set_title("gradients, all weights", fontsize=10)
    axes.set_ylabel("norm / ‖w‖", fontsize=10)
    found = phases(run, ALL_LAYERS)
    if math.isnan(found.transition):
        why = "mean < spread throughout" if found.snr_max < 1 else "mean > spread at the end"
        axes.text(0.03, 0.05, f"no transition:\n{why}", transform=axes.transAxes, fontsize=9, va="bottom")


def draw_distances(axes: Axes, run: Run, colors: Mapping[str, Any]) -> None:
    """The distance of each layer's weights from their start, and the power law of all weights."""
    for layer, color in [*colors.items(), (ALL_LAYERS, DARK)]:
        distance = series(run, layer, GRADIENT, "weight_distance")
        axes.plot(list(distance), [one.value for one in distance.values()], color=color, linewidth=1.4)
    axes.set_yscale("log")
    axes.set_title("weights from their start", fontsize=10)
    axes.set_ylabel("‖w − w₀‖", fontsize=10)
    fit = phases(run, ALL_LAYERS).diffusion
    if math.isnan(fit.exponent):
        text = f"no exponent from\n{moment(fit.first)}–{moment(fit.last)}: < 1.5 decades"
    else:
        used = {t: one.value for t, one in distance.items() if fit.first <= t <= fit.last and one.value > 0}
        middle_t, middle_d = (math.exp(sum(map(math.log, of)) / len(used)) for of in (used, used.values()))
        ends = (fit.first, fit.last)
        law = [middle_d * (time / middle_t) ** fit.exponent for time in ends]
        axes.plot(ends, law, color=RED, linestyle=DASHED, linewidth=1.3)
        window = f"{moment(fit.first)}–{moment(fit.last)}"
        text = f"∝ {run.clock}$^{{{fit.exponent:.2f}}}$, R² = {fit.exponent_r2:.2f}\nover {window}"
    around: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(0.03, 0.95, text, transform=axes.transAxes, fontsize=9, va="top", bbox=around)


def draw_bounds(axes: Axes, run: Run, colors: Mapping[str, Any], noise: float) -> None:
    """What each layer could take over from the one before, at noise that was chosen."""
    for layer, color in colors.items():
        bound = series(run, layer, BOUND, "compression_bound")
        axes.plot(list(bound), [one.value for one in bound.values()], color=color, linewidth=1.4)
    axes.set_title(f"bound, Gaussian, at noise σ² = {noise:g}", fontsize=9)
    axes.set_ylabel("per layer [bits]", fontsize=10)


def scale_time(axes: Axes, run: Run) -> None:
    """A logarithmic axis from the first moment on, with 0, before training, at its left end."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    times = list(series(run, ALL_LAYERS, GRADIENT, "grad_snr"))
    first, last = times[0], max(times[-1], 2 * times[0])
    axes.set_xscale("symlog", linthresh=first, linscale=0.4)
    axes.set_xlim(-0.1 * first, last * 1.25)
    decades = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
    axes.xaxis.set_major_locator(FixedLocator([0, *(10**k for k in decades)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def draw_legend(figure: Figure, runs: Sequence[Run]) -> None:
    """Below the panels: layers, then lines and marks."""
    from matplotlib.lines import Line2D

    layers = layers_of(runs[0])
    entries = [Line2D([], [], color=c, linewidth=2, label=name) for name, c in zip(layers, depth_colors(len(layers)))]
    entries += [
        Line2D([], [], color=DARK, linewidth=1.6, label="all weights; mean ‖ḡ‖"),
        Line2D([], [], color=DARK, linewidth=1.4, linestyle=DASHED, label="spread √tr Cov(g)"),
        Line2D([], [], color=GRAY, linewidth=1.5, linestyle=DOTTED, label="mean without any signal"),
        Line2D([], [], color=RED, linewidth=1.1, label="transition, all weights"),
        Line2D([], [], color=RED, linewidth=1.3, linestyle=DASHED, label="power law, all weights"),
        Line2D([], [], color=DARK, marker="X", markersize=8, linestyle="", label="transition of the layer"),
        Line2D([], [], color=DARK, marker="v", markersize=7, linestyle="", label="compression begins"),
    ]
    columns = -(-len(entries) // 2)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=9.5, frameon=False)
