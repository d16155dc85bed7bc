"""The phases of training, drift and diffusion, read off recorded gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence


def phase_transition(times: Sequence[float], *, snr: Sequence[float], patience: int = 3) -> float:
    r"""The moment from which diffusion outweighs drift: the first after which the SNR stays below 1.

    The field reads it by eye off the curves of mean and spread, which cross there (Shwartz-Ziv & Tishby 2017). It
    depends on the batch size, :math:`\mathrm{SNR} \propto \sqrt B`, and where the SNR is near its floor
    :math:`1/\sqrt M` it says nothing about the signal that is left: compare ``noise_scale``, which is of no batch size.

    Args:
        times: epochs or steps, in ascending order.
        snr: the signal-to-noise ratio at each; NaN where it is unknown, which is passed over.
        patience: how many values, the last included, must lie below 1.

    Returns:
        NaN where there is none: no SNR of 1 or more came before it, or fewer than ``patience`` values come from it on.

    Raises:
        ValueError: times and ratios differ in number, times descend, or ``patience`` is below 1.

    Example:
        >>> phase_transition([1, 2, 3, 4, 5, 6], snr=[5.0, 0.9, 1.2, 0.8, 0.5, 0.4])
        4.0
        >>> phase_transition([1, 2, 3, 4], snr=[0.3, 0.2, 0.2, 0.1])
        nan
    """
    if len(times) != len(snr):
        raise ValueError(f"times and snr must be of the same number, got {len(times)} and {len(snr)}.")
    if any(later < earlier for earlier, later in zip(times, times[1:])):
        raise ValueError("times must be in ascending order: sort them, and the ratios with them.")
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}.")
    known = [(time, ratio) for time, ratio in zip(times, snr) if not math.isnan(ratio)]
    above = [k for k, (_, ratio) in enumerate(known) if ratio >= 1]
    if not above or len(known) - 1 - above[-1] < patience:
        return math.nan
    return float(known[above[-1] + 1][0])
