"""The information plane of a convolutional network from compressed inputs and layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_ib.reproduce.compressed import (
    N_COORDINATES,
    clear_difference,
    compress,
    information,
    known_channel,
    ksg,
    phases,
    smoothed,
)
from lightning_ib.reproduce.experiment import Claim, Finding, Progress, Settings, filled
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.lossy_training import LAYERS, Plan, train
from lightning_ib.reproduce.mnist import load_mnist, standardized

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUICK = Plan(
    14, 1, 5, n_train=4000, n_test=2000, rate=1e-3, batch=64, autoencoder_batch=32, autoencoder_rate=2e-3, window=7,
    order=2,
)  # fmt: skip
FULL = Plan(300, 1, 200, n_train=60_000, n_test=10_000, rate=1e-5, batch=1024, autoencoder_batch=512)

CHANNEL = "known channel"
_BITS = (0, 1, 2, 4, 8)
_ESTIMATES = ("i_xt", "i_xt_unweighted", "i_xt_ksg")

METHOD = (
    "A convolutional network with leaky ReLUs learns MNIST; noise of a thousandth of each value is added at the input "
    "of every layer, in training and in evaluation, as the authors' code does. Dropout is on in training alone.",
    "An autoencoder compresses the input to four numbers, principal components do so with every layer, anew at each "
    "measurement. I(X;T) is that of the compressed variables, h(X) + h(T) − h(X,T), and I(T;Y) is h(T) less the mean "
    "of h(T|y) over classes.",
    "Each entropy is by nearest neighbors (Kozachenko & Leonenko 1987), k = 5, with the weights of Berrett, Samworth & "
    "Yuan (2019) and at unit covariance. Errors are of the mean over samples of the difference.",
    "`i_xt_unweighted` takes the fifth neighbor alone, `i_xt_ksg` is by Kraskov et al. (2004), `i_xt_without_noise` is "
    "the weighted value of the same network with its noise off, `i_ty_knn` is by Ross (2014).",
    "Lines are smoothed by local polynomials, dots are the values; phases are counted in the values: a rise or a fall "
    "counts where it exceeds what noise of these errors shows in 5 % of cases, between any two values of any layer.",
    "As in the original the layer of additive noise multiplies it by the activation: a unit at 0 has none. Here it is "
    "called relative.",
    "I(T;Y) may exceed I(X;T) here: four numbers of the input can say less about the label than those of a layer do.",
    "The known channel has four pairs of normal coordinates, and in the lossy case four more of less variance, mixed "
    "into 64 numbers each.",
)

FAULTS = (
    "In up to four coordinates the weights are 1, 0, 0, 0, 0: h(X), h(T) and I(T;Y) use the nearest neighbor alone, "
    "and only h(X,T) is weighted; four coordinates already have a term to cancel.",
    "The least squares for the weights are not checked: for 20 coordinates and k = 5 there are six conditions, the "
    "weights sum to 0.99, and the largest is 14 000.",
    "The error of an information is the sum of the errors of three entropies of the same samples, as if each erred in "
    "the worst direction.",
    "Curves are smoothed twice, by Savitzky–Golay and a Butterworth filter forward and backward, and these are the "
    "lines of the plane.",
)


def run(settings: Settings, progress: Progress) -> Finding:
    """Train, measure, draw and judge.

    Raises:
        ExperimentError: MNIST is missing or damaged.
    """
    plan = QUICK if settings.quick else FULL
    x, y = load_mnist(settings.data_dir, "train", plan.n_train)
    x_test, y_test = load_mnist(settings.data_dir, "t10k", plan.n_test)
    data = (standardized(x)[:, None], y, standardized(x_test)[:, None], y_test)
    return experiment(data, plan, settings, progress)


def experiment(data: Sequence[Tensor], plan: Plan, settings: Settings, progress: Progress) -> Finding:
    """The same on any pictures and any plan."""
    n_parts = plan.n_epochs + plan.n_autoencoder
    progress.begin(n_parts)
    name = f"seed {settings.seed}"
    make = partial(train, data, plan, settings.seed, progress.advance, settings.device)
    rows = settings.rows(name, make, progress, n_parts, name)
    channels = known_channels(plan.n_test)
    ended = [f"The network diverged after epoch {rows[-1]['epoch']}: its outputs are no longer finite."]
    return Finding(
        picture(rows, channels, plan),
        filled([*rows, *channels]),
        [_about_the_estimator(channels, rows), *judged(rows)],
        [*METHOD, *(ended if rows[-1]["epoch"] < plan.n_epochs // plan.every * plan.every else [])],
        plan._asdict() | {"seed": settings.seed, "coordinates": N_COORDINATES},
        FAULTS,
        [_summary(row) for row in rows if row["epoch"] in (0, plan.n_epochs // plan.every * plan.every)],
    )


def _summary(row: Row) -> Row:
    return {
        "layer": row["layer"],
        "epoch": row["epoch"],
        "I(X;T) [bits]": row["i_xt"],
        "its error": row["i_xt_error"],
        "without weights": row["i_xt_unweighted"],
        "Kraskov et al.": row["i_xt_ksg"],
        "without noise": row["i_xt_without_noise"],
        "I(T;Y) [bits]": row["i_ty"],
        "Ross": row["i_ty_knn"],
    }


def known_channels(n: int) -> list[Row]:
    """The compressed estimate where the information is known."""
    rows = []
    for lossy in (False, True):
        for bits in _BITS:
            channel = known_channel(bits, n, lossy=lossy, seed=bits)
            x, t = compress(channel.x), compress(channel.t)
            found = information(x, t)
            rows.append(
                {
                    "layer": f"{CHANNEL}, {'lossy' if lossy else 'lossless'}",
                    "truth": float(channel.bits),
                    "truth_compressed": float(channel.kept),
                    "i_xt": found.bits,
                    "i_xt_error": found.error,
                    "i_xt_unweighted": information(x, t, weighted=False).bits,
                    "i_xt_ksg": ksg(x, t),
                }
            )
    return rows


def _about_the_estimator(channels: Sequence[Row], rows: Sequence[Row]) -> Claim:
    """Whether every known value is met, by errors small enough to tell one bit from none."""
    worst = max(channels, key=lambda row: abs(row["i_xt"] - row["truth_compressed"]))
    within = [abs(row["i_xt"] - row["truth_compressed"]) <= 3 * row["i_xt_error"] for row in channels]
    largest = max(3 * row["i_xt_error"] for row in channels)
    roots = [_root([row[name] - row["truth_compressed"] for row in channels]) for name in _ESTIMATES]
    return Claim(
        "The estimator is accurate on synthetic data with known information (abstract).",
        f"{sum(within)} of {len(channels)} values lie within three standard errors of the information of the "
        f"compressed variables, that is within {largest:.2f} bits{', too many to tell 1 from 0' * (largest >= 1)}; "
        f"the farthest is {worst['i_xt']:.2f} ± {worst['i_xt_error']:.2f} of {worst['truth_compressed']:.3g} bits. The "
        f"root mean square error is {roots[0]:.2f} bits, without weights {roots[1]:.2f}, by Kraskov et al. "
        f"{roots[2]:.2f}. What compression loses is missing: the lossy channels have twice the information."
        f"{_spread(rows)}",
        False if not all(within) else True if largest < 1 else None,
    )


def _root(differences: Sequence[float]) -> float:
    """The root of the mean square."""
    return math.sqrt(math.fsum(d * d for d in differences) / len(differences))


def _spread(rows: Sequence[Row]) -> str:
    """How far the three estimates of a layer are apart."""
    known = [row for row in rows if all(math.isfinite(row[name]) for name in _ESTIMATES)]
    if not known:
        return ""
    values = [[row[name] for name in _ESTIMATES] for row in known]
    spread, k = max((max(of) - min(of), k) for k, of in enumerate(values))
    row, (weighted, unweighted, of_ksg) = known[k], values[k]
    return (
        f" On the network, where the truth is unknown, the three differ by up to {spread:.1f} bits ({row['layer']} "
        f"after epoch {row['epoch']}: {weighted:.2f} ± {row['i_xt_error']:.2f}, without weights {unweighted:.2f}, by "
        f"Kraskov et al. {of_ksg:.2f}): its levels depend on the estimate."
    )


def judged(rows: Sequence[Row]) -> list[Claim]:
    """The claims of the paper about the network, beside the rows."""
    return [_about_noise(rows), _about_phases(rows), _about_the_loss(rows)]


def _about_noise(rows: Sequence[Row]) -> Claim:
    compared = [row for row in rows if math.isfinite(row["i_xt"]) and math.isfinite(row["i_xt_without_noise"])]
    if not compared:
        return Claim(_OF_NOISE, "no layer has an estimate.", None)
    root = _root([row["i_xt"] - row["i_xt_without_noise"] for row in compared])
    return Claim(
        _OF_NOISE,
        f"with the noise off, where I(X;T) of a continuous input is infinite, the estimate differs by {root:.2g} bits "
        "(root mean square). It is of four numbers of the input, a lower bound that is finite with and without the "
        "noise: it cannot show whether I(X;T) is.",
        None,
    )


_OF_NOISE = (
    "The approach leverages the stochastic networks of Goldfeld et al. (2019), whose noise makes I(X;T) finite "
    "(abstract)."
)


def _about_phases(rows: Sequence[Row]) -> Claim:
    """Whether a layer falls twice. Noise hides falls of less than several errors, so that few do not refute it."""
    falls = {layer: len(_falls(rows, layer)) for layer in LAYERS}
    of_all = [row["i_xt_error"] for layer in LAYERS for row in _of(rows, layer)]
    words = ", ".join(f"{k} in {layer}" for layer, k in falls.items())
    least = f", which is {_times(rows) * math.sqrt(2) * min(of_all):.2g} bits or more" if of_all else ""
    return Claim(
        "Training has several fitting and several compression phases (published summaries of the paper; its abstract "
        "says that it reveals new features of the dynamics).",
        f"falls of I(X;T) that all three estimates show, by more than {_times(rows):.2g} standard errors of the "
        f"difference{least}, in {_n_measured(rows)} measurements: {words}. Smaller ones may be noise.{_beside(rows)}",
        True if max(falls.values()) >= 2 else None,
    )


def _times(rows: Sequence[Row]) -> float:
    return clear_difference(_n_measured(rows), len(LAYERS))


def _beside(rows: Sequence[Row]) -> str:
    """What other estimates say of the largest fall of the weighted one."""
    falls = []
    for layer in LAYERS:
        of = _of(rows, layer)
        if len(of) > 1:
            peak = max(of, key=lambda row: row["i_xt"])
            falls.append((of[-1]["i_xt"] - peak["i_xt"], layer, peak, of[-1]))
    if not falls or min(one[0] for one in falls) == 0:
        return ""
    fall, layer, peak, last = min(falls, key=lambda one: one[0])
    others = [last[name] - peak[name] for name in ("i_xt_unweighted", "i_xt_ksg")]
    return (
        f" The largest change from a highest value to the end is that of {layer}, {fall:+.2f} bits; without weights it "
        f"is {others[0]:+.2f}, by Kraskov et al. {others[1]:+.2f}."
    )


def _n_measured(rows: Sequence[Row]) -> int:
    return len({row["epoch"] for row in rows})


def _falls(rows: Sequence[Row], layer: str) -> list[tuple[int, int]]:
    """Where a layer falls, beyond chance and by every estimate."""
    of = _of(rows, layer)
    found = phases([row["i_xt"] for row in of], [row["i_xt_error"] for row in of], _times(rows))
    return [(a, b) for a, b in found if all(of[b][name] < of[a][name] for name in _ESTIMATES)]


def _about_the_loss(rows: Sequence[Row]) -> Claim:
    """Whether it does in every layer; few of them, which share one loss, may by chance."""
    claimed = "The first compression goes with a faster fall of the loss (published summaries of the paper)."
    faster, seen = 0, []
    for layer in LAYERS:
        of = _of(rows, layer)
        falls = _falls(rows, layer)
        if falls:
            a, b = falls[0]
            log_loss = [math.log(row["test_loss"]) for row in of]
            within = (log_loss[a] - log_loss[b]) / (b - a)
            beside = (log_loss[0] - log_loss[-1] - within * (b - a)) / max(1, len(of) - 1 - (b - a))
            faster += within > beside
            seen.append(f"{layer} {within:.2g} and {beside:.2g}")
    if not seen:
        return Claim(claimed, "no layer has a fall that is clear and shown by all three estimates.", None)
    found = (
        "the logarithm of the test loss falls by so much a measurement, in the first fall and outside of it: "
        f"{', '.join(seen)}. {len(LAYERS) - len(seen)} of {len(LAYERS)} layers have no clear fall."
    )
    if len(seen) < len(LAYERS):
        return Claim(claimed, found, None)
    return Claim(claimed, found, faster == len(seen) or (None if faster else False))


def _of(rows: Sequence[Row], layer: str) -> list[Row]:
    """Those of a layer that have an estimate."""
    return [row for row in rows if row["layer"] == layer and math.isfinite(row["i_xt"])]


# -- the picture -------------------------------------------------------------------------------------------------------


def picture(rows: Sequence[Row], channels: Sequence[Row], plan: Plan) -> Figure:
    """I(X;T) over the epochs, the plane, and channels whose information is known."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.4, 4.4), dpi=100)
    over_epochs, plane, known = figure.subplots(1, 3, gridspec_kw={"wspace": 0.27})
    figure.subplots_adjust(left=0.06, right=0.985, top=0.91, bottom=0.28)
    _draw_layers(over_epochs, plane, rows, plan)
    _draw_channels(known, channels)
    for axes, columns in ((over_epochs, 3), (plane, 3), (known, 2)):
        axes.tick_params(labelsize=9)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, fontsize=8, frameon=False, columnspacing=1.2
        )
    return figure


