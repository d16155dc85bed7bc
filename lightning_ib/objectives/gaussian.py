r"""A stochastic code: the Gaussian encoder q(z|x), the priors r(z) and r(z|y), and the rate between them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ib.functional.checks import checked_choice, checked_integer, checked_number, checked_values
from lightning_ib.objectives.labels import checked_targets, in_full_precision, is_soft, values_can_be_read

Prior = Literal["standard", "learned"]

MIN_STD = 1e-3
"""The least standard deviation of a code, unless another is asked for."""


class BottleneckOutput(NamedTuple):
    """A code and its rate.

    Attributes:
        sample: z, shape ``(B, latent)``, or ``(samples, B, latent)`` where several were asked for. One draw in
            training; the mean in ``eval()``.
        mean: μ(x), shape ``(B, latent)``.
        std: σ(x), shape ``(B, latent)``, positive.
        kl: D[q(z|x) ‖ r(z)] in nats, summed over the latents, shape ``(B,)``; float32 under autocast.
    """

    sample: Tensor
    mean: Tensor
    std: Tensor
    kl: Tensor


class GaussianBottleneck(nn.Module):
    r"""A linear layer to the mean and the standard deviation of a code z, and a draw of it (Alemi et al. 2017).

    .. math:: q(z|x) = N(\mu(x), \mathrm{diag}\, \sigma(x)^2), \qquad \sigma = \sigma_0 + \mathrm{softplus}(\rho)

    σ₀ is ``min_std``. The rate :math:`\mathrm{E}\, D[q(z|x) \| r(z)] = I(X;Z) + D[q(z) \| r(z)]` is an upper bound of
    I(X;Z), in nats. It is a sum over the latents: a mean over them would divide the weight of the rate by their number.

    In training each forward draws one z, which consumes random numbers of torch's global generator. In ``eval()`` the
    code is the mean, and the output is deterministic; ``samples=`` draws in both. A normalization layer on the sample
    changes the code, so that the rate no longer describes it: put it before the bottleneck.

    Args:
        in_features: width of the input.
        latent: width of the code, K.
        prior: r(z): ``"standard"`` for N(0, I), or ``"learned"`` for a Gaussian with learned mean and diagonal standard
            deviation, which starts there and makes the bound tighter.
        init_std: σ of every latent at the start, for every input. With a small one the rate starts high, near
            K ln(1/σ) nats, and takes epochs to fall: 0.0067 gives 4.5 nats per latent.
        min_std: σ₀, the least σ; it bounds the rate of a latent with mean 0 to ln(1/σ₀) nats.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        >>> bottleneck = GaussianBottleneck(256, 32)
        >>> code = bottleneck(torch.randn(100, 256))
        >>> code.sample.shape, code.kl.shape
        (torch.Size([100, 32]), torch.Size([100]))
        >>> bottleneck(torch.randn(100, 256), samples=12).sample.shape
        torch.Size([12, 100, 32])
    """

    def __init__(
        self,
        in_features: int,
        latent: int,
        *,
        prior: Prior = "standard",
        init_std: float = 0.7,
        min_std: float = MIN_STD,
    ) -> None:
        super().__init__()
        self.in_features = checked_integer(in_features, "GaussianBottleneck: in_features", at_least=1)
        self.latent = checked_integer(latent, "GaussianBottleneck: latent", at_least=1)
        self.prior = checked_choice(prior, "GaussianBottleneck: prior", get_args(Prior))
        self.min_std = checked_number(min_std, "GaussianBottleneck: min_std", above=0)
        self.init_std = checked_number(
            init_std,
            "GaussianBottleneck: init_std",
            above=self.min_std,
            advice=f"σ starts above min_std = {self.min_std:g}",
        )
        self.weight = nn.Parameter(torch.empty(2 * self.latent, self.in_features))
        self.bias = nn.Parameter(torch.empty(2 * self.latent))
        if self.prior == "learned":
            self.prior_mean = nn.Parameter(torch.empty(self.latent))
            self.prior_rho = nn.Parameter(torch.empty(self.latent))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew: the means as in :class:`torch.nn.Linear`, every σ at ``init_std``, the prior at N(0, I)."""
        with torch.no_grad():
            bound = 1 / math.sqrt(self.in_features)
            self.weight[: self.latent].uniform_(-bound, bound)
            self.weight[self.latent :].zero_()
            self.bias[: self.latent].uniform_(-bound, bound)
            self.bias[self.latent :].fill_(rho_of(self.init_std, self.min_std))
            if self.prior == "learned":
                self.prior_mean.zero_()
                self.prior_rho.fill_(rho_of(1.0, MIN_STD))

    def forward(self, x: Tensor, samples: int | None = None) -> BottleneckOutput:
        """Encode a batch.

        Args:
            x: floating point, shape ``(B, in_features)``; further dimensions before the last one are kept.
            samples: how many independent draws of z to give, in training and in ``eval()``; by default one draw in
                training and the mean in ``eval()``.

        Raises:
            TypeError: ``x`` is of another kind.
            ValueError: ``x`` has another width, or ``samples`` is below 1.
        """
        checked_values(x, "x", f"(B, {self.in_features})")
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"x must have shape (B, {self.in_features}), as in_features says, got {tuple(x.shape)}: give "
                "x.flatten(1), or another in_features."
            )
        mean, rho = in_full_precision(F.linear(x, self.weight, self.bias)).split(self.latent, -1)
        std = std_of(rho, self.min_std)
        if samples is not None:
            n = checked_integer(samples, "samples", at_least=1)
            sample = mean + std * torch.randn(n, *mean.shape, dtype=mean.dtype, device=mean.device)
        else:
            sample = mean + std * torch.randn_like(mean) if self.training else mean
        if self.prior == "learned":
            kl = _kl(mean, std, self.prior_mean, std_of(self.prior_rho, MIN_STD))
        else:
            kl = _kl(mean, std)
        return BottleneckOutput(sample, mean, std, kl)

    def extra_repr(self) -> str:
        """What it is made from."""
        return (
            f"in_features={self.in_features}, latent={self.latent}, prior={self.prior!r}, init_std={self.init_std:g}, "
            f"min_std={self.min_std:g}"
        )


