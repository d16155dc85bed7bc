"""Do networks compress while they learn? The disputed pictures of tanh and ReLU networks, in bins and in cells.

Shwartz-Ziv & Tishby (2017) trained small tanh networks on twelve bits and saw every layer compress its input, late in
training. Saxe et al. (2018) showed that this follows from the saturation of tanh: ReLU networks, in bins over their
whole range, keep their information. In the bins made for tanh they *seem* to compress: all values above 1 share a bin.
All three are drawn here, and below them the same networks in the cells that are the library's default. Cells follow the
scale of a layer: tanh compresses there too, and the values of ReLU are independent of the scale of its activations::

    python examples/tanh_vs_relu.py

The networks learn in a plain PyTorch loop, a few at once; :class:`lightning_ib.InformationPlane` measures each of them
on all 4096 patterns. The labels are soft, p(y|x) is known, and so is the information-bottleneck bound: a second picture
shows how far the layers are from it while they learn.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import twelve_bits_bound as beside_bound
from torch import Tensor, nn
from tqdm.auto import tqdm
from twelve_bits import (
    LAYERS,
    N_PATTERNS,
    NARROWEST,
    Team,
    information,
    n_orbits,
    patterns,
    power,
    rotations,
    rule,
    train,
)

from lightning_ib import Bins, CellQuantizer, FixedBins, InformationPlane, InformationPoint, Quantizer
from lightning_ib.functional import cell_limit
from lightning_ib.plot.labels import VERDICT_MARKERS, depth_colors
from lightning_ib.records.files import replacing
from lightning_ib.records.reliability import VerdictWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_MEASUREMENTS = 40
BIN_WIDTH = 0.07
N_CELLS = cell_limit(N_PATTERNS)

# -- how the layers are discretized, and measured ----------------------------------------------------------------------


class Grid(Bins):
    """Bins of one width, however far the values reach: the edges are multiples of the width.

    ``refit=True`` adds bins where a layer grows and keeps the others: unlike bins that are stretched over the range,
    these keep their resolution.

    Args:
        width: of all bins.
    """

    def __init__(self, width: float) -> None:
        super().__init__(refit=True)
        self.width = width

    def edges(self, z: Tensor) -> Tensor:
        """From the multiple below the smallest of the values ``z``, shape ``(N, D)``, to that above the largest."""
        first, last = math.floor(float(z.min()) / self.width), math.floor(float(z.max()) / self.width) + 1
        return torch.arange(first, last + 1, device=z.device, dtype=torch.float64) * self.width


WHOLE = Grid(BIN_WIDTH)
UNIT = FixedBins([k * BIN_WIDTH for k in range(-14, 15)])
"""The same bins between −1 and 1, the range of tanh; the outermost two are open."""


class Panel(NamedTuple):
    """One of the pictures: networks of one activation, in ``bins`` or, where they are ``None``, in cells."""

    title: str
    activation: type[nn.Module]
    bins: Bins | None


PANELS = {
    "tanh": Panel("tanh, bins on [−1, 1]", nn.Tanh, UNIT),
    "relu": Panel("ReLU, bins over its range", nn.ReLU, WHOLE),
    "relu_unit": Panel("ReLU, bins on [−1, 1]", nn.ReLU, UNIT),
    "tanh_cells": Panel("tanh, cells", nn.Tanh, None),
    "relu_cells": Panel("ReLU, cells", nn.ReLU, None),
}


def plane(bins: Bins | None) -> InformationPlane:
    """The information plane of a network.

    Args:
        bins: of the hidden layers; the output's probabilities are put into ``UNIT``. ``None`` cuts all layers into
            cells, the output by its probabilities, as is the default.
    """
    if bins is None:
        return InformationPlane(dict.fromkeys(LAYERS, CellQuantizer()))
    hidden = {layer: Quantizer(bins=bins) for layer in LAYERS if layer != "out"}
    return InformationPlane(hidden | {"out": Quantizer(nn.Softmax(dim=1), UNIT)})


BESIDE_BOUND = ("tanh", "relu", "tanh_cells", "relu_cells")
"""The panels whose layers are compared with the bound: those whose bins no layer outgrows."""


class Measured(NamedTuple):
    """A point, with the panel and seed of its network."""

    panel: str
    seed: int
    point: InformationPoint


def measured(
    planes: Mapping[str, InformationPlane], team: Team, x: Tensor, y: Tensor, epoch: int, step: int
) -> Iterator[Measured]:
    """Measure each network of a team, in one forward pass for all planes.

    Args:
        planes: panel → its plane.
        team: the networks.
        x: all inputs.
        y: all labels.
        epoch: how many epochs they have been trained for.
        step: how many steps.
    """
    team.write_back()
    for seed, net in enumerate(team.nets):
        with ExitStack() as hooks, torch.no_grad():
            for one in planes.values():
                hooks.enter_context(one.attach(net))
            net(x)
            for one in planes.values():
                one.update(x, y)
        for name, one in planes.items():
            yield from (Measured(name, seed, point) for point in one.compute(epoch=epoch, step=step))
            one.reset()


def moments(n_epochs: int) -> list[int]:
    """The epochs to measure after: 0, and up to the last in equal ratios, as far as whole numbers allow."""
    return sorted({0, *(round(n_epochs ** (k / (N_MEASUREMENTS - 2))) for k in range(N_MEASUREMENTS - 1))})


def run(
    x: Tensor, y: Tensor, n_epochs: int, n_seeds: int, task: beside_bound.Task
) -> tuple[list[Measured], list[beside_bound.Distance]]:
    """Train and measure all networks: their points, and their distances from the bound.

    Args:
        x: the patterns, bits ``(4096, 12)``.
        y: their labels.
        n_epochs: how long.
        n_seeds: how many networks of each activation.
        task: the rule of the labels, with its bound.
    """
    x = (2 * x - 1).float()  # ±1: as many above zero as below
    points: list[Measured] = []
    distances: list[beside_bound.Distance] = []
    with warnings.catch_warnings():
        # The table shows the verdict of every point, so the warnings are redundant.
        warnings.filterwarnings("ignore", category=VerdictWarning)
        for activation in (nn.Tanh, nn.ReLU):
            planes = {name: plane(panel.bins) for name, panel in PANELS.items() if panel.activation is activation}
            bar = tqdm(range(n_epochs + 1), desc=f"{n_seeds} × {activation.__name__}", unit=" epochs")
            for epoch, (step, team) in zip(bar, train(activation, x, y, n_seeds)):
                if epoch in moments(n_epochs):
                    points += measured(planes, team, x, y, epoch, step)
                if epoch in {*moments(n_epochs)[::3], n_epochs}:
                    panels = {name: PANELS[name].bins for name in planes if name in BESIDE_BOUND}
                    distances += beside_bound.distances(task, team.nets, x, panels, epoch)
    return points, distances


# -- results -----------------------------------------------------------------------------------------------------------


def verdicts(points: Sequence[InformationPoint]) -> str:
    """The verdicts of points: ``"ok"``, or how many have which, such as ``"2 of 3 clipped"``."""
    counts = Counter(point.verdict for point in points)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} of {len(points)} {verdict}" for verdict, count in counts.items() if verdict != "ok")


def is_ok(point: InformationPoint) -> bool:
    """Whether the verdict of a point is ``"ok"``."""
    return verdicts([point]) == "ok"


class SeedSummary(NamedTuple):
    """One layer at one epoch, over the seeds."""

    h_t: float
    low: float
    high: float
    i_ty: float
    verdicts: str

    def __str__(self) -> str:
        return f"{self.h_t:.1f} ({self.low:.1f}–{self.high:.1f})"


def over_seeds(history: Sequence[Measured], panel: str, layer: str) -> dict[int, SeedSummary]:
    """Epoch → the summary of one layer in one panel."""
    by_epoch: dict[int, list[InformationPoint]] = {}
    for one in history:
        if (one.panel, one.point.layer) == (panel, layer):
            by_epoch.setdefault(one.point.epoch, []).append(one.point)

    def summary(points: Sequence[InformationPoint]) -> SeedSummary:
        h_t = [point.h_t for point in points]
        i_ty = sum(point.i_ty for point in points) / len(points)
        return SeedSummary(sum(h_t) / len(h_t), min(h_t), max(h_t), i_ty, verdicts(points))

    return {epoch: summary(points) for epoch, points in by_epoch.items()}


def table(history: Sequence[Measured]) -> str:
    """The values at the first, the middle and the last of the measured epochs, as text."""
    epochs = sorted({one.point.epoch for one in history})
    chosen = dict.fromkeys((epochs[0], epochs[len(epochs) // 2], epochs[-1]))
    rows = []
    for name, panel in PANELS.items():
        rows += ["", panel.title, "epoch  layer   units   H(T) (min–max)      I(T;Y)  verdict"]
        layers = {layer: over_seeds(history, name, layer) for layer in LAYERS}
        for epoch in chosen:
            for layer, units in LAYERS.items():
                f = layers[layer][epoch]
                span = f"{f.h_t:5.2f} ({f.low:.2f}–{f.high:.2f})"
                rows.append(f"{epoch:5}  {layer:6}  {units:5}   {span:18}  {f.i_ty:6.3f}  {f.verdicts}")
    rows += [
        "",
        "The patterns are all there are, so that H(T) is exact. Where a layer is undersampled, many have a symbol of",
        "their own, and I(T;Y) would be large with any labels.",
        f"There are at most {N_CELLS} cells, so that H(T) is at most {math.log2(N_CELLS):.0f} bits in them.",
    ]
    return "\n".join(rows[1:])


def findings(history: Sequence[Measured]) -> str:
    """The results in words."""
    sentences = []
    for name, panel in PANELS.items():
        summaries = over_seeds(history, name, NARROWEST)
        (_, first), *_, (_, last) = summaries.items()
        peak_epoch, peak = max(summaries.items(), key=lambda item: item[1].h_t)
        what = f"{panel.title}: H(T) of the {LAYERS[NARROWEST]}-unit layer goes from {first} to {last} bits"
        if peak.h_t > max(first.h_t, last.h_t) + 0.1:
            what += f", by way of {peak} at epoch {peak_epoch}"
        if last.h_t < peak.h_t / 2:
            what += ": it falls by more than half"
        elif last.h_t < first.h_t - 0.1:
            what += ": it falls"
        else:
            what += ": it does not fall"
        if "clipped" in last.verdicts:
            what += f", but these are the networks of the line above, in bins that they outgrew ({last.verdicts})"
        sentences.append(f"{what}.")
        points = [one.point for one in history if one.panel == name]
        missed = max(points, key=lambda point: (point.epoch, point.fano_shortfall))
        if missed.fano_shortfall > 0.1:  # NaN in bins
            sentences.append(
                f"{panel.title}: at epoch {missed.epoch}, I(T;Y) of {missed.layer} is {missed.i_ty:.2f} bits in one "
                f"network, whose accuracy proves at least {missed.i_ty_fano:.2f} (Fano): its cells mix what later "
                "layers separate."
            )
    summaries = over_seeds(history, "tanh", "layer1")
    lows, highs = [f.low for f in summaries.values()], [f.high for f in summaries.values()]
    sentences.append(
        f"{PANELS['tanh'].title}: H(T) of the first layer is {min(lows):.1f} to {max(highs):.1f} of "
        f"{math.log2(N_PATTERNS):.0f} bits at all epochs: nearly every pattern has a symbol of its own, before and "
        "after training."
    )
    return "\n".join(sentences)


def write_csv(history: Sequence[Measured], path: Path) -> None:
    """Write all points, one row each, replacing the file as a whole."""
    with replacing(path) as partial_file, partial_file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("panel", "seed", *InformationPoint._fields))
        writer.writerows((one.panel, one.seed, *one.point) for one in history)


def draw(history: Sequence[Measured], i_xy: float) -> Figure:
    """The information planes: bins above, cells below; a color a layer, from dark (first) to light, a path a seed.

    A path becomes stronger with time, on a logarithmic scale; its end is larger. Hollow points are flagged as
    unreliable, each verdict with a shape of its own. Each row ends at its bound on H(T): log N for bins, the logarithm
    of the number of cells for cells.

    Args:
        history: the points of all panels.
        i_xy: I(X;Y) in bits, over the labels that were drawn.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    colors = dict(zip(LAYERS, depth_colors(len(LAYERS))))
    end = math.log1p(max(1, *(one.point.epoch for one in history)))

    figure = Figure(figsize=(10, 7.4), dpi=130)
    figure.set_layout_engine("constrained", hspace=0.05)
    grid = figure.subplots(2, 3, sharex="row", sharey=True)
    for axes, (name, panel) in zip(grid.flat, PANELS.items()):
        draw_bounds(axes, i_xy, in_cells=panel.bins is None)
        paths: dict[tuple[str, int], list[InformationPoint]] = {}
        for one in history:
            if one.panel == name:
                paths.setdefault((one.point.layer, one.seed), []).append(one.point)
        lines, shades = [], []
        markers: dict[str, list[tuple[float, float, float, Any, Any]]] = {}
        for (layer, _), points in paths.items():
            color = colors[layer]
            for before, point in zip(points, points[1:]):
                lines.append([(before.i_xt, before.i_ty), (point.i_xt, point.i_ty)])
                shades.append((*color, 0.15 + 0.6 * math.log1p(point.epoch) / end))
            for point in points:
                area = 46.0 if point is points[-1] else 9.0
                marker = "o" if is_ok(point) else VERDICT_MARKERS[point.verdict]
                rim = (1.0, 1.0, 1.0) if is_ok(point) and area > 9 else color
                face = color if is_ok(point) else (1.0, 1.0, 1.0)
                markers.setdefault(marker, []).append((point.i_xt, point.i_ty, area, face, rim))
        axes.add_collection(LineCollection(lines, colors=shades, linewidths=0.9, zorder=2))
        for marker, of in markers.items():
            x, y, areas, faces, rims = map(list, zip(*of))
            axes.scatter(x, y, s=areas, marker=marker, facecolors=faces, edgecolors=rims, linewidths=0.7, zorder=3)
        axes.set(title=panel.title, xlabel="I(X;T) = H(T) [bits]")
        axes.grid(alpha=0.25, linewidth=0.6)
    for axes, bound in zip(grid[:, 0], (math.log2(N_PATTERNS), math.log2(N_CELLS))):
        axes.set(ylabel="I(T;Y) [bits]", xlim=(-0.025 * bound, 1.09 * bound), ylim=(-0.04, 1.12))
    draw_legend(grid[1, 2], colors, sorted({verdicts([one.point]) for one in history if not is_ok(one.point)}))
    return figure


