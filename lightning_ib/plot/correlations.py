"""Rank correlations over runs: a line for each quantity, with its bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.labels import VERBATIM, short_labels
from lightning_ib.records.correlation import RankCorrelation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 20
_ROW, _AROUND = 0.24, 1.25  # inches
_WIDTH = 7.2


def plot_correlations(rows: Sequence[RankCorrelation], metric: str, note: str = "") -> Figure:
    r"""Draw Kendall's tau-b of quantities with a metric over runs, the largest \|tau\| above.

    A bar reaches from the 2.5 % to the 97.5 % percentile over resampled runs. Hollow markers are of quantities whose
    verdict in some run is another than ``ok``. Of more than twenty rows the first are drawn.

    Args:
        rows: the largest \|tau\| first.
        metric: the name of the metric.
        note: a line below the picture.

    Returns:
        A figure independent of pyplot and of global state.

    Raises:
        ValueError: there is no row.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("there is no correlation to draw.")
    drawn = rows[:_MOST_ROWS]
    figure = Figure(figsize=(_WIDTH, _AROUND + _ROW * len(drawn)), dpi=130, layout="constrained")
    axes: Any = figure.add_subplot()
    layers = list(dict.fromkeys(row.layer for row in drawn))
    short = dict(zip(layers, short_labels(layers, 26)))
    for place, row in enumerate(drawn):
        face = "white" if row.n_flagged else "tab:blue"
        axes.plot([row.tau_low, row.tau_high], [place, place], color="tab:blue", linewidth=1.3)
        axes.plot(row.tau, place, marker="o", markersize=5, mfc=face, mec="tab:blue", linestyle="")
    labels = [f"{row.quantity}, {row.source}, {short[row.layer]}" for row in drawn]
    axes.set_yticks(range(len(drawn)), labels, fontsize=8.5, **VERBATIM)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlim(-1.04, 1.04)
    axes.axvline(0, color="0.3", linewidth=0.9)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.tick_params(axis="x", labelsize=8.5)
    n_runs = {row.n_runs for row in drawn}
    runs = str(n_runs.pop()) if len(n_runs) == 1 else f"{min(n_runs)} to {max(n_runs)}"
    axes.set_xlabel(f"Kendall's τ-b with {metric}, over {runs} runs", fontsize=9, **VERBATIM)
    hollow = "hollow: flagged in some run" if any(row.n_flagged for row in drawn) else ""
    more = f"{len(rows) - len(drawn)} more are not drawn" if len(rows) > len(drawn) else ""
    figure.supxlabel("; ".join(filter(None, [note, hollow, more])), fontsize=7.5, color="0.35", **VERBATIM)
    return figure
