"""The information plane of layers with continuous dropout: I(X;T) is finite, and its noise is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_ib.reproduce.dropout_training import Plan, train
from lightning_ib.reproduce.experiment import Claim, Finding, Progress, Settings, filled
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.known_noise import known_noise_information, normal_channel_information
from lightning_ib.reproduce.mnist import load_mnist

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOTH = ("gaussian", "information")
QUICK = Plan(BOTH, 1, 10, (0, 1, 2, 3, 4, 6, 8, 10), n_train=8000, n_components=1000, batch=64)
FULL = Plan(BOTH, 3, 200, tuple(range(0, 201, 4)), n_train=60_000, n_components=10_000, draws=2, n_pairwise=1000)

CHANNEL = "known channel"
_CHANNEL_STD, _CHANNEL_ROWS, _CHANNEL_DRAWS = 0.25, 1000, 8
_CHANNEL_DIMENSIONS = (1, 2, 4, 8)

_WITHIN = 1.0
"""The lower and the upper value are a reading of I(X;T) where they are within so many bits of each other."""

_COLORS = {"gaussian": "#31688e", "information": "#d1603d"}
_NAMES = {"gaussian": "Gaussian dropout", "information": "information dropout"}

METHOD = (
    "LeNet with softplus units learns MNIST by SGD; the layer of 84 units has the noise. Gaussian dropout multiplies "
    "it by N(1, s²) with s = p/(1 − p), as the authors' code does, information dropout by a log-normal factor whose "
    "width the input decides.",
    "Given the input, T (or its logarithm) is normal with known parameters: h(T|X) is in closed form, and p(t) is a "
    "mixture with a component for each of N test pictures. `i_xt_lower` compares each draw with all components and is "
    "at most log₂ N, `i_xt_upper` with those of the other pictures; their means over samples bracket I(X;T) (Poole et "
    "al. 2019). Errors are over the pictures.",
    "`i_xt_pairwise_lower` and `_upper` bound the information about which of a few hundred pictures it was, from "
    "distances between components (Kolchinsky & Tracey 2017), and are about fewer pictures than the others.",
    "A unit that is exactly 0, as with ReLUs, has no multiplicative noise: it is an atom, and only pictures that agree "
    "in their atoms are compared by densities. Softplus units are never 0.",
    "`i_ty_lower` is H(Y) less the cross-entropy of the network with its noise on, a lower bound of I(T;Y).",
    "`cells_i_xt` is what the callback reports: of the layer without its noise, in cells. The mode of every module "
    "stays as it was.",
    f"The known channel is T = (1 + {_CHANNEL_STD} ε)X in independent coordinates with X ~ N(0, 1), whose information "
    "is computed by quadrature.",
)

FAULTS = (
    "The dropout layers ask `if self.train():`, which puts the module into training mode and is always true: the noise "
    "is on in evaluation, too, and the module stays in training.",
    "The callback that collects representations calls `core.train()` and leaves the network so.",
    "The components of the mixture have the covariance s |z|; that of z (1 + s ε) is s² z².",
    "Noise with p/(1 − p) as its standard deviation is announced as having it for its variance; the script that "
    "validates the estimator draws noise of variance 0.4 and takes 0.4 for its standard deviation in h(T|X).",
    "The estimator's p is 0.01 and that of the training 0.2: whoever runs both has to make them equal by hand.",
    "Test representations are sorted by `np.unique`, and the first 1 000 become the components: those with the "
    "smallest first unit, rather than a random sample of the draws that they are compared with.",
    "A draw is compared with its own component if that is among the 1 000, and else not: an average of what is too low "
    "and what is too high. 1e-6 is added inside the logarithm, and draws beyond a multiple of 10 000 are left out.",
)


def run(settings: Settings, progress: Progress) -> Finding:
    """Train, measure, draw and judge.

    Raises:
        ExperimentError: MNIST is missing or damaged.
    """
    plan = QUICK if settings.quick else FULL
    x, y = load_mnist(settings.data_dir, "train", plan.n_train)
    x_test, y_test = load_mnist(settings.data_dir, "t10k", plan.n_components)
    return experiment((x[:, None], y, x_test[:, None], y_test), plan, settings, progress)


def experiment(data: Sequence[Tensor], plan: Plan, settings: Settings, progress: Progress) -> Finding:
    """The same on any pictures and any plan."""
    runs = [(method, settings.seed + k) for method in plan.methods for k in range(plan.n_seeds)]
    progress.begin(len(runs) * plan.n_epochs)
    rows: list[Row] = []
    for method, seed in runs:
        name = f"{method} seed {seed}"
        make = partial(train, data, plan, method, seed, progress.advance, settings.device)
        rows += settings.rows(name, make, progress, plan.n_epochs, name)
    channel = known_channel()
    return Finding(
        picture(rows, channel),
        filled([*rows, *channel]),
        [*judged(rows, plan.measured[-1]), _about_the_channel(channel)],
        METHOD,
        {name: value for name, value in plan._asdict().items() if name != "measured"}
        | {"seed": settings.seed, "noise": plan.std, "measured epochs": len(plan.measured)},
        FAULTS,
        [_summary(row) for run in _runs(rows) for row in (_of(rows, run)[0], _of(rows, run)[-1])],
    )


def _summary(row: Row) -> Row:
    return {
        "noise": _NAMES[row["method"]],
        "seed": row["seed"],
        "epoch": row["epoch"],
        "I(X;T) at least [bits]": row["i_xt_lower"],
        "at most": row["i_xt_upper"],
        "without noise, in cells": row["cells_i_xt"],
        "I(T;Y) at least [bits]": row["i_ty_lower"],
        "accuracy": row["accuracy"],
    }


def known_channel() -> list[Row]:
    """The estimates where the information is known, in bits, and what the formula of the original would read."""
    rows = []
    for d in _CHANNEL_DIMENSIONS:
        generator = torch.Generator().manual_seed(d)
        x = torch.randn(_CHANNEL_ROWS, d, generator=generator, dtype=torch.float64)
        std = _CHANNEL_STD * x.abs()
        found = known_noise_information(x, std, draws=_CHANNEL_DRAWS, generator=generator, n_pairwise=0)
        row = {"method": CHANNEL, "dimensions": d, "truth": d * normal_channel_information(_CHANNEL_STD)}
        row |= {"i_xt_lower": found.lower, "i_xt_upper": found.upper}
        row |= {"i_xt_lower_error": found.lower_error, "i_xt_upper_error": found.upper_error}
        row["as_published"] = _as_published(x, std, generator)
        most = {"i_xt_most": math.log2(_CHANNEL_ROWS)}
        rows.append({k: v / math.log(2) if isinstance(v, float) else v for k, v in row.items()} | most)
    return rows


def _as_published(z: Tensor, std: Tensor, generator: torch.Generator) -> float:
    """In nats, with components whose covariance is s |z| in place of s² z²."""
    t = z + std * torch.randn(z.shape, generator=generator, dtype=torch.float64)
    variance = std
    square = ((t[:, None] - z).square() / variance).sum(2)
    log_p = -(square + (2 * math.pi * variance).log().sum(1)) / 2
    h_t = math.log(len(z)) - float(log_p.logsumexp(1).mean())
    return h_t - float((std * math.sqrt(2 * math.pi * math.e)).log().sum(1).mean())


def judged(rows: Sequence[Row], last: int) -> list[Claim]:
    """The claims of the paper about networks, beside the rows; runs that diverged before the end are left out."""
    sound = [run for run in _runs(rows) if _of(rows, run)[-1]["epoch"] == last]
    ended = [_named(run) for run in _runs(rows) if run not in sound]
    left_out = f" Left out, since they diverged: {', '.join(ended)}." if ended else ""
    rows = [row for run in sound for row in _of(rows, run)]
    if not rows:
        return [Claim(claimed, f"every network diverged: {', '.join(ended)}.", None) for claimed in _CLAIMED]
    highest, read = max(row["i_xt_upper"] for row in rows), [_reads(row) for row in rows]
    ends = ", ".join(
        f"{of['i_xt_lower']:.3g} and {of['i_xt_upper']:.4g} bits ({_named(run)})"
        for run, of in ((run, _of(rows, run)[-1]) for run in sound)
    )
    changes = [_change(_of(rows, run)) for run in sound]
    words = "; ".join(f"{_named(run)}: by {low:+.4g} to {high:+.4g} bits" for run, (low, high) in zip(sound, changes))
    falls, may_fall = [high < 0 for _, high in changes], [low < 0 for low, _ in changes]
    return [
        Claim(
            _CLAIMED[0],
            f"the upper of the two values is at most {highest:.4g} bits. It is finite by construction, as it is for "
            "noise of any size, and infinite for layers without noise, so that no run could say otherwise."
            f"{left_out}",
            None,
        ),
        Claim(
            _CLAIMED[1],
            f"in {sum(read)} of {len(rows)} measurements the two values are within {_WITHIN:g} bit of each other; at "
            f"the end they are {ends}. Where the lower one is near the {rows[0]['i_xt_most']:.4g} bits that tell all "
            f"pictures apart, the plane shows the number of pictures.{left_out}",
            True if all(read) else None,
        ),
        Claim(
            _CLAIMED[2],
            f"from its highest value before to the end I(X;T) changes, as far as the two values bound it: {words}."
            f"{left_out}",
            True if all(falls) else None if any(may_fall) else False,
        ),
    ]


_CLAIMED = (
    "Dropout with continuously distributed noise makes I(X;T) finite (abstract).",
    "This enables a meaningful information plane (abstract).",
    "Training has a fitting phase, in which I(X;T) rises, and a compression phase, in which it falls (the paper's "
    "introduction shows them on LeNet and MNIST).",
)


def _reads(row: Row) -> bool:
    """Whether the lower and the upper value are near enough to be a reading."""
    return bool(row["i_xt_upper"] - row["i_xt_lower"] <= _WITHIN)


def _named(run: tuple[str, int]) -> str:
    return f"{_NAMES[run[0]]}, seed {run[1]}"


def _about_the_channel(channel: Sequence[Row]) -> Claim:
    """Whether the truth lies between the two values, and these are near enough to be a reading, at every dimension."""
    inside = [
        row["i_xt_lower"] - 3 * row["i_xt_lower_error"]
        <= row["truth"]
        <= row["i_xt_upper"] + 3 * row["i_xt_upper_error"]
        for row in channel
    ]
    read = [_reads(row) for row in channel]
    words = "; ".join(
        f"of {row['truth']:.3g} bits in {row['dimensions']} coordinates they are {row['i_xt_lower']:.3g} and "
        f"{row['i_xt_upper']:.3g}, by the code {row['as_published']:.3g}"
        for row in channel
    )
    return Claim(
        "The estimator reads I(X;T) of multiplicative Gaussian noise (the code's validation of the estimator).",
        f"the truth lies between the two values here in {sum(inside)} of {len(channel)} cases, and they are within "
        f"{_WITHIN:g} bit of each other in {sum(read)}; the others are no reading. With the formula of the code, whose "
        f"covariance is s |z|, beside: {words}. {channel[0]['i_xt_most']:.3g} bits tell all samples apart.",
        False if not all(inside) else True if all(read) else None,
    )


def _runs(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row["method"], row["seed"]) for row in rows))


def _of(rows: Sequence[Row], run: tuple[str, int]) -> list[Row]:
    return [row for row in rows if (row["method"], row["seed"]) == run]


def _change(rows: Sequence[Row]) -> tuple[float, float]:
    """The least and the largest change of I(X;T) from the moment when it was highest to the end."""
    *earlier, last = rows
    least = last["i_xt_lower"] - max(row["i_xt_upper"] for row in earlier)
    return least, last["i_xt_upper"] - max(row["i_xt_lower"] for row in earlier)


# -- the picture -------------------------------------------------------------------------------------------------------


def picture(rows: Sequence[Row], channel: Sequence[Row]) -> Figure:
    """I(X;T) over the epochs, the plane, and the channel whose information is known."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.4, 4.2), dpi=100)
    over_epochs, plane, known = figure.subplots(1, 3, gridspec_kw={"wspace": 0.34})
    figure.subplots_adjust(left=0.06, right=0.985, top=0.91, bottom=0.25)
    _draw_epochs(over_epochs, rows)
    _draw_plane(plane, rows)
    _draw_channel(known, channel)
    for axes in (over_epochs, plane, known):
        axes.tick_params(labelsize=9)
        axes.grid(alpha=0.25, linewidth=0.6)
    for axes, place, columns in ((over_epochs, 0.31, 4), (known, 0.825, 2)):
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(place, 0.125), ncols=columns, fontsize=9,
            frameon=False, columnspacing=1.4,
        )  # fmt: skip
    return figure


