r"""Losses whose rate compares the samples of a batch, for a network without a stochastic layer of its own."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from lightning_ib.functional.checks import checked_choice, checked_flag, checked_number
from lightning_ib.objectives.bounds import ZERO_ENTROPY_NOISE, log_variance_bound, nonlinear_ib_bound
from lightning_ib.objectives.gather import gather_batch
from lightning_ib.objectives.labels import checked_class_numbers
from lightning_ib.objectives.terms import (
    IBTerms,
    Reduction,
    Weight,
    checked_code,
    checked_logits,
    cross_entropy,
    reduced,
)

Surrogate = Literal["log_variance_given_y", "log_variance", "square_norm"]
Power = Literal[1, 2]


class NonlinearIBLoss(nn.Module):
    r"""The loss of the nonlinear information bottleneck (Kolchinsky, Tracey & Wolpert 2019), in nats.

    .. math:: L = \mathrm{E}\, [-\ln q(y|z)] + \beta\, \hat I^{\,p}, \qquad z = \mu(x) + \varepsilon

    :math:`\hat I` is :func:`nonlinear_ib_bound` of the means in the batch, an upper bound of I(X;Z), X being uniform
    over the batch, for noise ε of one variance in all dimensions. It needs no prior r(z). **It is at most ln(batch)**:
    a code with more information is saturated, and a larger batch shows more of it. Where labels are a function of x, p
    = 1 reaches the ends of the curve alone; p = 2 gives every point of it, one for each β (Kolchinsky, Tracey & Van
    Kuyk 2019).

    The caller adds the noise, of this variance, to what the decoder gets, in training and for draws at prediction. A
    :class:`GaussianBottleneck` has a σ of its own for every input and fits :class:`VIBLoss`.

    ``beta`` can be set between two steps: see :class:`Annealing`.

    Args:
        beta: the weight of the rate, at least 0.
        power: p, 1 or 2.
        noise_variance: of ε, positive. It sets the scale of the code, which the network can adapt to it.
        reduction: ``"mean"``, or ``"none"`` for a loss and a distortion per sample; the rate is one value for the
            batch.
        gather: whether the rate is that of the batch of all processes, by :func:`gather_batch`, where several train;
            otherwise each process takes its own share, at most ln(share).

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        In ``training_step``, with ``self.log_dict(terms._asdict())``:

        >>> import torch
        >>> encoder, decoder = nn.Linear(256, 32), nn.Linear(32, 10)
        >>> loss = NonlinearIBLoss(beta=0.1, power=2, noise_variance=1.0)
        >>> features, y = torch.randn(100, 256), torch.randint(10, (100,))
        >>> mean = encoder(features)
        >>> sample = mean + loss.noise_variance**0.5 * torch.randn_like(mean)
        >>> terms = loss(decoder(sample), y, mean)
        >>> terms.loss.backward()
    """

    beta = Weight("The weight of the rate.")

    def __init__(
        self,
        beta: float,
        *,
        power: Power = 1,
        noise_variance: float = 1.0,
        reduction: Reduction = "mean",
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.power = checked_choice(power, "NonlinearIBLoss: power", get_args(Power))
        self.noise_variance = checked_number(noise_variance, "NonlinearIBLoss: noise_variance", above=0)
        self.reduction = checked_choice(reduction, "NonlinearIBLoss: reduction", get_args(Reduction))
        self.gather = checked_flag(gather, "NonlinearIBLoss: gather")

    def forward(self, logits: Tensor, y: Tensor, mean: Tensor) -> IBTerms:
        r"""The loss of a batch of B samples and K classes; its ``rate`` is :math:`\hat I`, without the power.

        Args:
            logits: of the decoder on noisy codes, floating point, shape ``(B, K)``, or ``(samples, B, K)``.
            y: class labels, integers of shape ``(B,)``; or soft labels, shape ``(B, K)``.
            mean: μ(x), *before* the noise, floating point, shape ``(B, D)``.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: shapes differ, or labels are out of range.
        """
        distortion = reduced(cross_entropy(logits, y), self.reduction)
        mean = checked_code(mean, "mean", logits.shape[-2])
        rate = nonlinear_ib_bound(gather_batch(mean) if self.gather else mean, self.noise_variance)
        return IBTerms(distortion + self.beta * rate**self.power, rate, distortion)

    def extra_repr(self) -> str:
        """What it is made from."""
        return (
            f"beta={self.beta:g}, power={self.power}, noise_variance={self.noise_variance:g}, "
            f"reduction={self.reduction!r}, gather={self.gather}"
        )


class SurrogateIBLoss(nn.Module):
    r"""The cross-entropy and a surrogate for the entropy of a layer (Kirsch, Lyle & Gal 2021).

    .. math:: L = \mathrm{E}\, [-\ln q(y|t)] + \gamma\, S(t)

    It has no parameters, so that it fits an existing network; T is any layer, with zero-entropy noise in theory.

    ==========================  ======================================================================================
    kind                        S, the ``rate`` of the terms
    ==========================  ======================================================================================
    ``"log_variance_given_y"``  :func:`log_variance_bound` given y: of h(T+ε|Y), in nats, which is I(X;T+ε|Y)
    ``"log_variance"``          :func:`log_variance_bound`: of h(T+ε), in nats, which is I(X;T+ε)
    ``"square_norm"``           E ‖T‖², which bounds the second by way of ln(1 + v) ≤ v; in the square of T's unit
    ==========================  ======================================================================================

    The informations are those for noise ε of variance 1/(2πe), the default, and T a function of X. In the paper the
    noise is added to T in training, which the caller does; the loss is given T without noise, whose variance it adds
    itself.

    ``gamma`` can be set between two steps: see :class:`Annealing`.

    Args:
        gamma: the weight of the surrogate, at least 0.
        kind: the surrogate. Of ``"log_variance_given_y"`` a class with a single sample in the batch is left out.
        noise_variance: of ε, positive.
        reduction: ``"mean"``, or ``"none"`` for a loss and a distortion per sample; the rate is one value for the
            batch.
        gather: whether variances are those of the batch of all processes, by :func:`gather_batch`, where several train;
            otherwise each process takes its own share. The square norm is a mean over samples, and needs none of it.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        In ``training_step``, with ``self.log_dict(terms._asdict())``:

        >>> import torch
        >>> encoder, decoder, loss = nn.Linear(256, 32), nn.Linear(32, 10), SurrogateIBLoss(gamma=0.01)
        >>> features, y = torch.randn(100, 256), torch.randint(10, (100,))
        >>> t = encoder(features)
        >>> noise = loss.noise_variance**0.5 * torch.randn_like(t)
        >>> terms = loss(decoder(t + noise), y, t)
        >>> terms.loss.backward()
    """

    gamma = Weight("The weight of the surrogate.")

    def __init__(
        self,
        gamma: float,
        kind: Surrogate = "log_variance_given_y",
        *,
        noise_variance: float = ZERO_ENTROPY_NOISE,
        reduction: Reduction = "mean",
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.kind = checked_choice(kind, "SurrogateIBLoss: kind", get_args(Surrogate))
        self.noise_variance = checked_number(noise_variance, "SurrogateIBLoss: noise_variance", above=0)
        self.reduction = checked_choice(reduction, "SurrogateIBLoss: reduction", get_args(Reduction))
        self.gather = checked_flag(gather, "SurrogateIBLoss: gather")

    def forward(self, logits: Tensor, y: Tensor, t: Tensor) -> IBTerms:
        """The loss of a batch of B samples and K classes.

        Args:
            logits: floating point, shape ``(B, K)``, or ``(samples, B, K)``.
            y: class labels, integers of shape ``(B,)``; or, unless the surrogate is given y, soft labels ``(B, K)``.
            t: the representation, floating point, shape ``(B, D)``; further dimensions are flattened.

        Raises:
            TypeError: an argument is of another kind.
            ValueError: shapes differ, or labels are out of range.
        """
        distortion = reduced(cross_entropy(logits, y), self.reduction)
        n, _ = checked_logits(logits)
        rate = self._surrogate(checked_code(t, "t", n), y)
        return IBTerms(distortion + self.gamma * rate, rate, distortion)

    def _surrogate(self, t: Tensor, y: Tensor) -> Tensor:
        if self.kind == "square_norm":
            return t.square().sum(1).mean()
        classes = None
        if self.kind == "log_variance_given_y":
            classes = checked_class_numbers(y, len(t))
            classes = gather_batch(classes) if self.gather else classes
        t = gather_batch(t) if self.gather else t
        return log_variance_bound(t, classes, noise_variance=self.noise_variance)

    def extra_repr(self) -> str:
        """What it is made from."""
        return (
            f"gamma={self.gamma:g}, kind={self.kind!r}, noise_variance={self.noise_variance:g}, "
            f"reduction={self.reduction!r}, gather={self.gather}"
        )
