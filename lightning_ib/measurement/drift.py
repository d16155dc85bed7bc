"""The drift of layers: how similar each measurement is to the first, and at the end of a run to the last."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_ib.estimators.base import Rows
from lightning_ib.functional import cka_of_sketches, cka_sketch, linear_cka
from lightning_ib.functional.checks import checked_rows
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.records.history import History
from lightning_ib.records.record import Record

_SAME = 1e-5
"""The difference up to which two sums of the values of a sample are the same, as a share of the largest."""

_STATE = ("rows", "samples", "sketches")


class Drift:
    """The rows of the first measurement of each layer, and a sketch of every one.

    Rows are compared where the sample is the same: where the sums of its inputs and its targets are.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Tensor] = {}  # of the first measurement, float32 on the host
        self._samples = torch.empty(0, 0, dtype=torch.float64)  # which samples those are
        self._sketches: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._comparable, self._moment = True, (0, 0)

    def begin(self, drawn: Drawn, n: int, *, epoch: int, step: int) -> str:
        """Begin a measurement; returns why its rows cannot be compared with those of the first, in words, or nothing.

        Args:
            drawn: the sampled rows.
            n: how many of them are compared.
            epoch: of the measurement.
            step: of the measurement.
        """
        self._moment = (epoch, step)
        samples = _samples(drawn, n)
        if not self._rows:
            self._samples = samples
        before = self._samples
        self._comparable = before.shape == samples.shape and _alike(before, samples)
        if self._comparable:
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
        if not self._comparable:
            return {"cka_to_first": math.nan}
        t = checked_rows(rows.numbers, "t")
        first = self._rows.setdefault(layer, t.float().cpu().clone()).to(t.device)
        if first.shape != t.shape:
            raise ValueError(f"its rows are {tuple(t.shape)}, and were {tuple(first.shape)} at the first measurement")
        self._sketches.setdefault(self._moment, {})[layer] = cka_sketch(t)
        return {"cka_to_first": linear_cka(first, t)}

    def to_last(self, moments: Collection[tuple[int, int]] | None = None) -> list[Record]:
        """The similarity of every measurement to the last, layer by layer, estimated from sketches.

        Args:
            moments: the epochs and steps of those measurements; all there are by default.
        """
        known = sorted(moment for moment in self._sketches if moments is None or moment in moments)
        last: dict[str, Tensor] = {}
        for moment in known:
            last |= self._sketches[moment]
        found = []
        for epoch, step in known:
            for layer, sketch in self._sketches[epoch, step].items():
                value, error = cka_of_sketches(sketch, last[layer])
                names = (epoch, step, layer, "drift", "cka_to_last", value, error)
                verdict = "" if math.isnan(value) else "ok"
                found.append(Record(*names, n_samples=len(self._rows[layer]), verdict=verdict))
        return found

    def state(self) -> dict[str, Any]:
        """The rows and the sketches, in tensors and primitives; empty before the first measurement."""
        if not self._rows:
            return {}
        sketches = [{"epoch": epoch, "step": step, "layers": dict(of)} for (epoch, step), of in self._sketches.items()]
        return {"rows": dict(self._rows), "samples": self._samples, "sketches": sketches}

    def load(self, state: Any) -> None:
        """Restore the state from :meth:`state`.

        Raises:
            ValueError: it has another form; what was there then stays.
        """
        if isinstance(state, Mapping) and not state:
            return
        try:
            rows, samples, sketches = (state[name] for name in _STATE)
            moments = {(int(one["epoch"]), int(one["step"])): dict(one["layers"]) for one in sketches}
            tensors = [*rows.values(), samples, *(sketch for of in moments.values() for sketch in of.values())]
            layers = {layer for of in moments.values() for layer in of}
            if not all(isinstance(one, Tensor) for one in tensors) or not layers <= set(rows):
                raise ValueError
            self._rows, self._samples, self._sketches = dict(rows), samples.double(), moments
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


def _samples(drawn: Drawn, n: int) -> Tensor:
    """A few numbers of each of the first samples by which they are recognized, float64 ``(n, …)`` on the host."""
    named = (drawn.others.get(name) for name in ("sum of x", "y"))
    columns = [of[:n].reshape(len(of[:n]), -1).double().sum(1).cpu() for of in named if of is not None]
    return torch.stack(columns, dim=1) if columns else torch.empty(min(n, drawn.n), 0, dtype=torch.float64)


def _alike(before: Tensor, now: Tensor) -> bool:
    """Whether all numbers are the same, up to rounding."""
    if not now.numel():
        return True
    scale = before.abs().max()
    return bool(torch.isclose(before, now, rtol=0, atol=float(_SAME * scale.nan_to_num(0, 0, 0)), equal_nan=True).all())