class ConditionalPrior(nn.Module):
    r"""A learned Gaussian for each class: the reverse encoder r(z|y) of the variational dual IB and of CEB.

    .. math:: r(z|y) = N(m_y, \mathrm{diag}\, s_y^2)

    Its rate :math:`\mathrm{E}\, D[q(z|x) \| r(z|y)] = I(X;Z|Y) + \mathrm{E}_y D[q(z|y) \| r(z|y)]` is an upper bound of
    :math:`I(X;Z|Y) = I(X;Z) - I(Z;Y)`, the part of I(X;Z) that says nothing about the label (Fischer 2020). It is no
    bound of I(X;Z).

    All classes start at N(0, I), so that the rate starts as that of the standard prior.

    Args:
        num_classes: K.
        latent: width of the code.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        >>> bottleneck, prior = GaussianBottleneck(256, 32), ConditionalPrior(10, 32)
        >>> code = bottleneck(torch.randn(100, 256))
        >>> prior.kl(code, torch.randint(10, (100,))).shape
        torch.Size([100])
    """

    def __init__(self, num_classes: int, latent: int) -> None:
        super().__init__()
        self.num_classes = checked_integer(num_classes, "ConditionalPrior: num_classes", at_least=2)
        self.latent = checked_integer(latent, "ConditionalPrior: latent", at_least=1)
        self.mean = nn.Parameter(torch.empty(self.num_classes, self.latent))
        self.rho = nn.Parameter(torch.empty(self.num_classes, self.latent))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew: every class at N(0, I)."""
        with torch.no_grad():
            self.mean.zero_()
            self.rho.fill_(rho_of(1.0, MIN_STD))

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of r(z|y), each of shape ``(B, latent)``, for class labels ``(B,)``.

        Raises:
            TypeError: the labels are of another kind than integers.
            ValueError: one is out of range.
        """
        y = checked_targets(y, self.num_classes, soft=False)
        return self.mean[y], std_of(self.rho, MIN_STD)[y]

    def kl(self, code: BottleneckOutput, y: Tensor) -> Tensor:
        r"""The rate :math:`D[q(z|x) \| r(z|y)]` of every sample, in nats, summed over the latents.

        Args:
            code: from :class:`GaussianBottleneck`, of B samples.
            y: class labels, integers of shape ``(B,)``; or soft labels p(y|x) of shape ``(B, K)``, for which the rate
                is the mean over the labels, and which take ``(B, K, latent)`` numbers of memory.

        Returns:
            Shape ``(B,)``, float32 or float64.

        Raises:
            TypeError: the labels are of another kind.
            ValueError: they have another shape, are out of range or no distributions, or the code has another width.
        """
        mean, std = code.mean, code.std
        if mean.ndim != 2 or mean.shape[1] != self.latent:
            raise ValueError(
                f"code must have shape (B, {self.latent}), as latent says, got {tuple(mean.shape)}: give "
                "ConditionalPrior the latent of the bottleneck."
            )
        y = checked_targets(y, self.num_classes, len(mean))
        if not is_soft(y):
            return _kl(mean, std, self.mean[y], std_of(self.rho, MIN_STD)[y])
        each = _kl(mean[:, None], std[:, None], self.mean, std_of(self.rho, MIN_STD))
        return (y * each).sum(1)

    def cross_entropy(self, code: BottleneckOutput, y: Tensor) -> Tensor:
        r"""The cross-entropy :math:`\mathrm{E}_{q(z|x)} [-\ln r(z|y)]` of every sample, in nats and in closed form.

        .. math::

            \mathrm{E}_{q(z|x)} [-\ln r(z|y)] = D[q(z|x) \| r(z|y)] + \sum_i \ln (\sigma_i \sqrt{2 \pi e})

        Its mean is :math:`H(Z|Y) + \mathrm{E}_y D[q(z|y) \| r(z|y)]`, an upper bound of a differential entropy. It can
        be negative, and is at least the entropy H(Z|X) of the noise, the sum on the right.

        Args:
            code: as in :meth:`kl`.
            y: as in :meth:`kl`.

        Returns:
            Shape ``(B,)``, float32 or float64.

        Raises:
            TypeError: the labels are of another kind.
            ValueError: they have another shape, are out of range or no distributions, or the code has another width.
        """
        noise = in_full_precision(code.std).log() + (1 + math.log(2 * math.pi)) / 2
        return self.kl(code, y) + noise.sum(-1)

    def extra_repr(self) -> str:
        """What it is made from."""
        return f"num_classes={self.num_classes}, latent={self.latent}"


