"""Sakamoto & Sato (2026): fitting, neural collapse and compression over log time, by weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import median_low
from typing import NamedTuple

from lightning_ib.functional.ranks import spearman
from lightning_ib.reproduce.collapse_picture import draw, excess
from lightning_ib.reproduce.collapse_training import Data, Grid, train, work
from lightning_ib.reproduce.experiment import Claim, Finding, Progress, Settings
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.mnist import load_mnist

PAPER = Grid((0.3, 0.1, 0.03, 0.01, 0.003, 0.001), n_seeds=5, n_steps=100_000, n_measured=60)
QUICK = Grid(
    (0.3, 0.1, 0.03),
    n_seeds=2,
    n_steps=6000,
    n_measured=26,
    n_train=1000,
    n_test=1000,
    n_kernel=500,
    width=100,
    init_scale=3.0,
    rate=5e-3,
)
"""A smaller network on fewer pictures, whose smaller start and larger rate let it fit within a few hundred steps."""

FITTED = 0.99
"""The training accuracy from which a network counts as fitted."""
_CLEAR = 0.5
"""A correlation over time counts from this size on."""
_LEAST_CHANGE = {"accuracy": 0.05}
"""A test accuracy that rises by less after the fit is no grokking."""
_FEWEST = 4
"""A rank correlation over time needs so many measurements after the fit."""


class Times(NamedTuple):
    """When a run fitted and collapsed, and what happened from the fit to the end.

    Attributes:
        weight_decay: of the run.
        seed: of the run.
        fitted: the first measured step with the training accuracy of :data:`FITTED`, or NaN.
        collapsed: the first measured step from then on with half the NC1 of the training set at the fit, or NaN.
        accuracy: the change of the test accuracy from the fit to the end.
        information: that of I(X;T|Y), in bits.
        kernels: that of nHSIC(Z;X) − nHSIC(Z;Y).
        rnc1_accuracy: Spearman's rho over time of the RNC1 of the test set with the test accuracy, from the fit on.
        rnc1_information: likewise with I(X;T|Y).
        rnc1_kernels: likewise with the difference of the nHSIC.
        nc1_accuracy: likewise of the NC1 of the test set with the test accuracy.
        nc1_information: likewise with I(X;T|Y).
        nc1_kernels: likewise with the difference of the nHSIC.
    """

    weight_decay: float
    seed: int
    fitted: float
    collapsed: float
    accuracy: float
    information: float
    kernels: float
    rnc1_accuracy: float
    rnc1_information: float
    rnc1_kernels: float
    nc1_accuracy: float
    nc1_information: float
    nc1_kernels: float


def run(settings: Settings, progress: Progress, grid: Grid | None = None) -> Finding:
    """Train a network for each weight decay and seed, and say when it fits, collapses, and compresses.

    Args:
        settings: ``seed`` is the first of the seeds.
        progress: advances with the steps of training and the measurements.
        grid: the setting of the runs; by default the paper's, or the quick one.

    Raises:
        ExperimentError: MNIST is missing or damaged.
    """
    grid = grid or (QUICK if settings.quick else PAPER)
    data = _data(settings, grid)
    seeds = range(settings.seed, settings.seed + grid.n_seeds)
    progress.begin(len(grid.weight_decays) * len(seeds) * work(grid))
    rows: list[Row] = []
    for seed in seeds:
        for decay in grid.weight_decays:
            name = f"decay {decay:g} seed {seed}"
            make = partial(train, data, grid, decay, seed, progress.advance, settings.device)
            rows += settings.rows(name, make, progress, work(grid), f"weight decay {decay:g}, seed {seed}")
    times = [
        times_of([row for row in rows if (row["weight_decay"], row["seed"]) == (decay, seed)])
        for decay in grid.weight_decays
        for seed in seeds
    ]
    of_settings = {"setting": "the paper's" if grid == PAPER else "quick", "device": settings.device}
    of_settings |= {"weight decays": ", ".join(f"{one:g}" for one in grid.weight_decays)}
    of_settings |= {"seeds": ", ".join(map(str, seeds))}
    of_settings |= {name: value for name, value in grid._asdict().items() if name not in ("weight_decays", "n_seeds")}
    return Finding(
        draw(rows, times),
        rows,
        claims_of(times, grid),
        _method(grid),
        of_settings,
        _FAULTS,
        [_summary(time) for time in times],
    )


def _summary(time: Times) -> Row:
    return {
        "weight decay": time.weight_decay,
        "seed": time.seed,
        "fitted at step": time.fitted,
        "half the NC1 at step": time.collapsed,
        "change of the test accuracy from the fit on": time.accuracy,
        "of I(X;T|Y) [bits]": time.information,
        "of nHSIC(Z;X) − nHSIC(Z;Y)": time.kernels,
    }


def _data(settings: Settings, grid: Grid) -> Data:
    """The first pictures of both parts, standardized by the numbers of the original."""
    parts = []
    for split, n in (("train", grid.n_train), ("t10k", grid.n_test)):
        x, y = load_mnist(settings.data_dir, split)
        parts += [((x[:n] - 0.1307) / 0.3081).flatten(1).to(settings.device), y[:n].to(settings.device)]
    return Data(*parts)


def times_of(rows: Sequence[Row]) -> Times:
    """When a run fitted and collapsed, of its rows in the order of time."""
    key = rows[0]["weight_decay"], rows[0]["seed"]
    start = next((k for k, row in enumerate(rows) if row["train_accuracy"] >= FITTED), None)
    if start is None:
        return Times(*key, *[math.nan] * 11)
    after = rows[start:]
    first = after[0]
    collapsed = next((row["step"] for row in after if row["train_nc1"] <= first["train_nc1"] / 2), math.nan)
    columns = [
        [row["test_accuracy"] for row in after],
        [row["i_xt_given_y"] for row in after],
        [excess(row) for row in after],
    ]
    changes = [column[-1] - column[0] for column in columns]
    rhos = [
        spearman([row[spread] for row in after], of, bars=False).value if len(after) >= _FEWEST else math.nan
        for spread in ("test_rnc1", "test_nc1")
        for of in columns
    ]
    return Times(*key, float(first["step"]), float(collapsed), *changes, *rhos)


def claims_of(times: Sequence[Times], grid: Grid) -> list[Claim]:
    """What the paper claims, beside what the runs say."""
    fitted = [time for time in times if not math.isnan(time.fitted)]
    if not fitted:
        none = f"none of {len(times)} runs came to a training accuracy of {FITTED:g}."
        return [Claim(claimed, none, None) for claimed in _CLAIMED]
    return [
        _two_times(fitted, grid),
        _by_weight_decay(fitted, grid),
        _moves_along(fitted, _CLAIMED[2], "accuracy", "the test accuracy", -1),
        _moves_along(fitted, _CLAIMED[3], "information", "I(X;T|Y) [bits]", 1),
        _moves_along(fitted, _CLAIMED[3], "kernels", "nHSIC(Z;X) − nHSIC(Z;Y)", 1),
    ]


_CLAIMED = (
    "fitting the training set and the progression of neural collapse have distinct time scales.",
    "weight decay sets the time between fitting and collapse.",
    "the contraction of the population within-class variance is behind grokking, the late rise of the test accuracy.",
    "the contraction of the population within-class variance is behind the compression of redundant information.",
)


def _two_times(fitted: Sequence[Times], grid: Grid) -> Claim:
    parts = []
    for decay, of in _by_decay(fitted, grid):
        late = median_low(_or_never(time.collapsed) for time in of)
        then = f"half the NC1 at {late:.0f}" if late < math.inf else f"half the NC1 not before {grid.n_steps}"
        parts.append(f"λ = {decay:g}: fitted at step {median_low(time.fitted for time in of):.0f}, {then}")
    later = [min(_or_never(time.collapsed), grid.n_steps) >= 2 * time.fitted for time in fitted]
    return Claim(
        _CLAIMED[0],
        f"{'; '.join(parts)}. In {sum(later)} of {len(fitted)} fitted runs collapse takes at least as long again.",
        all(later),
    )


def _by_weight_decay(fitted: Sequence[Times], grid: Grid) -> Claim:
    """Whether the wait, the lower median over seeds, is longer the weaker the decay."""
    waits = [
        (decay, median_low(_or_never(time.collapsed) - time.fitted for time in of))
        for decay, of in _by_decay(fitted, grid)
    ]
    known = [(decay, wait) for decay, wait in waits if wait < math.inf]
    if len(known) < 2:
        return Claim(_CLAIMED[1], f"only {len(known)} of the weight decays collapsed within the steps.", None)
    named = ", ".join(f"{wait:.0f} for λ = {decay:g}" for decay, wait in known)
    scaled = ", ".join(f"{wait * decay * grid.rate:.2g}" for decay, wait in known)
    more = f"; the other {len(waits) - len(known)} take longer than the runs" if len(waits) > len(known) else ""
    return Claim(
        _CLAIMED[1],
        f"steps from fit to half the NC1: {named}; in units of 1 / (rate · λ): {scaled}{more}.",
        all(one < other or one == other == math.inf for (_, one), (_, other) in zip(waits, waits[1:])),
    )


def _or_never(step: float) -> float:
    """A step, or infinity for one that did not come."""
    return math.inf if math.isnan(step) else step


def _moves_along(fitted: Sequence[Times], claimed: str, what: str, name: str, sign: int) -> Claim:
    """Whether a quantity moves with the variance within classes, from the fit on.

    It does where both measures of that variance say so in all runs, and does not where neither does in half of them.
    """
    changes = [getattr(time, what) for time in fitted]
    rhos = {spread: [getattr(time, f"{spread.lower()}_{what}") for time in fitted] for spread in ("RNC1", "NC1")}
    known = {spread: [rho for rho in of if not math.isnan(rho)] for spread, of in rhos.items()}
    found = f"from the fit to the end {name} changes by {_spread(changes, '+.3g')}"
    if not known["RNC1"]:
        return Claim(claimed, f"{found}; too few measurements follow the fit.", None)
    parts, shares = [], []
    for spread, of in known.items():
        agree = sum(sign * rho > _CLEAR for rho in of)
        parts.append(f"{_spread(of, '+.2f')} with the {spread} of the test set, clear in {agree} of {len(of)} runs")
        shares.append(agree / len(of))
    found += (
        f"; its ρ over time is {', and '.join(parts)} ({'below' if sign < 0 else 'above'} {sign * _CLEAR:g} is clear)."
    )
    if max(-sign * change for change in changes) < _LEAST_CHANGE.get(what, 0.0):
        return Claim(claimed, f"{found} That is no late change to be explained.", None)
    return Claim(claimed, found, True if min(shares) == 1 else False if max(shares) < 0.5 else None)


def _spread(values: Sequence[float], form: str) -> str:
    """A value, or the least and the greatest of several."""
    least, greatest = (format(one, form) for one in (min(values), max(values)))
    return least if len(values) == 1 else f"{least} to {greatest}"


def _by_decay(times: Sequence[Times], grid: Grid) -> list[tuple[float, list[Times]]]:
    """The runs of each weight decay that has some, the strongest first."""
    found = [(decay, [time for time in times if time.weight_decay == decay]) for decay in grid.weight_decays]
    return [(decay, of) for decay, of in found if of]


def _method(grid: Grid) -> list[str]:
    return [
        f"A network of two hidden layers of {grid.width} ReLUs is trained on {grid.n_train} pictures of MNIST with "
        "AdamW and the sum over the batch of the squared errors of one-hot labels; all initial weights and biases are "
        f"{grid.init_scale:g} times those of PyTorch.",
        "Z and T are the output of the last hidden layer. RNC1 is the variance within classes over the squared mean "
        "length of Z, NC1 that over the variance between classes.",
        f"I(X;T), I(T;Y) and I(X;T|Y) = I(X;T) − I(T;Y) are what the callback reports by default on {grid.n_test} test "
        "pictures: counts of cells that are fitted anew at each measurement, in bits.",
        "nHSIC is the normalized HSIC with ε = 1e-5 in batches of 100 test pictures, "
        f"{min(grid.n_kernel, grid.n_test)} in all: Gaussian kernels of width 5 √D for X and Z, the linear kernel for "
        "labels.",
        f"Fitted means a training accuracy of {FITTED:g}. Measurements lie at about {grid.n_measured} steps, equally "
        "far apart in their logarithm, which is how precise times are.",
    ]


_FAULTS = [
    "As far as seen in the code (commit 81f2c2d), the loader of the test set shuffles, and the estimate of I(Z;X) by "
    "compression takes the codes of X and of Z from two passes over it, that of I(Z;Y) the labels in the order of the "
    "data set: rows of different pictures are paired. Here X, T and Y of a row are of one picture.",
    "Its re-implementation of the Monte Carlo estimate of Kawaguchi et al., which its README says the paper leaves "
    "aside, divides a sum over 400 references by 2000: ln 5 = 1.61 nats too much.",
    "The variance within classes is a difference of two sums in single precision, which loses its digits where the "
    "representation collapses; here distances from the class means are summed in double precision.",
]
