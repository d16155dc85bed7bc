"""How far the layers of ``tanh_vs_relu.py`` are from the information-bottleneck bound while they learn.

Labels are drawn by a rule p(y|x) that is known, and so are I(X;Y) and the bound: the largest I(T;Y) at each I(X;T).
I(T;Y) here is that of the rule: exact, whatever labels were drawn.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from twelve_bits import LAYERS, N_PATTERNS, NARROWEST

from lightning_ib import Bins
from lightning_ib.bottleneck import BottleneckCurve, distance_to_bound, ib_curve
from lightning_ib.functional import bucketize, cell_limit, cells
from lightning_ib.functional.discretize.sketch import sketch
from lightning_ib.plot.labels import depth_colors
from lightning_ib.records.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Task(NamedTuple):
    """The joint distribution of patterns and labels, ``(4096, 2)``, and its curve in bits."""

    p_xy: Tensor
    curve: BottleneckCurve


def task(p: Tensor) -> Task:
    """The task of a rule.

    Args:
        p: p(y = 1 | x) of every pattern.
    """
    p_xy = torch.stack([1 - p, p], 1) / len(p)
    return Task(p_xy, ib_curve(p_xy))


class Distance(NamedTuple):
    """One layer of one network beside the bound, in bits.

    Attributes:
        panel: the activation and how layers are discretized.
        seed: of the network.
        epoch: how long it has learned.
        layer: its name.
        i_xt: I(X;T) = H(T).
        i_ty: I(T;Y) by the rule.
        bound: the largest I(T;Y) at this I(X;T).
        gap: the distance from it.
        surplus: I(X;T) beyond the least that this I(T;Y) takes.
        beta: where the encoder is closest to the one that its own decoder implies; infinite where it gets closer
            without end.
        self_consistency: the divergence there.
    """

    panel: str
    seed: int
    epoch: int
    layer: str
    i_xt: float
    i_ty: float
    bound: float
    gap: float
    surplus: float
    beta: float
    self_consistency: float


def surplus(curve: BottleneckCurve, i_xt: float, i_ty: float) -> float:
    r"""I(X;T) beyond the least that an I(T;Y) takes: :math:`\max_\beta F(\beta) - \beta (I(X;Y) - I(T;Y))`."""
    least = (curve.objective - curve.gap - curve.beta * (curve.i_xy - i_ty)).max()
    return max(0.0, i_xt - max(0.0, float(least)))


@torch.no_grad()
def layer_symbols(net: nn.Sequential, x: Tensor, bins: Bins | None) -> Iterator[tuple[str, Tensor]]:
    """Each layer and the symbols of all patterns in it, int64 ``(4096,)``.

    Args:
        net: the network; its output is taken as probabilities.
        x: the patterns, ±1.
        bins: of all coordinates; ``None`` cuts the layer into cells.
    """
    for name, module in net.named_children():
        x = module(x)
        if bins is None:
            values = x.double().softmax(1).to(x.dtype) if name == "out" else x  # rounded once, as a head is
            n_classes = LAYERS["out"] if name == "out" else 2
            yield name, cells(sketch(values), max_cells=cell_limit(N_PATTERNS), expected_clusters=n_classes).numbers
            continue
        values = x.softmax(1) if name == "out" else x
        codes = bucketize(values, edges=bins.edges(values))
        yield name, codes.unique(dim=0, return_inverse=True)[1]


def distances(
    task: Task, nets: Sequence[nn.Sequential], x: Tensor, panels: Mapping[str, Bins | None], epoch: int
) -> Iterator[Distance]:
    """All layers of some networks beside the bound.

    Args:
        task: of the bound.
        nets: one for each seed.
        x: all patterns, ±1.
        panels: panel → bins, ``None`` for cells.
        epoch: of the networks.
    """
    for panel, bins in panels.items():
        for seed, net in enumerate(nets):
            for layer, symbols in layer_symbols(net, x, bins):
                found = distance_to_bound(symbols, task.p_xy, curve=task.curve)
                beyond = surplus(task.curve, found.i_xt, found.i_ty)
                values = (found.i_xt, found.i_ty, found.bound, found.gap, beyond)
                yield Distance(panel, seed, epoch, layer, *values, found.beta_self_consistent, found.self_consistency)


# -- results -----------------------------------------------------------------------------------------------------------


def mean(values: Iterable[float]) -> float:
    """The mean; infinite where a value is."""
    values = list(values)
    return sum(values) / len(values)


def at(found: Sequence[Distance], **wanted: object) -> list[Distance]:
    """Those with these fields."""
    return [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]


def row(of: Sequence[Distance]) -> str:
    """A row of the table: the means over seeds of one layer at one epoch, and the median of β."""
    names = {
        "i_xt": "6.2f",
        "i_ty": "6.3f",
        "bound": "6.3f",
        "gap": "6.3f",
        "surplus": "7.2f",
        "self_consistency": "6.2f",
    }
    values = [f"{mean(getattr(one, name) for one in of):{form}}" for name, form in names.items()]
    infinite = sum(not math.isfinite(one.beta) for one in of)
    beta = f"∞ in {infinite} of {len(of)}" if infinite else f"{median(one.beta for one in of):.2f}"
    return f"{of[0].epoch:5}  {of[0].layer:6}  {'  '.join(values)}   {beta}"


def table(found: Sequence[Distance], titles: Mapping[str, str]) -> str:
    """The distances at the first, the middle and the last epoch, means over seeds."""
    epochs = sorted({one.epoch for one in found})
    chosen = dict.fromkeys((epochs[0], epochs[len(epochs) // 2], epochs[-1]))
    rows = []
    for panel in dict.fromkeys(one.panel for one in found):
        rows += ["", f"{titles[panel]}: beside the bound, in bits"]
        rows.append("epoch  layer   I(X;T)  I(T;Y)   bound     gap  surplus       J   at β")
        rows += [row(at(found, panel=panel, epoch=epoch, layer=layer)) for epoch in chosen for layer in LAYERS]
    rows += [
        "",
        "gap: I(T;Y) below the bound; surplus: I(X;T) beyond the least that this I(T;Y) takes;",
        "J: the divergence of the encoder from the one that its own decoder implies, at the β where it is least.",
    ]
    return "\n".join(rows[1:])


def findings(found: Sequence[Distance], titles: Mapping[str, str]) -> str:
    """The results in words: whether training approached the bound."""
    epochs = sorted({one.epoch for one in found})
    sentences = []
    for panel in dict.fromkeys(one.panel for one in found):

        def ends(layer: str, name: str, panel: str = panel) -> tuple[float, float]:
            both = (at(found, panel=panel, epoch=epoch, layer=layer) for epoch in (epochs[0], epochs[-1]))
            first, last = (mean(getattr(one, name) for one in of) for of in both)
            return first, last

        gaps = {layer: ends(layer, "gap") for layer in LAYERS}
        nearer = [layer for layer, (first, last) in gaps.items() if last < first - 0.01]
        away = [layer for layer, (first, last) in gaps.items() if last > first + 0.01]
        what = f"{titles[panel]}: in I(T;Y), {', '.join(nearer) or 'no layer'} came nearer to the bound"
        what += f", {', '.join(away)} went away from it" if away else ""
        (first, last), (before, after) = gaps[NARROWEST], ends(NARROWEST, "surplus")
        sentences.append(
            f"{what}; {NARROWEST} from {first:.3f} to {last:.3f} bits below, and from {before:.2f} to {after:.2f} bits "
            "of I(X;T) beyond the least that its I(T;Y) takes."
        )
    last_epoch = at(found, epoch=epochs[-1])
    degenerate = sum(not math.isfinite(one.beta) for one in last_epoch)
    off = max(abs(one.self_consistency - one.surplus) for one in last_epoch if math.isfinite(one.beta))
    sentences.append(
        f"Self-consistency: at the last epoch {degenerate} of {len(last_epoch)} layers have β = ∞, where it says "
        f"nothing of the bound. In the others J is the surplus up to {off:.2f} bits: both count what T keeps of X and "
        "the label has no use for."
    )
    return "\n".join(sentences)


def write_csv(found: Sequence[Distance], path: Path) -> None:
    """Write all distances, one row each, replacing the file as a whole."""
    with replacing(path) as partial_file, partial_file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Distance._fields)
        writer.writerows(found)


def draw(found: Sequence[Distance], task: Task, titles: Mapping[str, str]) -> Figure:
    """For each panel the plane with its bound, and below it the gap of every layer over epochs, means over seeds."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(one.panel for one in found))
    colors = dict(zip(LAYERS, depth_colors(len(LAYERS))))
    figure = Figure(figsize=(3.1 * len(panels) + 0.6, 6.6), dpi=130)
    figure.set_layout_engine("constrained", hspace=0.06)
    grid = figure.subplots(2, len(panels), sharex="row", sharey="row", squeeze=False)
    for k, panel in enumerate(panels):
        of_panel = at(found, panel=panel)
        _draw_plane(grid[0, k], of_panel, task.curve, colors)
        _draw_gaps(grid[1, k], of_panel, colors)
        grid[0, k].set_title(titles[panel], fontsize=11)
    grid[0, 0].set_ylabel("I(T;Y) of the rule [bits]")
    grid[1, 0].set_ylabel("below the bound [bits]")
    grid[0, 0].set_ylim(-0.04, 1.12)
    handles, labels = grid[1, 0].get_legend_handles_labels()
    bound = [(h, name) for h, name in zip(*grid[0, 0].get_legend_handles_labels()) if name == "IB bound"]
    shown = [*zip(handles, labels), *bound]
    figure.legend(*zip(*shown), loc="outside lower center", ncols=len(shown), frameon=False)
    return figure


