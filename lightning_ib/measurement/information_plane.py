"""One measurement of a model: layers are hooked, batches are taken in, and at the end of a pass there are points."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.capture.batches import Parts
from lightning_ib.capture.recorder import Recorder
from lightning_ib.distributed import on_rank_zero, this_process
from lightning_ib.estimators.base import Rows, checked_max_samples
from lightning_ib.estimators.geometry import Companions, checked_companions
from lightning_ib.estimators.registry import Estimators, checked_estimators
from lightning_ib.functional import Correction, Symbols, Unit, checked_correction
from lightning_ib.functional.checks import checked_integer, checked_unit
from lightning_ib.measurement.bounds import Bound, bounds_by_target
from lightning_ib.measurement.estimation import Estimation, Progress
from lightning_ib.measurement.frozen import frozen_state, load_frozen_state
from lightning_ib.measurement.instrument import Instrument
from lightning_ib.measurement.intake import Intake
from lightning_ib.measurement.points import PointMaker
from lightning_ib.measurement.sampled import Drawn, SampledLayers
from lightning_ib.measurement.targets import TargetOptions, checked_targets
from lightning_ib.measurement.watched import Layers, checked_layers
from lightning_ib.records.history import History
from lightning_ib.records.record import Record
from lightning_ib.warn_once import WarnOnce

__all__ = ["MAX_SAMPLES", "InformationPlane", "Layers"]

MAX_SAMPLES = 10_000
"""How many samples are kept of a pass, by default."""


class InformationPlane(Instrument):
    r"""One measurement of a model, in any PyTorch loop.

    Layers are cut into cells (:class:`CellQuantizer`) on a uniform sample of at most ``max_samples`` samples of the
    pass, the same ones in every pass over the same data. At most three times as many rows of 512 bytes a layer are
    held, whatever the number of samples and the width of the layers.

    Layers with a :class:`Quantizer` are counted on every sample: 9 bytes a sample and layer are held (12 with more than
    255 pooled coordinates), 8 more a sample for the labels and 8 for a discretized input; a few batches of pooled
    values wait to be put into bins together. While edges are being fitted, at the first measurement or with
    ``refit=True``, the pooled values of all samples are held: 4 bytes a sample and pooled coordinate. :meth:`reset`
    begins the next measurement; frozen edges stay. A copy or a pickle holds the counts and leaves the hooks out.
    Its layers, targets and head are properties, see :class:`~lightning_ib.measurement.instrument.Instrument`.

    .. math:: I(X;T) = H(X) + H(T) - H(X,T) \qquad I(T;Y) = H(T) + H(Y) - H(T,Y)

    all of them plug-in entropies of the symbols (see :mod:`lightning_ib.functional`). A head, the last layer to run
    with one coordinate for each class, is measured on its softmax (a single logit on its sigmoid), and its accuracy on
    the same samples is a lower bound on I(T;Y) of the layers before it (Fano's inequality).

    Args:
        layers: names of modules or glob patterns (``*`` stops at a dot, ``**`` crosses it), or a mapping from those to
            a :class:`Quantizer` or :class:`CellQuantizer` each; ``None`` picks leaf modules with weights that run,
            normalization layers excluded, at most twelve, spread over the depth. Layers without a quantizer get a
            :class:`CellQuantizer`.
        input: ``None`` takes every sample for a symbol of its own, so that H(X) = log N and I(X;T) = H(T); a
            :class:`Quantizer` discretizes X. T is then only partly determined by X, and I(X;T) may lie below I(T;Y).
        target: ``None`` reads it by its form: integers, one a sample, are classes, as are whole numbers of at most ten
            values and one-hot rows; other real numbers are put into ten bins of equal mass (fewer for few samples);
            rows of yes/no labels are a symbol for each combination; rows of real numbers are cut into cells. Any
            other form is left out with a warning. A :class:`Quantizer` puts the target into its bins.
        targets: several targets in one pass, by name: the layers are made symbols once, and each target has a plane of
            its own. Where it is in a batch: a key of the batch, a function of it, or ``None`` for the y of the batch's
            form or of ``unpack``; a :class:`Quantizer` puts that y into bins. :meth:`update` takes them as a mapping.
            The first one is the primary target, by which the head is recognized. One that fails is left out with a
            warning, and the others go on.
        unit: ``"bits"`` or ``"nats"``.
        correction: of the plug-in entropies: ``"miller_madow"``, ``"grassberger"``, ``"chao_shen"``, ``"james_stein"``,
            ``"jackknife"``, ``"chao_wang_jost"`` or ``"nsb"``; ``None`` leaves them as counted.
        n_permutations: the number of random label permutations for the spread of the permutation baseline, or 0.
        estimators: estimators beside cells and bins, by name (``"kde"``, ``"probe"``, …) or as an
            :class:`~lightning_ib.estimators.Estimator`; :meth:`estimate` returns their values.
        companions: the geometry of each layer, beside: ``"spectrum"``, ``"classes"`` and ``"drift"``, or ``"all"``;
            see :mod:`lightning_ib.estimators.geometry`. :meth:`estimate` returns their values, too.
        max_samples: how many samples cells and estimators see.
        head: ``None`` recognizes the head; ``False`` measures every layer as it is; a name says which layer it is.
        ignore_index: rows with this label, such as −100, are left out of every variable, rows of several labels where
            one of them is it. A GPU is waited for once a batch then, and for a mask.
        tokens: take the tokens of sequences, or the pixels of pictures, for samples: activations ``(B, L, D)`` and
            labels ``(B, L)`` count as B·L samples. Outputs of convolutions and other modules that work on channels,
            ``(B, C, …)``, are split by place, ``(B · …, C)``. Tokens with mask 0 are left out. Those of one
            sequence depend on each other: standard errors are taken over sequences.
        keep_rows: always sample rows, also if cells and estimators do without; see ``drawn()``.
        bound: to compare the points with, see :class:`~lightning_ib.measurement.bounds.PlaneBounds`.
        across_processes: measure the samples of all processes where torch.distributed is initialized, all of which must
            then ask; ``False`` measures this process alone.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or out of its range.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
        >>> plane = InformationPlane(["0", "2"])
        >>> x, y = torch.rand(64, 4), torch.arange(64) % 2
        >>> with plane.attach(model):
        ...     _ = model(x)
        ...     plane.update(x, y)
        >>> [(point.layer, point.h_y) for point in plane.compute()]
        [('0', 1.0), ('2', 1.0)]
    """

    def __init__(
        self,
        layers: Layers = None,
        *,
        input: Quantizer | None = None,
        target: Quantizer | None = None,
        targets: TargetOptions | None = None,
        unit: Unit = "bits",
        correction: Correction | None = None,
        n_permutations: int = 0,
        estimators: Estimators = (),
        companions: Companions = (),
        max_samples: int = MAX_SAMPLES,
        head: str | bool | None = None,
        ignore_index: int | None = None,
        tokens: bool = False,
        keep_rows: bool = False,
        bound: Bound | Sequence[Bound] | None = None,
        across_processes: bool = True,
    ) -> None:
        self.asked = checked_layers(layers)
        """The layers that were named, or patterns of them, with their quantizers; ``None`` where they are picked."""
        _check_options(input, target, unit, correction, n_permutations, head, ignore_index, tokens)
        asked = checked_targets(targets, target)
        self.sources = None if asked is None else {k: None if isinstance(v, Quantizer) else v for k, v in asked.items()}
        """Name → where each of several targets is in a batch; ``None`` where there is a single one."""
        quantizers = {"": target} if asked is None else asked
        named = {name: one if isinstance(one, Quantizer) else None for name, one in quantizers.items()}
        self.unit: Unit = unit
        self.ignore_index, self.tokens, self._across_processes = ignore_index, tokens, across_processes
        chosen = checked_estimators(estimators)
        self.estimation = Estimation([*chosen, *checked_companions(companions, chosen)])
        """The estimators and companions at work; ``estimation.calibration`` holds what the first measurement set."""
        self._warned = WarnOnce()
        of_x: dict[str, Any] = {"identity": input is None, "tokens": tokens, "warned": self._warned}
        self.bounds_by_target = bounds_by_target(bound, list(named), unit, **of_x)
        """Target → the bounds that its points are compared with."""
        most = checked_max_samples(max_samples)
        partial = ignore_index is not None or tokens
        of_raw = {"raw_samples": self.estimation.raw_samples, "channel_samples": self.estimation.channel_samples}
        self.sampled = SampledLayers(most, **of_raw, with_input=self.estimation.needs_input, partial=partial)
        """The sampled rows."""
        self.several_views = ""
        """Advice for a step that runs several views of a batch, for the error about mismatched rows."""
        self._intake = Intake(
            self.asked,
            input=input,
            targets=named,
            head=head,
            ignore_index=ignore_index,
            tokens=tokens,
            sampled=self.sampled,
            estimation=self.estimation,
            keep_rows=keep_rows,
            input_ids=self.bounds_by_target[next(iter(named))].needs_input,
            warned=self._warned,
        )
        self.stochastic = self._intake.stochastic
        """The layers that draw their representation."""
        self._points = PointMaker(self._intake, unit, correction, n_permutations, self.bounds_by_target, self._warned)

    # -- the layers ----------------------------------------------------------------------------------------------------

    def attach(self, model: nn.Module) -> Recorder:
        """Hook the layers of ``model``; use it as ``with plane.attach(model): …``, or call ``remove()`` on the result.

        From here on the next :meth:`update` takes the outputs of the layers in the last forward.

        Raises:
            ValueError: the model lacks such layers; the message suggests the nearest names.
        """
        return self._intake.attach(model)

    def detach(self) -> None:
        """Take the hooks off. Idempotent."""
        self._intake.watched.detach()

    def use_quantizers(self, quantizers: Mapping[str, Quantizer | CellQuantizer]) -> None:
        """Discretize some of the layers in this way; call it after :meth:`attach` and before the first batch."""
        self._intake.use_quantizers(quantizers)

    def keep_layers(self, layers: Sequence[str]) -> None:
        """Pick these layers, as an earlier measurement did, where they are still to be picked."""
        self._intake.forget(self._intake.watched.all_but(layers))

    def agree_on_layers(self) -> None:
        """After a failed measurement, keep the layers that all processes kept; every process must call this."""
        self._intake.forget(self._intake.watched.left_out_elsewhere())

    def warn_of_late_layers(self, model: nn.Module) -> None:
        """Warn of layers that were added after the model was hooked, if layers are picked by default."""
        self._intake.watched.warn_of_late_layers(model)

    # -- a pass --------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Begin a new measurement: drop all rows. Frozen edges stay; bins with ``refit=True`` forget theirs."""
        self._intake.reset()

    def see(self, parts: Parts) -> None:
        """Count in one batch, and warn once where its target is unknown."""
        if parts.doubt:
            self._warned.warn("doubt", parts.doubt)
        y = parts.y if parts.targets is None else parts.targets
        self.update(parts.x, y, parts.mask if self.tokens else None)

    def pass_over(self, parts: Parts) -> bool:
        """Skip a batch in which all layers stayed idle, as where a step returns early; returns whether it did."""
        recorder = self._intake.watched.recorder
        if recorder is None or recorder.ran:
            return False
        self._intake.batches.pass_over(parts.x)
        return True

    def update(self, x: Any, y: Tensor | Mapping[str, Any] | None, mask: Tensor | None = None) -> None:
        """Count in one batch; call it after the model's forward.

        Args:
            x: the input of the batch, ``(B, …)``; looked at only where ``input`` is a quantizer, for the number of
                samples where there is no target, and to recognize samples for the drift of layers.
            y: the target: labels ``(B,)``, or real values ``(B, …)``; with ``None`` the values about Y are NaN. With
                ``targets`` a mapping from each name to such a target.
            mask: with ``tokens``, which of them count, ``(B, L)``; all where it is ``None``.

        Raises:
            RuntimeError: no model is attached, or a layer stayed idle since the last update.
            TypeError: ``target`` is a quantizer, and the target is something else than a tensor.
            ValueError: the rows of a layer that was named, or of all, differ in number from the target; or a target of
                ``targets`` is missing in ``y``.
        """
        self._intake.update(x, y, mask, self.several_views)

    def trim(self, n_samples: int) -> None:
        """Drop the rows after the first ``n_samples``, such as the padding of a distributed sampler.

        Args:
            n_samples: how many to keep; where fewer were counted, all are kept.
        """
        self._intake.trim(n_samples)

    def compute(self, *, epoch: int = 0, step: int = 0) -> History:
        """The values of this measurement: a history with a point for each layer.

        A layer with a NaN or an infinity in it gets a point of NaNs, and one warning that names it.

        Args:
            epoch: written into the points.
            step: written into the points.

        Raises:
            ValueError: nothing was counted, or bins returned edges that descend or are NaN.
        """
        found = self._points.of_pass(epoch=epoch, shared=self._shared)
        sources = {layer: "binned" if layer in self.fitted_quantizers else "cells" for layer in self.quantizers}
        points = [
            found[target][layer]._replace(epoch=epoch, step=step, source=of, target=target)
            for layer, of in sources.items()
            for target in self.targets
        ]
        self._points.warn_of_verdicts(points)
        return History.of(points)

    def estimate(self, *, epoch: int = 0, step: int = 0, progress: Progress = lambda pairs: pairs) -> list[Record]:
        """The values of the estimators for all layers, and the variational bounds of those that draw theirs.

        Hyperparameters that follow a layer's scale are calibrated at its first measurement and frozen, as edges are. A
        value that fails is NaN, and one warning gives the reason.

        Args:
            epoch: written into the estimates.
            step: written into the estimates.
            progress: wraps the pairs of layer and estimator, for a progress bar.
        """
        bounds = self.stochastic.records(self.unit, epoch=epoch, step=step, shared=self._shared)
        if not self.estimation.estimators:
            return bounds
        return bounds + self.estimation.estimate(
            self.layers,
            self._intake.measured(shared=self._shared),
            shared=self._shared,
            unit=self.unit,
            epoch=epoch,
            step=step,
            warn=self._warned.warn,
            targets=self.targets,
            progress=progress,
        )

    def cka_to_last(self, moments: Collection[tuple[int, int]] | None = None) -> list[Record]:
        """The linear CKA of each measurement to the last one, with ``"drift"`` among the companions.

        It is estimated from sketches, with standard errors. With several processes each must call this.

        Args:
            moments: the epochs and steps of those measurements; all so far by default.
        """

        def work() -> list[Record]:
            return self.estimation.drift.to_last(moments)

        return [Record._make(one) for one in on_rank_zero(work)] if self._shared else work()

    @property
    def _shared(self) -> bool:
        """Whether several processes measure together."""
        return self._across_processes and this_process()[1] > 1

    def drawn(self) -> Drawn:
        """The sampled rows; with several processes those of all of them, each of which must call this."""
        return self._intake.drawn(shared=self._shared)

    def labeled_rows(self) -> dict[str, Rows]:
        """The sampled rows of each layer, with labels if there are some; with several processes each must call this.

        Of several targets the labels are those of the primary one.
        """
        drawn = self._intake.measured(shared=self._shared).about(self.targets[0])
        return {layer: Rows(rows, drawn.others.get("y")) for layer, rows in drawn.layers.items()}

    def target_symbols(self) -> Symbols | None:
        """The symbols of the primary target in this process; ``None`` if it is absent or non-finite."""
        primary = self._intake.targets.primary
        return primary.symbols(self._intake.variables.ys[primary.name], 0)

    def waiting_values(self) -> Iterator[tuple[str, Tensor]]:
        """The pooled values ``(N, D)`` of layers in bins, while edges wait for them, in this process.

        One layer comes after the other, and the values of each are let go of when the next is asked for.
        """
        for layer, variable in self._intake.variables.layers.items():
            values = variable.waiting()
            variable.reset()
            if values is not None:
                yield layer, values
            del values

    def frozen_state(self) -> dict[str, Any]:
        """The frozen edges and automatic choices of every variable, in tensors and primitives, for a checkpoint."""
        return frozen_state(self._intake.variables, self.estimation)

    def load_frozen_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state from :meth:`frozen_state`, after :meth:`attach`. Other layers stay as they are.

        Raises:
            ValueError: a part of ``state`` has another form than in :meth:`frozen_state`; all other parts are restored.
        """
        load_frozen_state(state, self._intake.variables, self.estimation)


def _check_options(
    input: Any,
    target: Any,
    unit: Any,
    correction: Any,
    n_permutations: Any,
    head: Any,
    ignore_index: Any,
    tokens: Any,
) -> None:
    """Raise where an option of a measurement is wrong; see :class:`InformationPlane`."""
    for name, quantizer in (("input", input), ("target", target)):
        if quantizer is not None and not isinstance(quantizer, Quantizer):
            raise TypeError(f"{name} must be a Quantizer or None, got {quantizer!r}.")
    checked_unit(unit)
    if correction is not None:
        checked_correction(correction)
    if isinstance(n_permutations, bool) or not isinstance(n_permutations, Integral) or n_permutations != 0:
        checked_integer(n_permutations, "n_permutations", at_least=2, advice="give 0 for none, or at least 2")
    if not (head is None or head is False or isinstance(head, str)):
        raise TypeError(f"head must be None, False or the name of a layer, got {head!r}.")
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)):
        raise TypeError(f"ignore_index must be an integer such as -100 or None, got {ignore_index!r}.")
    if not isinstance(tokens, bool):
        raise TypeError(f"tokens must be True or False, got {tokens!r}.")
