"""The pictures of ``word_knowledge.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.plot.labels import depth_colors
from lightning_ib.records import History, earliest_layer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def layers_of(history: History) -> list[str]:
    """The layers of a history, in order."""
    return list(dict.fromkeys(record.layer for record in history.records()))


def draw_knowledge(known: Mapping[str, History]) -> Figure:
    """I(T;Y) of every layer by the probe, a panel for each target: over the steps, or over the layers of one moment.

    A star marks, at every moment, the first layer within one standard error of the best.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(known), 3.9), dpi=100, layout="constrained")
    axes_of: Any = figure.subplots(1, len(known), squeeze=False)[0]
    for axes, (target, history) in zip(axes_of, known.items()):
        moments = sorted({record.step for record in history.records()})
        axes.set_title(target, fontsize=11)
        axes.set_ylabel("I(T;Y) by a linear probe [bits]", fontsize=9.5)
        axes.grid(alpha=0.25, linewidth=0.6)
        if len(moments) == 1:
            _by_layer(axes, history)
            continue
        for layer, color in zip(layers_of(history), depth_colors(len(layers_of(history)))):
            values = [r for r in history.records() if (r.layer, r.quantity) == (layer, "I_TY")]
            x, y, error = zip(*[(r.step, r.value, r.standard_error) for r in values])
            axes.errorbar(x, y, error, color=color, marker="o", markersize=3, linewidth=1.4, label=layer)
        for step in moments:
            _mark(axes, step, history.at(0, step))
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlabel("steps of training", fontsize=9.5)
    handles, labels = axes_of[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=9)
    return figure


def _by_layer(axes: Axes, history: History) -> None:
    values = [record for record in history.records() if record.quantity == "I_TY"]
    axes.errorbar(range(len(values)), [r.value for r in values], [r.standard_error for r in values], marker="o")
    best = earliest_layer(history)
    at = next((k for k, record in enumerate(values) if record.layer == best), None)
    if at is not None:
        label = "first within a standard error of the best"
        axes.plot(at, values[at].value, "*", color="black", markersize=13, label=label, zorder=3)
    axes.set_xticks(range(len(values)), [record.layer for record in values], rotation=45, ha="right", fontsize=8)


def _mark(axes: Axes, step: int, moment: History) -> None:
    best = earliest_layer(moment)
    value = next((r.value for r in moment.records() if (r.layer, r.quantity) == (best, "I_TY")), math.nan)
    label = "first within a standard error of the best" if step == 0 else None
    axes.plot(step, value, "*", color="black", markersize=9, label=label, zorder=3, linestyle="none")


def draw_plane(plane: History, contexts: Sequence[str]) -> Figure:
    """What a layer knows of the words so far against the next word, above permuted words, a panel for each context."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(contexts), 4.1), dpi=100, layout="constrained")
    axes_of: Any = figure.subplots(1, len(contexts), squeeze=False, sharey=True)[0]
    values = {(r.layer, r.step, r.quantity): r.value for r in plane.records()}
    moments = sorted({record.step for record in plane.records()})
    for axes, context in zip(axes_of, contexts):
        for layer, color in zip(layers_of(plane), depth_colors(len(layers_of(plane)))):
            x, y = (
                [values[layer, step, f"I {name}"] - values[layer, step, f"floor {name}"] for step in moments]
                for name in (context, "next")
            )
            axes.plot(x, y, "-", color=color, linewidth=1.2, marker="o", markersize=3, label=layer)
            axes.plot(x[:1], y[:1], "o", color="white", markeredgecolor=color, markersize=7, zorder=3)
            axes.plot(x[-1:], y[-1:], "s", color=color, markeredgecolor="black", markersize=7, zorder=3)
        axes.set_xlabel(f"I(T; {context} so far) [bits]", fontsize=9.5)
        axes.grid(alpha=0.25, linewidth=0.6)
    axes_of[0].set_ylabel("I(T; next word) [bits]", fontsize=9.5)
    handles, labels = axes_of[0].get_legend_handles_labels()
    ends = " (open: before training, square: after)" if len(moments) > 1 else ""
    figure.suptitle(f"Soft information above that of permuted words{ends}", fontsize=11)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=9)
    return figure