def _draw_epochs(axes: Axes, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import MaxNLocator

    named: set[str] = set()
    for run in _runs(rows):
        of, color = _of(rows, run), _COLORS[run[0]]
        epochs = [row["epoch"] for row in of]
        lower, upper = ([row[f"i_xt_{side}"] for row in of] for side in ("lower", "upper"))
        label = None if run[0] in named else _NAMES[run[0]]
        axes.fill_between(epochs, lower, upper, color=color, alpha=0.3, linewidth=0, label=label)
        axes.plot(epochs, lower, color=color, linewidth=1.2)
        axes.plot(epochs, upper, color=color, linewidth=1.2)
        cells = [row["cells_i_xt"] for row in of]
        axes.plot(epochs, cells, color=color, linewidth=1, linestyle=":", marker=".")
        named.add(run[0])
    axes.plot([], [], color="0.3", linewidth=1, linestyle=":", marker=".", label="noiseless, in cells")
    axes.axhline(rows[0]["i_xt_most"], color="0.3", linewidth=1, linestyle="--", label="log₂ of the pictures")
    axes.set_yscale("log")
    axes.set_ylim(bottom=5e-3)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("I(X;T) in bits")
    axes.set_title("Between the lower and the upper value", fontsize=10.5)


def _draw_plane(axes: Axes, rows: Sequence[Row]) -> None:
    for run in _runs(rows):
        of, color = _of(rows, run), _COLORS[run[0]]
        y = [max(row["i_ty_lower"], 0) for row in of]
        lower, upper = ([max(row[f"i_xt_{side}"], 5e-3) for row in of] for side in ("lower", "upper"))
        for k, (a, b, at) in enumerate(zip(lower, upper, y)):
            alpha = 0.2 + 0.8 * (k + 1) / len(of)
            axes.plot([a, b], [at, at], color=color, alpha=alpha, linewidth=2.5, solid_capstyle="butt")
        axes.plot(lower, y, color=color, linewidth=0.8, marker="o", markersize=3)
    axes.axvline(rows[0]["i_xt_most"], color="0.3", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(left=5e-3)
    axes.set_xlabel("I(X;T) in bits, lower to upper")
    axes.set_ylabel("I(T;Y) in bits, at least")
    axes.set_title("The plane, later epochs darker", fontsize=10.5)


def _draw_channel(axes: Axes, channel: Sequence[Row]) -> None:
    d = [row["dimensions"] for row in channel]
    lower, upper, truth, published = (
        [row[name] for row in channel] for name in ("i_xt_lower", "i_xt_upper", "truth", "as_published")
    )
    axes.fill_between(d, lower, upper, color="#35b779", alpha=0.25, linewidth=0, label="between the two values")
    axes.plot(d, lower, color="#35b779", linewidth=1.2)
    axes.plot(d, upper, color="#35b779", linewidth=1.2)
    axes.plot(d, truth, color="black", linewidth=1.5, label="truth")
    axes.plot(d, published, color="#b5367a", linestyle="none", marker="x", label="with covariance s |z|")
    axes.axhline(channel[0]["i_xt_most"], color="0.3", linewidth=1, linestyle="--", label="log₂ of the samples")
    axes.set_xscale("log", base=2)
    axes.set_xticks(d, [str(of) for of in d])
    axes.set_xlabel("coordinates of (1 + s ε)X, s = 0.25")
    axes.set_ylabel("I(X;T) in bits")
    axes.set_yscale("log")
    axes.set_yticks([3, 10, 30], ["3", "10", "30"])
    axes.set_yticks([], minor=True)
    axes.set_title("Where the information is known", fontsize=10.5)
