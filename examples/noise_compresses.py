"""Does the noise of SGD compress? Small networks, trained with different noise to the same training loss.

Networks of 64-32-6-10 units learn the handwritten digits of scikit-learn, by SGD in batches of several sizes and with
other kinds of noise: dropout, and Gaussian noise in the gradients. Each is measured once, when its loss on the training
images is down to the same value, so that none has had more training than its fit takes. H(T) is that of the layer of
six tanh units on the training images, in five bins a unit and in the cells that are the library's default::

    python examples/noise_compresses.py

Seeds are paired: the networks of one seed start from the same weights, in every setting. A plain PyTorch loop trains
them: it looks up the loss several times an epoch, and a step with four images takes the Trainer more than twice as
long. :func:`lightning_ib.measure` then measures each network.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from noisy_digits import LAYER, N_TRAIN, SETTINGS, Data, digits, loss_and_accuracy, network, train
from tanh_vs_relu import at_least_one, picture
from torch import nn
from tqdm.auto import tqdm

from lightning_ib import CellQuantizer, FixedBins, Quantizer, measure
from lightning_ib.records.files import replacing
from lightning_ib.records.reliability import VerdictWarning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDGES = (-0.6, -0.2, 0.2, 0.6)
"""Five bins of one width on [−1, 1]."""
QUANTIZERS: dict[str, Quantizer | CellQuantizer] = {
    "bins": Quantizer(bins=FixedBins(EDGES)),
    "cells": CellQuantizer(),
}
REFERENCES = ("full batch", "batch 128")
"""The settings that all are compared with."""
SAME_RATE = ("batch 4", "slow full batch")
"""The pair that differs in the size of batches alone."""
CONFIDENCE = 0.99
"""Of the interval, by Student's t, that has to leave out 0 for a difference to be called one."""

# -- what is measured --------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """A trained network. Informations are of the layer of six units and the training images, in bits.

    Attributes:
        setting: the name of its setting.
        seed: of its weights, and of the order of images.
        epochs: it took; infinite where it did not come down to the loss.
        loss: on the training images, in nats.
        accuracy: on the test images.
        h_bins, i_ty_bins: H(T) and I(T;Y) in bins.
        h_cells, i_ty_cells: the same in cells.
        outer: the share of values in the two outer bins, near the limits of tanh.
        verdict: of the counts in bins.
    """

    setting: str
    seed: int
    epochs: float
    loss: float
    accuracy: float
    h_bins: float
    i_ty_bins: float
    h_cells: float
    i_ty_cells: float
    outer: float
    verdict: str


def run(name: str, seed: int, data: tuple[Data, Data], target: float, max_epochs: int) -> Result:
    """Train and measure one network; the random state of torch is left as it was."""
    training, test = data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = network(SETTINGS[name])
        epochs = train(net, SETTINGS[name], training, target, max_epochs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=VerdictWarning)  # the table shows them
        bins, cells = (measure(net, [training], {LAYER: one})[0] for one in QUANTIZERS.values())
    loss, _ = loss_and_accuracy(net, training)
    _, accuracy = loss_and_accuracy(net, test)
    informations = bins.h_t, bins.i_ty, cells.h_t, cells.i_ty
    return Result(name, seed, epochs, loss, accuracy, *informations, saturated_share(net, training), bins.verdict)


@torch.no_grad()
def saturated_share(net: nn.Sequential, data: Data) -> float:
    """The share of values of the layer that lie in the two outer bins."""
    code = nn.Sequential(OrderedDict(list(net.named_children())[:-1])).eval()(data.x)
    return float((code.abs() > EDGES[-1]).double().mean())


class Difference(NamedTuple):
    """How H(T) of one setting differs from that of another, over the seeds of both.

    Attributes:
        mean: of the differences, in bits.
        error: its standard error; NaN for a single seed.
        n_below: in how many seeds it is below.
        n: the number of seeds.
    """

    mean: float
    error: float
    n_below: int
    n: int

    def __str__(self) -> str:
        error = "" if math.isnan(self.error) else f" ± {self.error:.2f}"
        return f"{self.mean:+.2f}{error} ({self.n_below}/{self.n})".replace("-", "−")

    @property
    def clear(self) -> bool:
        """Whether the interval of Student's t leaves out 0; three seeds are the fewest that it is asked of."""
        if self.n < 3:
            return False
        from scipy import stats

        return bool(abs(self.mean) > self.error * stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1))


def difference(results: Sequence[Result], setting: str, reference: str, quantity: str) -> Difference | None:
    """Seed by seed; ``None`` where no seed has both, down to the loss."""
    ends = [
        {one.seed: float(getattr(one, quantity)) for one in results if one.setting == name and one.epochs < math.inf}
        for name in (setting, reference)
    ]
    each = [value - ends[1][seed] for seed, value in ends[0].items() if seed in ends[1]]
    if not each or setting == reference:
        return None
    error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return Difference(statistics.mean(each), error, sum(value < 0 for value in each), len(each))