def draw_legend(axes: Axes, colors: Mapping[str, Any], doubted: Sequence[str]) -> None:
    """Explain colors and markers in the place that the panels leave."""
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=colors[layer], marker="o", markersize=5, label=f"{layer} ({units} units)")
        for layer, units in LAYERS.items()
    ]
    style: dict[str, Any] = {"linestyle": "", "mec": "0.2"}
    entries.append(Line2D([], [], marker="o", markersize=7, mfc="0.2", label="large: the last epoch", **style))
    entries += [
        Line2D([], [], marker=VERDICT_MARKERS[verdict], markersize=6, mfc="white", label=f"flagged: {verdict}", **style)
        for verdict in doubted
    ]
    axes.set_axis_off()
    axes.legend(handles=entries, loc="center", fontsize=11, frameon=False, labelspacing=0.7)


def draw_bounds(axes: Axes, i_xy: float, *, in_cells: bool) -> None:
    """Draw the upper bounds of I(T;Y) and H(T)."""
    style: dict[str, Any] = {"color": "0.35", "linewidth": 1.0, "linestyle": (0, (5, 4)), "zorder": 1}
    text = partial(axes.annotate, textcoords="offset points", fontsize=10, color="0.25")
    axes.axhline(i_xy, **style)
    text(f"I(X;Y) = {i_xy:.2f} bit", (0, i_xy), xytext=(0, 8))
    bits, name = (math.log2(N_CELLS), f"log {N_CELLS}") if in_cells else (math.log2(N_PATTERNS), "log N")
    axes.axvline(bits, **style)
    text(f"{name} = {bits:.0f} bits", (bits, 0), xytext=(4, 2), rotation=90)


