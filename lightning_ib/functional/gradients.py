r"""The signal and the noise of gradients: two sums over the batches of an epoch, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from lightning_ib.functional.checks import checked_integer, checked_number


class GradientSignal(NamedTuple):
    r"""The gradients of an epoch, each the mean over a batch.

    Attributes:
        mean: the norm of their mean, :math:`\|\bar g\|`, in units of the loss per weight.
        std: their spread, :math:`\sqrt{\mathrm{tr}\,\mathrm{Cov}(g)}`, with M − 1 in the denominator.
        snr: the signal-to-noise ratio mean/std, as it is drawn in the field. With no signal at all it is about
            ``floor``.
        snr_unbiased: the same with the part of :math:`\|\bar g\|^2` that is noise taken off; 0 where nothing is left.
        floor: :math:`1/\sqrt M`, the ``snr`` of gradients without any signal.
        noise_scale: :math:`B_\mathrm{simple}`, the batch size at which signal and noise are equal (McCandlish et al.
            2018); infinite where no signal is left, NaN where the batch size is unknown.
    """

    mean: float
    std: float
    snr: float
    snr_unbiased: float
    floor: float
    noise_scale: float


def gradient_signal(
    *,
    mean_square_norm: float,
    square_norm_of_mean: float,
    n_batches: int,
    samples_per_batch: float | None = None,
) -> GradientSignal:
    r"""The signal and the noise of the gradients of M batches.

    With :math:`q = \frac 1M \sum_m \|g_m\|^2` and :math:`s = \|\frac 1M \sum_m g_m\|^2`,

    .. math:: \mathrm{tr}\,\Sigma = \frac{M}{M-1} (q - s), \qquad G^2 = s - \frac{\mathrm{tr}\,\Sigma}{M}

    are unbiased for the trace of the covariance of a batch's gradient and for the squared norm of its expectation, if
    the weights stay and batches are drawn independently. Then :math:`\mathrm{SNR} = \sqrt{s / \mathrm{tr}\,\Sigma}`,
    unbiased :math:`\sqrt{G^2 / \mathrm{tr}\,\Sigma}`, and :math:`B_\mathrm{simple} = B\,\mathrm{tr}\,\Sigma / G^2`.

    Source:
        Drift and diffusion: Shwartz-Ziv & Tishby (2017). Unbiased ratio and noise scale: McCandlish et al. (2018).

    Cost:
        Two sums a layer: 4 ms a step for twelve layers of ResNet-18, 0.3 % of the step.

    Samples:
        M steps: without any signal the ratio is about :math:`1 / \sqrt M`, its floor.

    Trap:
        The ratio grows with the root of the batch size, so that the epoch where it passes 1 is a property of the
        batches as much as of the network. At the floor there is no signal.

    Args:
        mean_square_norm: q, the mean over batches of the squared norm of the gradient.
        square_norm_of_mean: s, the squared norm of the mean gradient.
        n_batches: M.
        samples_per_batch: B, the number of samples a gradient is the mean of; ``None`` where it is unknown.

    Returns:
        NaN in all but ``mean`` for a single batch.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        >>> sums = {"mean_square_norm": 13.6875, "square_norm_of_mean": 9.234375}
        >>> found = gradient_signal(**sums, n_batches=20, samples_per_batch=8)
        >>> round(found.snr_unbiased, 6), round(found.noise_scale, 6)
        (1.385641, 4.166667)
    """
    q = checked_number(mean_square_norm, "mean_square_norm", at_least=0, infinite=True)
    s = checked_number(square_norm_of_mean, "square_norm_of_mean", at_least=0, infinite=True)
    m = checked_integer(n_batches, "n_batches", at_least=1)
    b = math.nan if samples_per_batch is None else checked_number(samples_per_batch, "samples_per_batch", above=0)
    return signal_of([(q, s, m, b)])


def signal_of(parts: Sequence[tuple[float, float, int, float]]) -> GradientSignal:
    r"""The signal and the noise of parameters that may have had gradients in different batches each.

    :math:`\mathrm{tr}\,\Sigma`, s and G² of each are those of :func:`gradient_signal`, and add up. A parameter with a
    single gradient has no spread, and is left out where others have one. The floor is the ratio that is expected
    without any signal, :math:`\sqrt{\sum \mathrm{tr}\,\Sigma_p / M_p \,/ \sum \mathrm{tr}\,\Sigma_p}`.

    Args:
        parts: q, s, M and B of each parameter; B is NaN where it is unknown.
    """
    several = [part for part in parts if part[2] > 1]
    mean_square = math.fsum(s for _, s, _, _ in several or parts)
    most = max((m for _, _, m, _ in parts), default=1)
    if not several or not math.isfinite(mean_square + math.fsum(q for q, _, _, _ in several)):
        return GradientSignal(math.sqrt(mean_square), math.nan, math.nan, math.nan, 1 / math.sqrt(most), math.nan)
    # Rounding may put equal gradients below 0.
    traces = [max(0.0, (q - s) * m / (m - 1)) for q, s, m, _ in several]
    trace = math.fsum(traces)
    of_noise = math.fsum(one / m for one, (_, _, m, _) in zip(traces, several))
    signal = max(0.0, mean_square - of_noise)
    of_a_sample = math.fsum(b * one for one, (_, _, _, b) in zip(traces, several))
    same = all(m == most for _, _, m, _ in several)
    return GradientSignal(
        mean=math.sqrt(mean_square),
        std=math.sqrt(trace),
        snr=_ratio(mean_square, trace),
        snr_unbiased=_ratio(signal, trace),
        floor=1 / math.sqrt(most) if same or trace == 0 else math.sqrt(of_noise / trace),
        noise_scale=math.nan if math.isnan(of_a_sample) else _quotient(of_a_sample, signal),
    )


def _ratio(signal: float, trace: float) -> float:
    return math.sqrt(_quotient(signal, trace))


def _quotient(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan if a == 0 else math.inf


_LEAST_DECADES = 1.5
"""Of time, that an exponent is claimed from."""


class WeightDiffusion(NamedTuple):
    r"""How the distance of weights from their start grows with time, by two laws.

    Attributes:
        exponent: α of :math:`\|w_t - w_0\| \propto t^\alpha`: 1 for a steady drift, 1/2 for a free random walk, 0 in a
            bowl.
        exponent_r2: the share of the variance of log distance that this law explains.
        per_decade: b of :math:`\|w_t - w_0\| = a + b \log_{10} t`, the growth with each decade of time (Hoffer, Hubara
            & Soudry 2017).
        per_decade_r2: the share of the variance of the distance that this law explains.
        first: the first time of the window.
        last: the last time of the window.
    """

    exponent: float
    exponent_r2: float
    per_decade: float
    per_decade_r2: float
    first: float
    last: float


def weight_diffusion(
    times: Sequence[float], *, distances: Sequence[float], window: tuple[float, float] | None = None
) -> WeightDiffusion:
    """Fit a power law and a logarithm to the distance of weights from their start, by least squares.

    Every time counts the same: for measurements that are evenly spaced in log time, every decade does.

    Args:
        times: steps or epochs, those of 0 left out.
        distances: the distance of the weights from their start at each, those of 0 left out.
        window: the times to use, both ends included; by default all.

    Returns:
        NaN in the fits where the window spans less than 1.5 decades or three times: nothing is claimed from so little.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: times and distances differ in number, a distance is negative, or the window is empty.

    Example:
        >>> walk = weight_diffusion([1, 4, 16, 64], distances=[0.5, 1.0, 2.0, 4.0])
        >>> round(walk.exponent, 9), round(walk.exponent_r2, 9)
        (0.5, 1.0)
    """
    if len(times) != len(distances):
        raise ValueError(f"times and distances must be of the same number, got {len(times)} and {len(distances)}.")
    pairs = [
        (checked_number(t, "a time", at_least=0), checked_number(d, "a distance", at_least=0))
        for t, d in zip(times, distances)
    ]
    low, high = (0.0, math.inf) if window is None else window
    if not low < high:
        raise ValueError(f"window must be (first, last) with first < last, got {window!r}.")
    used = [(t, d) for t, d in pairs if t > 0 and d > 0 and low <= t <= high]
    if not used:
        return WeightDiffusion(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
    first, last = min(t for t, _ in used), max(t for t, _ in used)
    if len(used) < 3 or math.log10(last / first) < _LEAST_DECADES:
        return WeightDiffusion(math.nan, math.nan, math.nan, math.nan, first, last)
    log_t = [math.log10(t) for t, _ in used]
    exponent, exponent_r2 = _line(log_t, [math.log10(d) for _, d in used])
    per_decade, per_decade_r2 = _line(log_t, [d for _, d in used])
    return WeightDiffusion(exponent, exponent_r2, per_decade, per_decade_r2, first, last)


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and R² of the least-squares line; R² is NaN for a constant y."""
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    of_x = math.fsum((a - mean_x) ** 2 for a in x)
    of_y = math.fsum((b - mean_y) ** 2 for b in y)
    of_both = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return of_both / of_x, of_both**2 / (of_x * of_y) if of_y > 0 else math.nan
