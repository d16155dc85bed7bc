"""The picture of the experiment ``generalization``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.reproduce.finished import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 10.4, 3.5  # inches; the height of a row
_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red")
_MARKERS = ("o", "s", "^", "D", "v")


def draw(groups: Sequence[tuple[float, Sequence[Row], Mapping[str, Any]]], quantities: Mapping[str, str]) -> Figure:
    """For each constraint a row: two scatter plots against the gap, and the rank correlations with their bars.

    Args:
        groups: the rate of the constraint, the networks, and column → its correlation.
        quantities: column → name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(groups)), dpi=110, layout="constrained")
    axes: Any = figure.subplots(len(groups), 3, squeeze=False, gridspec_kw={"width_ratios": [1, 1, 1.05]})
    for row, (constraint, networks, correlations) in zip(axes, groups):
        title = f"I(X;Z) held, {len(networks)} networks" if constraint else f"{len(networks)} networks"
        _scatter(row[0], networks, "i_xz_given_y", "I(X;Z|Y) by Monte Carlo [bits]", title)
        _scatter(row[1], networks, "i_xt_given_y_counted", "I(X;T|Y) counted in cells [bits]", "")
        _bars(row[2], correlations, quantities)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure


def _scatter(axes: Any, networks: Sequence[Row], column: str, label: str, title: str) -> None:
    widths, draws = (sorted({row[name] for row in networks}) for name in ("width", "draw"))
    for k, width in enumerate(widths):
        for j, data in enumerate(draws):
            chosen = [row for row in networks if row["width"] == width and row["draw"] == data]
            axes.plot(
                [row[column] for row in chosen],
                [row["gap_loss"] for row in chosen],
                linestyle="",
                marker=_MARKERS[j % len(_MARKERS)],
                color=_COLORS[k % len(_COLORS)],
                markersize=5,
                alpha=0.8,
            )
    for k, width in enumerate(widths):
        axes.plot([], [], linestyle="", marker="o", color=_COLORS[k % len(_COLORS)], label=f"width {width}")
    for j, data in enumerate(draws):
        axes.plot([], [], linestyle="", marker=_MARKERS[j % len(_MARKERS)], color="0.4", label=f"data {data}")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("test loss − training loss [nats]", fontsize=9)
    axes.set_title(title, fontsize=9.5)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)


def _bars(axes: Any, correlations: Mapping[str, Any], quantities: Mapping[str, str]) -> None:
    for place, of in enumerate(correlations.values()):
        axes.plot([of.tau.low, of.tau.high], [place, place], color="tab:blue", linewidth=1.4)
        axes.plot(of.tau.value, place, marker="o", color="tab:blue", markersize=5, linestyle="")
        for marker, tau in zip(_MARKERS, of.within.values()):
            axes.plot(tau, place + 0.3, marker=marker, mec="0.4", mfc="white", markersize=5, linestyle="")
    axes.set_yticks(range(len(correlations)), [quantities[name] for name in correlations], fontsize=8)
    axes.set_ylim(len(correlations) - 0.35, -0.5)
    axes.set_xlim(-1.04, 1.04)
    axes.axvline(0, color="0.3", linewidth=0.9)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("Kendall's τ with the gap", fontsize=9)
    axes.set_title("bars: 95 %; hollow: within data", fontsize=9)
