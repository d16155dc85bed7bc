r"""Variational bounds on mutual information, by a critic: a network that discriminates pairs from mixed pairs.

The critic is separable, :math:`f(x, y) = g(x)^\top h(y)` with two networks of one hidden layer of 64 ReLU units and
32 outputs each. The samples are halved; a critic learns from each half, in float32, and is evaluated on the other half,
which keeps memorized samples out of the estimate. A quarter of the training half decides when to stop. Constant
coordinates are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_ib.functional.checks import Unit, checked_integer, checked_number, checked_pair, checked_unit, in_unit
from lightning_ib.functional.variational.training import full_precision_training, mlp, mlp_weights, sample_rows, train

_HIDDEN = 64
_OUTPUTS = 32
_LEARNING_RATE = 2e-3

# Two halves, of each a quarter to judge by, of that at least two samples to mix.
_LEAST = 16


def mutual_information_infonce(
    x: Tensor, y: Tensor, *, batch_size: int = 256, steps: int = 1000, seed: int = 0, unit: Unit = "bits"
) -> float:
    r"""The InfoNCE lower bound on I(X;Y), on samples held out from the critic.

    .. math:: I(X;Y) \ge \mathbb{E}\Bigl[\frac{1}{B} \sum_i
              \log \frac{e^{f(x_i, y_i)}}{\frac{1}{B} \sum_j e^{f(x_i, y_j)}}\Bigr]

    (van den Oord, Li & Vinyals 2018), over batches of B samples. It is at most :math:`\log B`, 8 bits with the default
    ``batch_size``: near that it reflects the size of the batches. Its variance is small, and it falls short where the
    critic is too weak for the dependence; the head of this module describes how the critic is trained and evaluated.

    Args:
        x: real values in floating point, shape ``(N, …)``, N at least 16.
        y: real values in floating point, shape ``(N, …)``; class labels as ``torch.nn.functional.one_hot(y).double()``.
        batch_size: B. There are fewer to a batch where a half of the samples holds fewer, and so that batches are
            equally large.
        steps: of Adam, at most; fewer where the validation loss stops falling.
        seed: of the halves, the critic's first weights and its batches. The global random states stay as they are.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The bound in ``unit``, the mean of the two halves: at most log B, and below 0 where the critic found nothing.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: the variables differ in their samples, have fewer than 16, or hold NaN or infinity, or
            ``batch_size``, ``steps`` or ``unit`` is out of range.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.8 < mutual_information_infonce(x, (x > 0).double(), steps=200) < 1.0
        True
    """
    checked_unit(unit)
    batch_size = checked_integer(batch_size, "batch_size", at_least=2)

    def bound(scores: Tensor) -> Tensor:
        return _paired(scores) - scores.logsumexp(-1) + math.log(scores.shape[-1])

    def loss(scores: Tensor) -> Tensor:
        return -bound(scores).mean((-2, -1))

    scores = _held_out_scores(x, y, loss, batch_size, steps, seed)
    return in_unit(float(bound(scores).mean()), unit)


def mutual_information_smile(
    x: Tensor,
    y: Tensor,
    *,
    clip: float = 5.0,
    batch_size: int = 256,
    steps: int = 1000,
    seed: int = 0,
    unit: Unit = "bits",
) -> float:
    r"""The SMILE estimate of I(X;Y), on samples held out from the critic.

    .. math:: \hat I = \mathbb{E}_{p(x, y)}[f] - \log \mathbb{E}_{p(x) p(y)}[\mathrm{clip}(e^f, e^{-\tau}, e^{\tau})]

    (Song & Ermon 2020): the bound of Donsker & Varadhan with a clipped partition function, which caps its variance,
    of a critic trained to the Jensen–Shannon bound :math:`-\mathbb{E}_{p(x,y)}[\log(1 + e^{-f})] -
    \mathbb{E}_{p(x)p(y)}[\log(1 + e^f)]` (Nowozin, Cseke & Tomioka 2016). It can exceed log B, and, as
    an estimate with clipping, I(X;Y) itself. The head of this module describes how the critic is trained and evaluated.

    Args:
        x: real values in floating point, shape ``(N, …)``, N at least 16.
        y: real values in floating point, shape ``(N, …)``; class labels as ``torch.nn.functional.one_hot(y).double()``.
        clip: :math:`\tau`, in nats, above 0; ``math.inf`` turns clipping off. Smaller values trade bias for variance.
        batch_size: the number of samples of a step; all pairs of two different samples of a batch count as mixed.
        steps: of Adam, at most; fewer where the validation loss stops falling.
        seed: of the halves, the critic's first weights and its batches. The global random states stay as they are.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The estimate in ``unit``, the mean of the two halves; it may be below 0.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: the variables differ in their samples, have fewer than 16, or hold NaN or infinity, or ``clip``,
            ``batch_size``, ``steps`` or ``unit`` is out of range.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.7 < mutual_information_smile(x, (x > 0).double(), steps=200) < 1.3
        True
    """
    checked_unit(unit)
    batch_size = checked_integer(batch_size, "batch_size", at_least=2)
    clip = checked_number(clip, "clip", above=0, infinite=True)

    def loss(scores: Tensor) -> Tensor:
        return softplus(-_paired(scores)).mean((1, 2)) + softplus(_mixed(scores)).mean((1, 2))

    scores = _held_out_scores(x, y, loss, batch_size, steps, seed)
    outside = _mixed(scores).clamp(-clip, clip).flatten(1)
    estimate = _paired(scores).mean((1, 2)) - outside.logsumexp(1) + math.log(outside.shape[1])
    return in_unit(float(estimate.mean()), unit)


def _paired(scores: Tensor) -> Tensor:
    """The scores of the pairs as they came: the diagonals."""
    return scores.diagonal(dim1=-2, dim2=-1)


def _mixed(scores: Tensor) -> Tensor:
    """The scores of x with the y of other samples: all but the diagonals."""
    b = scores.shape[-1]
    # Less the last element of a square, its rows of b + 1 elements begin with the diagonal's.
    rows: Tensor = scores.flatten(-2)[..., :-1].unflatten(-1, (b - 1, b + 1))
    return rows[..., 1:].flatten(-2)


def _held_out_scores(
    x: Tensor, y: Tensor, loss: Callable[[Tensor], Tensor], batch_size: int, steps: int, seed: int
) -> Tensor:
    """The scores of all pairs within the batches of the half held out from a critic.

    Args:
        x: as in the functions above.
        y: as in the functions above.
        loss: of the scores of batches, ``(2, M, B, B)``, x down and y across, for each critic its own, ``(2,)``.
        batch_size: B at most.
        steps: of training, at most.
        seed: of all that is drawn.

    Returns:
        float64 ``(2, M, B, B)``: for the two halves, their M batches.
    """
    steps, seed = checked_integer(steps, "steps", at_least=1), checked_integer(seed, "seed")
    x, y = checked_pair(x, y, at_least=_LEAST)
    with full_precision_training(x.device):
        generator = torch.Generator().manual_seed(seed)
        half = len(x) // 2
        halves = torch.randperm(len(x), generator=generator, device="cpu")[: 2 * half].view(2, half).to(x.device)
        x, y = _standardized(x, halves), _standardized(y, halves)
        sizes = [(v.shape[2], _HIDDEN, _OUTPUTS) for v in (x, y)]
        both = [mlp_weights(s, 2, generator, x.device) for s in sizes]
        widths = [w.shape[1] for w in both]
        both[1][:, -(_HIDDEN + 1) * _OUTPUTS :] = 0  # h is 0 at first: all pairs score alike

        def scores(weights: Tensor, chosen: Tensor) -> Tensor:
            """Of samples ``(2, M, B)``, M batches, numbered within the 2 · ``half`` samples of each critic's view."""
            g, h = (
                mlp(w, s, v.gather(1, chosen.flatten(1).unsqueeze(2).expand(-1, -1, v.shape[2])))
                for w, s, v in zip(weights.split(widths, 1), sizes, (x, y))
            )
            g, h = (v.unflatten(1, chosen.shape[1:]) for v in (g, h))
            scores: Tensor = g @ h.transpose(-1, -2) / math.sqrt(_OUTPUTS)
            return scores

        # Each critic's view begins with the half it learns from, and in that with the rows it is fitted to.
        position = torch.arange(2 * half, device=x.device).expand(2, -1)
        fitted, judges, unseen = position.split([half - half // 4, half // 4, half], 1)
        judges, unseen = _batched(judges, batch_size), _batched(unseen, batch_size)
        weights = train(
            torch.cat(both, 1),
            lambda w: loss(
                scores(w, sample_rows(fitted, min(batch_size, fitted.shape[1]), generator).unsqueeze(1))
            ).sum(),
            lambda w: loss(scores(w, judges)),
            steps=steps,
            learning_rate=_LEARNING_RATE,
        )
        with torch.no_grad():
            return scores(weights, unseen).double()


def _standardized(rows: Tensor, halves: Tensor) -> Tensor:
    """Both critics' views, float32 ``(2, N, D)``: the half it learns from first, which sets the means and scales."""
    views = []
    for own, other in (halves, halves.flip(0)):
        known = rows[own].double()
        varies = known.amax(0) > known.amin(0)
        scale = torch.where(varies, known.std(0), math.inf)
        views.append(((rows[torch.cat([own, other])].double() - known.mean(0)) / scale).float())
    return torch.stack(views)


def _batched(rows: Tensor, size: int) -> Tensor:
    """``(2, N)`` in batches of equal size, at most ``size``: ``(2, M, B)``; less than M samples are left over."""
    m = -(-rows.shape[1] // size)
    b = rows.shape[1] // m
    batches: Tensor = rows[:, : m * b].unflatten(1, (m, b))
    return batches