def by_setting(results: Sequence[Result]) -> Mapping[str, list[Result]]:
    """Setting → its results, in order."""
    found: dict[str, list[Result]] = {}
    for one in results:
        found.setdefault(one.setting, []).append(one)
    return found


# -- results in words --------------------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> str:
    """Mean and standard error over the seeds."""
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{error}"


COLUMNS: dict[str, Callable[[Sequence[Result]], str]] = {
    "epochs": lambda of: f"{mean(of, 'epochs'):.1f}",
    "loss": lambda of: f"{mean(of, 'loss'):.3f}",
    "H(T): bins": lambda of: spread([one.h_bins for one in of]),
    "cells": lambda of: spread([one.h_cells for one in of]),
    "I(T;Y): bins": lambda of: f"{mean(of, 'i_ty_bins'):.3f}",
    "cells ": lambda of: f"{mean(of, 'i_ty_cells'):.3f}",
    "outer bins": lambda of: f"{mean(of, 'outer'):.1%}",
    "test accuracy": lambda of: f"{mean(of, 'accuracy'):.3f}",
    "flagged in bins": lambda of: ", ".join(
        f"{n}/{len(of)} {verdict}" for verdict, n in Counter(one.verdict for one in of).items() if verdict != "ok"
    ),
}
"""Of the table: name → how the networks of one setting are shown."""


def mean(results: Sequence[Result], field: str) -> float:
    """Of one field over networks."""
    return statistics.fmean(float(getattr(one, field)) for one in results)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, their columns below one another."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]


def table(results: Sequence[Result]) -> str:
    """The settings: means over the seeds, with standard errors, and their differences from two of them."""
    groups = by_setting(results)
    means = [["", *(name.strip() for name in COLUMNS)]]
    means += [[name, *(show(of) for show in COLUMNS.values())] for name, of in groups.items()]
    differences = [["", *(f"{how}: {to}" for how in QUANTIZERS for to in REFERENCES)]]
    for name in groups:
        found = [difference(results, name, to, f"h_{how}") for how in QUANTIZERS for to in REFERENCES]
        differences.append([name, *("–" if one is None else str(one) for one in found)])
    return "\n".join(
        [
            f"H(T) and I(T;Y) in bits, of {N_TRAIN} training images: log N = {math.log2(N_TRAIN):.2f}",
            "",
            *aligned(means),
            "",
            "H(T) less that of the same seed in another setting (in how many seeds it is below):",
            "",
            *aligned(differences),
        ]
    )


def compared(results: Sequence[Result], how: str) -> Iterator[tuple[str, str, Difference]]:
    """All pairs of a setting and a reference that share seeds, each pair once."""
    for k, to in enumerate(REFERENCES):
        for name in by_setting(results):
            found = difference(results, name, to, f"h_{how}")
            if found is not None and name not in REFERENCES[: k + 1]:
                yield name, to, found


def findings(results: Sequence[Result]) -> str:
    """What was seen and what was not, in words."""
    lines = []
    for how in QUANTIZERS:
        seen: list[str] = []
        others: dict[str, list[str]] = {}
        for name, to, of in compared(results, how):
            if of.clear:
                side, n = ("below", of.n_below) if of.mean < 0 else ("above", of.n - of.n_below)
                lies = f"{abs(of.mean):.2f} ± {of.error:.2f} bits {side}"
                seen.append(f"  {name} lies {lies} {to}, in {n} of {of.n} seeds")
            else:
                others.setdefault(to, []).append(name)
        lines += [f"Seen in {how}, each at a level of {1 - CONFIDENCE:.0%}:", *(seen or ["  nothing"])]
        within = "; ".join(f"against {to}: {', '.join(names)}" for to, names in others.items())
        lines.append(fill(f"Within chance in {how} {within}." if within else f"Within chance in {how}: nothing.", 118))
    groups = by_setting(results)
    h, i_ty, accuracy, outer = (
        [mean(of, field) for of in groups.values()] for field in ("h_bins", "i_ty_bins", "accuracy", "outer")
    )
    lines.append(f"I(T;Y) in bins is {min(i_ty):.2f} to {max(i_ty):.2f} bits in all settings.")
    if len(groups) > 2:
        lines.append(
            f"Across the {len(groups)} settings, H(T) in bins correlates by {correlation(h, outer)} with the share of "
            f"values in the outer\nbins, and by {correlation(h, accuracy)} with the test accuracy."
        )
    short = [f"{one.setting} (seed {one.seed}: {one.loss:.3f})" for one in results if one.epochs == math.inf]
    if short:
        lines.append(f"Left out of the differences, since the loss was not reached: {', '.join(short)}.")
    return "\n".join([*lines, *same_rate(results)])


def correlation(x: Sequence[float], y: Sequence[float]) -> str:
    """Pearson's, as text; a dash where one is constant."""
    if min(x) == max(x) or min(y) == max(y):
        return "–"
    return f"{statistics.correlation(x, y):+.2f}".replace("-", "−")


