"""Soft entropy at work on the layers of a measurement: running sums over every sample of the pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_ib.binning.quantizer import CellQuantizer
from lightning_ib.distributed import all_gathered
from lightning_ib.estimators.soft import Soft
from lightning_ib.functional import SoftEntropy, sketch


class Streams:
    """The running sums of :class:`~lightning_ib.estimators.Soft`, one for each layer.

    The rows of a pass are centered on the mean of the pass before, since their own is known at its end only. The first
    pass takes the sampled rows instead.

    Args:
        soft: the estimator; ``None`` disables the sums.
    """

    def __init__(self, soft: Soft | None) -> None:
        self.soft = soft
        self.centers: dict[str, Tensor] = {}
        """Layer → the mean of its sketched rows at the last measurement, float64 ``(D,)``."""
        self.faults: dict[str, ValueError] = {}
        """Layer → the error in summing up its rows in this pass."""
        self._sums: dict[str, dict[str, SoftEntropy]] = {}  # layer → target → its sums
        # The last batch is added when the next one comes: trim cuts it before it enters the sums, where
        # subtracting it could leave the rounding of a large number in place of a small one.
        self._last: dict[str, tuple[Tensor, Mapping[str, Tensor | None]]] = {}
        self._seen = 0

    def reset(self) -> None:
        """Begin a new pass; the centers stay."""
        self._sums, self._last, self.faults, self._seen = {}, {}, {}, 0

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
            assert self.soft is not None
            center = self.centers[layer] = self.centers[layer].to(values.device)
            of_layer = self._sums.setdefault(layer, {})
            for target, own in labels.items():
                if target not in of_layer:
                    of_layer[target] = self.soft.sums(center)
                of_layer[target].update(values, own)
        self._last = {}

    def forget(self, layers: Sequence[str]) -> None:
        """Drop some layers."""
        for layer in layers:
            for known in (self._sums, self._last, self.centers, self.faults):
                known.pop(layer, None)

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

    def summed(self, *, shared: bool) -> dict[str, dict[str, SoftEntropy]]:
        """Layer → target → the sums; with ``shared``, those of all processes, each of which must call this."""
        self._add_last()
        if not shared:
            return self._sums
        states = {
            (layer, target): {k: v.cpu() for k, v in sums.state().items()}
            for layer, of_layer in self._sums.items()
            for target, sums in of_layer.items()
        }
        merged: dict[str, dict[str, SoftEntropy]] = {}
        shares = all_gathered((states, {layer: str(fault) for layer, fault in self.faults.items()}))
        self.faults = {layer: ValueError(fault) for _, faults in shares for layer, fault in faults.items()}
        for share, _ in shares:
            for (layer, target), state in share.items():
                if target not in merged.setdefault(layer, {}):
                    assert self.soft is not None
                    merged[layer][target] = self.soft.sums(self.centers[layer].cpu())
                merged[layer][target].merge(state)
        return merged

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
