"""The end of a pass: from its rows to the points of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.distributed import on_rank_zero
from lightning_ib.functional import Correction, Symbols, Unit
from lightning_ib.measurement.advice import advice
from lightning_ib.measurement.bounds import Pass, PlaneBounds, input_symbols
from lightning_ib.measurement.discretized import in_bins, in_cells
from lightning_ib.measurement.head import Head
from lightning_ib.measurement.intake import Intake
from lightning_ib.measurement.layer_summary import CountedLayer, LayerSummary, head_bound
from lightning_ib.measurement.reading import finite_symbols, sampled_symbols
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.measurement.variables import Variables
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.warn_once import WarnOnce

Points = dict[str, dict[str, InformationPoint]]
"""Target → layer → its point."""


class _Counted(NamedTuple):
    """What layers are counted with: one X, one Y, and the bounds of that plane."""

    summary: LayerSummary
    seen: Pass
    bounds: PlaneBounds

    def point(self, layer: str, counted: CountedLayer | None) -> InformationPoint:
        """The point of a layer; one of NaNs where ``counted`` is ``None``."""
        t = None if counted is None else counted.symbols
        return self.bounds.with_deviations(self.summary.point(layer, counted), t, self.seen)


class PointMaker:
    """Counts the rows of a pass: the layers in bins on every sample, the others on the sampled rows.

    Args:
        intake: holds the rows of the pass.
        unit: of the points.
        correction: of the plug-in entropies.
        n_permutations: how often the labels are permuted.
        bounds: target → the bounds that its points are compared with.
        warned: takes the warnings.
    """

    def __init__(
        self,
        intake: Intake,
        unit: Unit,
        correction: Correction | None,
        n_permutations: int,
        bounds: Mapping[str, PlaneBounds],
        warned: WarnOnce,
    ) -> None:
        self.discretized: dict[str, str] = {}
        """Layer → how it was discretized at the last measurement, in words, of the layers cut into cells."""
        self._intake, self._bounds, self._warned = intake, bounds, warned
        self._unit, self._correction, self._n_permutations = unit, correction, n_permutations

    def of_pass(self, *, epoch: int, shared: bool) -> Points:
        """Target → layer → its point; a single target has an empty name.

        Args:
            epoch: for the warnings.
            shared: whether to count the samples of all processes, each of which must call this.

        Raises:
            ValueError: nothing was counted, or bins returned edges that descend or are NaN.
        """
        intake = self._intake
        kept = intake.gathered() if shared else intake.variables
        n, drawn = kept.n, intake.drawn(shared=shared) if intake.sampling else None
        if drawn is not None:
            intake.forget(intake.watched.constant_across_batches(drawn.constant_across_batches()))
        intake.check_counted(n if n or drawn is None else drawn.n, epoch)
        x = finite_symbols(kept.x.name, kept.x.rows(), epoch, self._warned)
        readers = intake.targets.readers
        ys = {target: reader.symbols(kept.ys[target], epoch) for target, reader in readers.items()}
        sampled = {
            target: None if drawn is None else reader.sampled(kept.ys[target], drawn.about(target), epoch)
            for target, reader in readers.items()
        }
        heads = self._heads(drawn, sampled)
        found: Points = {target: {} for target in readers}
        if intake.variables.layers:
            sequences = None if kept.sequences is None else kept.sequences.rows()
            seen = {target: Pass(None, y, n) for target, y in ys.items()}
            found = self._in_bins(kept, self._counted(seen, x, heads, epoch, sequences), epoch)
        intake.variables.bin_waiting()  # by edges that were fitted to the values of all processes
        seen = {target: Pass(None, y, n) for target, y in ys.items()}
        if drawn is not None:
            sampled_x = sampled_symbols(kept.x, drawn.others.get("pooled x"), epoch, self._warned)
            x_ids = input_symbols(drawn.others.get("x id"))
            seen = {target: Pass(x_ids, y, drawn.n) for target, y in sampled.items()}
            if intake.has_cells:
                counted = self._counted(seen, sampled_x, heads, epoch, drawn.others.get("sequence"))
                in_cells = self._in_cells(intake.measured(shared=shared), counted, epoch, shared)
                found = {target: points | in_cells[target] for target, points in found.items()}
        return self._beside_the_curve(found, seen, shared)

    def _heads(
        self, drawn: Drawn | None, sampled: Mapping[str, Symbols | None]
    ) -> dict[str, tuple[Head | None, float]]:
        """Target → the head as its predictor, and the least I(T;Y) that its accuracy proves.

        The head is recognized by the primary target.
        """
        heads, primary = self._intake.heads, self._intake.targets.primary.name
        known = None if drawn is None or sampled[primary] is None else drawn.about(primary).others
        heads.recognize(known, self._intake.n_coordinates)
        found = {}
        for target, y in sampled.items():
            head = heads.head if target == primary else None
            if target != primary and drawn is not None and y is not None:
                head = heads.about(drawn.about(target).others, self._intake.n_coordinates)
            found[target] = head, head_bound(head, y, self._unit)
        return found

    def _counted(
        self,
        seen: Mapping[str, Pass],
        x: Symbols | None,
        heads: Mapping[str, tuple[Head | None, float]],
        epoch: int,
        clusters: Tensor | None,
    ) -> dict[str, _Counted]:
        """Target → what layers are counted with."""
        found = {}
        for target, one in seen.items():
            if one.y is not None and len(one.y.counts) == 1:
                reader = self._intake.targets.readers[target]
                self._warned.warn(
                    f"one class of {reader.called}",
                    f"all {len(one.y.numbers)} samples have the same target{f' {target!r}' if target else ''} at epoch "
                    f"{epoch}: H(Y) is 0 and I(T;Y) says nothing, so it is NaN. Measure on data with several classes.",
                )
            head, bound = heads[target]
            summary = LayerSummary(
                one.n,
                x,
                one.y,
                identity=self._intake.input is None,
                unit=self._unit,
                correction=self._correction,
                n_permutations=self._n_permutations,
                head=head,
                bound=bound,
                clusters=clusters,
            )
            found[target] = _Counted(summary, one, self._bounds[target])
        return found

    def _in_bins(self, kept: Variables, counted: Mapping[str, _Counted], epoch: int) -> Points:
        """The points of the layers in bins."""
        found: Points = {target: {} for target in counted}
        # One layer after the other: the numbered symbols of a layer take more memory than its ids.
        for layer in self._intake.variables.layers:
            of_layer = in_bins(kept.layers[layer], epoch, self._warned)
            for target, one in counted.items():
                found[target][layer] = one.point(layer, of_layer)
            del of_layer
        return found

    def _in_cells(self, measured: Drawn, counted: Mapping[str, _Counted], epoch: int, shared: bool) -> Points:
        """The points of the layers cut into cells; of several processes the first cuts them for all."""
        intake = self._intake

        def work() -> tuple[Points, dict[str, str]]:
            found: Points = {target: {} for target in counted}
            of_layers = (measured, intake.watched.quantizers, intake.n_coordinates, intake.heads.head)
            for layer in in_cells(*of_layers, epoch, self._warned):
                for target, one in counted.items():
                    found[target][layer.layer] = one.point(layer.layer, layer.counted)
                self.discretized |= {layer.layer: layer.how} if layer.how else {}
            return found, self.discretized

        found, self.discretized = on_rank_zero(work) if shared else work()
        return _points(found)

    def _beside_the_curve(self, found: Points, seen: Mapping[str, Pass], shared: bool) -> Points:
        """The points with the bound at each; of several processes the first solves for the curves."""
        curves = {target: bounds for target, bounds in self._bounds.items() if bounds.name}
        if not curves:
            return found

        def work() -> tuple[Points, dict[str, BoundLine | None]]:
            beside = {target: bounds.applied(found[target], seen[target]) for target, bounds in curves.items()}
            return found | beside, {target: bounds.line for target, bounds in curves.items()}

        points, lines = on_rank_zero(work) if shared else work()
        for target, line in lines.items():
            curves[target].line = line
        return _points(points)

    def warn_of_verdicts(self, points: Sequence[InformationPoint]) -> None:
        """Warn of each flagged layer once, with advice."""
        for point in points:
            reader = self._intake.targets.readers[point.target]
            key = f"verdict of {reader.called if point.verdict.startswith('target_') else point.layer}"
            if point.verdict in ("", "ok") or key in self._warned:
                continue
            binned = self._intake.variables.layers.get(point.layer)
            quantizer = self._intake.watched.quantizers[point.layer] if binned is None else binned.fitted
            assert quantizer is not None
            assert not isinstance(quantizer, Quantizer)
            self._warned.warn(key, advice(point, quantizer), VerdictWarning, stacklevel=3)


def _points(found: Points) -> Points:
    """The same points, of this process's own type where they came from another one."""
    return {
        target: {layer: InformationPoint._make(point) for layer, point in points.items()}
        for target, points in found.items()
    }