def _draw_plane(axes: Axes, found: Sequence[Distance], curve: BottleneckCurve, colors: Mapping[str, Any]) -> None:
    r = torch.cat([torch.linspace(0, 1.5, 151), torch.tensor([12.5])]).double()
    bound = curve.bound(r)
    axes.plot(r, bound, color="0.35", linewidth=1.4, label="IB bound")
    axes.fill_between(r, bound, 1.12, color="0.5", alpha=0.12, linewidth=0)
    for layer, color in colors.items():
        for seed in dict.fromkeys(one.seed for one in found):
            path = at(found, layer=layer, seed=seed)
            x, y = [one.i_xt for one in path], [one.i_ty for one in path]
            axes.plot(x, y, color=color, linewidth=0.8, alpha=0.6)
            axes.scatter(x[-1:], y[-1:], s=36, color=[color], edgecolors="white", linewidths=0.7, zorder=3)
    axes.set_xlabel("I(X;T) = H(T) [bits]")
    axes.set_xlim(-0.3, 12.5)
    axes.grid(alpha=0.25, linewidth=0.6)


def _draw_gaps(axes: Axes, found: Sequence[Distance], colors: Mapping[str, Any]) -> None:
    epochs = sorted({one.epoch for one in found})
    for layer, color in colors.items():
        gaps = [mean([one.gap for one in at(found, layer=layer, epoch=epoch)]) for epoch in epochs]
        axes.plot(epochs, gaps, color=color, linewidth=1.3, label=layer)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, max(1, epochs[-1]))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.25, linewidth=0.6)
