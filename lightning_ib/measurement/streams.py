"""Running sums over every sample of a pass, for each layer and target: of soft entropy, and of classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lightning_ib.binning.quantizer import CellQuantizer
from lightning_ib.distributed import all_gathered
from lightning_ib.estimators.geometry import LayerClasses
from lightning_ib.estimators.soft import Soft
from lightning_ib.functional import ClassSums, SoftEntropy, sketch
from lightning_ib.functional.checks import moved


class Summing(Protocol):
    """Sums over rows, such as those of soft entropy."""

    def update(self, t: Tensor, y: Any, /) -> None:
        """Add the rows of a batch."""

    def state(self) -> dict[str, Tensor]:
        """Copies of the sums, by name."""

    def merge(self, state: Mapping[str, Tensor], /) -> None:
        """Add the state of other rows."""


Sums = TypeVar("Sums", bound=Summing)


class RunningSums(ABC, Generic[Sums]):
    """Running sums over the samples of a pass, for each layer and target."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Sums]] = {}  # layer → target → its sums
        # The last batch is added when the next one comes: trim cuts it before it enters the sums, where
        # subtracting it could leave the rounding of a large number in place of a small one.
        self._last: dict[str, tuple[Tensor, Mapping[str, Tensor | None]]] = {}
        self._seen = 0

    @abstractmethod
    def _empty(self, layer: str, rows: Tensor) -> Sums:
        """Sums that begin at zero, for such rows."""

    @abstractmethod
    def _like(self, layer: str, state: Mapping[str, Tensor]) -> Sums:
        """Sums that begin at zero, on the host, which such a state can be merged into."""

    def reset(self) -> None:
        """Begin a new pass."""
        self._sums, self._last, self._seen = {}, {}, 0

    def keep(self, rows: Mapping[str, Tensor], labels: Mapping[str, Tensor | None], n: int) -> None:
        """Add a batch of ``n`` samples to the sums.

        Args:
            rows: layer → its rows.
            labels: target → its labels, ``None`` for sums without any.
            n: the number of samples.
        """
        self._add_last()
        self._last = {layer: (values, labels) for layer, values in rows.items()}
        self._seen += n

    def _add_last(self) -> None:
        for layer, (values, labels) in self._last.items():
            of_layer = self._sums.setdefault(layer, {})
            for target, own in labels.items():
                if target not in of_layer:
                    of_layer[target] = self._empty(layer, values)
                of_layer[target].update(values, own)
        self._last = {}

    def forget(self, layers: Sequence[str]) -> None:
        """Drop some layers."""
        for layer in layers:
            self._sums.pop(layer, None)
            self._last.pop(layer, None)

    def trim(self, n_samples: int) -> None:
        """Drop the rows after the first ``n_samples``, as far as the last batch holds them."""
        excess = self._seen - n_samples
        if excess <= 0:
            return
        for layer, (values, labels) in self._last.items():
            kept = max(0, len(values) - excess)
            cut = {target: None if own is None else own[:kept] for target, own in labels.items()}
            self._last[layer] = values[:kept], cut
        self._seen = n_samples

    def summed(self, *, shared: bool) -> dict[str, dict[str, Sums]]:
        """Layer → target → the sums; with ``shared``, those of all processes, each of which must call this."""
        self._add_last()
        if not shared:
            return self._sums
        states = {
            (layer, target): {k: v.cpu() for k, v in sums.state().items()}
            for layer, of_layer in self._sums.items()
            for target, sums in of_layer.items()
        }
        merged: dict[str, dict[str, Sums]] = {}
        for share in all_gathered(states):
            for (layer, target), state in share.items():
                of_layer = merged.setdefault(layer, {})
                if target not in of_layer:
                    of_layer[target] = self._like(layer, state)
                of_layer[target].merge(state)
        return merged


