"""The picture of the estimates, epoch by epoch: a panel for each quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.labels import VERBATIM, VERDICT_MARKERS, Color, depth_colors, legend, short_labels
from lightning_ib.plot.timeline import MOST_DOTS, marked_times, scale_time
from lightning_ib.records.record import STANDARD_ERRORS, Record
from lightning_ib.records.reliability import SATURATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


GAUSSIAN = "gaussian"
"""The name of the estimator whose bound holds at a noise that was chosen."""

_COLUMNS = 3
_PANEL = (2.4, 2.3)  # of estimators, in inches
_MOST_COLUMNS = 4
_GRAY: Color = (0.3, 0.3, 0.3)
_MARKERS = "os^DvPX*<>ph"
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
    "effective_rank": "effective rank",
    "effective_rank_of_variances": "of variances",
    "spectral_entropy": "entropy",
    "participation_ratio": "participation",
    "normalized_std": "normalized std",
    "mean_cosine": "mean cosine",
    "alpha": "α",
    "within_variance": "variance within",
    "between_variance": "variance between",
    "nc1": "NC1",
    "cdnv": "CDNV",
    "class_mean_cosine": "cosine of means",
    "class_mean_cosine_std": "its deviation",
    "etf_distance": "ETF distance",
    "cka_to_first": "CKA to first",
    "cka_to_last": "CKA to last",
}


def plot_estimates(estimates: Sequence[Record]) -> Figure:
    """Draw the values of estimators: a panel for each estimator and quantity, a line for each layer.

    The color is the depth of the layer, as in the information plane. Where an estimator returns a lower bound beside an
    upper one, the band between them is shaded. A bar reaches two standard errors to either side of a marked value,
    where the error is known. Each verdict but ``ok`` has a hollow marker of its own shape. Long runs have markers at
    the epochs 0, 1, 10, 100, … and the last one, and a logarithmic axis. Where values share an epoch, time is the
    optimizer step.

    Args:
        estimates: those of one run. Values that are NaN are left out.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: all of them are NaN or infinite.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    known = [estimate for estimate in estimates if math.isfinite(estimate.value)]
    if not known:
        raise ValueError("there is no estimate to draw: none is finite.")
    layers = list(dict.fromkeys(estimate.layer for estimate in known))
    panels = _panels(known)
    clock = "step" if len({(one.source, one.quantity, one.layer, one.epoch) for one in known}) < len(known) else "epoch"
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    verdicts = sorted({one.verdict for one in known} - {"", "ok"})
    labels = short_labels(layers) + [f"flagged: {verdict}" for verdict in verdicts]
    width = _PANEL[0] * max(2, columns) + 0.4
    # As many columns of the legend as fit: a character takes about a fourteenth of an inch.
    n_columns = max(1, min(len(labels), int(width / (0.5 + max(map(len, labels)) / 14))))
    height = _PANEL[1] * lines + 0.3 + 0.2 * -(-len(labels) // n_columns)
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    colors = dict(zip(layers, depth_colors(len(layers))))
    for k, (estimator, name) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, k + 1)
        of = [one for one in known if (one.source, one.quantity) == (estimator, name)]
        below = {
            (one.layer, one.step): one.value
            for one in known
            if (one.source, one.quantity) == (estimator, f"{name}_lower")
        }
        _draw_estimates(axes, of, below, colors, clock)
        axes.set_title(_title(known, estimator, name), fontsize=9.5, **VERBATIM)
        axes.set_xlabel(clock, fontsize=9)
        axes.set_ylabel(f"[{of[0].unit}]" if of[0].unit else "share" if name == "accuracy" else "", fontsize=9)
        axes.tick_params(labelsize=8.5)
        axes.grid(alpha=0.25, linewidth=0.6)
    handles = [Line2D([], [], color=color, marker="o", markersize=4) for color in colors.values()]
    handles += [_flag(verdict) for verdict in verdicts]
    legend(figure, handles, labels, loc="outside lower center", ncols=n_columns, fontsize=9)
    return figure


def _panels(known: Sequence[Record]) -> list[tuple[str, str]]:
    """What gets a panel: a lower bound is drawn with its upper one, the noise of a bound stands in its title."""
    names = dict.fromkeys((one.source, one.quantity) for one in known)
    return [
        (estimator, name)
        for estimator, name in names
        if not (name.endswith("_lower") and (estimator, name.removesuffix("_lower")) in names)
        and (estimator, name) != (GAUSSIAN, "noise_variance")
    ]


def _title(known: Sequence[Record], estimator: str, name: str) -> str:
    """What a panel shows; a bound at some noise with that noise."""
    if (estimator, name) == (GAUSSIAN, "compression_bound"):
        noise = {f"{one.value:g}" for one in known if (one.source, one.quantity) == (GAUSSIAN, "noise_variance")}
        return f"bound, Gaussian, at noise σ² = {', '.join(sorted(noise)) or '?'}"
    target = next((one.target for one in known if (one.source, one.quantity) == (estimator, name)), "")
    return f"{estimator}: {_TITLES.get(name, name)}{f', {target}' if target else ''}"


def _flag(verdict: str) -> Line2D:
    from matplotlib.lines import Line2D

    marker = VERDICT_MARKERS.get(verdict, "*")
    return Line2D([], [], linestyle="", marker=marker, markersize=5, mfc="white", mec="0.2")


def _draw_estimates(
    axes: Axes,
    estimates: Sequence[Record],
    below: Mapping[tuple[str, int], float],
    colors: Mapping[str, Color],
    clock: str,
) -> None:
    """The lines of one panel, their markers, and the bands down to the lower bounds."""
    times = sorted({getattr(one, clock) for one in estimates})
    marked = set(times) if len(times) <= MOST_DOTS else marked_times(times)
    for layer, color in colors.items():
        path = sorted((one for one in estimates if one.layer == layer), key=lambda one: (one.epoch, one.step))
        if not path:
            continue
        axes.plot([getattr(one, clock) for one in path], [one.value for one in path], color=color, linewidth=1.2)
        seen: dict[str, Record] = {one.verdict: one for one in reversed(path)}
        shown = [one for one in path if getattr(one, clock) in marked or seen[one.verdict] is one]
        for verdict in dict.fromkeys(one.verdict for one in shown):
            of = [one for one in shown if one.verdict == verdict]
            sound = verdict in ("", "ok")
            axes.scatter(
                [getattr(one, clock) for one in of],
                [one.value for one in of],
                s=12 if sound else 20,
                marker="o" if sound else VERDICT_MARKERS.get(verdict, "*"),
                facecolors=[color if sound else "white"],
                edgecolors=[color],
                linewidths=1.0,
                zorder=3,
            )
        bars = [one for one in shown if STANDARD_ERRORS * one.standard_error > 0]
        if bars:
            foot, head = ([one.value + sign * STANDARD_ERRORS * one.standard_error for one in bars] for sign in (-1, 1))
            axes.vlines([getattr(one, clock) for one in bars], foot, head, colors=[color], linewidth=0.9, alpha=0.8)
        band = [(getattr(one, clock), below[layer, one.step], one.value) for one in path if (layer, one.step) in below]
        if band:
            moments, low, high = zip(*band)
            axes.fill_between(moments, low, high, color=color, alpha=0.18, linewidth=0)
    scale_time(axes, times)
