"""One measurement at a time: an instrument attached to a model, a pass recorded, a measurement returned."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from torch import nn

from lightning_ib.capture.batches import Parts, Unpack, unpacked
from lightning_ib.capture.layers import NoLayersError
from lightning_ib.capture.recorder import Recorder
from lightning_ib.distributed import this_process
from lightning_ib.estimators.base import Rows
from lightning_ib.evaluation.loaders import n_unpadded_samples
from lightning_ib.evaluation.passes import ForwardError, preserve_state
from lightning_ib.functional.checks import sentence
from lightning_ib.measurement.information_plane import InformationPlane
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.history import History
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.tags import at_target
from lightning_ib.warn_once import WarnOnce

Result = TypeVar("Result")


class Phase(Enum):
    """The phase of a :class:`Session`."""

    DETACHED = "no model is hooked"
    IDLE = "a model is hooked, and no pass is recorded"
    RECORDING = "a pass is being recorded"
    FAILED = "the pass at work cannot be measured"


class Moment(NamedTuple):
    """When a measurement takes place.

    Attributes:
        epoch: the epochs of training so far.
        step: the optimizer steps so far.
        when: the same in a warning, such as ``"after epoch 3"``; empty for an evaluation by itself.
        goes_on: the activity that goes on after a failure: ``"Training"`` or ``"The evaluation"``.
    """

    epoch: int
    step: int
    when: str = ""
    goes_on: str = "Training"


class Measurement(NamedTuple):
    """The result of a session.

    Attributes:
        history: the values of one moment.
        rows: the sampled rows of each layer, where they are to be shown.
        discretized: layer → how it was discretized, in words.
        bounds: target → the information-bottleneck curve beside its points, where one was asked for and is known.
    """

    history: History
    rows: Mapping[str, Rows]
    discretized: Mapping[str, str] = MappingProxyType({})
    bounds: Mapping[str, BoundLine | None] = MappingProxyType({})


def _no_log(line: str) -> None:
    pass


def _without_progress(items: Iterable[Any], total: int | None, name: str) -> Iterable[Any]:
    return items


@dataclass(frozen=True)
class Host:
    """The program that a session runs in.

    Attributes:
        any_rank: whether something holds in any process; a collective call.
        say: takes a line for the log.
        progress: wraps items, their number and a title, for a progress bar.
        forward: calls the model on a batch in a pass of its own, which leaves no trace.
    """

    any_rank: Callable[[bool], bool] = bool
    say: Callable[[str], None] = _no_log
    progress: Callable[[Iterable[Any], int | None, str], Iterable[Any]] = _without_progress
    forward: Callable[[Parts], Any] | None = None


class Session:
    """An information plane at work on one model at a time.

    :meth:`attach` hooks the layers. A loop of another's is recorded by :meth:`begin`, then :meth:`watch` before and
    :meth:`see` after each batch, and :meth:`conclude` at its end; :meth:`measure` records a pass of its own.

    Args:
        options: the arguments of :class:`~lightning_ib.measurement.InformationPlane`.
        name: begins every warning.
        several_views: advice for a step that runs several views of a batch.

    Attributes:
        options: the arguments of the instrument.
        plane: the instrument at work.
        phase: see :class:`Phase`.
    """

    def __init__(self, options: Mapping[str, Any], name: str = "ib", *, several_views: str = "") -> None:
        self.options, self._name, self._several_views = dict(options), name, several_views
        self._host, self._module = Host(), nn.Module()
        self._recorder: Recorder | None = None
        self._warned = WarnOnce(every_rank=True)
        self._described: set[str] = set()
        self._frozen_of_fit: Mapping[str, Any] | None = None  # from an evaluation to the next fit
        self.phase = Phase.DETACHED
        self.plane = InformationPlane(**self.options)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the values and the edges, and neither the model nor the Trainer."""
        alone = {"_host": Host(), "_module": nn.Module(), "_recorder": None, "phase": Phase.DETACHED}
        return self.__dict__ | alone

    # -- the model -----------------------------------------------------------------------------------------------------

    def attach(self, module: nn.Module, host: Host | None = None, frozen: Mapping[str, Any] | None = None) -> None:
        """Hook the layers of a model for measurements of its own: a fit.

        Args:
            module: the model.
            host: the program around it.
            frozen: edges and calibrations of an earlier measurement, as from :meth:`frozen_state`.

        Raises:
            ValueError: the model lacks the layers or the head that were named.
        """
        self.detach()
        self._frozen_of_fit = None
        self.plane = InformationPlane(**self.options)
        self.plane.several_views = self._several_views
        self._host, self._module = host or Host(), module
        self._described.clear()
        self._warned.clear()
        try:
            self._recorder = self.plane.attach(module)
        except NoLayersError as error:
            if isinstance(self.options.get("head"), str):
                raise
            self.measure_nothing(error)
            return
        self._recorder.enabled = False
        self.phase = Phase.IDLE
        if frozen is not None:
            self.plane.load_frozen_state(frozen)

    def attach_for_evaluation(self, module: nn.Module, host: Host | None = None) -> None:
        """Hook the layers for an evaluation by itself, with the edges that the fit froze, which stay as they are."""
        kept = self.frozen_state()
        self.attach(module, host, kept)
        self._frozen_of_fit = kept

    def frozen_state(self) -> Mapping[str, Any]:
        """The edges and calibrations of the fit, whatever was evaluated since."""
        return self.plane.frozen_state() if self._frozen_of_fit is None else self._frozen_of_fit

    def load_frozen_state(self, state: Any) -> None:
        """Go on with the edges and calibrations of an earlier measurement.

        Raises:
            ValueError: a part of them is of another kind.
        """
        self.plane.load_frozen_state(state)

    def measure_nothing(self, why: NoLayersError) -> None:
        """Go on without measuring, if layers are picked by default and all of them fail."""
        if this_process()[0] == 0:
            warnings.warn(f"{self._name}: nothing is measured. {why}", UserWarning, stacklevel=2)
        self.detach()
        self.plane = InformationPlane(**self.options)

    def detach(self) -> None:
        """Take the hooks off and drop the pass at work. Idempotent."""
        self.plane.detach()
        self._recorder, self.phase = None, Phase.DETACHED
        self._host, self._module = Host(), nn.Module()
        if self.plane.n_updates:
            self.plane.reset()

    @property
    def is_attached(self) -> bool:
        """Whether a model is hooked."""
        return self.phase is not Phase.DETACHED

    @property
    def is_at_work(self) -> bool:
        """Whether a pass was begun and is still open."""
        return self.phase in (Phase.RECORDING, Phase.FAILED)

    # -- the loop of another -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to record a pass."""
        self.plane.reset()
        self.phase = Phase.RECORDING

    def watch(self, wanted: bool = True) -> None:
        """Turn the hooks on for the next batch, where a pass is being recorded and the batch is wanted."""
        if self._recorder is not None:
            self._recorder.enabled = wanted and self.phase is Phase.RECORDING

    def see(self, batch: Any, moment: Moment, unpack: Unpack | None = None) -> None:
        """Count in the batch that was watched; a failure is one warning, and the pass is given up."""
        if self._recorder is None or not self._recorder.enabled:
            return
        self._recorder.enabled = False
        if batch is None:  # Lightning hands it to the step, too
            self._recorder.take({})
            return
        if self._warn_on_error(lambda: self._see(unpacked(batch, unpack, self.plane.sources)), moment) is None:
            self.phase = Phase.FAILED

    def _see(self, parts: Parts) -> bool:
        if not self.plane.pass_over(parts):
            self.plane.see(parts)
            self.plane.stochastic.see(parts, self._host.forward)
        return True

    def conclude(self, loader: Any, moment: Moment) -> Measurement:
        """The measurement of the pass that was recorded; NaN if it failed in any. Every process must call this.

        Args:
            loader: the loader that was read: the padding of its distributed sampler is left out.
            moment: when this is.
        """
        # Gathering needs all processes: one that failed must stop the others.
        failed = self._host.any_rank(self.phase is Phase.FAILED)
        self.phase = Phase.IDLE
        points = None if failed else self._warn_on_error(lambda: self._points(loader, moment), moment)
        if self._host.any_rank(points is None) or points is None:
            return self.missing(moment)
        return self._with_estimates(points, moment)

    # -- a pass of its own ---------------------------------------------------------------------------------------------

    def measure(self, run: Callable[[InformationPlane], Any], moment: Moment) -> Measurement:
        """Record a pass of its own and return its measurement.

        Args:
            run: runs the model over data, counts each batch in, and returns the loader that was read.
            moment: when this is.

        Raises:
            Exception: the error of this process, or a ``RuntimeError`` if another process failed.
        """
        assert self._recorder is not None
        self.begin()
        self._recorder.enabled = True
        try:
            loader = self._raise_on_all_ranks(lambda: run(self.plane))
        finally:
            if self._recorder is not None:
                self._recorder.enabled = False
            self.phase = Phase.IDLE
        points = self._raise_on_all_ranks(lambda: self._points(loader, moment))
        return self._with_estimates(points, moment)

    def measure_or_warn(self, run: Callable[[InformationPlane], Any], moment: Moment) -> Measurement:
        """The same, where a failure is one warning and NaN."""
        measured = self._warn_on_error(lambda: self.measure(run, moment), moment)
        return self.missing(moment) if measured is None else measured

    def _raise_on_all_ranks(self, work: Callable[[], Result]) -> Result:
        """Run a part in all processes; an error in one is raised in all.

        A ForwardError is raised only if all errors are ForwardErrors.
        """
        error: Exception | None = None
        try:
            result = work()
        except Exception as raised:
            error = raised
        any_rank = self._host.any_rank
        if any_rank(error is not None):
            worse = any_rank(error is not None and not isinstance(error, ForwardError))
            if error is None or (worse and isinstance(error, ForwardError)):
                kind = RuntimeError if worse else ForwardError
                raise kind("the measurement failed in another process, which says why.") from error
            raise error
        return result

    # -- its values ----------------------------------------------------------------------------------------------------

    def missing(self, moment: Moment) -> Measurement:
        """The measurement of a pass that failed, in NaN; every process must call this."""
        self.plane.agree_on_layers()
        missing = InformationPoint.missing("", n_samples=0, unit=self.plane.unit, epoch=moment.epoch, step=moment.step)
        sources = {layer: "binned" if layer in self.plane.fitted_quantizers else "cells" for layer in self.plane.layers}
        points = [
            missing._replace(layer=layer, source=source, target=target)
            for layer, source in sources.items()
            for target in self.plane.targets
        ]
        self.plane.reset()  # its counts are incomplete
        return Measurement(History.of(points) + self.no_estimates(moment.epoch, moment.step), {})

    def no_estimates(self, epoch: int, step: int) -> History:
        """The values of the estimators in NaN, under the names they have otherwise."""
        plane = self.plane
        missing = plane.estimation.missing
        return History(missing(plane.layers, unit=plane.unit, epoch=epoch, step=step, targets=plane.targets))

    def _points(self, loader: Any, moment: Moment) -> History:
        n_samples = n_unpadded_samples(loader)
        if n_samples is not None:
            self.plane.trim(n_samples)
        points = self.plane.compute(epoch=moment.epoch, step=moment.step)
        bounds = self.plane.bounds_by_target.items()
        read = self.plane.targets_read | {at_target("the bound", target): one.how for target, one in bounds}
        for layer, how in (read | self.plane.discretized).items():
            if how and layer not in self._described:
                self._described.add(layer)
                self._host.say(f"{layer}: {how}.")
        return points

    def _with_estimates(self, points: History, moment: Moment) -> Measurement:
        """The points, and the values of estimators; if those fail the points stay."""
        self.plane.warn_of_late_layers(self._module)
        shows_rows = bool(self.options.get("keep_rows"))
        rows: Mapping[str, Rows] = {}
        # Every process watches the same layers; a bottleneck that failed in one of them stays among its layers.
        if self.plane.estimation.estimators or shows_rows or self.plane.stochastic.layers:
            with preserve_state(self._module):  # an estimator of the user's may draw random numbers
                estimates = self._warn_on_error(lambda: self._estimates(moment), moment)
                if shows_rows:
                    rows = self._warn_on_error(self.plane.labeled_rows, moment) or {}
            if self._host.any_rank(estimates is None) or estimates is None:
                estimates = self.no_estimates(moment.epoch, moment.step)
            points = points + estimates
        self.plane.sampled.reset()  # the rows have served; training may need their memory
        lines = {target: bounds.line for target, bounds in self.plane.bounds_by_target.items()}
        in_bins = {layer: repr(self.plane.quantizers[layer]) for layer in self.plane.fitted_quantizers}
        return Measurement(points, rows, self.plane.discretized | in_bins, lines)

    def _estimates(self, moment: Moment) -> History:
        """The values of estimators; their new calibrations are logged."""
        estimation = self.plane.estimation
        before = {layer: set(calibration) for layer, calibration in estimation.calibration.items()}
        estimates = self.plane.estimate(
            epoch=moment.epoch,
            step=moment.step,
            progress=lambda pairs: self._host.progress(pairs, len(pairs), "Estimators"),
        )
        for layer, estimators in estimation.calibration.items():
            for name, calibration in estimators.items():
                if calibration and name not in before.get(layer, set()):
                    values = ", ".join(f"{key} = {value:.4g}" for key, value in calibration.items())
                    self._host.say(f"{layer}: {name}: {values}, from the layer as it is now. Frozen.")
        return History(estimates)

    def _warn_on_error(self, work: Callable[[], Result], moment: Moment) -> Result | None:
        """The result of a part of a measurement; where it fails, one warning for each kind of failure, and ``None``."""
        try:
            return work()
        except Exception as error:
            kind = re.sub(r"[0-9.]+", "#", f"{type(error).__name__}: {error}")
            when = f" {moment.when}" if moment.when else ""
            self._warned.warn(
                kind,
                f"{self._name}: the measurement{when} failed, its points are NaN: {sentence(error)} {moment.goes_on} "
                "goes on.",
            )
            return None
