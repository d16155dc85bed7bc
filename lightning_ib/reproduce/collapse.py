"""Sakamoto & Sato (2026): fitting, neural collapse and compression over log time, by weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from lightning_ib.functional.ranks import spearman
from lightning_ib.reproduce.collapse_picture import draw, excess
from lightning_ib.reproduce.collapse_training import Data, Grid, train, work
from lightning_ib.reproduce.experiment import Claim, Finding, Progress, Settings
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.mnist import load_mnist, standardized

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
_SLOWER = 2.0
"""NC1 falls clearly more slowly than before the fit where halving takes so many times as long in log time."""
_LATE = 10.0
"""NC1 that never halved before the fit collapses apart from it from so many times the step of the fit on."""
_ORDERED = 0.95
"""Weight decay sets the time where so many pairs of runs of a seed are in its order."""
_BY_CHANCE = 0.05
"""An order that chance gives more often than that says nothing."""
_FEWEST = 4
"""A rank correlation over time needs so many measurements after the fit."""


class Times(NamedTuple):
    """When a run fitted and collapsed, and what happened from the fit to the end.

    Attributes:
        weight_decay: of the run.
        seed: of the run.
        fitted: the first measured step with the training accuracy of :data:`FITTED`, or NaN.
        doubled: the last measured step before the fit with twice the NC1 of the training set at the fit, or NaN.
        collapsed: the first measured step after the fit with half of it, or NaN.
        not_yet: the last measured step before that; without a collapse the last one of all.
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
    doubled: float
    collapsed: float
    not_yet: float
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
        times_of([row for row in rows if (row["weight_decay"], row["seed"]) == (decay, seed)], grid.n_steps)
        for decay in grid.weight_decays
        for seed in seeds
    ]
    of_settings = {"weight decays": ", ".join(f"{one:g}" for one in grid.weight_decays)}
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
        x, y = load_mnist(settings.data_dir, split, n)
        parts += [standardized(x).flatten(1).to(settings.device), y.to(settings.device)]
    return Data(*parts)


def times_of(rows: Sequence[Row], n_steps: int) -> Times:
    """When a run of so many steps fitted and collapsed, of its rows in the order of time; NaN where it diverged."""
    key = rows[0]["weight_decay"], rows[0]["seed"]
    start = next((k for k, row in enumerate(rows) if row["train_accuracy"] >= FITTED), None)
    if start is None or rows[-1]["step"] < n_steps:
        return Times(*key, *[math.nan] * 13)
    after = rows[start:]
    first = after[0]
    doubled = [row["step"] for row in rows[:start] if row["train_nc1"] >= 2 * first["train_nc1"]]
    collapsed = next((row["step"] for row in after if row["train_nc1"] <= first["train_nc1"] / 2), math.nan)
    not_yet = max(row["step"] for row in after if not row["step"] >= collapsed)
    columns = [
        [row["test_accuracy"] for row in after],
        [row["i_xt_given_y"] for row in after],
        [excess(row) for row in after],
    ]
    changes = [column[-1] - column[0] for column in columns]
    rhos = [_over_time([row[spread] for row in after], of) for spread in ("test_rnc1", "test_nc1") for of in columns]
    halvings = (float(doubled[-1]) if doubled else math.nan, float(collapsed), float(not_yet))
    return Times(*key, float(first["step"]), *halvings, *changes, *rhos)


def _over_time(spread: Sequence[float], of: Sequence[float]) -> float:
    """The rank correlation; NaN of few measurements, and of a network whose units are all dead."""
    if len(of) < _FEWEST or not all(map(math.isfinite, (*spread, *of))):
        return math.nan
    return spearman(spread, of, bars=False).value


