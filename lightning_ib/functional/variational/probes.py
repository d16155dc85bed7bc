r"""Usable information: the information about labels that a probe can read from a representation.

Every sample is predicted by a probe that was fitted to other samples, its scales and its ridge included, so that the
result holds for unseen samples.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import (
    AS_Y,
    Unit,
    checked_choice,
    checked_integer,
    checked_labels,
    checked_rows,
    checked_unit,
    in_unit,
)
from lightning_ib.functional.discrete.counting import entropy_of_counts
from lightning_ib.functional.resampling import standard_error_of_mean
from lightning_ib.functional.variational.dealing import by_first_appearance, checked_groups, dealt, dealt_whole
from lightning_ib.functional.variational.softmax_regression import (
    Rows,
    SoftmaxRegression,
    class_means,
    softmax_regression,
)
from lightning_ib.functional.variational.training import full_precision_training, mlp, mlp_weights, sample_rows, train

Probe = Literal["linear", "mlp"]

# The ridges that the linear probe tries, from the strongest to the weakest, times the number of coordinates: the mean
# squared length of a standardized row. With the strongest, it predicts the class shares.
_RIDGES = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)

# How many weaker ridges a probe tries after its best one, and by how many nats of cross-entropy a weaker ridge must be
# better.
_PATIENCE = 2
_MARGIN = 1e-4

# The linear probe's fits end where a step is expected to lower the loss by less than so many nats: the fits that
# choose the ridge, and the last. Tolerances of 1e-4 and 1e-5 changed the information of MNIST representations by less
# than 0.01 nats and took 1.4 times as long.
_CHOICE_TOLERANCE = 3e-4
_FINAL_TOLERANCE = 1e-4
_FIT_STEPS = 100

_HIDDEN = 64
_BATCH = 128
_STEPS = 1000
_LEARNING_RATE = 3e-3

# The largest number of coordinates with which the linear probe is preconditioned: with more, factorizing their
# covariance takes longer than the steps that it saves.
_PRECONDITIONED = 512

# How many coordinates the Gram matrix takes at once.
_BLOCK = 4096


class ProbeResult(NamedTuple):
    """Usable information of a representation about labels, by a held-out probe.

    Attributes:
        information: H(Y) less the cross-entropy, in the unit asked for. Unclipped: below 0 for a probe that is worse
            than the class shares.
        standard_error: of the information: the standard deviation over the samples, over the root of their number; with
            groups that of independent groups. It holds for these probes; the scatter over other splits or seeds comes
            on top.
        accuracy: the share of samples for which the most probable class is the right one.
        cross_entropy: the mean surprise at a sample's label, in the unit asked for.
        h_y: the entropy of the labels, H(Y), in the unit asked for.
        n_held_out: the number of samples that were predicted by a probe fitted to others: all.
    """

    information: float
    standard_error: float
    accuracy: float
    cross_entropy: float
    h_y: float
    n_held_out: int


def probe_information(
    t: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    probe: Probe = "linear",
    folds: int = 5,
    seed: int = 0,
    unit: Unit = "bits",
) -> ProbeResult:
    r"""Usable information of a representation about labels, by a probe with cross-validation.

    .. math:: I_V(T \to Y) = H(Y) - \frac{1}{N} \sum_n -\log q_{-k(n)}(y_n \mid t_n)

    where :math:`q_{-k}` is a probe fitted to all folds but k and :math:`k(n)` is the fold of sample n. In expectation
    it is a lower bound on I(T;Y). The samples are dealt to the folds at random, every class evenly. Each probe sees
    coordinates standardized by its own training samples, one fold of which, the validation fold, chooses the ridge or
    the time to stop; where there are more coordinates than samples, the rows are rotated into N coordinates and share
    one scale. The ``"linear"`` probe is multinomial logistic regression in float64 with one of seven ridges, a factor
    of 10 apart; ``"mlp"`` has 64 ReLU units, trained in float32 by Adam in at most 1000 steps of 128 samples. A class
    that is absent from the training samples of a probe gets the probability of one training sample, so that all
    different labels give zero.

    Source:
        Barber & Agakov (2003); Xu et al. (2020). The linear probe: Alain & Bengio (2017).

    Trap:
        Samples that depend on each other and fall on both sides of the split, as frames of one video or words of one
        document do: give those as ``groups``. Of layers of very different width the wider one reads low.

    Args:
        t: the representation, real floating point, shape ``(N, …)``, flattened to ``(N, D)``.
        y: class labels, integers or booleans, shape ``(N,)``, any values.
        groups: which samples depend on each other, integers, shape ``(N,)``. A group stays in one fold, and the
            standard error is that of independent groups; of few groups, it is itself uncertain.
        probe: ``"linear"`` or ``"mlp"``.
        folds: the number of parts that the samples are dealt to, at least 3, at most N / 2 and the number of groups.
        seed: of the split, and of the network's first weights and batches. The global random states stay as they are.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        Python numbers, the same to the last bit at every call.

    Raises:
        TypeError: ``t`` is of another kind (integers are), or ``y`` (real numbers are), or another argument.
        ValueError: the variables differ in their samples, ``t`` holds NaN or infinity, there is a single class, there
            are fewer than ``2 · folds`` samples or ``folds`` groups, or an option is out of its range.

    Example:
        >>> y = torch.arange(300) % 3
        >>> found = probe_information(torch.nn.functional.one_hot(y).double(), y)
        >>> round(found.h_y, 3), round(found.information, 2), found.accuracy
        (1.585, 1.58, 1.0)
    """
    checked_unit(unit)
    checked_choice(probe, "probe", get_args(Probe))
    folds = checked_integer(folds, "folds", at_least=3, advice="one to predict, one to choose by and one to fit to")
    rows = checked_rows(t, "t", labels=AS_Y)
    with full_precision_training(rows.device):
        return _cross_validated(rows, y, groups, probe, folds, checked_integer(seed, "seed"), unit)


def _cross_validated(
    rows: Tensor, y: Tensor, groups: Tensor | None, probe: Probe, folds: int, seed: int, unit: Unit
) -> ProbeResult:
    labels, counts = checked_labels(y, len(rows))
    _check_enough(len(rows), len(counts), folds)
    together = None if groups is None else checked_groups(groups, len(rows), folds, rows.device)
    generator = torch.Generator().manual_seed(seed)
    labels = by_first_appearance(labels, len(counts))
    fold = dealt(labels, folds, generator) if together is None else dealt_whole(together, folds, generator)
    order = fold.argsort(stable=True)
    data = _Folds(rows[order], labels[order], torch.bincount(fold, minlength=folds).tolist())
    log_q, together = _predicted(data, probe, generator), None if together is None else together[order]
    return _summary(data.labels, log_q, entropy_of_counts(counts, unit=unit), unit, together)


def _check_enough(n: int, n_classes: int, folds: int) -> None:
    if n_classes < 2:
        raise ValueError("y must have at least two classes, got one: there is nothing to predict.")
    if n < 2 * folds:
        raise ValueError(
            f"t needs at least {2 * folds} rows, two for each of {folds} folds, got {n}: give more rows or fewer folds."
        )


def _predicted(data: _Folds, probe: Probe, generator: torch.Generator) -> Tensor:
    """The log-probabilities of the classes for all samples, fold by fold, ``(N, C)``."""
    log_q = _linear(data) if probe == "linear" else _mlp(data, generator).double()
    parts = log_q.split(data.sizes)
    return torch.cat([_with_unseen(part, data, data.others(k)) for k, part in enumerate(parts)])


def _summary(labels: Tensor, log_q: Tensor, h_y: float, unit: Unit, groups: Tensor | None) -> ProbeResult:
    n = len(labels)
    surprise = -log_q.gather(1, labels.unsqueeze(1)).squeeze(1)
    label_surprise = -(torch.bincount(labels).double() / n).log()[labels]
    gain = label_surprise - surprise
    cross_entropy = in_unit(float(surprise.mean()), unit)
    return ProbeResult(
        information=h_y - cross_entropy,
        standard_error=in_unit(standard_error_of_mean(gain, groups), unit),
        accuracy=float((log_q.argmax(1) == labels).double().mean()),
        cross_entropy=cross_entropy,
        h_y=h_y,
        n_held_out=n,
    )


def usable_information(
    t: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    probe: Probe = "linear",
    folds: int = 5,
    seed: int = 0,
    unit: Unit = "bits",
) -> float:
    r"""Usable information :math:`H(Y) - \mathrm{CE}` of a representation about labels, by a held-out probe.

    (Barber & Agakov 2003; Xu et al. 2020.) It is the ``information`` of :func:`probe_information`, which describes the
    method and its limits.

    Args:
        t: the representation, real floating point, shape ``(N, …)``.
        y: class labels, integers or booleans, shape ``(N,)``.
        groups: which samples depend on each other, integers, shape ``(N,)``.
        probe: ``"linear"`` or ``"mlp"``.
        folds: the number of parts that the samples are dealt to.
        seed: of the split and of the network.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``: at most H(Y); below 0 where the probe is worse than the class shares.

    Raises:
        TypeError: as :func:`probe_information`.
        ValueError: as :func:`probe_information`.

    Example:
        The exclusive or of two bits: nothing for a linear probe, all for a network.

        >>> bits = torch.arange(400).unsqueeze(1) // torch.tensor([1, 2]) % 2
        >>> t, y = bits.double(), bits[:, 0] ^ bits[:, 1]
        >>> abs(usable_information(t, y)) < 0.01, usable_information(t, y, probe="mlp") > 0.95
        (True, True)
    """
    return probe_information(t, y, groups=groups, probe=probe, folds=folds, seed=seed, unit=unit).information


class _Folds:
    """Rows in the order of their folds, and the scales in which a probe fitted to some of the folds sees them.

    Args:
        rows: shape ``(N, D)``, one fold after another.
        labels: their classes, integers from 0, shape ``(N,)``.
        sizes: the number of rows of each fold.
    """

    def __init__(self, rows: Tensor, labels: Tensor, sizes: list[int]) -> None:
        self.wide = rows.shape[1] > len(rows)
        features = _rotated(rows) if self.wide else rows.double()
        # One shift for all folds leaves every probe as it is, and keeps the digits where all values are large.
        self.features = features - features.mean(0)
        self.labels, self.sizes = labels, sizes
        self.ends = list(accumulate(sizes * 2, initial=0))
        classes, parts = int(labels.max()) + 1, self.features.split(sizes)
        self.counts = torch.stack([torch.bincount(part, minlength=classes) for part in labels.split(sizes)])
        self.n = self.counts.sum(1, keepdim=True).double()
        self.mean = torch.stack([part.mean(0) for part in parts])
        self.square = torch.stack([(part - mean).square().sum(0) for part, mean in zip(parts, self.mean)])
        self.low = torch.stack([part.amin(0) for part in parts])
        self.high = torch.stack([part.amax(0) for part in parts])

    def others(self, *held_out: int) -> list[int]:
        """All folds but these."""
        return [k for k in range(len(self.sizes)) if k not in held_out]

    def scales(self, used: list[int]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the rows of these folds, ``(R,)`` each; zero for a constant coordinate."""
        n = self.n[used]
        mean = (n * self.mean[used]).sum(0) / n.sum()
        spread = (self.square[used] + n * (self.mean[used] - mean).square()).sum(0) / n.sum()
        # By the range rather than the spread, which rounding keeps above zero for a constant coordinate.
        varies = self.high[used].amax(0) > self.low[used].amin(0)
        if self.wide:
            spread, varies = spread.mean().expand_as(mean), varies.any().expand_as(mean)
        return mean, torch.where(varies & spread.isfinite(), spread.sqrt(), 0.0)

    def scatter(self) -> Tensor:
        """The sum over each fold's rows of the outer products, less the fold's mean, ``(K, R, R)``."""
        parts = zip(self.features.split(self.sizes), self.mean)
        return torch.stack([(part - mean).t() @ (part - mean) for part, mean in parts])


