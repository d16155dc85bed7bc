"""What other estimators say, epoch by epoch: from a history of estimates to a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_ib.history import Estimate
from lightning_ib.plotting import short_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3
_TITLES = {"I_XT": "I(X;T)", "I_TY": "I(T;Y)", "accuracy": "held-out accuracy"}


def plot_estimates(estimates: Sequence[Estimate]) -> Figure:
    """Draw what estimators that do not bin say: a panel for each estimator and figure, a line for each layer.

    Where an estimator gives a lower bound beside an upper one, the band between them is shaded.

    Args:
        estimates: those of one run. Figures that are NaN are left out.

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
    bands = [(one.estimator, one.figure) for one in known if one.figure.endswith("_lower")]
    panels = list(dict.fromkeys((one.estimator, one.figure) for one in known if not one.figure.endswith("_lower")))
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.5 * columns + 0.6, 2.8 * lines + 0.9), dpi=130, layout="constrained")
    shades = dict(zip(layers, (colormaps["viridis"](0.9 * k / max(1, len(layers) - 1)) for k in range(len(layers)))))
    for k, (estimator, name) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, k + 1)
        of = [one for one in known if one.estimator == estimator]
        for layer in layers:
            path = sorted((one.epoch, one.value) for one in of if (one.layer, one.figure) == (layer, name))
            if not path:
                continue
            axes.plot(*zip(*path), color=shades[layer], marker="o", markersize=3.5, linewidth=1.2)
            if (estimator, f"{name}_lower") in bands:
                lower = {one.epoch: one.value for one in of if (one.layer, one.figure) == (layer, f"{name}_lower")}
                between = [(epoch, lower[epoch], value) for epoch, value in path if epoch in lower]
                epochs, low, high = zip(*between)
                axes.fill_between(epochs, low, high, color=shades[layer], alpha=0.18, linewidth=0)
        unit = of[0].unit if name != "accuracy" else ""
        axes.set_title(f"{estimator}: {_TITLES.get(name, name)}", fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylabel("share" if name == "accuracy" else f"[{unit}]")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25, linewidth=0.6)
    labels = short_labels(layers)
    handles = [
        axes.plot([], [], color=shades[layer], marker="o", label=label)[0] for layer, label in zip(layers, labels)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(layers)), fontsize=9, frameon=False)
    return figure
