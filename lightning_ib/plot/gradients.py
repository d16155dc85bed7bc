"""The phases of training: mean and spread of the gradients of each layer, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.labels import VERBATIM, Color, depth_colors, legend, short_labels
from lightning_ib.records.history import History
from lightning_ib.records.phases import phase_transition
from lightning_ib.records.record import ALL_LAYERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_PANEL = (2.3, 2.0)  # inches
_DARK: Color = (0.2, 0.2, 0.2)
_GRAY: Color = (0.45, 0.45, 0.45)
_MOST_DOTS = 24

# Quantity → time → value, of one layer.
Series = Mapping[str, Mapping[int, float]]


def plot_gradients(history: History, *, normalized: bool = True) -> Figure:
    r"""Draw the phases of training: a panel for each layer, on logarithmic axes.

    The solid line is the norm of the mean gradient, the dashed one its spread from batch to batch, and the dotted one
    the mean that would be seen without any signal, spread/√M of M batches: where the solid line lies on it, nothing is
    left but noise. Where the spread outweighs the mean for good, a vertical line marks the transition
    (:func:`~lightning_ib.records.phases.phase_transition`).

    Args:
        history: of one run, with gradients.
        normalized: whether mean and spread are divided by the norm of the weights, as in the field.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: there are no gradients.
    """
    from matplotlib.figure import Figure

    clock, layers = _series(history)
    if not layers:
        raise ValueError("there is no gradient to draw: GradientSNRCallback records them, epoch by epoch.")
    columns = min(_COLUMNS, len(layers)) if len(layers) != 5 else 3
    rows = -(-len(layers) // columns)
    width = max(5.2, _PANEL[0] * columns + 0.5)
    # The legend takes a row for each pair of entries in a narrow picture.
    legend_rows = 1 if width > 8 else 2
    figure = Figure(figsize=(width, _PANEL[1] * rows + 0.25 + 0.22 * legend_rows), dpi=130, layout="constrained")
    grid: Any = figure.subplots(rows, columns, sharex=True, sharey=normalized, squeeze=False)
    panels = list(grid.flat)
    names = [*short_labels([layer for layer in layers if layer != ALL_LAYERS], 26), "all layers"]
    has_transition = False
    colors = depth_colors(len(layers) - (ALL_LAYERS in layers))
    for axes, name, color, of in zip(panels, names, [*colors, _DARK], layers.values()):
        has_transition |= _draw_layer(axes, of, color, normalized)
        axes.set_title(name, fontsize=9, **VERBATIM)
        axes.tick_params(labelsize=8, labelbottom=True)
        axes.grid(alpha=0.25, linewidth=0.6)
    for axes in panels[len(layers) :]:
        axes.remove()
    for axes in panels[max(0, len(layers) - columns) : len(layers)]:
        axes.set_xlabel(clock, fontsize=9)
    for row in grid:
        row[0].set_ylabel("gradient / ‖w‖" if normalized else "gradient, norm", fontsize=9)
    _draw_legend(figure, legend_rows, has_transition)
    return figure


def _draw_legend(figure: Figure, n_rows: int, has_transition: bool) -> None:
    from matplotlib.lines import Line2D

    entries: list[tuple[str, dict[str, Any]]] = [
        ("mean ‖ḡ‖", {"linestyle": "-", "color": "0.2"}),
        ("spread √tr Cov(g)", {"linestyle": (0, (4, 1.5)), "color": "0.2"}),
        ("mean without any signal, spread/√M", {"linestyle": (0, (1, 1.2)), "color": _GRAY}),
    ]
    if has_transition:
        entries.append(("spread > mean from here on", {"linestyle": "-", "color": "tab:red", "linewidth": 0.9}))
    handles = [Line2D([], [], **{"linewidth": 1.3, **how}) for _, how in entries]
    columns_of_legend = -(-len(entries) // n_rows)
    legend(
        figure,
        handles,
        [label for label, _ in entries],
        loc="outside lower center",
        ncols=columns_of_legend,
        fontsize=8.5,
    )


def _series(history: History) -> tuple[str, dict[str, Series]]:
    """The unit of time, and the values of each layer by quantity and time."""
    records = history.gradients().records()
    epochs = {(one.layer, one.quantity, one.epoch) for one in records}
    # A logarithmic axis has no epoch 0, in which the first steps are.
    clock = "step" if len(epochs) < len(records) or any(one.epoch == 0 for one in records) else "epoch"
    found: dict[str, dict[str, dict[int, float]]] = {}
    for one in records:
        found.setdefault(one.layer, {}).setdefault(one.quantity, {})[getattr(one, clock)] = one.value
    return clock, {
        layer: of for layer, of in found.items() if any(map(math.isfinite, of.get("grad_mean", {}).values()))
    }


def _draw_layer(axes: Axes, of: Series, color: Color, normalized: bool) -> bool:
    """The lines of one layer; returns whether there is a transition."""
    times = sorted(of["grad_mean"])
    norm = of.get("weight_norm", {}) if normalized else {}
    mean, spread = (_over(of.get(name, {}), norm, times) for name in ("grad_mean", "grad_std"))
    floor = [value * of.get("grad_snr_floor", {}).get(time, math.nan) for value, time in zip(spread, times)]
    dots: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(times) <= _MOST_DOTS else {}
    axes.plot(times, floor, color=_GRAY, linestyle=(0, (1, 1.2)), linewidth=1.3)
    axes.plot(times, spread, color=color, linestyle=(0, (4, 1.5)), linewidth=1.3, **dots)
    axes.plot(times, mean, color=color, linewidth=1.5, **dots)
    axes.set_yscale("log")
    _scale_time(axes, times)
    snr = of.get("grad_snr", {})
    transition = phase_transition(times, snr=[snr.get(time, math.nan) for time in times])
    if math.isnan(transition):
        return False
    axes.axvline(transition, color="tab:red", linewidth=0.9, zorder=0.8)
    return True


def _over(values: Mapping[int, float], norm: Mapping[int, float], times: Sequence[int]) -> list[float]:
    """Positive values on a logarithmic axis, NaN elsewhere."""
    over = [values.get(time, math.nan) / (norm.get(time, 0.0) or math.nan if norm else 1.0) for time in times]
    return [value if math.isfinite(value) and value > 0 else math.nan for value in over]


def _scale_time(axes: Axes, times: Sequence[int]) -> None:
    """A logarithmic axis, whose ticks are the numbers themselves."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if times[-1] < 10 * times[0]:
        axes.set_xticks(sorted({times[0], times[len(times) // 2], times[-1]}))