def _draw_layers(over_epochs: Axes, plane: Axes, rows: Sequence[Row], plan: Plan) -> None:
    from matplotlib.ticker import MaxNLocator

    from lightning_ib.plot.labels import depth_colors

    for layer, color in zip(LAYERS, depth_colors(len(LAYERS))):
        of = _of(rows, layer)
        if not of:
            continue
        epochs = [row["epoch"] for row in of]
        x, y = ([row[name] for row in of] for name in ("i_xt", "i_ty"))
        lines = [smoothed(values, plan.window, plan.order) for values in (x, y)]
        over_epochs.errorbar(
            epochs, x, [row["i_xt_error"] for row in of], color=color, alpha=0.5, linestyle="none", marker=".",
            elinewidth=0.6, markersize=4,
        )  # fmt: skip
        over_epochs.plot(epochs, lines[0], color=color, linewidth=1.4, label=layer)
        plane.plot(x, y, color=color, alpha=0.5, linestyle="none", marker=".", markersize=4)
        plane.plot(*lines, color=color, linewidth=1.4, label=layer)
    over_epochs.set_xlabel("epoch")
    over_epochs.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_epochs.set_ylabel("I(X;T) in bits, compressed")
    over_epochs.set_title("Values with errors, smoothed lines", fontsize=10.5)
    plane.set_xlabel("I(X;T) in bits, compressed")
    plane.set_ylabel("I(T;Y) in bits, compressed")
    plane.set_title("The plane", fontsize=10.5)


