"""One measurement of a model: layers are hooked, batches are taken in, and at the end of a pass there are points."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor, nn

from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.binning.quantizer import CellQuantizer, Quantizer
from lightning_ib.capture.batches import Parts
from lightning_ib.capture.recorder import Recorder
from lightning_ib.distributed import on_rank_zero, this_process
from lightning_ib.estimators.base import Rows, checked_max_samples
from lightning_ib.estimators.geometry import Companions, checked_companions
from lightning_ib.estimators.registry import Estimators, checked_estimators
from lightning_ib.functional import Correction, Symbols, Unit, checked_correction
from lightning_ib.functional.checks import checked_integer, checked_unit
from lightning_ib.measurement.bounds import Bound, PlaneBounds
from lightning_ib.measurement.estimation import Estimation, Progress
from lightning_ib.measurement.frozen import frozen_state, load_frozen_state
from lightning_ib.measurement.head import Head
from lightning_ib.measurement.intake import Intake
from lightning_ib.measurement.points import PointMaker
from lightning_ib.measurement.sampled import Drawn, SampledLayers
from lightning_ib.measurement.watched import Layers, checked_layers
from lightning_ib.records.history import History
from lightning_ib.records.record import Record
from lightning_ib.warn_once import WarnOnce

__all__ = ["MAX_SAMPLES", "InformationPlane", "Layers"]

MAX_SAMPLES = 10_000
"""How many samples are kept of a pass, by default."""


class InformationPlane:
    r"""One measurement of a model, in any PyTorch loop.

    Layers are cut into cells (:class:`CellQuantizer`) on a uniform sample of at most ``max_samples`` samples of the
    pass, the same ones in every pass over the same data. At most three times as many rows of 512 bytes a layer are
    held, whatever the number of samples and the width of the layers.

    Layers with a :class:`Quantizer` are counted on every sample: 9 bytes a sample and layer are held (12 with more than
    255 pooled coordinates), 8 more a sample for the labels and 8 for a discretized input; a few batches of pooled
    values wait to be put into bins together. While edges are being fitted, at the first measurement or with
    ``refit=True``, the pooled values of all samples are held: 4 bytes a sample and pooled coordinate. :meth:`reset`
    begins the next measurement; frozen edges stay. A copy or a pickle holds the counts and leaves the hooks out.

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
        self.unit: Unit = unit
        self.ignore_index, self.tokens, self._across_processes = ignore_index, tokens, across_processes
        asked = checked_estimators(estimators)
        self.estimation = Estimation([*asked, *checked_companions(companions, asked)])
        """The estimators and companions at work; ``estimation.calibration`` holds what the first measurement set."""
        self._warned = WarnOnce()
        self.bounds = PlaneBounds(bound, unit, identity=input is None, tokens=tokens, warned=self._warned)
        """The bounds that the points are compared with."""
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
            target=target,
            head=head,
            ignore_index=ignore_index,
            tokens=tokens,
            sampled=self.sampled,
            estimation=self.estimation,
            keep_rows=keep_rows,
            input_ids=self.bounds.needs_input,
            warned=self._warned,
        )
        self.stochastic = self._intake.stochastic
        """The layers that draw their representation."""
        self._points = PointMaker(self._intake, unit, correction, n_permutations, self.bounds, self._warned)

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in the order they are reported; empty before :meth:`attach`.

        Where ``None`` picks twelve of more, they are known after the first batch, being some of those that ran in it.
        With torch.compile they are picked from all layers before the first batch, since its hooks are fixed.
        """
        return self._intake.watched.names

    @property
    def quantizers(self) -> dict[str, Quantizer | CellQuantizer]:
        """Layer → how it is discretized, in the order the layers are reported; empty before :meth:`attach`."""
        return self._intake.watched.quantizers

    @property
    def fitted_quantizers(self) -> dict[str, FittedQuantizer]:
        """Layer → its bins at work, of the layers with a :class:`Quantizer`."""
        return {layer: one.fitted for layer, one in self._intake.variables.layers.items() if one.fitted is not None}

    @property
    def discretized(self) -> dict[str, str]:
        """Layer → how it was discretized at the last measurement, in words, of the layers cut into cells."""
        return self._points.discretized

    @property
    def head(self) -> Head | None:
        """The head that was recognized at the last measurement."""
        return self._intake.heads.head

    @property
    def target_read(self) -> str:
        """How the target became symbols at the last measurement, in words; empty for class labels."""
        return self._intake.target.how

    @property
    def n_updates(self) -> int:
        """The number of batches since the measurement began."""
        return self._intake.n_updates

    @property
    def n_seen(self) -> int:
        """How many samples of this process were seen since the measurement began, and count."""
        return self._intake.batches.n_valid

    @property
    def n_shown(self) -> int:
        """How many rows were seen since the measurement began, counted or ignored."""
        return self._intake.batches.n_rows

    @property
    def to_pick(self) -> bool:
        """Whether the layers are still to be picked, in the first batch, of all that could be."""
        return self._intake.watched.to_pick

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
        self.update(parts.x, parts.y, parts.mask if self.tokens else None)

    def pass_over(self, parts: Parts) -> bool:
        """Skip a batch in which all layers stayed idle, as where a step returns early; returns whether it did."""
        recorder = self._intake.watched.recorder
        if recorder is None or recorder.ran:
            return False
        self._intake.batches.pass_over(parts.x)
        return True

    def update(self, x: Any, y: Tensor | None, mask: Tensor | None = None) -> None:
        """Count in one batch; call it after the model's forward.

        Args:
            x: the input of the batch, ``(B, …)``; looked at only where ``input`` is a quantizer, and for the number of
                samples where there is no target.
            y: the target: labels ``(B,)``, or real values ``(B, …)``; with ``None`` the values about Y are NaN.
            mask: with ``tokens``, which of them count, ``(B, L)``; all where it is ``None``.

        Raises:
            RuntimeError: no model is attached, or a layer stayed idle since the last update.
            TypeError: ``target`` is a quantizer, and the target is something else than a tensor.
            ValueError: the rows of a layer that was named, or of all, differ in number from the target.
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
        points = [found[layer]._replace(epoch=epoch, step=step, source=of) for layer, of in sources.items()]
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
        """The sampled rows of each layer, with labels if there are some; with several processes each must call this."""
        drawn = self._intake.measured(shared=self._shared)
        return {layer: Rows(rows, drawn.others.get("y")) for layer, rows in drawn.layers.items()}

    def target_symbols(self) -> Symbols | None:
        """The symbols of the target in this process; ``None`` if it is absent or non-finite."""
        return self._intake.target.symbols(self._intake.variables.y, 0)

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
