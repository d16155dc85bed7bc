r"""Variational bounds on mutual information, by a critic: a network that tells pairs from mixed pairs.

The critic is separable, :math:`f(x, y) = g(x)^\top h(y)` with two networks of one hidden layer of 64 ReLU units and
32 outputs each. The samples are halved; a critic learns from each half, in float32, and says what it finds in the
other half, which it has not seen: the figures do not grow with what a critic knows by heart. A quarter of the half it
learns from only tells when to stop. A constant coordinate counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_ib.functional.checks import Unit, checked_labels, checked_pair, checked_rows, checked_unit, in_unit
from lightning_ib.functional.variational.training import drawn, mlp, mlp_weights, own_training, train

_HIDDEN = 64
_OUTPUTS = 32
_LEARNING_RATE = 2e-3

# Two halves, of each a quarter to judge by, of that at least two samples to mix.
_LEAST = 16


def mutual_information_infonce(
    x: Tensor, y: Tensor, *, batch_size: int = 256, steps: int = 1000, seed: int = 0, unit: Unit = "bits"
) -> float:
    r"""The InfoNCE lower bound on I(X;Y), from samples that the critic has not seen.

    .. math:: I(X;Y) \ge \mathbb{E}\Bigl[\frac{1}{B} \sum_i
              \log \frac{e^{f(x_i, y_i)}}{\frac{1}{B} \sum_j e^{f(x_i, y_j)}}\Bigr]

    (van den Oord, Li & Vinyals 2018), over batches of B samples. It cannot exceed :math:`\log B`, 8 bits with the
    default ``batch_size``: near that it says how large the batches were. It varies little, and falls short where the
    critic does not find what there is; how the critic is trained, and where it is evaluated, is said at the top of
    this module.

    Args:
        x: real values, shape ``(N, …)``, N at least 16.
        y: real values, shape ``(N, …)``; or class labels, integers or booleans of shape ``(N,)``.
        batch_size: B. There are fewer to a batch where a half of the samples holds fewer, and so that batches are
            equally large.
        steps: of Adam, at most; fewer where what is kept to judge by gets no better.
        seed: of the halves, the critic's first weights and its batches. No global random state is read or moved.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The bound in ``unit``, the mean of the two halves: at most log B, and below 0 where the critic found nothing.

    Raises:
        TypeError: ``x`` is no real tensor, ``y`` neither that nor labels, or a number is no integer.
        ValueError: the shapes do not fit, values are not finite, there are fewer than 16 samples, or ``batch_size``,
            ``steps`` or ``unit`` is none of those above.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.8 < mutual_information_infonce(x, (x > 0).squeeze(1), steps=200) < 1.0
        True
    """
    checked_unit(unit)
    _check_count("batch_size", batch_size, 2)

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
    r"""The SMILE estimate of I(X;Y), from samples that the critic has not seen.

    .. math:: \hat I = \mathbb{E}_{p(x, y)}[f] - \log \mathbb{E}_{p(x) p(y)}[\mathrm{clip}(e^f, e^{-\tau}, e^{\tau})]

    (Song & Ermon 2020): the bound of Donsker & Varadhan with a clipped partition function, which caps its variance,
    of a critic trained to the Jensen–Shannon bound :math:`-\mathbb{E}_{p(x,y)}[\log(1 + e^{-f})] -
    \mathbb{E}_{p(x)p(y)}[\log(1 + e^f)]` (Nowozin, Cseke & Tomioka 2016). It is not limited by the batch, and, being
    clipped, it is no bound: it may be above I(X;Y). How the critic is trained, and where it is evaluated, is said at
    the top of this module.

    Args:
        x: real values, shape ``(N, …)``, N at least 16.
        y: real values, shape ``(N, …)``; or class labels, integers or booleans of shape ``(N,)``.
        clip: :math:`\tau`, in nats, above 0; ``math.inf`` clips nothing. The less, the less the figure varies, and
            the more it may be off.
        batch_size: how many samples a step sees; all pairs within a batch, but a sample with itself, count as mixed.
        steps: of Adam, at most; fewer where what is kept to judge by gets no better.
        seed: of the halves, the critic's first weights and its batches. No global random state is read or moved.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The estimate in ``unit``, the mean of the two halves; it may be below 0.

    Raises:
        TypeError: ``x`` is no real tensor, ``y`` neither that nor labels, or a number is no integer.
        ValueError: the shapes do not fit, values are not finite, there are fewer than 16 samples, or ``clip``,
            ``batch_size``, ``steps`` or ``unit`` is none of those above.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.7 < mutual_information_smile(x, (x > 0).squeeze(1), steps=200) < 1.3
        True
    """
    checked_unit(unit)
    _check_count("batch_size", batch_size, 2)
    if not clip > 0:
        raise ValueError(f"clip must be above 0, in nats, got {clip!r}.")

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
    # Without the last element of a square, its rows of b + 1 elements begin with the diagonal's.
    return scores.flatten(-2)[..., :-1].unflatten(-1, (b - 1, b + 1))[..., 1:].flatten(-2)


def _held_out_scores(
    x: Tensor, y: Tensor, loss: Callable[[Tensor], Tensor], batch_size: int, steps: int, seed: int
) -> Tensor:
    """The scores of all pairs within the batches of the half a critic has not seen.

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
    _check_count("steps", steps, 1)
    if isinstance(y, Tensor) and y.ndim == 1 and not (y.is_floating_point() or y.is_complex()):
        x = checked_rows(x, "x", at_least=_LEAST)
        numbers, counts = checked_labels(y, len(x), ("x", "y"))
        y = (numbers.unsqueeze(1) == torch.arange(len(counts), device=y.device)).to(x.dtype)
    else:
        x, y = checked_pair(x, y, at_least=_LEAST)
    with own_training(x.device):
        generator = torch.Generator().manual_seed(seed)
        half = len(x) // 2
        halves = torch.randperm(len(x), generator=generator, device="cpu")[: 2 * half].view(2, half).to(x.device)
        x, y = _standardised(x, halves), _standardised(y, halves)
        sizes = [(v.shape[2], _HIDDEN, _OUTPUTS) for v in (x, y)]
        both = [mlp_weights(s, 2, generator, x.device) for s in sizes]
        widths = [w.shape[1] for w in both]
        both[1][:, -(_HIDDEN + 1) * _OUTPUTS :] = 0  # h is 0 at first: the critic tells no pair from another

        def scores(weights: Tensor, chosen: Tensor) -> Tensor:
            """Of samples ``(2, M, B)``, M batches, numbered within the 2 · ``half`` samples of each critic's view."""
            g, h = (
                mlp(w, s, v.gather(1, chosen.flatten(1).unsqueeze(2).expand(-1, -1, v.shape[2])))
                for w, s, v in zip(weights.split(widths, 1), sizes, (x, y))
            )
            g, h = (v.unflatten(1, chosen.shape[1:]) for v in (g, h))
            return g @ h.transpose(-1, -2) / math.sqrt(_OUTPUTS)

        # Each critic's view begins with the half it learns from, and in that with what it is fitted to.
        position = torch.arange(2 * half, device=x.device).expand(2, -1)
        fitted, judges, unseen = position.split([half - half // 4, half // 4, half], 1)
        judges, unseen = _batched(judges, batch_size), _batched(unseen, batch_size)
        weights = train(
            torch.cat(both, 1),
            lambda w: loss(scores(w, drawn(fitted, min(batch_size, fitted.shape[1]), generator).unsqueeze(1))).sum(),
            lambda w: loss(scores(w, judges)),
            steps=steps,
            learning_rate=_LEARNING_RATE,
        )
        with torch.no_grad():
            return scores(weights, unseen).double()


def _standardised(rows: Tensor, halves: Tensor) -> Tensor:
    """Both critics' views, float32 ``(2, N, D)``: the half it learns from first, whose means and scales it takes."""
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
    return rows[:, : m * b].unflatten(1, (m, b))


def _check_count(name: str, value: int, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}.")