def _rotated(rows: Tensor) -> Tensor:
    """N coordinates in place of more, all distances kept: the root of the Gram matrix, ``(N, D)`` gives ``(N, N)``.

    All rows are turned alike, and a probe with one ridge for all directions is invariant to that: it learns nothing of
    the held-out rows that way.
    """
    n = len(rows)
    gram = torch.zeros(n, n, dtype=torch.float64, device=rows.device)
    for block in rows.split(_BLOCK, dim=1):
        moved = block.double() - block[0].double()  # constant coordinates are zero then, exactly
        centered = moved - moved.mean(0)
        gram.addmm_(centered, centered.t())
    # Centered rows are dependent. This gives every row a direction of its own, too short for a probe to use.
    nudge = gram.trace() / n * 1e-8
    gram.diagonal().add_(nudge)
    return torch.linalg.cholesky(gram) if nudge > 0 else gram


def _linear(data: _Folds) -> Tensor:
    """The log-probabilities of the classes for every sample, by the linear probe of its fold, ``(N, C)``."""
    folds, classes, (n, r) = len(data.sizes), data.counts.shape[1], data.features.shape
    # Twice in a row: folds that follow one another, the first after the last, are one slice, which saves a copy.
    features = torch.cat([data.features, data.features.new_ones(n, 1)], 1).repeat(2, 1)
    labels = data.labels.repeat(2)
    scatter = data.scatter() if r <= _PRECONDITIONED else None

    def rows(first: int, end: int) -> tuple[Rows, int]:
        """The rows of the folds from ``first`` to before ``end``, and how many coordinates vary in them."""
        used, chosen = [k % folds for k in range(first, end)], slice(data.ends[first], data.ends[end])
        mean, scale = data.scales(used)
        covariance = None
        if scatter is not None:
            inverse, apart = torch.where(scale > 0, 1 / scale, 0.0), data.mean[used] - mean
            covariance = scatter[used].sum(0) + (data.n[used] * apart).t() @ apart
            covariance *= inverse.unsqueeze(1) * inverse / data.n[used].sum()
        target = class_means(features[chosen], labels[chosen], classes)
        return Rows(features[chosen], target, mean, scale, covariance), max(1, int((scale > 0).sum()))

    def log_q(weights: Tensor, seen: Rows, k: int) -> Tensor:
        """Of the samples of fold k, by a probe fitted to other rows."""
        part = features[data.ends[k] : data.ends[k + 1]]
        return (weights @ part.t() + seen.target[:, -1:].log()).log_softmax(0).t()

    chosen: list[tuple[float, Tensor]] = []
    # Fitted without two folds, the first of which validates for the second's probe, and the second for the first's.
    for first in range(0, folds, 2):
        pair = first, (first + 1) % folds
        seen, size = rows(first + 2, first + folds)
        regression = SoftmaxRegression(seen, features.new_zeros(classes, r + 1))
        fits: list[Tensor] = []
        losses: tuple[list[float], list[float]] = [], []
        for strength in _RIDGES:
            weights = regression.fit(strength * size, tolerance=_CHOICE_TOLERANCE, steps=_FIT_STEPS)
            fits.append(weights)
            for judge, loss in zip(reversed(pair), losses):
                log_p = _with_unseen(log_q(weights, seen, judge), data, data.others(*pair))
                at = labels[data.ends[judge] : data.ends[judge + 1]]
                loss.append(-float(log_p.gather(1, at.unsqueeze(1)).mean()))
            if all(_best(loss)[1] for loss in losses):
                break
        for loss in losses:
            best, _ = _best(loss)
            chosen.append((_RIDGES[best], fits[best]))
    found = []
    for k, (strength, start) in enumerate(chosen[:folds]):
        seen, size = rows(k + 1, k + folds)
        weights = softmax_regression(seen, strength * size, start, tolerance=_FINAL_TOLERANCE, steps=_FIT_STEPS)
        found.append(log_q(weights, seen, k))
    return torch.cat(found)


