r"""The variational dual information bottleneck."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.functional.checks import checked_choice, checked_number, checked_values
from lightning_ib.objectives.labels import checked_targets, in_full_precision, target_distribution
from lightning_ib.objectives.terms import Reduction, Weight, checked_logits, checked_rate, cross_entropy_of, reduced


class DualIBTerms(NamedTuple):
    r"""A loss and its parts: means over the batch in nats, scalars with gradients, ready for ``self.log_dict``.

    With ``reduction="none"`` each has one value per sample.

    Attributes:
        loss: ``rate + beta · distortion + gamma · dual``.
        rate: the mean of the rate that was given, :math:`\mathrm{E}\, \ln q(z|x) / r`.
        distortion: the cross-entropy :math:`\mathrm{E}\, [-\ln q(y|z)]`. It is at least H(Y|Z), so that
            I(Z;Y) ≥ H(Y) − distortion, for class labels.
        dual: :math:`\mathrm{E}\, D[q(y|z) \| \tilde p(y|x)]`, at least 0; NaN where ``gamma`` is 0 and neither
            ``smoothing`` nor ``soft_labels`` says which :math:`\tilde p` is meant.
    """

    loss: Tensor
    rate: Tensor
    distortion: Tensor
    dual: Tensor


class VariationalDualIBLoss(nn.Module):
    r"""The loss of the variational dual IB (Piran, Shwartz-Ziv & Tishby 2020), in nats.

    .. math::

        L = \mathrm{E}\, \ln \frac{q(z|x)}{r}
        + \beta\, \mathrm{E}\, [-\ln q(y|z)]
        + \gamma\, \mathrm{E}\, D[q(y|z) \| \tilde p(y|x)]

    The first term is the rate, the second the distortion, the third the dual term; each is a mean over the batch, and
    over the draws of z where there are several. The encoder q(z|x) and the prior r are the caller's: ``code.kl`` of a
    :class:`GaussianBottleneck` is the rate of r(z), and :meth:`ConditionalPrior.kl` that of r(z|y).

    Its bounds, for Z – X – Y and any encoder, decoder and prior, with F(β) of
    :func:`lightning_ib.bottleneck.ib_curve` with ``kind="dual"`` and ``unit="nats"``:

    =======  ======  ======  ========================================================================================
    prior    β       γ       L is at least
    =======  ======  ======  ========================================================================================
    r(z)     0       any     F(γ): γ is the β of the dual IB
    r(z)     any     0       I(X;Z) + β H(Y|Z), as in VIB; its usual weight of the rate is 1/β
    r(z|y)   any     0       I(X;Z|Y) + β H(Y|Z), as in CEB; the bottleneck at 1 + β
    r(z)     any     any     I(X;Z) + β H(Y|Z) + γ E D
    r(z|y)   any     any     I(X;Z) + β H(Y|Z) + γ E D − I(Z;Y)
    =======  ======  ======  ========================================================================================

    With γ = 0 it is :class:`VIBLoss` with ``beta=1/β``, times β, or :class:`CEBLoss` with ``gamma=β``.

    E D is the mean of the dual term. The first row holds for :math:`\tilde p(y|x)` that depends on x alone: soft labels
    p(y|x), or labels that are a function of x. In the other rows the excess is D[q(z)‖r(z)], or E D[q(z|y)‖r(z|y)],
    plus β E D[p(y|z)‖q(y|z)].

    The dual term lies between 0 and :math:`\ln (K / s)` for K classes and a smoothing s. It is 0 where
    :math:`q(y|z) = \tilde p(y|x)`, and so limits the confidence of the decoder; the decoder that serves it best is the
    geometric mean of :math:`\tilde p(y|x)` over the x of a z. With both β and γ the decoder is a compromise of the two.

    ``beta`` and ``gamma`` can be set between two steps, as in annealing.

    Args:
        beta: the weight of the distortion, at least 0.
        gamma: the weight of the dual term, at least 0. With 0 the loss is that of CEB or VIB.
        smoothing: s in (0, 1), which makes :math:`\tilde p = (1 - s)\, p + s / K` of class labels or of soft labels p.
            Required for class labels where ``gamma`` is positive.
        reduction: ``"mean"``, or ``"none"`` for terms of the shape of the logits without classes, ``(B,)`` or
            ``(samples, B)``, to be weighed or masked by the caller.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        >>> from lightning_ib.objectives import ConditionalPrior, GaussianBottleneck
        >>> bottleneck, prior = GaussianBottleneck(256, 32), ConditionalPrior(10, 32)
        >>> decoder, loss = nn.Linear(32, 10), VariationalDualIBLoss(beta=10, gamma=10, smoothing=0.1)
        >>> features, y = torch.randn(100, 256), torch.randint(10, (100,))
        >>> code = bottleneck(features)
        >>> terms = loss(decoder(code.sample), y, prior.kl(code, y))
        >>> terms.loss.backward()
    """

    beta = Weight("The weight of the distortion.")
    gamma = Weight("The weight of the dual term.")

    def __init__(
        self, beta: float, gamma: float, *, smoothing: float | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.beta, self.gamma = beta, gamma
        self.reduction = checked_choice(reduction, "VariationalDualIBLoss: reduction", get_args(Reduction))
        self.smoothing = None if smoothing is None else checked_smoothing(smoothing)

    def forward(self, logits: Tensor, y: Tensor, rate: Tensor, *, soft_labels: Tensor | None = None) -> DualIBTerms:
        r"""The loss of a batch of B samples and K classes.

        The values of labels are read, which waits for the device, except inside ``torch.compile``. NaN in logits or
        rates gives NaN.

        Args:
            logits: of the decoder q(y|z), floating point, shape ``(B, K)``, or ``(samples, B, K)`` for several draws.
            y: class labels, integers from 0 to K − 1 of shape ``(B,)``; or soft labels p(y|x), shape ``(B, K)``.
            rate: in nats, summed over the latents, shape ``(B,)``, or ``(samples, B)``.
            soft_labels: :math:`\tilde p(y|x)`, shape ``(B, K)``, for the dual term alone, such as the rows of a
                confusion matrix; by default they are made of ``y``. ``smoothing`` applies to them too.

        Raises:
            TypeError: an argument is of another kind; class labels as real numbers are.
            ValueError: shapes differ, labels are out of range, or the dual term has a :math:`\tilde p` of 0: class
                labels or zeros without ``smoothing``.
        """
        n, k = checked_logits(logits)
        rate = checked_rate(rate, logits.shape[:-1])
        y = checked_targets(y, k, n)
        target = y if soft_labels is None else checked_targets(soft_labels, k, n, name="soft_labels")
        log_q = in_full_precision(logits).log_softmax(-1)
        rate, distortion = rate.to(log_q.dtype), cross_entropy_of(log_q, y)
        if self.gamma == 0 and self.smoothing is None and soft_labels is None:
            dual = torch.full_like(distortion, float("nan"))
        else:
            dual = _divergence(log_q, target_distribution(target, k, self.smoothing, log_q.dtype))
        rate, distortion, dual = (reduced(term, self.reduction) for term in (rate, distortion, dual))
        loss = rate + self.beta * distortion
        return DualIBTerms(loss + self.gamma * dual if self.gamma else loss, rate, distortion, dual)

    def extra_repr(self) -> str:
        """What it is made from."""
        return f"beta={self.beta:g}, gamma={self.gamma:g}, smoothing={self.smoothing}, reduction={self.reduction!r}"


def dual_distortion(logits: Tensor, soft_labels: Tensor) -> Tensor:
    r"""The distortion of the dual IB, in nats: how far the decoder is from :math:`\tilde p(y|x)`.

    .. math:: D[q(y|z) \| \tilde p(y|x)] = \sum_y q(y|z) \ln \frac{q(y|z)}{\tilde p(y|x)}, \qquad q = \mathrm{softmax}

    It is 0 only where they are equal, and at most :math:`-\ln \min_y \tilde p(y|x)`; the cross-entropy has no limit.

    Args:
        logits: floating point, shape ``(…, B, K)``.
        soft_labels: positive, rows summing to 1, shape ``(B, K)``.

    Returns:
        Shape ``(…, B)``: float32 for half precision.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the shapes differ, or a soft label is 0.

    Example:
        >>> p = torch.tensor([[0.9, 0.1], [0.5, 0.5]])
        >>> dual_distortion(torch.zeros(2, 2), p)
        tensor([0.5108, 0.0000])
    """
    n, k = checked_logits(logits)
    p = checked_targets(checked_values(soft_labels, "soft_labels", f"({n}, {k})"), k, n, name="soft_labels")
    log_q = in_full_precision(logits).log_softmax(-1)
    return _divergence(log_q, target_distribution(p, k, None, log_q.dtype))


def _divergence(log_q: Tensor, p: Tensor) -> Tensor:
    log_q = log_q.clamp_min(torch.finfo(log_q.dtype).min)  # a class that is masked by -inf adds 0
    return F.kl_div(p.log(), log_q, reduction="none", log_target=True).sum(-1)


def checked_smoothing(value: Any) -> float:
    """A smoothing amount.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is outside of (0, 1).
    """
    amount = checked_number(value, "smoothing", above=0, at_most=1, advice="give 0.1, say")
    if amount == 1:
        raise ValueError("smoothing must be below 1, got 1, which leaves nothing of the labels: give 0.1, say.")
    return amount
