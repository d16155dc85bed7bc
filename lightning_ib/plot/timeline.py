"""Time in pictures: which moments are marked, and the axis of epochs or steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A path has at most so many corners, and small dots at all of them where there are few.
_MOST_CORNERS, MOST_DOTS = 120, 24


def marked_times(times: Sequence[int]) -> set[int]:
    """The times with a larger marker: the first at or after each of 0, 1, 10, 100, …, and the last.

    Example:
        >>> sorted(marked_times([0, 5, 10, 15, 20]))
        [0, 5, 10, 20]
    """
    decades = [10**k for k in range(len(str(times[-1])))]
    return {times[0], times[-1], *(next(t for t in times if t >= d) for d in decades if d <= times[-1])}


def thinned(times: Sequence[int], marked: set[int]) -> set[int]:
    """The times at which a path has corners: all of them, or of many some in equal ratios."""
    if len(times) <= _MOST_CORNERS:
        return set(times)
    ratios = (len(times) ** (k / _MOST_CORNERS) for k in range(_MOST_CORNERS + 1))
    return marked | {times[min(len(times), round(ratio)) - 1] for ratio in ratios}


def progress(time: int, times: Sequence[int]) -> float:
    """How far along a run a moment is, from 0 to 1, on a logarithmic scale."""
    if time == times[-1]:
        return 1.0
    return math.log1p(time - times[0]) / math.log1p(times[-1] - times[0])


def scale_time(axes: Axes, times: Sequence[int], *, room_for_names: bool = False) -> None:
    """The axis of epochs or steps: logarithmic from 1 on where there are many."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    first, last = min(times), max(times)
    if last > MOST_DOTS:
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlim(first * 0.8 - 0.2, last * (1 + last) ** (0.25 if room_for_names else 0.04))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        span = max(1, last - first)
        axes.set_xlim(first - 0.05 * span, last + (0.25 if room_for_names else 0.05) * span)
