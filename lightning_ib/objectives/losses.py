r"""Rate and distortion: the losses of VIB and of CEB."""

from __future__ import annotations

from typing import get_args

from torch import Tensor, nn

from lightning_ib.functional.checks import checked_choice, checked_values
from lightning_ib.objectives.labels import in_full_precision
from lightning_ib.objectives.terms import IBTerms, Reduction, Weight, checked_rate, cross_entropy, reduced


class RateDistortionLoss(nn.Module):
    """What :class:`VIBLoss` and :class:`CEBLoss` share: a rate, a distortion, and their weighted sum.

    A subclass weighs the two otherwise, by :meth:`weighed`.

    Args:
        reduction: ``"mean"``, or ``"none"`` for terms of the shape of the logits without classes.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, reduction: Reduction) -> None:
        super().__init__()
        self.reduction = checked_choice(reduction, f"{type(self).__name__}: reduction", get_args(Reduction))

    def forward(self, logits: Tensor, y: Tensor, rate: Tensor) -> IBTerms:
        """The loss of a batch of B samples and K classes.

        The values of labels are read, which waits for the device, except inside ``torch.compile``. NaN in logits or
        rates gives NaN.

        Args:
            logits: of the decoder q(y|z), floating point, shape ``(B, K)``, or ``(samples, B, K)`` for several draws.
            y: class labels, integers from 0 to K − 1 of shape ``(B,)``; or soft labels p(y|x), shape ``(B, K)``.
            rate: in nats, summed over the latents, shape ``(B,)``, or ``(samples, B)``.

        Raises:
            TypeError: an argument is of another kind; class labels as real numbers are.
            ValueError: shapes differ, or labels are out of range.
        """
        return self.combine(cross_entropy(logits, y), rate)

    def combine(self, distortion: Tensor, rate: Tensor) -> IBTerms:
        """The loss for a decoder other than a classifier, whose distortion −ln q(y|z) is given.

        Args:
            distortion: in nats, such as that of :func:`~lightning_ib.objectives.gaussian_reconstruction` of a target,
                shape ``(B,)``, or ``(samples, B)`` for several draws.
            rate: in nats, summed over the latents, shape ``(B,)``, or ``(samples, B)``.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: the shapes differ.
        """
        checked_values(distortion, "distortion", "(B,)")
        if distortion.ndim == 0 or distortion.numel() == 0:
            raise ValueError(
                f"distortion must have one value in nats for each sample, shape (B,), or (samples, B), got "
                f"{tuple(distortion.shape)}: give it without a mean over the batch."
            )
        rate, distortion = checked_rate(rate, distortion.shape), in_full_precision(distortion)
        rate, distortion = reduced(rate, self.reduction), reduced(distortion, self.reduction)
        return IBTerms(self.weighed(rate, distortion), rate, distortion)

    def weighed(self, rate: Tensor, distortion: Tensor) -> Tensor:
        """The weighted sum, of means or of values per sample."""
        raise NotImplementedError


class VIBLoss(RateDistortionLoss):
    r"""The loss of the variational information bottleneck (Alemi et al. 2017), in nats.

    .. math::

        L = \mathrm{E}\, [-\ln q(y|z)] + \beta\, \mathrm{E}\, D[q(z|x) \| r(z)] \;\geq\; H(Y|Z) + \beta\, I(X;Z)

    The first term is the distortion, the second the rate; each is a mean over the batch, and over the draws of z where
    there are several. A rate is a sum over the latents, as ``code.kl`` is. The β of the bottleneck, :math:`\min I(X;Z)
    - \beta_{IB} I(Z;Y)`, is :math:`1 / \beta`, so that :class:`VariationalDualIBLoss` with ``beta=1/β`` and ``gamma=0``
    is the same loss times :math:`1 / \beta`. Above a critical β, at most 1, the optimum has rate 0 and the code no
    information.

    ``beta`` can be set between two steps: see :class:`Annealing`. For what it is called with, and for the distortion of
    another decoder, see :class:`RateDistortionLoss`.

    Args:
        beta: the weight of the rate, at least 0; on images of digits 1e-3 to 0.1.
        reduction: ``"mean"``, or ``"none"`` for terms of the shape of the logits without classes, ``(B,)`` or
            ``(samples, B)``, to be weighed or masked by the caller.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        In ``training_step``, with ``self.log_dict(terms._asdict())``:

        >>> import torch
        >>> from lightning_ib.objectives import GaussianBottleneck
        >>> bottleneck, decoder = GaussianBottleneck(256, 32), nn.Linear(32, 10)
        >>> loss = VIBLoss(beta=1e-3)
        >>> features, y = torch.randn(100, 256), torch.randint(10, (100,))
        >>> code = bottleneck(features)
        >>> terms = loss(decoder(code.sample), y, code.kl)
        >>> terms.loss.backward()
    """

    beta = Weight("The weight of the rate.")

    def __init__(self, beta: float, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.beta = beta

    def weighed(self, rate: Tensor, distortion: Tensor) -> Tensor:
        """``distortion + beta · rate``."""
        return distortion + self.beta * rate

    def extra_repr(self) -> str:
        """What it is made from."""
        return f"beta={self.beta:g}, reduction={self.reduction!r}"


class CEBLoss(RateDistortionLoss):
    r"""The loss of the conditional entropy bottleneck (Fischer 2020), in nats.

    .. math::

        L = \gamma\, \mathrm{E}\, [-\ln q(y|z)] + \mathrm{E}\, \ln \frac{q(z|x)}{b(z|y)}
        \;\geq\; \gamma\, H(Y|Z) + I(X;Z|Y)

    The rate is that of :meth:`ConditionalPrior.kl`, which is the reverse encoder b(z|y). Since :math:`I(X;Z|Y) = I(X;Z)
    - I(Z;Y)`, the loss bounds :math:`I(X;Z) - (\gamma + 1) I(Z;Y) + \gamma H(Y)`: the bottleneck at :math:`\beta_{IB} =
    \gamma + 1`, which :class:`VIBLoss` has at :math:`\beta = 1 / (\gamma + 1)`. γ = 1 is the minimum necessary
    information in Fischer's sense. The rate is 0 where Z depends on X through Y alone; it bounds I(X;Z|Y) and is no
    bound of I(X;Z).

    The same loss is :class:`VariationalDualIBLoss` with ``beta=γ`` and ``gamma=0``. ``gamma`` can be set between two
    steps: see :class:`Annealing`. For what it is called with, see :class:`RateDistortionLoss`.

    Args:
        gamma: the weight of the distortion, at least 0.
        reduction: ``"mean"``, or ``"none"`` for terms of the shape of the logits without classes, ``(B,)`` or
            ``(samples, B)``, to be weighed or masked by the caller.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        In ``training_step``, with ``self.log_dict(terms._asdict())``:

        >>> import torch
        >>> from lightning_ib.objectives import ConditionalPrior, GaussianBottleneck
        >>> bottleneck, prior = GaussianBottleneck(256, 32), ConditionalPrior(10, 32)
        >>> decoder, loss = nn.Linear(32, 10), CEBLoss(gamma=1)
        >>> features, y = torch.randn(100, 256), torch.randint(10, (100,))
        >>> code = bottleneck(features)
        >>> terms = loss(decoder(code.sample), y, prior.kl(code, y))
        >>> terms.loss.backward()
    """

    gamma = Weight("The weight of the distortion.")

    def __init__(self, gamma: float, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.gamma = gamma

    def weighed(self, rate: Tensor, distortion: Tensor) -> Tensor:
        """``gamma · distortion + rate``."""
        return self.gamma * distortion + rate

    def extra_repr(self) -> str:
        """What it is made from."""
        return f"gamma={self.gamma:g}, reduction={self.reduction!r}"