def _draw_channels(axes: Axes, channels: Sequence[Row]) -> None:
    most = max(row["truth_compressed"] for row in channels)
    axes.plot([0, most], [0, most], color="black", linewidth=1, label="exact")
    for lossy, color, shift in ((False, "#31688e", -0.08), (True, "#d1603d", 0.08)):
        of = [row for row in channels if row["layer"].endswith("lossy") == lossy]
        truth = [row["truth_compressed"] + shift for row in of]
        axes.errorbar(
            truth, [row["i_xt"] for row in of], [row["i_xt_error"] for row in of], color=color, linestyle="none",
            marker="o", markersize=4, capsize=2, label="weighted, half lost" if lossy else "weighted, lossless",
        )  # fmt: skip
    lossless = [row for row in channels if row["layer"].endswith("lossless")]
    for name, marker, label in (("i_xt_unweighted", "x", "fifth neighbor alone"), ("i_xt_ksg", "+", "Kraskov et al.")):
        axes.plot(
            [row["truth"] for row in lossless], [row[name] for row in lossless], color="0.35", linestyle="none",
            marker=marker, label=label,
        )  # fmt: skip
    axes.set_xlabel("I of the compressed variables in bits")
    axes.set_ylabel("estimate in bits")
    axes.set_title("Where the information is known", fontsize=10.5)
