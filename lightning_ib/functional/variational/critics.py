r"""Variational bounds on mutual information, by a critic: a network that discriminates pairs from mixed pairs.

The coordinates become normal scores by their ranks, or are divided by their standard deviation, whichever reads more,
so that strictly increasing maps of a coordinate change little, and constant coordinates are ignored. The samples are
halved; a critic learns from each half, in float32, and is evaluated on the other half, which keeps memorized samples
out of the estimate. A quarter of the training half decides when to stop.

A critic is the sum of two: the log density ratio of a normal distribution of the canonical pairs of the coordinates,
and of their absolute values, in closed form, and a network. Critics without the closed form learn beside those, either
kind in both forms of the coordinates; the better form goes on after 100 steps, the better start after 300. The
``"separable"`` network is :math:`g(x)^\top h(y)`, with two networks of one hidden layer of 64 ReLU units and 32 outputs
each; the ``"joint"`` one sees x and y together, in hidden layers of 64 and 32 ReLU units. Joint critics suit sharp
edges, such as those of a uniform variable with uniform noise, and take two to four times as long.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_ib.functional.checks import (
    Unit,
    checked_choice,
    checked_integer,
    checked_number,
    checked_pair,
    checked_unit,
    in_unit,
)
from lightning_ib.functional.resampling import standard_error_of_mean
from lightning_ib.functional.variational.critic_networks import Critic, held_out_rows, held_out_scores
from lightning_ib.functional.variational.dealing import PARTS, checked_groups, dealt_halves

Objective = Literal["infonce", "smile"]

# Two halves, of each a quarter to judge by, of that at least two samples to mix.
_LEAST = 16


class CriticResult(NamedTuple):
    """A variational bound on mutual information, on samples held out from its critics.

    Attributes:
        information: the bound in the unit asked for, unclipped: below 0 for a critic that found nothing.
        standard_error: of the information, in the same unit, for these critics: that each sample is in many pairs is
            accounted for, and what other critics would give comes on top. Over 20 repetitions of normal variables it
            was the standard deviation, and of heavy-tailed ones (Student-t, 2 degrees of freedom) half to 0.7 of it.
            With groups it is that of independent groups.
    """

    information: float
    standard_error: float


def critic_information(
    x: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    objective: Objective = "infonce",
    critic: Critic = "separable",
    clip: float = 5.0,
    batch_size: int = 256,
    steps: int = 1000,
    seed: int = 0,
    unit: Unit = "bits",
) -> CriticResult:
    r"""A variational bound on I(X;Y) and its standard error, on samples held out from the critic.

    The bounds are those of :func:`mutual_information_infonce` and :func:`mutual_information_smile`, means over pairs.
    The standard error is that of the samples' influences (the delta method; Hoeffding 1948): in InfoNCE, with
    :math:`m_i` the mean of :math:`e^{f(x_i, y_j)}` over the batch,

    .. math:: \psi_k = f(x_k, y_k) - \log m_k - \frac1B \sum_i \frac{e^{f(x_i, y_k)}}{m_i}

    and in SMILE, with :math:`Z` the mean of the clipped :math:`e^f` over all mixed pairs, :math:`\psi_k = f(x_k, y_k) -
    (\overline{e^{f(x_k, \cdot)}} + \overline{e^{f(\cdot, y_k)}}) / Z`.

    Args:
        x: real values in floating point, shape ``(N, …)``, N at least 16.
        y: real values in floating point, shape ``(N, …)``; class labels as ``torch.nn.functional.one_hot(y).double()``.
        groups: see :func:`mutual_information_infonce`.
        objective: ``"infonce"`` or ``"smile"``.
        critic: ``"separable"`` or ``"joint"``.
        clip: of SMILE, in nats, above 0.
        batch_size: see :func:`mutual_information_infonce`.
        steps: of Adam, at most.
        seed: of all that is drawn.
        unit: ``"bits"`` or ``"nats"``.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: as in :func:`mutual_information_infonce`.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> information, standard_error = critic_information(x, (x > 0).double(), steps=200)
        >>> 0.9 < information < 1.0 and standard_error < 0.02
        True
    """
    return _criticized(x, y, groups, objective, critic, clip, batch_size, steps, seed, unit)


def mutual_information_infonce(
    x: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    critic: Critic = "separable",
    batch_size: int = 256,
    steps: int = 1000,
    seed: int = 0,
    unit: Unit = "bits",
) -> float:
    r"""The InfoNCE lower bound on I(X;Y), on samples held out from the critic.

    .. math:: I(X;Y) \ge \mathbb{E}\Bigl[\frac{1}{B} \sum_i
              \log \frac{e^{f(x_i, y_i)}}{\frac{1}{B} \sum_j e^{f(x_i, y_j)}}\Bigr]

    over batches of B samples. Its variance is small. The head of this module describes how the critic is trained and
    evaluated; :func:`critic_information` gives the standard error as well.

    Source:
        van den Oord, Li & Vinyals (2018).

    Trap:
        It is at most :math:`\log B`, 8 bits with the default ``batch_size``: near that it reflects the size of the
        batches. It falls short where the critic is too weak for the dependence, as for spirals.

    Args:
        x: real values in floating point, shape ``(N, …)``, N at least 16.
        y: real values in floating point, shape ``(N, …)``; class labels as ``torch.nn.functional.one_hot(y).double()``.
        groups: which samples depend on each other, such as the tokens of a sequence, integers, shape ``(N,)``, at least
            8 groups: a group is in one part of one half, so that near copies of what a critic learned from are no
            evidence. Pairs within a group count as mixed, which lowers the value where a batch holds few groups.
        critic: ``"separable"`` or ``"joint"``.
        batch_size: B. There are fewer to a batch where a half of the samples holds fewer, and so that batches are
            equally large. In a step of a joint critic, pairs are those within groups of 16.
        steps: of Adam, at most; fewer where the validation loss stops falling.
        seed: of the halves, the critic's first weights and its batches. The global random states stay as they are.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The bound in ``unit``, the mean of the two halves: at most log B, and below 0 where the critic found nothing.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: the variables differ in their samples, have fewer than 16, or hold NaN or infinity, there are
            fewer than 8 groups or one holds nearly all samples, or ``critic``, ``batch_size``, ``steps`` or ``unit`` is
            unknown or out of range.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.8 < mutual_information_infonce(x, (x > 0).double(), steps=200) < 1.0
        True
    """
    return _criticized(x, y, groups, "infonce", critic, math.inf, batch_size, steps, seed, unit).information


def mutual_information_smile(
    x: Tensor,
    y: Tensor,
    *,
    groups: Tensor | None = None,
    critic: Critic = "separable",
    clip: float = 5.0,
    batch_size: int = 256,
    steps: int = 1000,
    seed: int = 0,
    unit: Unit = "bits",
) -> float:
    r"""The SMILE estimate of I(X;Y) with a clipped critic, on samples held out from the critic.

    .. math:: \hat I = \mathbb{E}_{p(x, y)}[c] - \log \mathbb{E}_{p(x) p(y)}[e^c], \qquad
              c = \max(-\tau, \min(f, \tau))

    The critic learns by the Jensen–Shannon bound :math:`-\mathbb{E}_{p(x,y)}[\log(1 + e^{-f})] -
    \mathbb{E}_{p(x)p(y)}[\log(1 + e^f)]` (Nowozin, Cseke & Tomioka 2016), and the bound of Donsker & Varadhan reads it,
    with a variance that clipping caps. The authors clip the second term alone, so that the first can exceed I(X;Y) by
    any amount. With both clipped it is a lower bound in expectation, up to the error of the logarithm of a mean, which
    falls as 1/N. The head of this module describes how the critic is trained and evaluated; :func:`critic_information`
    gives the standard error as well.

    Source:
        Song & Ermon (2020).

    Trap:
        It can exceed log B, and falls short where single pairs hold more information than :math:`\tau`, or where a
        nearly exact link has sharp edges (2.6 of 3.4 bits of a uniform variable with uniform noise of a tenth of its
        width, where InfoNCE reads 3.0).

    Args:
        x: real values in floating point, shape ``(N, …)``, N at least 16.
        y: real values in floating point, shape ``(N, …)``; class labels as ``torch.nn.functional.one_hot(y).double()``.
        groups: see :func:`mutual_information_infonce`.
        critic: ``"separable"`` or ``"joint"``.
        clip: :math:`\tau`, in nats, above 0; ``math.inf`` turns clipping off. Smaller values trade bias for variance.
        batch_size: the number of samples of a step; all pairs of two different samples of a batch count as mixed, and
            in a step of a joint critic those of a group of 16.
        steps: of Adam, at most; fewer where the validation loss stops falling.
        seed: of the halves, the critic's first weights and its batches. The global random states stay as they are.
        unit: ``"bits"`` or ``"nats"``.

    Returns:
        The estimate in ``unit``, the mean of the two halves; it may be below 0.

    Raises:
        TypeError: an argument is of another kind; integer variables are.
        ValueError: the variables differ in their samples, have fewer than 16, or hold NaN or infinity, ``groups`` are
            too few, or ``critic``, ``clip``, ``batch_size``, ``steps`` or ``unit`` is unknown or out of range.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> 0.7 < mutual_information_smile(x, (x > 0).double(), steps=200) < 1.0
        True
    """
    return _criticized(x, y, groups, "smile", critic, clip, batch_size, steps, seed, unit).information


def _criticized(
    x: Tensor,
    y: Tensor,
    groups: Tensor | None,
    objective: Objective,
    critic: Critic,
    clip: float,
    batch_size: int,
    steps: int,
    seed: int,
    unit: Unit,
) -> CriticResult:
    """The bound and its standard error, the arguments checked."""
    checked_unit(unit)
    checked_choice(objective, "objective", get_args(Objective))
    checked_choice(critic, "critic", get_args(Critic))
    clip = checked_number(clip, "clip", above=0, infinite=True)
    batch_size = checked_integer(batch_size, "batch_size", at_least=2)
    steps, seed = checked_integer(steps, "steps", at_least=1), checked_integer(seed, "seed")
    x, y = checked_pair(x, y, at_least=_LEAST)
    loss, read = (
        (_infonce_loss, _infonce) if objective == "infonce" else (_jensen_shannon_loss, partial(_smile, clip=clip))
    )
    if groups is not None:
        groups = checked_groups(groups, len(x), PARTS, x.device, of="x", part="part of either half")
    drawn = torch.Generator().manual_seed(seed)
    halves = dealt_halves(len(x), groups, drawn, x.device)
    scores = held_out_scores(
        x, y, loss, lambda scores: read(scores)[0], critic, halves, batch_size=batch_size, steps=steps, generator=drawn
    )
    information, influences = read(scores)
    if groups is None:
        standard_error = float(influences.std()) / math.sqrt(influences.numel())
    else:
        clusters = groups[held_out_rows(halves, batch_size)].flatten()
        standard_error = standard_error_of_mean(influences.flatten(), clusters)
    return CriticResult(in_unit(float(information.mean()), unit), in_unit(standard_error, unit))


def _paired(scores: Tensor) -> Tensor:
    """The scores of the pairs as they came: the diagonals."""
    return scores.diagonal(dim1=-2, dim2=-1)


def _infonce_loss(scores: Tensor) -> Tensor:
    """The negative InfoNCE of each critic, from its scores ``(2, M, B, B)``."""
    return -_paired(scores.log_softmax(-1)).mean((1, 2)) - math.log(scores.shape[-1])


def _jensen_shannon_loss(scores: Tensor) -> Tensor:
    """The negative Jensen–Shannon bound of each critic, from its scores ``(2, M, B, B)``."""
    paired, n_mixed = _paired(scores), scores.shape[-1] - 1
    mixed = softplus(scores).sum((2, 3)) - softplus(paired).sum(2)
    return softplus(-paired).mean((1, 2)) + mixed.mean(1) / (scores.shape[-1] * n_mixed)


def _infonce(scores: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE of each half, ``(2,)``, and each sample's influence on it, ``(2, M, B)``, in nats."""
    log_means = scores.logsumexp(-1, keepdim=True) - math.log(scores.shape[-1])
    terms = _paired(scores) - log_means.squeeze(-1)
    return terms.mean((1, 2)), _centered(terms - (scores - log_means).exp().mean(-2))


def _smile(scores: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """SMILE of each half, ``(2,)``, and each sample's influence on it, ``(2, M, B)``, in nats."""
    clipped = scores.clamp(-clip, clip)
    terms, b = _paired(clipped), scores.shape[-1]
    itself = torch.eye(b, dtype=torch.bool, device=scores.device)
    mixed = clipped.masked_fill(itself, -math.inf)
    log_means = mixed.logsumexp((1, 2, 3)) - math.log(scores.shape[1] * b * (b - 1))
    ratios = (mixed - log_means.view(-1, 1, 1, 1)).exp()
    influences = terms - (ratios.sum(-1) + ratios.sum(-2)) / (b - 1)
    return terms.mean((1, 2)) - log_means, _centered(influences)


def _centered(influences: Tensor) -> Tensor:
    return influences - influences.mean((1, 2), keepdim=True)
