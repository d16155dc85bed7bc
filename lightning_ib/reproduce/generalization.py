"""Kawaguchi et al. (2023): the information that a code keeps beyond the label, beside the generalization gap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from lightning_ib.functional.ranks import Bar, kendall, spearman
from lightning_ib.reproduce.clusters import Model, Training, train
from lightning_ib.reproduce.experiment import Claim, Finding, Progress, Settings, filled
from lightning_ib.reproduce.finished import Row
from lightning_ib.reproduce.generalization_picture import draw

_WIDTHS = (256, 128, 64, 32)
_WEIGHT_DECAYS = (0.0, 1e-2, 1e-1)
_N_DRAWS = 3
_CONSTRAINED = 5e-4

_TRAINING = Training()
_LEAST_ACCURACY = 0.85
"""On the training samples: networks that did not learn are left out, as in the original."""

QUANTITIES = {
    "i_xz_given_y": "I(X;Z|Y), Monte Carlo",
    "i_xz_given_y_upper": "I(X;Z|Y), Jensen's bound",
    "i_xz": "I(X;Z), Monte Carlo",
    "i_xt_given_y_counted": "I(X;T|Y), counted cells",
    "n_parameters": "number of parameters",
    "weight_norms": "sum of weight norms",
}
"""Column → name of what is correlated with the gap."""


class Correlation(NamedTuple):
    """How a quantity goes with the gap over networks.

    Attributes:
        tau: Kendall's tau-b with its bar over resampled networks.
        rho: Spearman's rho, likewise.
        within: draw of the data → tau-b over its networks.
    """

    tau: Bar
    rho: Bar
    within: Mapping[int, float]


Group = tuple[float, Sequence[Row], Mapping[str, Correlation]]
"""The rate of the constraint, the networks that are compared, and column → its correlation."""


def run(settings: Settings, progress: Progress, training: Training = _TRAINING) -> Finding:
    """Train the networks, and correlate what they keep of the input with their generalization gap.

    Args:
        settings: ``seed`` is that of the first draw of the data and of the first weights.
        progress: advances with each network.
        training: how each is trained and measured.
    """
    constraints, n_seeds = ((0.0,), 1) if settings.quick else ((0.0, _CONSTRAINED), 3)
    draws, seeds = (range(settings.seed, settings.seed + n) for n in (_N_DRAWS, n_seeds))
    cells = [(c, width, decay) for c in constraints for width in _WIDTHS for decay in _WEIGHT_DECAYS]
    progress.begin(len(cells) * len(draws) * len(seeds))
    rows: list[Row] = []
    for constraint, width, decay in cells:
        models = [Model(constraint, width, decay, data, seed) for data in draws for seed in seeds]
        name = f"constraint {constraint:g} width {width} decay {decay:g}"
        make = partial(_trained, models, training, progress)
        rows += settings.rows(name, make, progress, len(models), f"width {width}, weight decay {decay:g}")
    rows = filled(rows)
    groups = [_group(constraint, rows) for constraint in constraints]
    of_settings = {
        "device": "cpu",
        "widths": ", ".join(map(str, _WIDTHS)),
        "weight decays": ", ".join(f"{decay:g}" for decay in _WEIGHT_DECAYS),
        "draws of the data": ", ".join(map(str, draws)),
        "seeds": ", ".join(map(str, seeds)),
        "rates of the constraint": ", ".join(f"{one:g}" for one in constraints),
        "least training accuracy": _LEAST_ACCURACY,
    }
    return Finding(
        draw(groups, QUANTITIES),
        rows,
        [claim for group in groups for claim in _claims(group)],
        _method(training, groups),
        of_settings | training._asdict(),
        _FAULTS,
        [row for group in groups for row in _summary(group)],
    )


def _trained(models: Sequence[Model], training: Training, progress: Progress) -> list[Row]:
    rows = []
    for model in models:
        rows.append(train(model, training))
        progress.advance()
    return filled(rows)


def _group(constraint: float, rows: Sequence[Row]) -> Group:
    """The networks of a constraint that learned, and the correlations over them."""
    kept = [row for row in rows if row["constraint"] == constraint and row["train_accuracy"] > _LEAST_ACCURACY]
    return constraint, kept, {name: _correlation(kept, name) for name in QUANTITIES}


def _correlation(rows: Sequence[Row], name: str) -> Correlation:
    if len(rows) < 2:
        nothing = Bar(math.nan, math.nan, math.nan)
        return Correlation(nothing, nothing, {})
    values, gaps = ([row[column] for row in rows] for column in (name, "gap_loss"))
    within = {}
    for data in sorted({row["draw"] for row in rows}):
        of = [(row[name], row["gap_loss"]) for row in rows if row["draw"] == data]
        within[data] = kendall(*zip(*of), bars=False).value if len(of) > 1 else math.nan
    return Correlation(kendall(values, gaps), spearman(values, gaps), within)


def _claims(group: Group) -> list[Claim]:
    constraint, rows, of = group
    where = f"{len(rows)} networks {'with I(X;Z) held' if constraint else 'without a constraint'}"
    kept, counted, size = (of[name] for name in ("i_xz_given_y", "i_xt_given_y_counted", "n_parameters"))
    return [
        Claim(
            "in many cases generalization errors correlate with the unnecessary information at hidden layers.",
            f"over {where}, I(X;Z|Y) and the gap of the losses have τ = {_bar(kept.tau)} and ρ = {_bar(kept.rho)}, and "
            f"within each draw of the data τ = {_within(kept)}. Counted in cells of the mean code it is "
            f"τ = {_bar(counted.tau)}.",
            _positive(kept.tau),
        ),
        Claim(
            "the bounds of the paper scale with this information, and earlier ones with the number of parameters.",
            f"over {where}, the number of parameters and the gap have τ = {_bar(size.tau)}, against "
            f"{_bar(kept.tau)} of I(X;Z|Y).",
            _larger(kept.tau, size.tau),
        ),
    ]


def _positive(bar: Bar) -> bool | None:
    """Whether a correlation is positive; None where its bar contains 0."""
    return True if bar.low > 0 else False if bar.high < 0 else None


def _larger(one: Bar, other: Bar) -> bool | None:
    """Whether one correlation is larger than another; None where their bars overlap."""
    return True if one.low > other.high else False if one.high < other.low else None


def _within(correlation: Correlation) -> str:
    return ", ".join(f"{tau:+.2f}" for tau in correlation.within.values())


def _bar(bar: Bar) -> str:
    return f"{bar.value:+.2f} [{bar.low:+.2f}, {bar.high:+.2f}]"


def _summary(group: Group) -> list[Row]:
    constraint, rows, of = group
    return [
        {
            "constraint": constraint,
            "networks": len(rows),
            "quantity": QUANTITIES[name],
            "Kendall's τ [95 %]": _bar(one.tau),
            "Spearman's ρ [95 %]": _bar(one.rho),
            "τ within each draw": _within(one),
            "range": "{:.3g} to {:.3g}".format(*_range([row[name] for row in rows])),
        }
        for name, one in of.items()
    ]


def _range(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (math.nan, math.nan)


def _method(training: Training, groups: Sequence[Group]) -> list[str]:
    n_kept = sum(len(rows) for _, rows, _ in groups)
    n_class = training.n_information // 5
    return [
        f"Each network is trained by gradient descent on {training.n_train} points of five clusters in the plane, "
        "those of scikit-learn's make_blobs with the same seeds. Its last hidden layer Z is drawn from a Gaussian "
        "whose mean and deviations are two networks of x.",
        "The gap is test loss minus training loss (cross-entropy, nats), each averaged over "
        f"{training.n_draws} draws of Z.",
        f"I(X;Z|Y) is of {training.n_information} points of the same clusters, in bits. They come from the same "
        "generator as those of training and test, and up to 1 in 50 are among these.",
        "The density of Z is known, one z is drawn for each point, and the average of its log density ratio is at most "
        f"about log2 {n_class} = {math.log2(n_class):.2f} bits with about {n_class} points in a class.",
        "The counted value is what the callback reports of the mean of Z: I(X;T) − I(T;Y) in cells. It sees how the "
        "means are spread, and not how far the noise washes them out.",
        f"{n_kept} networks with a training accuracy above {_LEAST_ACCURACY} are compared. Bars are 95 % of resampled "
        "networks; those that share their data are not independent, so that true bars are wider.",
        "The information between weights and data, which the bounds add, is left out.",
    ]


_FAULTS = [
    "`to_bits` multiplies nats by ln 2, where a bit is ln 2 nats: printed bits are 0.48 of the true ones. Ranks are "
    "the same.",
    "The conditional information that the script plots is Jensen's upper bound. It has no ceiling, and reads up to "
    "thousands of bits of samples that hold 6.6 bits at most; it is shown here beside the Monte Carlo value.",
    "Losses and accuracies are those of one draw of Z for each point, and carry its noise.",
    "Correlations stand without bars, and pool networks of three draws of the data, whose gaps differ by the draw "
    "itself; here the correlation within each draw stands beside.",
]