def _best(losses: list[float]) -> tuple[int, bool]:
    """The index of the ridge to choose, and whether the search may end there.

    A function of one probe's validation losses alone, which keeps its held-out samples from reaching it through the
    other probe of the pair.
    """
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best] - _MARGIN:
            best = i
        elif i - best >= _PATIENCE:
            return best, True
    return best, False


def _with_unseen(log_q: Tensor, data: _Folds, used: list[int]) -> Tensor:
    """Log-probabilities in which a class that is absent from the training folds has that of one sample."""
    counts = data.counts[used].sum(0)
    unseen = counts == 0
    if not unseen.any():
        return log_q
    seen, total = int(counts.sum()), int(counts.sum() + unseen.sum())
    return torch.where(unseen, -math.log(total), log_q + math.log(seen / total))


def _mlp(data: _Folds, generator: torch.Generator) -> Tensor:
    """The log-probabilities of the classes for every sample, by the network of its fold, ``(N, C)``."""
    (n, r), (folds, classes) = data.features.shape, data.counts.shape
    sizes = (r, _HIDDEN, classes)
    weights = mlp_weights(sizes, folds, generator, data.features.device)
    # It starts from the class shares, and departs from them only by learning.
    weights[:, -(_HIDDEN + 1) * classes :] = 0
    others = [data.others(k) for k in range(folds)]
    seen = torch.stack([data.counts[used].sum(0) for used in others])
    prior = (seen.float() / seen.sum(1, keepdim=True)).log().unsqueeze(1)
    mean, scale = (torch.stack(values).unsqueeze(1) for values in zip(*[data.scales(used) for used in others]))
    inverse = torch.where(scale > 0, 1 / scale, 0.0)

    def log_q(weights: Tensor, chosen: Tensor, of: slice = slice(None)) -> Tensor:
        x = (data.features[chosen] - mean[of]) * inverse[of]
        return (mlp(weights[of], sizes, x.float()) + prior[of]).log_softmax(2)

    def surprise(weights: Tensor, chosen: Tensor) -> Tensor:
        return -log_q(weights, chosen).gather(2, data.labels[chosen].unsqueeze(2)).mean((1, 2))

    dealt = torch.arange(n, device=data.labels.device).split(data.sizes)
    # Without groups one of a fold at most is left out of training, so that all networks have as many rows.
    some = n // folds if max(data.sizes) - min(data.sizes) <= 1 else n
    used = [part[:some] for part in dealt]
    judges = _repeated(used[1:] + used[:1])
    fitted = _repeated([torch.cat([used[(k + i) % folds] for i in range(2, folds)]) for k in range(folds)])
    batch = min(_BATCH, fitted.shape[1])
    weights = train(
        weights,
        lambda weights: surprise(weights, sample_rows(fitted, batch, generator)).sum(),
        lambda weights: surprise(weights, judges),
        steps=_STEPS,
        learning_rate=_LEARNING_RATE,
    )
    return torch.cat([log_q(weights, part.unsqueeze(0), slice(k, k + 1)).squeeze(0) for k, part in enumerate(dealt)])


def _repeated(rows: list[Tensor]) -> Tensor:
    """Row numbers of each network, of different numbers of rows, as ``(K, M)``: those of fewer come several times."""
    most = max(len(one) for one in rows)
    return torch.stack([one[torch.arange(most, device=one.device) % len(one)] for one in rows])