def same_rate(results: Sequence[Result]) -> list[str]:
    """How the pair with one learning rate differs."""
    pairs = {how: difference(results, *SAME_RATE, f"h_{how}") for how in QUANTIZERS}
    shown = [f"{of} in {how}{'' if of.clear else ', within chance'}" for how, of in pairs.items() if of is not None]
    names, rate = " − ".join(SAME_RATE), SETTINGS[SAME_RATE[0]].rate
    found = f"At one learning rate of {rate:g}, {names} is {'; '.join(shown)}."
    return ["The learning rates of the others fall with the size of batches.", *([found] if shown else [])]


def write_csv(results: Sequence[Result], path: Path) -> None:
    """Write all networks, one row each, replacing the file as a whole."""
    with replacing(path) as partial_file, partial_file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Result._fields)
        writer.writerows(results)


def draw(results: Sequence[Result]) -> Figure:
    """H(T) by setting, in bins and in cells: a light dot a seed, above it the mean with its standard error."""
    from matplotlib.figure import Figure

    groups = by_setting(results)
    figure = Figure(figsize=(9.4, 1.5 + 0.42 * len(groups)), dpi=130, layout="constrained")
    grid = figure.subplots(1, len(QUANTIZERS), sharey=True)
    for axes, (how, title) in zip(grid, (("bins", "five bins a unit"), ("cells", "cells (default)"))):
        _draw_settings(axes, {name: [getattr(one, f"h_{how}") for one in of] for name, of in groups.items()})
        axes.set_title(title, fontsize=12)
        axes.set_xlabel("H(T) of the six tanh units [bits]", fontsize=11)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=11)
    return figure


def _draw_settings(axes: Axes, values: Mapping[str, Sequence[float]]) -> None:
    from lightning_ib.plot.labels import depth_colors

    dark, light = depth_colors(2)
    first = next(iter(values))
    axes.axvline(
        statistics.mean(values[first]), color="0.5", linestyle=(0, (5, 4)), linewidth=1, label=f"mean of {first}"
    )
    for row, of in enumerate(values.values()):
        label = "_" * (row > 0)
        axes.scatter(of, [row + 0.22] * len(of), s=26, color=[light], linewidths=0, zorder=2, label=f"{label}a seed")
        error = statistics.stdev(of) / math.sqrt(len(of)) if len(of) > 1 else 0.0
        style: dict[str, Any] = {
            "marker": "D",
            "markersize": 6,
            "capsize": 4,
            "linewidth": 1.8,
            "linestyle": "",
            "zorder": 3,
        }
        axes.errorbar(
            statistics.mean(of), row - 0.1, xerr=error, color=dark, label=f"{label}mean ± standard error", **style
        )
    axes.set_yticks(range(len(values)), list(values), fontsize=11)
    axes.set_ylim(len(values) - 0.4, -0.6)  # the first on top
    axes.grid(alpha=0.25, linewidth=0.6)


# -- the run -----------------------------------------------------------------------------------------------------------


def positive(text: str) -> float:
    """For argparse: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Train small networks with different noise to one loss, and compare H(T).")
    p.add_argument("--seeds", type=at_least_one, default=5, metavar="N", help="networks of each setting (%(default)s)")
    p.add_argument(
        "--loss", type=positive, default=0.05, metavar="NATS", help="the training loss to stop at (%(default)s)"
    )
    p.add_argument("--max-epochs", type=at_least_one, default=5000, metavar="N", help="give up after (%(default)s)")
    p.add_argument(
        "--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME", help="some of the settings"
    )
    p.add_argument(
        "--out",
        type=picture,
        default=Path("noise_compresses.png"),
        metavar="FILE",
        help="where to draw, as .png, .pdf or .svg; every network goes into a .csv beside it (%(default)s)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, and print and draw the results.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: an argument is wrong, scikit-learn is missing, or writing a file failed.
    """
    args = parser().parse_args(argv)
    # Layers this small gain nothing from a second thread.
    torch.set_num_threads(1)
    try:
        data = digits()
    except ImportError:
        sys.exit("error: the handwritten digits come with scikit-learn: pip install scikit-learn.")
    names = dict.fromkeys(args.settings)
    jobs = tqdm([(name, seed) for name in names for seed in range(args.seeds)], unit=" networks")
    results = [run(name, seed, data, args.loss, args.max_epochs) for name, seed in jobs]
    print(f"{table(results)}\n\n{findings(results)}\n")
    try:
        write_csv(results, args.out.with_suffix(".csv"))
        with replacing(args.out) as partial_file:
            draw(results).savefig(partial_file, format=args.out.suffix[1:].lower())
    except OSError as error:
        sys.exit(f"error: {args.out} and the .csv beside it cannot be written: {error}.")
    print(f"The picture: {args.out}, and every network: {args.out.with_suffix('.csv')}")


if __name__ == "__main__":
    main()