class Streams(RunningSums[SoftEntropy]):
    """The running sums of :class:`~lightning_ib.estimators.Soft`.

    The rows of a pass are centered on the mean of the pass before, since their own is known at its end only. The first
    pass takes the sampled rows instead.

    Args:
        soft: the estimator; ``None`` disables the sums.
    """

    def __init__(self, soft: Soft | None) -> None:
        super().__init__()
        self.soft = soft
        self.centers: dict[str, Tensor] = {}
        """Layer → the mean of its sketched rows at the last measurement, float64 ``(D,)``."""
        self.faults: dict[str, ValueError] = {}
        """Layer → the error in summing up its rows in this pass."""

    def reset(self) -> None:
        """Begin a new pass; the centers stay."""
        super().reset()
        self.faults = {}

    def rows(self, layer: str, activation: Tensor, quantizer: CellQuantizer | None) -> Tensor | None:
        """The sketched rows of a whole batch, copied; ``None`` if soft entropy is off."""
        center = self.centers.get(layer)
        if self.soft is None or center is None or layer in self.faults:
            return None
        rows = sketch(activation) if quantizer is None else quantizer.rows(activation)
        if rows.shape[1] != len(center):
            self.faults[layer] = ValueError(
                f"a sample has {rows.shape[1]} coordinates here and had {len(center)} before: the next measurement "
                "begins anew"
            )
            return None
        return rows.clone() if rows.untyped_storage().data_ptr() == activation.untyped_storage().data_ptr() else rows

    def _empty(self, layer: str, rows: Tensor) -> SoftEntropy:
        assert self.soft is not None
        center = self.centers[layer] = moved(self.centers[layer], rows.device)
        return self.soft.sums(center)

    def _like(self, layer: str, state: Mapping[str, Tensor]) -> SoftEntropy:
        assert self.soft is not None
        return self.soft.sums(self.centers[layer].cpu())

    def forget(self, layers: Sequence[str]) -> None:
        """Drop some layers."""
        super().forget(layers)
        for layer in layers:
            self.centers.pop(layer, None)
            self.faults.pop(layer, None)

    def summed(self, *, shared: bool) -> dict[str, dict[str, SoftEntropy]]:
        """Layer → target → the sums; with ``shared``, those of all processes, each of which must call this."""
        found = super().summed(shared=shared)
        if shared:
            shares = all_gathered({layer: str(fault) for layer, fault in self.faults.items()})
            self.faults = {layer: ValueError(fault) for faults in shares for layer, fault in faults.items()}
        return found

    def state(self) -> dict[str, Tensor]:
        """The centers, for a checkpoint."""
        return {layer: center.detach().cpu().clone() for layer, center in self.centers.items()}

    def load(self, state: Any) -> None:
        """Restore the centers from :meth:`state`.

        Raises:
            ValueError: it is anything but a mapping from layers to finite tensors; the old centers then stay.
        """
        sound = isinstance(state, Mapping) and all(
            isinstance(center, Tensor) and center.ndim == 1 and bool(center.isfinite().all())
            for center in state.values()
        )
        if not sound:
            raise ValueError("the centers of its soft entropies are no mapping from layers to finite tensors")
        self.centers = {layer: center.double() for layer, center in state.items()}


class ClassStreams(RunningSums[ClassSums]):
    """The running sums of :class:`~lightning_ib.estimators.geometry.LayerClasses`, over the channels of each sample.

    Args:
        classes: the companion; ``None`` disables the sums.
    """

    def __init__(self, classes: LayerClasses | None) -> None:
        super().__init__()
        self.classes = classes

    def keep(self, rows: Mapping[str, Tensor], labels: Mapping[str, Tensor | None], n: int) -> None:
        """Add a batch of ``n`` samples to the sums of the targets whose labels are classes."""
        classes = {name: of for name, of in labels.items() if of is not None and not of.is_floating_point()}
        if classes:
            super().keep(rows, classes, n)

    def _empty(self, layer: str, rows: Tensor) -> ClassSums:
        assert self.classes is not None
        return ClassSums(rows.shape[1], max_classes=self.classes.max_classes, device=rows.device)

    def _like(self, layer: str, state: Mapping[str, Tensor]) -> ClassSums:
        assert self.classes is not None
        return ClassSums(state["means"].shape[1], max_classes=self.classes.max_classes, device=torch.device("cpu"))
