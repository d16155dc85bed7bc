r"""What a probe can read of the labels in a representation: usable information.

Every sample is predicted by a probe that was not fitted to it, and neither were the scales nor the ridge of that
probe: what the figure says of the representation, it says of samples not yet seen.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_ib.functional.checks import Unit, checked_labels, checked_rows, checked_unit, in_unit
from lightning_ib.functional.counting import entropy_of_counts
from lightning_ib.functional.softmax_regression import Rows, softmax_regression
from lightning_ib.functional.training import drawn, mlp, mlp_weights, own_training, train

Probe = Literal["linear", "mlp"]

# The ridges the linear probe chooses from, from the strongest, with which a noisy representation says nothing, to the
# weakest, times the number of coordinates: the mean squared length of a standardised row.
_RIDGES = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)

# How many weaker ridges a probe tries after its best one. What they choose by is each probe's own: what one fold holds
# must not reach its own probe by way of the others'.
_PATIENCE = 2

# By how much of the cross-entropy, in nats, a weaker ridge must be better: more than what ending a fit leaves open.
_MARGIN = 1e-4

_HIDDEN = 64
_BATCH = 128
_STEPS = 1000
_LEARNING_RATE = 3e-3

# How many coordinates the Gram matrix takes at once.
_BLOCK = 4096


class Decoding(NamedTuple):
    """How well a probe reads the labels in a representation.

    Attributes:
        information: H(Y) less the cross-entropy, in the unit asked for. Not clipped: below 0 for a probe that is
            worse than the classes' shares.
        standard_error: of the information: the samples' standard deviation over the root of their number. The probes
            count as given; what other splits or seeds would change is not in it.
        accuracy: the share of samples whose most probable class is theirs.
        cross_entropy: the mean surprise at a sample's label, in the unit asked for.
        h_y: the entropy of the labels, H(Y), in the unit asked for.
        n_held_out: how many samples were predicted by a probe not fitted to them: all.
    """

    information: float
    standard_error: float
    accuracy: float
    cross_entropy: float
    h_y: float
    n_held_out: int


def decode(
    t: Tensor, y: Tensor, *, probe: Probe = "linear", folds: int = 5, seed: int = 0, unit: Unit = "bits"
) -> Decoding:
    r"""Usable information of a representation about labels, and what belongs to it.

    .. math:: I_V(T \to Y) = H(Y) - \frac{1}{N} \sum_n -\log q_{-k(n)}(y_n \mid t_n)

    (Barber & Agakov 2003; Xu et al. 2020), where :math:`q_{-k}` is a probe fitted to all folds but k and :math:`k(n)`
    is the fold of sample n; with ``probe="linear"`` it is the linear probe of Alain & Bengio 2017. In expectation it
    is a lower bound on I(T;Y), and on what any probe of the kind could read; fine detail that tells the samples
    apart, but not the classes, does not raise it.

    The samples are dealt to the folds at random, every class evenly. Each probe sees coordinates standardised by its
    own training samples, and one of their folds is kept from it to choose by:

    - ``"linear"``: multinomial logistic regression, in float64. That fold chooses one of seven ridges; then the probe
      is fitted to all its training samples. Where there are more coordinates than samples, the rows are rotated into
      N coordinates first, which no ridge notices, and one scale serves all coordinates, so that their relative
      scales count.
    - ``"mlp"``: 64 ReLU units, in float32, by Adam, at most 1000 steps of 128 samples. That fold chooses when to
      stop. The same rotation.

    It misleads where samples are not independent (frames of one video fall on both sides of the split), and where it
    is compared between layers of very different width: a wide layer needs more samples for the same information.

    Args:
        t: representation, shape ``(N, …)``, flattened to ``(N, D)``.
        y: class labels, integers, shape ``(N,)``; only which are equal matters.
        probe: ``"linear"`` or ``"mlp"``.
        folds: how many parts the samples are dealt to, at least 3; each class needs as many samples.
        seed: of the split, and of the network's first weights and batches. No global random state is read or moved.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The figures as Python numbers. The same input gives the same figures. Memory beyond a float64 copy of ``t``:
        about ``folds · C · (4 N + 20 min(D, N))`` numbers for the linear probe with C classes, and N² where D > N.

    Raises:
        TypeError: ``t`` is no real tensor, ``y`` no tensor of integers, or ``folds`` no integer.
        ValueError: the shapes do not fit, ``t`` is not finite, there is one class only, a class has fewer samples
            than there are folds, or ``probe``, ``folds`` or ``unit`` is none of those above.

    Example:
        >>> y = torch.arange(300) % 3
        >>> d = decode(torch.nn.functional.one_hot(y), y)
        >>> round(d.h_y, 3), round(d.information, 2), d.accuracy
        (1.585, 1.58, 1.0)
    """
    checked_unit(unit)
    if probe not in get_args(Probe):
        raise ValueError(f"probe must be 'linear' or 'mlp', got {probe!r}.")
    if isinstance(folds, bool) or not isinstance(folds, int):
        raise TypeError(f"folds must be an integer, got {folds!r}.")
    if folds < 3:
        raise ValueError(f"folds must be at least 3 (to predict, to choose by and to fit to), got {folds}.")
    rows = checked_rows(t, "t")
    with own_training(rows.device):
        labels, counts = checked_labels(y, len(rows))
        if len(counts) < 2:
            raise ValueError("y must have at least two classes, got one: there is nothing to predict.")
        if int(counts.min()) < folds:
            raise ValueError(
                f"every class in y needs at least {folds} samples, one for each fold, and one has "
                f"{int(counts.min())}: leave its samples out, or give fewer folds."
            )
        generator = torch.Generator().manual_seed(seed)
        labels = _by_first_appearance(labels, len(counts))
        fold = _dealt(labels, folds, generator)
        seen = _seen(rows, labels, fold, folds)
        log_q = _linear(seen, fold) if probe == "linear" else _mlp(seen, fold, generator).double()
        surprise = -log_q.gather(1, labels.unsqueeze(1)).squeeze(1)
        label_surprise = -(torch.bincount(labels).double() / len(rows)).log()[labels]
        h_y, cross_entropy = entropy_of_counts(counts, unit=unit), in_unit(float(surprise.mean()), unit)
        return Decoding(
            information=h_y - cross_entropy,
            standard_error=in_unit(float((label_surprise - surprise).std()) / math.sqrt(len(rows)), unit),
            accuracy=float((log_q.argmax(1) == labels).double().mean()),
            cross_entropy=cross_entropy,
            h_y=h_y,
            n_held_out=len(rows),
        )


def usable_information(
    t: Tensor, y: Tensor, *, probe: Probe = "linear", folds: int = 5, seed: int = 0, unit: Unit = "bits"
) -> float:
    r"""Usable information :math:`H(Y) - \mathrm{CE}` of a representation about labels, by a held-out probe.

    (Barber & Agakov 2003; Xu et al. 2020.) It is the ``information`` of :func:`decode`, which says how it is
    estimated, what its arguments are, what it raises and when it misleads.

    Args:
        t: representation, shape ``(N, …)``.
        y: class labels, integers, shape ``(N,)``.
        probe: ``"linear"`` or ``"mlp"``.
        folds: how many parts the samples are dealt to.
        seed: of the split and of the network.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The information in ``unit``: at most H(Y); below 0 where the probe is worse than the classes' shares.

    Example:
        The exclusive or of two bits: nothing for a linear probe, all for a network.

        >>> bits = torch.arange(400).unsqueeze(1) // torch.tensor([1, 2]) % 2
        >>> y = bits[:, 0] ^ bits[:, 1]
        >>> abs(usable_information(bits, y)) < 0.01, usable_information(bits, y, probe="mlp") > 0.95
        (True, True)
    """
    return decode(t, y, probe=probe, folds=folds, seed=seed, unit=unit).information


def _by_first_appearance(labels: Tensor, n_classes: int) -> Tensor:
    """Number the classes in the order in which they come, so that their names change nothing, not even the split."""
    at = torch.arange(len(labels), device=labels.device)
    first = at.new_full((n_classes,), len(labels)).scatter_reduce(0, labels, at, "amin")
    return first.argsort().argsort()[labels]


def _dealt(labels: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """The fold of each sample, ``(N,)``: the classes, shuffled each, one after another, are dealt in turn."""
    order = torch.randperm(len(labels), generator=generator, device="cpu").to(labels.device)
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels), device=labels.device) % folds
    return fold


def _seen(rows: Tensor, labels: Tensor, fold: Tensor, folds: int) -> Rows:
    """The rows as the probe of each fold sees them: standardised by the samples of the other folds."""
    n, d = rows.shape
    wide = d > n
    features = _rotated(rows) if wide else rows.double()
    mean, scale = [], []
    for k in range(folds):
        others = features[fold != k]
        mean.append(others.mean(0))
        spread = (others - mean[-1]).square().mean(0)
        # Not where the spread is above zero: rounding keeps that of a constant coordinate from being zero.
        varies = others.amax(0) > others.amin(0)
        if wide:
            spread, varies = spread.mean().expand(n), varies.any().expand(n)
        scale.append(torch.where(varies, spread.sqrt(), math.inf))
    return Rows(features, labels, torch.stack(mean, 1), torch.stack(scale, 1))


def _rotated(rows: Tensor) -> Tensor:
    """N coordinates in place of more, all distances kept: the root of the Gram matrix, ``(N, D)`` gives ``(N, N)``.

    All rows are turned alike, and a probe with one ridge for all directions does not notice that they are: no held-out
    row can tell it anything that way.
    """
    n = len(rows)
    gram = torch.zeros(n, n, dtype=torch.float64, device=rows.device)
    for block in rows.split(_BLOCK, dim=1):
        moved = block.double() - block[0].double()  # constant coordinates are zero then, exactly
        centred = moved - moved.mean(0)
        gram.addmm_(centred, centred.t())
    # Centred rows are dependent. This gives every row a direction of its own, too short to be of use to a probe.
    nudge = gram.trace() / n * 1e-8
    gram.diagonal().add_(nudge)
    return torch.linalg.cholesky(gram) if nudge > 0 else gram


def _linear(rows: Rows, fold: Tensor) -> Tensor:
    """The log-probabilities of the classes for every sample, by the linear probe of its fold, ``(N, C)``."""
    n, (r, folds) = len(fold), rows.mean.shape
    of_fold = torch.arange(folds, device=fold.device)
    others, judges = fold.unsqueeze(1) != of_fold, fold.unsqueeze(1) == (of_fold + 1) % folds
    every = torch.arange(n, device=fold.device)
    size = rows.scale.isfinite().sum(0).clamp(min=1).double()
    theta = rows.features.new_zeros(r + 1, folds, int(rows.labels.max()) + 1)
    best, lowest, ridge, stale = theta, torch.full_like(size, math.inf), size, torch.zeros_like(size)
    for strength in _RIDGES:
        theta, z = softmax_regression(rows, others & ~judges, strength * size, theta, tolerance=1e-3, steps=50)
        judged = z.log_softmax(2)[every, :, rows.labels]
        loss = -(judged * judges).sum(0) / judges.sum(0)
        better = (loss < lowest - _MARGIN) & (stale < _PATIENCE)
        lowest, ridge = torch.where(better, loss, lowest), torch.where(better, strength * size, ridge)
        best = torch.where(better.unsqueeze(1), theta, best)
        stale = torch.where(better, 0, stale + 1)
        if (stale >= _PATIENCE).all():
            break
    _, z = softmax_regression(rows, others, ridge, best, tolerance=1e-5, steps=100)
    return z[every, fold].log_softmax(1)


def _mlp(rows: Rows, fold: Tensor, generator: torch.Generator) -> Tensor:
    """The log-probabilities of the classes for every sample, by the network of its fold, ``(N, C)``."""
    (r, folds), classes = rows.mean.shape, int(rows.labels.max()) + 1
    sizes = (r, _HIDDEN, classes)
    weights = mlp_weights(sizes, folds, generator, fold.device)
    # It starts from the classes' shares: what it has not learnt to tell, it does not pretend to.
    weights[:, -(_HIDDEN + 1) * classes :] = 0
    seen = torch.stack([torch.bincount(rows.labels[fold != k], minlength=classes) for k in range(folds)])
    prior = (seen.float() / seen.sum(1, keepdim=True)).log().unsqueeze(1)
    mean, inverse = rows.mean.t().unsqueeze(1), rows.scale.reciprocal().t().unsqueeze(1)

    def log_q(weights: Tensor, chosen: Tensor, of: slice = slice(None)) -> Tensor:
        x = (rows.features[chosen] - mean[of]) * inverse[of]
        return (mlp(weights[of], sizes, x.float()) + prior[of]).log_softmax(2)

    def surprise(weights: Tensor, chosen: Tensor) -> Tensor:
        return -log_q(weights, chosen).gather(2, rows.labels[chosen].unsqueeze(2)).mean((1, 2))

    dealt = [(fold == k).nonzero().squeeze(1) for k in range(folds)]
    # As many of each fold, so that all networks learn at once: one of a fold at most is not learnt from.
    equal = [part[: len(fold) // folds] for part in dealt]
    judges = torch.stack(equal[1:] + equal[:1])
    fitted = torch.stack([torch.cat([equal[(k + i) % folds] for i in range(2, folds)]) for k in range(folds)])
    batch = min(_BATCH, fitted.shape[1])
    weights = train(
        weights,
        lambda weights: surprise(weights, drawn(fitted, batch, generator)).sum(),
        lambda weights: surprise(weights, judges),
        steps=_STEPS,
        learning_rate=_LEARNING_RATE,
    )
    predicted = [log_q(weights, part.unsqueeze(0), slice(k, k + 1)).squeeze(0) for k, part in enumerate(dealt)]
    return torch.cat(predicted)[fold.argsort(stable=True).argsort()]
