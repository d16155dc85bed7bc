"""Runs estimators on the layers of a measurement: their rows, calibrated hyperparameters and estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_ib.distributed import on_rank_zero
from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.estimators.geometry import MOST_CHANNELS, Companion, LabelsOutOfRange, LayerClasses, LayerDrift
from lightning_ib.estimators.reliability import bound_of_target, estimate_verdict
from lightning_ib.estimators.soft import Soft
from lightning_ib.functional import ClassSums, SoftEntropy, Unit
from lightning_ib.functional.checks import sentence
from lightning_ib.functional.geometry.rows import rounding_of
from lightning_ib.measurement.drift import Drift
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.measurement.streams import ClassStreams, Streams
from lightning_ib.records.earlier import present_name
from lightning_ib.records.record import Record

_ERROR = "_se"
"""Ends the name of a standard error among the values of an estimator."""

Progress = Callable[[Sequence[tuple[str, Estimator]]], Iterable[tuple[str, Estimator]]]


class _Moment(NamedTuple):
    """When and how layers are estimated."""

    epoch: int
    step: int
    unit: Unit
    warn: Callable[[str, str], None]


class Estimation:
    """Runs the estimators on the sampled rows of a measurement.

    Args:
        estimators: the estimators at work, and companions.
    """

    def __init__(self, estimators: Sequence[Estimator]) -> None:
        self.estimators = list(estimators)
        self.needs_input = any(estimator.needs_input for estimator in self.estimators)
        self.raw_samples = max((one.max_samples for one in self.estimators if one.raw), default=0)
        self.channel_samples = max((one.max_samples for one in self.estimators if one.channels), default=0)
        self.compares_samples = any(isinstance(one, LayerDrift) for one in self.estimators)
        """Whether samples are to be recognized at later measurements."""
        self.calibration: dict[str, dict[str, dict[str, float]]] = {}
        """Layer → estimator → hyperparameters calibrated to the layer's scale at its first measurement."""
        self.streams = Streams(next((one for one in self.estimators if isinstance(one, Soft)), None))
        """Running sums of soft entropy over every sample."""
        self.class_streams = ClassStreams(next((one for one in self.estimators if isinstance(one, LayerClasses)), None))
        """Running sums of classes over every sample."""
        self.drift = Drift()
        """The first rows of each layer, and sketches of all."""
        self._bounds: dict[tuple[str, int], float] = {}  # on I(T;Y), by target and number of rows: of a measurement
        self._quantities: dict[tuple[str, str, str], list[str]] = {}  # of the last estimate: layer, estimator, target
        self._centered: set[str] = set()  # the layers whose center of the next pass is set, by the first target

    def estimate(
        self,
        layers: Iterable[str],
        drawn: Drawn,
        *,
        shared: bool,
        unit: Unit,
        epoch: int,
        step: int,
        warn: Callable[[str, str], None],
        targets: Sequence[str] = ("",),
        progress: Progress = lambda pairs: pairs,
    ) -> list[Record]:
        """The values of all estimators for all layers; NaN, and one warning each, where an estimator fails.

        Of several processes, which all must call this, the first does the work.

        Args:
            layers: the layers measured.
            drawn: their rows.
            shared: whether several processes measure together.
            unit: of the informations.
            epoch: written into the estimates.
            step: written into the estimates.
            warn: takes the key of a warning, so that it appears once, and its text.
            targets: their names, the primary first; of a single one an empty name.
            progress: wraps the pairs of layer and estimator, for a progress bar.
        """
        layers, at = list(layers), _Moment(epoch, step, unit, warn)
        sums: dict[type[Estimator], Mapping[str, Mapping[str, SoftEntropy | ClassSums]]] = {}
        if self.streams.soft:
            sums[Soft] = self.streams.summed(shared=shared)
        if self.class_streams.classes:
            sums[LayerClasses] = self.class_streams.summed(shared=shared)
        about = {target: drawn.about(target) for target in targets}
        self._centered.clear()
        self._bounds.clear()

        def work() -> tuple[list[Record], Any, Any, Any]:
            """The results that the first process broadcasts."""
            found: list[Record] = []
            named: dict[str, Any] = {"unit": unit, "epoch": epoch, "step": step, "targets": targets}
            self._begin_drift(drawn, at)
            for layer in (layer for layer in layers if layer in drawn.faults):
                warn(
                    f"{layer} rows", f"layer {layer!r}: no estimator can be run at epoch {epoch}: {drawn.faults[layer]}"
                )
                found += self.missing([layer], **named)
            pairs = [(layer, one) for layer in layers if layer in drawn.layers for one in self.estimators]
            for layer, estimator in progress(pairs):
                if (fault := _fault(estimator, layer, drawn)) is not None:
                    self._warn_of_failure(layer, estimator, fault, at)
                    found += self.missing([layer], **named, estimators=[estimator])
                    continue
                of_layer = next((of.get(layer, {}) for kind, of in sums.items() if isinstance(estimator, kind)), {})
                found += self._about_all(layer, estimator, about, of_layer, at)
            return found, self.calibration, self.streams.state(), self._quantities

        found, self.calibration, self.streams.centers, self._quantities = on_rank_zero(work) if shared else work()
        return [Record._make(record) for record in found]

    def _about_all(
        self,
        layer: str,
        estimator: Estimator,
        about: Mapping[str, Drawn],
        sums: Mapping[str, SoftEntropy | ClassSums],
        at: _Moment,
    ) -> list[Record]:
        """The values of one estimator for one layer about all targets; what is about none comes once, of the first."""
        found: list[Record] = []
        places: dict[str, int] = {}  # of the values about no target
        for k, (target, drawn) in enumerate(about.items()):
            rows = rows_for(estimator, layer, drawn)
            if k and not _concerns_target(estimator, rows):
                continue
            for record in self._estimated(layer, estimator, target, rows, sums.get(target), at):
                quantity = record.quantity
                if estimator.is_about_target(quantity):
                    found.append(record._replace(target=target))
                elif quantity not in places:
                    places[quantity] = len(found)
                    found.append(record)
                elif math.isnan(found[places[quantity]].value):
                    found[places[quantity]] = record
        return found

    def _estimated(
        self,
        layer: str,
        estimator: Estimator,
        target: str,
        rows: Rows,
        sums: SoftEntropy | ClassSums | None,
        at: _Moment,
    ) -> list[Record]:
        """The values of one estimator for one layer and one target."""
        n_samples = len(rows.t)
        if not estimator.applies(rows):
            self._quantities[layer, estimator.name, target] = []
            return []
        try:
            if isinstance(estimator, Soft) and layer in self.streams.faults:
                self.streams.centers.pop(layer, None)
                raise self.streams.faults[layer]
            rows = rows._replace(t=estimator.pooled(rows.t))
            if sums is not None:
                values, n_samples = self._streamed(layer, sums, rows, at.unit)
            else:
                values = self._values(layer, estimator, rows, at.unit)
            errors = {name: values.pop(f"{name}{_ERROR}") for name in list(values) if f"{name}{_ERROR}" in values}
            self._quantities[layer, estimator.name, target] = list(values)
            self._remark(layer, estimator, target, values, rows, at)
        except Exception as error:  # a failing estimator must leave training running
            values, errors = dict.fromkeys(self._expected_quantities(layer, estimator, target, rows), math.nan), {}
            if not estimator.optional or _is_sound(rows):  # unsound rows have their own warning
                self._warn_of_failure(layer, estimator, error, at, target)
        calibration = self.calibration.get(layer, {}).get(estimator.name, {})
        bound = self._bound(target, rows, at.unit)
        verdict = estimate_verdict(
            values, rows, at.unit, calibration, estimator, n_samples=n_samples, errors=errors, bound=bound
        )
        if isinstance(estimator, Companion):
            verdict = estimator.verdicts(values, rows)
        return [
            Record(
                *(at.epoch, at.step, layer, estimator.name, name, value),
                standard_error=errors.get(name, math.nan),
                unit=estimator.unit_of(name, at.unit),
                n_samples=n_samples,
                verdict=verdict[name],
            )
            for name, value in values.items()
        ]

    def _bound(self, target: str, rows: Rows, unit: Unit) -> float:
        """The bound on information about a target, counted once for all layers; infinity where that fails."""
        key = target, len(rows.t)
        if key not in self._bounds:
            try:
                self._bounds[key] = bound_of_target(rows, unit)
            except Exception:  # a verdict must leave training running
                self._bounds[key] = math.inf
        return self._bounds[key]

    def _begin_drift(self, drawn: Drawn, at: _Moment) -> None:
        n = next((one.max_samples for one in self.estimators if isinstance(one, LayerDrift)), None)
        if n is not None and (doubt := self.drift.begin(drawn, n, epoch=at.epoch, step=at.step)):
            at.warn("drift samples", doubt)

    @staticmethod
    def _remark(
        layer: str, estimator: Estimator, target: str, values: Mapping[str, float], rows: Rows, at: _Moment
    ) -> None:
        """Warn of what a user must know about the values of a companion, once for all layers."""
        if isinstance(estimator, Companion):
            name = _called(estimator, target)
            for key, remark in estimator.remarks(values, rows).items():
                at.warn(f"{name} {key}", f"layer {layer!r}: {name} at epoch {at.epoch}: {remark}")

    @staticmethod
    def _warn_of_failure(layer: str, estimator: Estimator, error: Exception, at: _Moment, target: str = "") -> None:
        name = _called(estimator, target)
        message = f"{name} could not be estimated at epoch {at.epoch}, its values are NaN: {sentence(error)}"
        if estimator.optional:
            at.warn(name, f"{message} Give estimators=() to go without.")
        else:
            at.warn(name if isinstance(error, LabelsOutOfRange) else f"{layer} {name}", f"layer {layer!r}: {message}")

    def missing(
        self,
        layers: Iterable[str],
        *,
        unit: Unit,
        epoch: int,
        step: int,
        targets: Sequence[str] = ("",),
        estimators: Sequence[Estimator] | None = None,
    ) -> list[Record]:
        """The records of a failed measurement: NaN under the usual names."""
        return [
            Record(
                *(epoch, step, layer, estimator.name, name, math.nan),
                unit=estimator.unit_of(name, unit),
                target=target if estimator.is_about_target(name) else "",
            )
            for layer in layers
            for estimator in (self.estimators if estimators is None else estimators)
            for target in targets
            for name in self._expected_quantities(layer, estimator, target)
            if target == targets[0] or estimator.is_about_target(name)
        ]

    def _expected_quantities(
        self, layer: str, estimator: Estimator, target: str, rows: Rows | None = None
    ) -> list[str]:
        """The quantities of an estimator for a layer: those of its last estimate, else those it announces."""
        known = self._quantities.get((layer, estimator.name, target))
        if known is not None:
            return known
        try:
            return list(estimator.outputs) if rows is None else estimator.outputs_for(rows)
        except Exception:
            return list(estimator.outputs)

    def _values(self, layer: str, estimator: Estimator, rows: Rows, unit: Unit) -> dict[str, float]:
        calibration = self.calibration.get(layer, {}).get(estimator.name) or estimator.calibrate(rows)
        if calibration:  # a calibration that is still undefined is retried at the next measurement
            self.calibration.setdefault(layer, {})[estimator.name] = dict(calibration)
        if isinstance(estimator, LayerDrift):
            return self.drift.compared(layer, rows)
        if isinstance(estimator, Soft) and layer not in self._centered and bool(rows.t.isfinite().all()):
            self._centered.add(layer)
            self.streams.centers[layer] = rows.t.double().mean(0)
        return {name: float(value) for name, value in estimator.estimate(rows, calibration, unit).items()}

    def _streamed(
        self, layer: str, sums: SoftEntropy | ClassSums, rows: Rows, unit: Unit
    ) -> tuple[dict[str, float], int]:
        """The values from the running sums of a layer, and over how many samples; their mean centers the next pass."""
        if isinstance(sums, ClassSums):
            assert self.class_streams.classes is not None
            u = rounding_of(rows.numbers.dtype) if rows.rounding is None else rows.rounding
            geometry = sums.result(rounding=u)
            return self.class_streams.classes.named(geometry), geometry.n
        assert self.streams.soft is not None
        found = sums.result(unit=unit)
        values = self.streams.soft.named(found, labeled=rows.labels is not None)
        values |= self.streams.soft.errors(sums, rows, found.n_samples, unit)
        if layer not in self._centered:
            self._centered.add(layer)
            self.streams.centers[layer] = sums.mean
        return values, found.n_samples

    def load(self, calibration: Any) -> None:
        """Restore the calibration of an earlier measurement.

        Raises:
            ValueError: it is anything but a mapping from layers to estimators to numbers; the old one then stays.
        """
        try:
            found = {
                layer: {
                    present_name(name): {key: float(value) for key, value in of.items()}
                    for name, of in estimators.items()
                }
                for layer, estimators in calibration.items()
            }
            if not all(math.isfinite(v) for by in found.values() for of in by.values() for v in of.values()):
                raise ValueError
            self.calibration = found
        except (AttributeError, TypeError, ValueError):
            raise ValueError(
                "what its estimators were set to is no mapping from layers to estimators to finite numbers"
            ) from None


