"""The information that noise in a weight leaves, by quadrature, beside estimates from samples.

The channel is T = (1 + ζ)X with X ~ N(0, 1) and ζ ~ N(0, s²), drawn anew for every sample. Run it as
``python benchmarks/multiplicative_noise.py`` (a minute and a half). It prints a Markdown table in nats: the truth, its
limit for small s, the Gaussian formula with the noise of a random weight, and the mean and standard deviation of every
estimator of two real variables over a few samples.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from cases import normal
from estimators import ESTIMATORS
from scipy import signal, special
from tables import table
from torch import Generator, Tensor

from lightning_ib.functional import gaussian_compression_bound, weight_noise_variance

SCALES = (0.1, 0.3, 1.0, math.inf)
SHOWN = ("plug_in", "ksg_1", "ksg_2", "mixed", "copula", "renyi", "infonce", "smile")


def truth(s: float) -> float:
    r"""I(X;T) in nats.

    T has the sign of X or the other one, whichever ζ makes it, so that sign and size of T are independent. With
    :math:`A = \log |X|` and :math:`B = \log |1 + \zeta|`,

    .. math:: I(X;T) = h(A + B) + E B + \log 2 - \tfrac12 \log (2 \pi e s^2).

    The density of A + B is a convolution. Both factors are smooth and vanish at the ends, where sums over a grid
    converge faster than any power of its step.

    Args:
        s: the standard deviation of ζ; infinite for T = ζX, whose scale is of no account.
    """
    step = 0.02 * min(1.0, s / 0.3)
    log_size = np.arange(-45, 4, step)
    # The factor in units of the noise where that is strong: the scale of T changes no information.
    mean, std = (1.0, s) if s < 1 else (1 / s, 1.0)
    a, b = (_density_of_log(log_size, *of) for of in ((0.0, 1.0), (mean, std)))
    density = signal.fftconvolve(a, b).clip(min=0) * step  # rounding leaves some values below 0
    entropy = special.entr(density).sum() * step
    noise = math.log(2 * math.pi * math.e * std**2) / 2
    return float(entropy + (b * log_size).sum() * step + math.log(2) - noise)


def _density_of_log(log_size: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Of the logarithm of the size of a normal."""
    size = np.exp(log_size)
    both = sum(np.exp(-np.square((sign * size - mean) / std) / 2) for sign in (-1, 1))
    return np.asarray(both * size / (math.sqrt(2 * math.pi) * std))


def small(s: float) -> float:
    """The limit of I(X;T) for small s, in nats: −ln s + (γ + ln 2)/2."""
    return -math.log(s) + (float(np.euler_gamma) + math.log(2)) / 2


def gaussian(s: float) -> float:
    """The Gaussian formula with the noise of a random weight, in nats, which bounds nothing here."""
    if math.isinf(s):
        return 0.0
    one = torch.ones(1, 1, dtype=torch.float64)
    noise = weight_noise_variance(s**2 * one, second_moment=one)
    return gaussian_compression_bound(one, covariance=one, noise_covariance=noise, unit="nats").joint


def sample(s: float, n: int, g: Generator) -> tuple[Tensor, Tensor]:
    """X and T, shape ``(n, 1)`` each."""
    x, zeta = normal(n, 1, g), normal(n, 1, g)
    return x, zeta * x if math.isinf(s) else (1 + s * zeta) * x


def estimates(name: str, s: float, n: int, seeds: int) -> list[float]:
    """An estimator on some samples, in nats."""
    one = ESTIMATORS[name]
    pairs = (sample(s, n, torch.Generator().manual_seed(seed)) for seed in range(seeds))
    return [one.estimate(x[: one.rows], t[: one.rows]) * math.log(2) for x, t in pairs]


def result(names: Sequence[str], n: int, seeds: int) -> str:
    """The table."""
    labels = ["∞" if math.isinf(s) else f"{s:g}" for s in SCALES]
    body = [["truth", *(f"{truth(s):.6f}" for s in SCALES)]]
    body.append(["−ln s + (γ + ln 2)/2", *(f"{small(s):.6f}" if s < 1 else "–" for s in SCALES)])
    body.append(["Gaussian, at noise σ² = s²", *(f"{gaussian(s):.6f}" for s in SCALES)])
    for name in names:
        of = [estimates(name, s, n, seeds) for s in SCALES]
        body.append([ESTIMATORS[name].label, *(f"{statistics.mean(v):.2f} ± {statistics.stdev(v):.2f}" for v in of)])
    return table(["s", *labels], body)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description="The information that noise in a weight leaves, beside estimates.")
    p.add_argument("--rows", type=int, default=5000, help="rows of a sample (%(default)s)")
    p.add_argument("--seeds", type=int, default=5, help="samples, at least 2 (%(default)s)")
    p.add_argument("--estimators", nargs="+", choices=SHOWN, default=SHOWN, help="which estimators (all of them)")
    args = p.parse_args(argv)
    torch.set_num_threads(1)
    print(result(args.estimators, args.rows, args.seeds))


if __name__ == "__main__":
    main()
