r"""The objective max I(T;Y) − λ₁ H(X|T) − λ₂ H(T|Y), term by term."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple, TypeVar, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.functional.checks import checked_choice, checked_number, checked_values
from lightning_ib.objectives.labels import in_full_precision, values_can_be_read
from lightning_ib.objectives.terms import Reduction, Weight, checked_per_sample, cross_entropy, reduced

Amount = TypeVar("Amount", float, Tensor)


class InformationTerms(NamedTuple):
    r"""A loss and its parts: means over the batch in nats, scalars with gradients, ready for ``self.log_dict``.

    With ``reduction="none"`` each has one value per sample.

    Attributes:
        loss: ``distortion + lambda1 · reconstruction + lambda2 · rate``.
        rate: an upper bound of the conditional entropy H(T|Y), which can be negative.
        distortion: the cross-entropy E[−ln q(y|t)], an upper bound of H(Y|T).
        reconstruction: E[−ln r(x|t)], an upper bound of H(X|T), which can be negative for continuous X.
    """

    loss: Tensor
    rate: Tensor
    distortion: Tensor
    reconstruction: Tensor


class InformationLoss(nn.Module):
    r"""The loss of the objective max I(T;Y) − λ₁ H(X|T) − λ₂ H(T|Y), each term by a variational bound, in nats.

    .. math::

        L = \mathrm{E}\, [-\ln q(y|t)] + \lambda_1\, \mathrm{E}\, [-\ln r(x|t)] + \lambda_2\, \mathrm{E}\, [-\ln b(t|y)]
        \;\geq\; H(Y|T) + \lambda_1 H(X|T) + \lambda_2 H(T|Y)

    The objective is, exactly,

    .. math::

        I(T;Y) - \lambda_1 H(X|T) - \lambda_2 H(T|Y)
        = (1 + \lambda_2)\, I(T;Y) - (\lambda_2 - \lambda_1)\, I(X;T) - \lambda_2 H(T|X) - \lambda_1 H(X)

    so that **it compresses only if λ₂ > λ₁**: λ₁ rewards a code that keeps the input, and for λ₁ = λ₂ the two cancel. A
    loss that is built with λ₂ ≤ λ₁ gives a UserWarning. For a deterministic discrete T it is the information
    bottleneck, I(T;Y) − β I(X;T), with β = (λ₂ − λ₁) / (1 + λ₂).

    H(T|X) is what keeps H(T|Y) from falling without limit: a differential entropy has no lower bound, and the best
    deterministic T would be a constant for each class with a loss of −∞. T needs noise. With that of
    :class:`GaussianBottleneck`, H(T|X) is at least latent · ln(min_std √(2πe)), and the term of λ₂ rewards a σ as small
    as ``min_std``: set ``min_std=0.242``, 1/√(2πe), for H(T|X) ≥ 0.

    ``lambda1`` and ``lambda2`` can be set between two steps, which never warns: see :class:`Annealing`.

    Args:
        lambda1: the weight of the reconstruction, at least 0.
        lambda2: the weight of the class-conditional entropy, at least 0.
        reduction: ``"mean"``, or ``"none"`` for terms of the shape of the logits without classes, ``(B,)`` or
            ``(samples, B)``.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        In ``training_step``, with ``self.log_dict(terms._asdict())``:

        >>> import torch
        >>> from lightning_ib.objectives import ConditionalPrior, GaussianBottleneck
        >>> bottleneck, prior = GaussianBottleneck(256, 32, min_std=0.242), ConditionalPrior(10, 32)
        >>> decoder, painter = nn.Linear(32, 10), nn.Linear(32, 256)
        >>> loss = InformationLoss(lambda1=1e-3, lambda2=1e-2)
        >>> x, y = torch.randn(100, 256), torch.randint(10, (100,))
        >>> code = bottleneck(x)
        >>> drawn = gaussian_reconstruction(x, painter(code.sample))
        >>> terms = loss(decoder(code.sample), y, drawn, prior.cross_entropy(code, y))
        >>> terms.loss.backward()
    """

    lambda1 = Weight("The weight of the reconstruction.")
    lambda2 = Weight("The weight of the class-conditional entropy.")

    def __init__(self, lambda1: float, lambda2: float, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.lambda1, self.lambda2 = lambda1, lambda2
        self.reduction = checked_choice(reduction, "InformationLoss: reduction", get_args(Reduction))
        if self.lambda2 <= self.lambda1:
            warnings.warn(
                f"InformationLoss(lambda1={self.lambda1:g}, lambda2={self.lambda2:g}) does not compress: the weight of "
                "I(X;T) is lambda2 - lambda1, and lambda1 rewards a code that keeps the input: give a lambda2 above "
                "lambda1, also where both begin at 0 and are set between steps.",
                stacklevel=2,
            )

    def forward(self, logits: Tensor, y: Tensor, reconstruction: Tensor, class_entropy: Tensor) -> InformationTerms:
        """The loss of a batch of B samples and K classes.

        Args:
            logits: of the decoder q(y|t), floating point, shape ``(B, K)``, or ``(samples, B, K)`` for several draws.
            y: class labels, integers from 0 to K − 1 of shape ``(B,)``; or soft labels, shape ``(B, K)``.
            reconstruction: −ln r(x|t) in nats, of :func:`gaussian_reconstruction` or :func:`bernoulli_reconstruction`,
                shape ``(B,)``, or ``(samples, B)``.
            class_entropy: −ln b(t|y) in nats, of :meth:`ConditionalPrior.cross_entropy`, likewise.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: shapes differ, or labels are out of range.
        """
        distortion = cross_entropy(logits, y)
        shape = distortion.shape
        remedy = "give gaussian_reconstruction(x, x_hat), say"
        reconstruction = checked_per_sample(reconstruction, shape, "reconstruction", remedy)
        rate = checked_per_sample(class_entropy, shape, "class_entropy", "give prior.cross_entropy(code, y)")
        rate, distortion, reconstruction = (
            reduced(term, self.reduction) for term in (rate, distortion, reconstruction)
        )
        loss = _information_objective(distortion, reconstruction, rate, self.lambda1, self.lambda2)
        return InformationTerms(loss, rate, distortion, reconstruction)

    def extra_repr(self) -> str:
        """What it is made from."""
        return f"lambda1={self.lambda1:g}, lambda2={self.lambda2:g}, reduction={self.reduction!r}"


def information_objective(
    cross_entropy: Amount, h_x_given_t: Amount, h_t_given_y: Amount, *, lambda1: float, lambda2: float
) -> Amount:
    r"""What :class:`InformationLoss` minimizes, from its three terms: H(Y|T) + λ₁ H(X|T) + λ₂ H(T|Y).

    With the exact entropies of a discrete distribution, H(Y) less this is the objective
    :math:`I(T;Y) - \lambda_1 H(X|T) - \lambda_2 H(T|Y)`.

    Args:
        cross_entropy: H(Y|T), or the cross-entropy that bounds it: a number or a tensor.
        h_x_given_t: H(X|T), in the same unit.
        h_t_given_y: H(T|Y), in the same unit.
        lambda1: the weight of H(X|T), at least 0.
        lambda2: the weight of H(T|Y), at least 0.

    Raises:
        TypeError: a weight is no number.
        ValueError: a weight is negative.

    Example:
        >>> information_objective(0.5, 2.0, 1.0, lambda1=0.25, lambda2=0.5)
        1.5
    """
    return _information_objective(
        cross_entropy,
        h_x_given_t,
        h_t_given_y,
        checked_number(lambda1, "lambda1", at_least=0),
        checked_number(lambda2, "lambda2", at_least=0),
    )


def _information_objective(
    cross_entropy: Amount, h_x_given_t: Amount, h_t_given_y: Amount, lambda1: float, lambda2: float
) -> Amount:
    return cross_entropy + lambda1 * h_x_given_t + lambda2 * h_t_given_y


def gaussian_reconstruction(x: Tensor, x_hat: Tensor, *, variance: float | Tensor = 1.0) -> Tensor:
    r"""−ln r(x|t) of a decoder with Gaussian noise, in nats, summed over the dimensions of a sample.

    .. math:: -\ln N(x; \hat x, v I) = \sum_i \frac{(x_i - \hat x_i)^2}{2 v} + \tfrac{1}{2} \ln 2 \pi v

    Args:
        x: what is reconstructed or predicted, floating point, shape ``(B, …)``.
        x_hat: of the decoder, of the same shape, or ``(samples, B, …)`` for several draws.
        variance: v, positive: a number, or a tensor of a shape that broadcasts to that of ``x``, such as a learned one.

    Returns:
        Shape ``(B,)``, or ``(samples, B)``: float32 for half precision.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the shapes differ, or a variance is 0 or negative.

    Example:
        >>> import torch
        >>> gaussian_reconstruction(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([2.8379])
    """
    x, x_hat = _checked_reconstruction(x, x_hat)
    if isinstance(variance, Tensor):
        v = in_full_precision(checked_values(variance, "variance", "that broadcasts to that of x"))
        if values_can_be_read() and bool((v <= 0).any()):
            raise ValueError(f"variance must be positive, got {float(v.min()):.4g}: give log_variance.exp(), say.")
    else:
        v = x.new_tensor(checked_number(variance, "variance", above=0))
    return _summed(((x - x_hat).square() / v + (2 * math.pi * v).log()) / 2, x)


def bernoulli_reconstruction(x: Tensor, logits: Tensor) -> Tensor:
    r"""−ln r(x|t) of a decoder of bits, in nats, summed over the dimensions of a sample.

    .. math:: \sum_i -x_i \ln p_i - (1 - x_i) \ln (1 - p_i), \qquad p = \mathrm{sigmoid}(\text{logits})

    Grey values in [0, 1] count as the probability that a bit is 1; the result is then at least their entropy.

    Args:
        x: in [0, 1], floating point, shape ``(B, …)``.
        logits: of the decoder, of the same shape, or ``(samples, B, …)`` for several draws.

    Returns:
        Shape ``(B,)``, or ``(samples, B)``: float32 for half precision.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the shapes differ, or a value of ``x`` is outside of [0, 1].

    Example:
        >>> import torch
        >>> bernoulli_reconstruction(torch.ones(1, 2), torch.zeros(1, 2))
        tensor([1.3863])
    """
    x, logits = _checked_reconstruction(x, logits, "logits")
    if values_can_be_read() and bool(((x < 0) | (x > 1)).any()):
        raise ValueError(
            f"x must lie in [0, 1], got values from {float(x.min()):.4g} to {float(x.max()):.4g}: scale it, or take "
            "gaussian_reconstruction."
        )
    return _summed(F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none"), x)


def _checked_reconstruction(x: Any, x_hat: Any, name: str = "x_hat") -> tuple[Tensor, Tensor]:
    checked_values(x, "x", "(B, …)")
    checked_values(x_hat, name, "(B, …)")
    if x.ndim == 0 or x.numel() == 0 or x.shape not in (x_hat.shape, x_hat.shape[1:]):
        raise ValueError(
            f"x and {name} must have the same shape (B, …), or {name} (samples, B, …), of at least one value, got "
            f"{tuple(x.shape)} and {tuple(x_hat.shape)}."
        )
    return in_full_precision(x), in_full_precision(x_hat)


def _summed(values: Tensor, x: Tensor) -> Tensor:
    """The sum over the dimensions of a sample of x, which may have none."""
    return values.flatten(values.ndim - x.ndim + 1).sum(-1) if x.ndim > 1 else values
