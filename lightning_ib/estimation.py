"""Estimators at work on the layers of a measurement: the rows they are shown, what they set once, their figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from lightning_ib.estimators import Estimator, Rows
from lightning_ib.functional import Unit
from lightning_ib.history import Estimate, unit_of
from lightning_ib.sample import Reservoir, this_process

Progress = Callable[[Sequence[tuple[str, Estimator]]], Iterable[tuple[str, Estimator]]]


class Estimation:
    """What estimators that do not bin need of a measurement, and what they come to.

    Args:
        estimators: the estimators at work; where there is none, nothing is kept.
        max_samples: how many rows are sampled of each pass, the same ones at every pass.
        keep_rows: sample rows even where there is no estimator.
    """

    def __init__(self, estimators: Sequence[Estimator], max_samples: int, *, keep_rows: bool = False) -> None:
        self.estimators, self.max_samples = list(estimators), max_samples
        self.active = bool(self.estimators) or keep_rows
        self.needs_input = any(estimator.needs_input for estimator in self.estimators)
        self.settled: dict[str, dict[str, dict[str, float]]] = {}
        """Layer → estimator → what was set from the layer's scale at its first measurement."""
        self._reservoir: Reservoir | None = None
        self._drawn: dict[str, Tensor | Exception] | None = None
        self._gave: dict[tuple[str, str], list[str]] = {}  # the names of figures, by layer and estimator
        self._without_input = False  # whether the input does not come sample by sample

    def reset(self) -> None:
        """Drop the rows; what was settled stays."""
        self._reservoir = self._drawn = None
        self._without_input = False

    def rows(self, values: Tensor) -> Tensor:
        """A copy of the rows to keep of a batch ``(B, …)``."""
        chosen = self._sample().choose(len(values))
        return values.detach()[chosen.to(values.device, non_blocking=True)]

    def keep(self, n: int, layers: Mapping[str, Tensor], x: Tensor | None, y: Tensor | None) -> None:
        """Keep the chosen rows of a batch of ``n``: of the layers as :meth:`rows` gave them, of x and y from whole."""
        self._drawn = None
        if x is not None and (x.ndim == 0 or len(x) != n):
            self._without_input = True
            self._sample().drop("x")
        if y is not None and not y.is_floating_point() and y.numel() == n:
            y = y.reshape(-1)  # class labels, which may come in a column
        others = {"x": None if self._without_input else x, "y": y}
        named = {f"layer {layer}": rows for layer, rows in layers.items()}
        named |= {name: self.rows(values) for name, values in others.items() if values is not None}
        self._sample().keep(n, named)

    def trim(self, n_samples: int) -> None:
        """Leave out what came after the first ``n_samples`` of this process."""
        if self._reservoir is not None:
            self._reservoir.trim(n_samples)

    def drawn(self, layers: Iterable[str]) -> dict[str, Rows]:
        """The sampled rows of each layer, those of all processes; all of them must ask.

        Layers whose samples differ in shape have none.
        """
        if self._drawn is None:
            self._drawn = self._sample().drawn(_gathered if this_process()[1] > 1 else None)
        rows = {name: values for name, values in self._drawn.items() if isinstance(values, Tensor)}
        x, y = rows.get("x"), rows.get("y")
        return {layer: Rows(rows[f"layer {layer}"], y, x) for layer in layers if f"layer {layer}" in rows}

    def _faults(self) -> dict[str, Exception]:
        """Why layers have no rows."""
        drawn = (self._drawn or {}).items()
        return {name.removeprefix("layer "): fault for name, fault in drawn if isinstance(fault, Exception)}

    def estimate(
        self,
        layers: Iterable[str],
        *,
        unit: Unit,
        epoch: int,
        step: int,
        warn: Callable[[str, str], None],
        progress: Progress = lambda pairs: pairs,
    ) -> list[Estimate]:
        """The figures of all estimators for all layers; NaN, and one warning each, where one cannot be had.

        Of several processes, which all must ask, the first does the work.

        Args:
            layers: the layers measured.
            unit: of the informations.
            epoch: what to write into the estimates.
            step: what to write into the estimates.
            warn: takes what a warning is about, to give it once, and its text.
            progress: wraps the pairs of layer and estimator, for a progress bar.
        """
        layers = list(layers)
        rows = self.drawn(layers)
        rank, world = this_process()
        if rank > 0:
            found, self.settled = _broadcast(None)
            return [Estimate._make(estimate) for estimate in found]
        faults = self._faults()
        found = []
        for layer in (layer for layer in layers if layer in faults):
            warn(f"{layer} rows", f"layer {layer!r}: no estimator can be run at epoch {epoch}: {faults[layer]}")
            found += self.missing([layer], unit=unit, epoch=epoch, step=step)
        for layer, estimator in progress([(layer, estimator) for layer in rows for estimator in self.estimators]):
            try:
                figures = self._figures(layer, estimator, rows[layer], unit)
                self._gave[layer, estimator.name] = list(figures)
            except Exception as error:  # of any estimator: none of them ends a training
                figures = dict.fromkeys(self._promised(layer, estimator, rows[layer]), math.nan)
                told = str(error) if str(error).endswith(".") else f"{error}."
                warn(
                    f"{layer} {estimator.name}",
                    f"layer {layer!r}: {estimator.name} could not be estimated at epoch {epoch}, its figures are NaN: "
                    f"{told}",
                )
            found += [
                Estimate(epoch, step, layer, estimator.name, name, value, unit_of(name, unit), len(rows[layer].t))
                for name, value in figures.items()
            ]
        if world > 1:
            _broadcast(([tuple(estimate) for estimate in found], self.settled))
        return found

    def missing(self, layers: Iterable[str], *, unit: Unit, epoch: int, step: int) -> list[Estimate]:
        """The estimates of a measurement that gave none: NaN, under the names they have otherwise."""
        return [
            Estimate(epoch, step, layer, estimator.name, name, math.nan, unit_of(name, unit), 0)
            for layer in layers
            for estimator in self.estimators
            for name in self._promised(layer, estimator)
        ]

    def _promised(self, layer: str, estimator: Estimator, rows: Rows | None = None) -> list[str]:
        """The names of the figures that an estimator gives of a layer: those it gave before, or else says it would."""
        gave = self._gave.get((layer, estimator.name))
        if gave is not None:
            return gave
        try:
            return list(estimator.given) if rows is None else estimator.gives(rows)
        except Exception:
            return list(estimator.given)

    def _figures(self, layer: str, estimator: Estimator, rows: Rows, unit: Unit) -> dict[str, float]:
        rows = rows._replace(t=estimator.pooled(rows.t))
        settled = self.settled.get(layer, {}).get(estimator.name) or estimator.settle(rows)
        if settled:  # what could not be set yet is asked for again
            self.settled.setdefault(layer, {})[estimator.name] = dict(settled)
        return {name: float(value) for name, value in estimator.figures(rows, settled, unit).items()}

    def load(self, settled: Any) -> None:
        """Take up what was settled before.

        Raises:
            ValueError: it is no mapping from layers to estimators to numbers; nothing is taken up then.
        """
        try:
            found = {
                layer: {name: {key: float(value) for key, value in of.items()} for name, of in estimators.items()}
                for layer, estimators in settled.items()
            }
            if not all(math.isfinite(v) for by in found.values() for of in by.values() for v in of.values()):
                raise ValueError
            self.settled = found
        except (AttributeError, TypeError, ValueError):
            raise ValueError(
                "what its estimators were set to is no mapping from layers to estimators to finite numbers"
            ) from None

    def _sample(self) -> Reservoir:
        if self._reservoir is None:
            self._reservoir = Reservoir(self.max_samples, *this_process())
        return self._reservoir


def _broadcast(what: Any) -> Any:
    """What the first process has."""
    box = [what]
    dist.broadcast_object_list(box)
    return box[0]


def _gathered(own: Any) -> list[Any]:
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, own)
    return everywhere


def checked_max_samples(max_samples: int) -> int:
    """How many rows to sample.

    Raises:
        ValueError: fewer than two.
    """
    if isinstance(max_samples, bool) or not isinstance(max_samples, int) or max_samples < 2:
        raise ValueError(f"max_samples must be an integer of at least 2, got {max_samples!r}.")
    return max_samples