def gaussian_kl(mean: Tensor, std: Tensor, prior_mean: Tensor | None = None, prior_std: Tensor | None = None) -> Tensor:
    r"""The divergence of diagonal Gaussians in nats, summed over the last dimension.

    .. math::

        D[N(\mu, \sigma^2) \| N(m, s^2)]
        = \sum_i \ln \frac{s_i}{\sigma_i} + \frac{\sigma_i^2 + (\mu_i - m_i)^2}{2 s_i^2} - \frac{1}{2}

    NaN in the arguments gives NaN.

    Args:
        mean: μ, floating point, shape ``(…, K)``.
        std: σ, of the same shape, positive.
        prior_mean: m, of a shape that broadcasts to that of μ; by default 0.
        prior_std: s, positive, likewise; by default 1.

    Returns:
        Shape ``(…,)``: float32 for half precision, else the dtype of the arguments.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: the shapes differ, or a standard deviation is 0 or negative.

    Example:
        >>> gaussian_kl(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0]))
        tensor(3.6250)
    """
    for value, name in ((mean, "mean"), (std, "std"), (prior_mean, "prior_mean"), (prior_std, "prior_std")):
        if value is not None:
            checked_values(value, name, "(…, K)")
    if mean.ndim == 0 or mean.shape != std.shape:
        raise ValueError(
            f"mean and std must have the same shape (…, K), got {tuple(mean.shape)} and {tuple(std.shape)}."
        )
    for value, name in ((prior_mean, "prior_mean"), (prior_std, "prior_std")):
        if value is not None and not _broadcasts(value.shape, mean.shape):
            raise ValueError(
                f"{name} must have a shape that broadcasts to that of mean, {tuple(mean.shape)}, got "
                f"{tuple(value.shape)}."
            )
    for value, name in ((std, "std"), (prior_std, "prior_std")):
        if value is not None and values_can_be_read() and bool((value <= 0).any()):
            raise ValueError(
                f"{name} must be positive, got {float(value.min()):.4g}: give torch.nn.functional.softplus(rho) + "
                f"{MIN_STD:g}, say."
            )
    return _kl(mean, std, prior_mean, prior_std)


def _kl(mean: Tensor, std: Tensor, prior_mean: Tensor | None = None, prior_std: Tensor | None = None) -> Tensor:
    mean, std = in_full_precision(mean), in_full_precision(std)
    if prior_mean is not None:
        mean = mean - in_full_precision(prior_mean)
    if prior_std is not None:
        prior_std = in_full_precision(prior_std)
        mean, std = mean / prior_std, std / prior_std
    return (((std - 1) * (std + 1) + mean.square()) / 2 - std.log()).sum(-1)


def std_of(rho: Tensor, min_std: float) -> Tensor:
    """The standard deviation of a parameter: ``min_std + softplus(rho)``, in full precision."""
    return min_std + F.softplus(in_full_precision(rho))


def rho_of(std: float, min_std: float) -> float:
    """The parameter of a standard deviation: the inverse of :func:`std_of`."""
    above = std - min_std
    return above + math.log(-math.expm1(-above))


def _broadcasts(shape: Any, to: Any) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to)))
