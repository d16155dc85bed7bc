"""Where the gradients of a run go: the same places, with a picture and a table of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_ib.functional import Unit
from lightning_ib.plot.gradients import plot_gradients
from lightning_ib.records.history import History
from lightning_ib.records.phases import phase_transition
from lightning_ib.report.layout import log_gradient_layout
from lightning_ib.report.reporter import Destination, Reporter

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientReporter(Reporter):
    """Hands gradients to loggers and files, see :class:`Reporter`.

    Args:
        prefix: the first part of every name.
        unit: of informations.
        by: the unit of moments, ``"epoch"`` or ``"step"``.
        normalized: whether the picture divides mean and spread by the norm of the weights.
    """

    main = "gradients"

    def __init__(self, prefix: str, unit: Unit, *, by: str, normalized: bool = True) -> None:
        self.normalized = normalized
        super().__init__(prefix, unit, by=by)

    def lay_out(self, loggers: Sequence[Any]) -> None:
        """Lay out TensorBoard's custom scalars, once a run."""
        if not self._laid_out:
            self._laid_out = True
            log_gradient_layout(loggers, self.prefix, self.warned)

    def _has_content(self, history: History) -> bool:
        return any(math.isfinite(one.value) for one in history.gradients().records() if one.quantity == "grad_std")

    def _by_target(self, history: History) -> dict[str, History]:
        return {"": history}  # gradients are about all targets

    def _draw_beside(self, history: History, to: Destination, files: bool) -> None:
        pass

    def _figure(self, history: History, to: Destination) -> Figure:
        return plot_gradients(history, normalized=self.normalized)

    def _table(self, history: History) -> str:
        return gradient_table(history, self.by)


def gradient_table(history: History, by: str = "epoch") -> str:
    """The first and the last signal-to-noise ratio of each layer, its floor, and the transition.

    Args:
        history: of a run, with gradients.
        by: the unit of moments, ``"epoch"`` or ``"step"``.

    Example:
        >>> from lightning_ib import Record
        >>> values = {("grad_snr", 1): 2.5, ("grad_snr", 8): 0.5, ("grad_snr_floor", 8): 0.1, ("noise_scale", 8): 90.0}
        >>> records = [Record(epoch, 0, "fc", "gradient", name, value) for (name, epoch), value in values.items()]
        >>> print(gradient_table(History(records)))
        gradients, epochs 1 and 8
        layer        SNR         floor  noise scale  transition
        fc     2.500  0.500      0.100           90           -
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for record in history.gradients().records():
        found.setdefault(record.layer, {}).setdefault(record.quantity, {})[getattr(record, by)] = record.value
    moments = sorted({time for of in found.values() for values in of.values() for time in values})
    ends = sorted({moments[0], moments[-1]})
    width = max(5, *map(len, found))
    lines = [
        f"gradients, {by}{'s' * (len(ends) - 1)} {' and '.join(map(str, ends))}",
        f"{'layer':{width}}  {'SNR':^{7 * len(ends) - 2}}         floor  noise scale  transition"[: width + 60],
    ]
    for layer, of in found.items():
        snr, last = of.get("grad_snr", {}), ends[-1]
        ratios = "".join(_shown(snr.get(end, math.nan), 7) for end in ends)
        floor = _shown(of.get("grad_snr_floor", {}).get(last, math.nan), 11)
        noise = of.get("noise_scale", {}).get(last, math.nan)
        scale = f"{'-' if math.isnan(noise) else f'{noise:.3g}':>13}"
        times = sorted(snr)
        transition = phase_transition(times, snr=[snr[time] for time in times]) if times else math.nan
        lines.append(f"{layer:{width}}{ratios}{floor}{scale}{'-' if math.isnan(transition) else f'{transition:g}':>12}")
    return "\n".join(lines)


def _shown(value: float, width: int) -> str:
    return f"{'-' if math.isnan(value) else f'{value:.3f}':>{width}}"