# -- the run -----------------------------------------------------------------------------------------------------------


def at_least_one(text: str) -> int:
    """For argparse: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def picture(text: str) -> Path:
    """For argparse: a path that a picture can be written to; its folder is made."""
    path = Path(text)
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png, .pdf or .svg, got {text!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"must lie in a folder that can be made, got {text!r} ({error})") from error
    return path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description="Train small tanh and ReLU networks on twelve bits, and draw their information planes in bins and "
        "in cells."
    )
    p.add_argument("--epochs", type=at_least_one, default=8000, metavar="N", help="epochs of training (%(default)s)")
    p.add_argument(
        "--seeds", type=at_least_one, default=3, metavar="N", help="how many networks of each kind (%(default)s)"
    )
    p.add_argument(
        "--out",
        type=picture,
        default=Path("tanh_vs_relu.png"),
        metavar="FILE",
        help="where to draw, as .png, .pdf or .svg; every point goes into a .csv beside it (%(default)s)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Make the data, train, measure, and print and draw the results.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: an argument is wrong, or writing a file failed.
    """
    args = parser().parse_args(argv)
    # Layers this small gain nothing from a second thread; beside other programs, waiting for it takes ten times longer.
    torch.set_num_threads(1)
    x, turns = patterns(), rotations()
    theta, gamma, p = rule(power(x))
    y = (torch.rand(len(p), generator=torch.Generator().manual_seed(0), dtype=p.dtype) < p).long()
    drawn = information(y.double())
    print(
        f"{len(x)} patterns, {n_orbits(x, turns)} where the {len(turns)} rotations of the icosahedron count as none; "
        f"θ = {theta:.4f}, γ = {gamma:.2f}: p(y = 1) = {float(p.mean()):.3f}, I(X;Y) = {information(p):.4f} bit.\n"
        f"Labels drawn once: I(X;Y) = {drawn:.4f} bit, {int((y != (p > 0.5)).sum())} on the other side of θ."
    )
    task = beside_bound.task(p)
    history, distances = run(x, y, args.epochs, args.seeds, task)
    titles = {name: panel.title for name, panel in PANELS.items()}
    print(f"\n{table(history)}\n\n{findings(history)}\n")
    print(f"{beside_bound.table(distances, titles)}\n\n{beside_bound.findings(distances, titles)}\n")
    of_bound = args.out.with_stem(f"{args.out.stem}_bound")
    try:
        write_csv(history, args.out.with_suffix(".csv"))
        beside_bound.write_csv(distances, of_bound.with_suffix(".csv"))
        for path, figure in ((args.out, draw(history, drawn)), (of_bound, beside_bound.draw(distances, task, titles))):
            with replacing(path) as partial_file:
                figure.savefig(partial_file, format=path.suffix[1:].lower())
    except OSError as error:
        sys.exit(f"error: {args.out} and the .csv beside it cannot be written: {error}.")
    print(f"The planes: {args.out}, and every point: {args.out.with_suffix('.csv')}")
    print(f"The bound: {of_bound}, and every distance: {of_bound.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
