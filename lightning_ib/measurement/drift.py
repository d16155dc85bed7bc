"""The drift of layers: how similar each measurement is to the first, and at the end of a run to the last."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_ib.estimators.base import Rows
from lightning_ib.estimators.geometry import capped
from lightning_ib.functional import cka_of_sketches
from lightning_ib.functional.checks import checked_rows
from lightning_ib.functional.geometry.rows import centered_rows, gram
from lightning_ib.functional.geometry.similarity import cka_products, sketch_of_centered
from lightning_ib.measurement.same_samples import same_rows
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.records.history import History
from lightning_ib.records.record import Record

_STATE = ("rows", "samples", "sketches")

_NO_SKETCH = torch.empty(0)  # of a layer that was measured on other samples


class Drift:
    """The rows of the first measurement of each layer, and a sketch of every one.

    Rows are compared where the samples are the same in the same order: where the fingerprints of their inputs are, see
    :func:`~lightning_ib.measurement.same_samples.fingerprints`.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Tensor] = {}  # of the first measurement, float32 on the host
        self._norms: dict[str, float] = {}  # of their products with themselves
        self._samples: Tensor | None = None  # their fingerprints
        self._sketches: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._comparable, self._moment = True, (0, 0)
        self.is_of_another_run = False
        """Whether the state is that of another run: it is dropped where its samples are others."""

    def begin(self, drawn: Drawn, n: int, *, epoch: int, step: int) -> str:
        """Begin a measurement; returns why its rows cannot be compared with those of the first, in words, or nothing.

        Args:
            drawn: the sampled rows.
            n: how many of them are compared.
            epoch: of the measurement.
            step: of the measurement.
        """
        samples = None if drawn.samples is None else drawn.samples[:n].cpu()
        same = samples is not None and self._samples is not None and bool(same_rows(self._samples, samples).all())
        if self.is_of_another_run and not same:
            self.load({})
        self.is_of_another_run = False
        if not self._rows and samples is not None:
            self._samples, same = samples, True
        self._moment, self._comparable = (epoch, step), same
        self._sketches[self._moment] = {}
        if samples is None:
            return (
                f"the inputs at epoch {epoch} hold no tensor with a row for each sample, by which samples are "
                "recognized, so that the drift of layers is NaN: give the tensors that the model sees as x."
            )
        if same:
            return ""
        return (
            f"the samples at epoch {epoch} are others than at the first measurement, so that the drift of layers is "
            "NaN: measure on data that comes in the same order every time, without random changes."
        )

    def compared(self, layer: str, rows: Rows) -> dict[str, float]:
        """The similarity of a layer to its first measurement, which this is if there is none.

        Raises:
            ValueError: the rows are unsuited, or of another width than at the first measurement.
        """
        sketches = self._sketches.setdefault(self._moment, {})
        if not self._comparable:
            sketches[layer] = _NO_SKETCH
            return {"cka_to_first": math.nan}
        t = checked_rows(rows.numbers, "t")
        first = self._rows.setdefault(layer, t.float().cpu().clone()).to(t.device)
        if first.shape != t.shape:
            raise ValueError(f"its rows are {tuple(t.shape)}, and were {tuple(first.shape)} at the first measurement")
        z = centered_rows(t, rows.rounding)
        products = gram(z) if z.shape[1] > len(z) else None
        sketches[layer] = sketch_of_centered(z, products)
        z_first = centered_rows(first, rows.rounding)
        between, self._norms[layer], within = cka_products(z_first, z, self._norms.get(layer), products)
        both = math.sqrt(self._norms[layer]) * math.sqrt(within)
        return {"cka_to_first": min(1.0, between / both) if both > 0 else math.nan}

    def to_last(self, moments: Collection[tuple[int, int]] | None = None) -> list[Record]:
        """The similarity of every measurement to the last, layer by layer, estimated from sketches.

        It is NaN for a layer that failed at the last measurement, and where either one was of other samples.

        Args:
            moments: the epochs and steps of those measurements; all there are by default.
        """
        known = sorted(moment for moment in self._sketches if moments is None or moment in moments)
        last = self._sketches[known[-1]] if known else {}
        found = []
        for epoch, step in known:
            for layer, sketch in self._sketches[epoch, step].items():
                other, rows = last.get(layer, _NO_SKETCH), self._rows.get(layer, _NO_SKETCH)
                both = len(sketch) > 0 and len(other) > 0
                value, error = cka_of_sketches(sketch, other) if both else (math.nan, math.nan)
                verdict = "" if math.isnan(value) else capped(rows)
                names = (epoch, step, layer, "drift", "cka_to_last", value, error)
                found.append(Record(*names, n_samples=len(rows), verdict=verdict))
        return found

    def state(self) -> dict[str, Any]:
        """The rows and the sketches, in tensors and primitives; empty before the first measurement."""
        if not self._rows or self._samples is None:
            return {}
        sketches = [{"epoch": epoch, "step": step, "layers": dict(of)} for (epoch, step), of in self._sketches.items()]
        return {"rows": dict(self._rows), "samples": self._samples, "sketches": sketches}

    def load(self, state: Any) -> None:
        """Restore the state from :meth:`state`; an empty one begins anew.

        Raises:
            ValueError: it has another form; what was there then stays.
        """
        if isinstance(state, Mapping) and not state:
            self._rows, self._samples, self._sketches, self._norms = {}, None, {}, {}
            return
        try:
            rows, samples, sketches = (state[name] for name in _STATE)
            moments = {(int(one["epoch"]), int(one["step"])): dict(one["layers"]) for one in sketches}
            tensors = [*rows.values(), samples, *(sketch for of in moments.values() for sketch in of.values())]
            if not all(isinstance(one, Tensor) for one in tensors):
                raise ValueError
            self._rows, self._samples, self._sketches, self._norms = dict(rows), samples.double(), moments, {}
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(
                "the first rows of its layers, for their drift, are no mapping with 'rows', 'samples' and 'sketches'"
            ) from None


def with_similarity(history: History, to_last: Sequence[Record]) -> History:
    """A history with the similarities to its last measurement, in place of earlier ones.

    Args:
        history: of the whole run.
        to_last: from :meth:`Drift.to_last`.
    """
    others = [record for record in history.records() if (record.source, record.quantity) != ("drift", "cka_to_last")]
    return History(sorted([*others, *to_last], key=lambda record: record[:2]))
