"""The picture of the experiment ``collapse``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.reproduce.finished import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (12.4, 6.2)  # inches

# Title, whether the axis is logarithmic, then the columns of the solid line and the dashed one with names.
_PANELS: tuple[tuple[str, bool, dict[str, str]], ...] = (
    ("accuracy", False, {"test_accuracy": "test", "train_accuracy": "training"}),
    ("loss, squared error", True, {"test_loss": "test", "train_loss": "training"}),
    ("NC1", True, {"test_nc1": "test", "train_nc1": "training"}),
    ("RNC1", True, {"test_rnc1": "test", "train_rnc1": "training"}),
    ("information [bits]", False, {"i_xt": "I(X;T)", "i_ty": "I(T;Y)"}),
    ("I(X;T|Y) [bits]", False, {"i_xt_given_y": ""}),
    ("nHSIC, batches of 100", True, {"nhsic_zx": "nHSIC(Z;X)", "nhsic_zy": "nHSIC(Z;Y)"}),
    ("nHSIC(Z;X) − nHSIC(Z;Y)", False, {"": ""}),
)


def draw(rows: Sequence[Row], times: Sequence[Any]) -> Figure:
    """Eight panels over the logarithm of the step, a color for each weight decay; lines are means over seeds.

    Args:
        rows: of all runs, with the same steps.
        times: of each run, when it fitted, which is a dotted vertical line.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=95, layout="constrained")
    panels: Any = figure.subplots(2, 4, sharex=True)
    decays = sorted({row["weight_decay"] for row in rows}, reverse=True)
    colors = [colormaps["viridis"](0.9 * k / max(1, len(decays) - 1)) for k in range(len(decays))]
    for axes, (title, logarithmic, lines) in zip(panels.flat, _PANELS):
        for decay, color in zip(decays, colors):
            of = [row for row in rows if row["weight_decay"] == decay and row["step"] > 0]
            for style, column in zip(("-", "--"), lines):
                axes.plot(*_means(of, column), style, color=color, linewidth=1.3 if style == "-" else 1.0)
            for fitted in {time.fitted for time in times if time.weight_decay == decay}:
                if not math.isnan(fitted):
                    axes.axvline(fitted, color=color, linewidth=0.8, linestyle=":")
        if logarithmic:
            _logarithmic(axes)
        axes.set_xscale("log")
        axes.set_title(title, fontsize=9.5)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.tick_params(labelsize=8)
        if len(lines) > 1:
            _name_lines(axes, list(lines.values()))
    for axes in panels[1]:
        axes.set_xlabel("training step", fontsize=9)
    for decay, color in zip(decays, colors):
        panels[0, 0].plot([], [], color=color, label=f"weight decay {decay:g}")
    panels[0, 0].plot([], [], ":", color="0.4", label="fitted")
    handles = [line for line in panels[0, 0].get_lines() if not line.get_label().startswith("_")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), fontsize=8.5, frameon=False)
    return figure


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis with plain numbers, few enough to be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _means(rows: Sequence[Row], column: str) -> tuple[list[int], list[float]]:
    """The steps, and the mean over seeds at each; without a column of the difference of the nHSIC."""
    steps = sorted({row["step"] for row in rows})
    means = []
    for step in steps:
        values = [row[column] if column else excess(row) for row in rows if row["step"] == step]
        means.append(math.fsum(values) / len(values))
    return steps, means


def excess(row: Row) -> float:
    """The dependence on the input beyond that on the label: nHSIC(Z;X) − nHSIC(Z;Y)."""
    return float(row["nhsic_zx"] - row["nhsic_zy"])


def _name_lines(axes: Any, names: Sequence[str]) -> None:
    """A small legend of line styles, in gray."""
    from matplotlib.lines import Line2D

    first, *others = names
    handles = [Line2D([], [], color="0.25", linestyle="-", label=first)]
    handles += [Line2D([], [], color="0.25", linestyle="--", label=name) for name in others]
    axes.legend(handles=handles, fontsize=7.5, frameon=False, loc="best")