def claims_of(times: Sequence[Times], grid: Grid) -> list[Claim]:
    """What the paper claims, beside what the runs say."""
    fitted = [time for time in times if not math.isnan(time.fitted)]
    if not fitted:
        none = f"none of {len(times)} runs came to a training accuracy of {FITTED:g} without diverging."
        return [Claim(claimed, none, None) for claimed in _CLAIMED]
    return [
        _two_times(times, fitted),
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


def _two_times(times: Sequence[Times], fitted: Sequence[Times]) -> Claim:
    """Whether NC1 halves apart from the fit in every run; steady falls, as that of 1 / step, have no time of their own.

    Every run has to say so, or every one the opposite.
    """
    parts = []
    for time in fitted:
        before = "never twice as large before" if math.isnan(time.doubled) else f"twice as large at {time.doubled:.0f}"
        then = f"not half by {time.not_yet:.0f}" if math.isnan(time.collapsed) else f"half at {time.collapsed:.0f}"
        parts.append(f"{_name(time)} fits at step {time.fitted:.0f}, its NC1 is {before}, {then}")
    apart = [_apart(time) for time in fitted]
    others = ", ".join(_name(time) for time in times if math.isnan(time.fitted))
    more = f" Not fitted, or diverged: {others}." if others else ""
    return Claim(
        _CLAIMED[0],
        f"{'; '.join(parts)}. NC1 halves apart from the fit in {apart.count(True)} of {len(fitted)} runs and with it "
        f"in {apart.count(False)}; in {apart.count(None)} it falls as steadily in log time before the fit as after it, "
        f"which has no time scale, or the run ends too early.{more}",
        True if all(apart) else False if apart.count(False) == len(apart) else None,
    )


def _apart(time: Times) -> bool | None:
    """Whether a run collapses at a time of its own, as far as the measured steps bound it."""
    if time.collapsed < 2 * time.fitted:
        return False
    wait = time.not_yet / time.fitted
    if math.isnan(time.doubled):
        return True if wait >= _LATE else None
    before = time.fitted / max(time.doubled, 1)
    return True if wait >= 2 and math.log(wait) >= _SLOWER * math.log(before) else None


def _by_weight_decay(fitted: Sequence[Times], grid: Grid) -> Claim:
    """Whether the wait is longer the weaker the decay, over pairs of runs of a seed, which start alike."""
    words = [
        f"λ = {decay:g}: {', '.join(_wait(time) for time in fitted if time.weight_decay == decay)}"
        for decay in grid.weight_decays
        if any(time.weight_decay == decay for time in fitted)
    ]
    seeds = {time.seed: [of for of in fitted if of.seed == time.seed] for time in fitted}
    pairs = [
        (one, other) for of in seeds.values() for one in of for other in of if one.weight_decay > other.weight_decay
    ]
    longer = sum(_surely_longer(other, one) for one, other in pairs)
    shorter = sum(_surely_longer(one, other) for one, other in pairs)
    chance = 1 / math.prod(math.factorial(len(of)) for of in seeds.values())
    found = (
        f"steps from fit to half the NC1: {'; '.join(words)}. Of {len(pairs)} pairs of runs of a seed the weaker decay "
        f"waits longer in {longer} and less long in {shorter}; the others cannot be told apart at the measured steps."
    )
    if chance > _BY_CHANCE:
        return Claim(_CLAIMED[1], f"{found} So few runs are in such an order by chance, too.", None)
    holds = True if longer >= _ORDERED * len(pairs) else False if 2 * shorter >= len(pairs) else None
    return Claim(_CLAIMED[1], found, holds)


def _name(time: Times) -> str:
    return f"λ = {time.weight_decay:g} seed {time.seed}"


def _wait(time: Times) -> str:
    late = f"more than {time.not_yet - time.fitted:.0f}"
    return f"{late if math.isnan(time.collapsed) else format(time.collapsed - time.fitted, '.0f')} (seed {time.seed})"


def _surely_longer(one: Times, other: Times) -> bool:
    """Whether a run waits longer than another: a collapse lies between two measured steps, or after the last one."""
    return not math.isnan(other.collapsed) and one.not_yet - one.fitted >= other.collapsed - other.fitted


def _moves_along(fitted: Sequence[Times], claimed: str, what: str, name: str, sign: int) -> Claim:
    """Whether a quantity moves with the variance within classes, from the fit on.

    It does where both measures of that variance say so in all runs, and does not where neither does in half of them.
    """
    changes = [getattr(time, what) for time in fitted]
    rhos = {spread: [getattr(time, f"{spread.lower()}_{what}") for time in fitted] for spread in ("RNC1", "NC1")}
    known = {spread: [rho for rho in of if not math.isnan(rho)] for spread, of in rhos.items()}
    found = f"from the fit to the end {name} changes by {_spread(changes, '+.3g')}"
    if not all(known.values()):
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
        f"Fitted means a training accuracy of {FITTED:g}. A network whose outputs are no longer finite has diverged: "
        "its run ends before, and is not judged.",
        f"Measurements lie at about {grid.n_measured} steps, equally far apart in their logarithm: times are so "
        "precise.",
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