def _called(estimator: Estimator, target: str) -> str:
    """An estimator in a sentence, with the target that its values are about, if it has a name."""
    is_about = bool(target) and any(map(estimator.is_about_target, estimator.outputs))
    return f"{estimator.name}{f' of the target {target!r}' if is_about else ''}"


def _concerns_target(estimator: Estimator, rows: Rows) -> bool:
    """Whether an estimator has anything to say of the target of such rows."""
    try:
        return any(map(estimator.is_about_target, estimator.outputs_for(rows)))
    except Exception:  # it is the user's, and its failure a warning of the estimate
        return True


def _is_sound(rows: Rows) -> bool:
    """Whether rows are finite and of more than one class."""
    labels = rows.labels
    return bool(rows.t.isfinite().all()) and labels is not None and len(labels.unique()) > 1


def _fault(estimator: Estimator, layer: str, drawn: Drawn) -> Exception | None:
    """Why an estimator lacks the rows of a layer."""
    if not estimator.channels:
        return drawn.raw_faults.get(layer) if estimator.raw else None
    if layer in drawn.channels and layer not in drawn.channel_faults:
        return None
    wide = ValueError(
        f"a row has more than {MOST_CHANNELS} coordinates, which companions leave aside: name the layers to measure"
    )
    return drawn.channel_faults.get(layer, wide)


def rows_for(estimator: Estimator, layer: str, drawn: Drawn) -> Rows:
    """The rows of a layer that an estimator gets: the first of the sample."""
    n = estimator.max_samples
    if estimator.channels:
        t = drawn.channels[layer]
    elif estimator.raw:
        t = drawn.raw[layer]
    else:
        t = drawn.outputs[layer] if isinstance(estimator, Soft) else drawn.layers[layer]
    n = min(n, len(t))
    y, x, sequence = (None if of is None else of[:n] for of in map(drawn.others.get, ("y", "x", "sequence")))
    return Rows(t[:n], y, x, sequence, drawn.rounding.get(layer) if estimator.channels else None)
