"""The end of a pass: from its rows to the points of its layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_ib.binning.quantizer import Quantizer
from lightning_ib.distributed import on_rank_zero
from lightning_ib.functional import Correction, Symbols, Unit
from lightning_ib.measurement.advice import advice
from lightning_ib.measurement.bounds import Pass, PlaneBounds, input_symbols
from lightning_ib.measurement.discretized import in_bins, in_cells
from lightning_ib.measurement.intake import Intake
from lightning_ib.measurement.layer_summary import CountedLayer, LayerSummary, head_bound
from lightning_ib.measurement.reading import finite_symbols, sampled_symbols
from lightning_ib.measurement.sampled import Drawn
from lightning_ib.measurement.variables import Variables
from lightning_ib.records.bound import BoundLine
from lightning_ib.records.points import InformationPoint
from lightning_ib.records.reliability import VerdictWarning
from lightning_ib.warn_once import WarnOnce


class PointMaker:
    """Counts the rows of a pass: the layers in bins on every sample, the others on the sampled rows.

    Args:
        intake: holds the rows of the pass.
        unit: of the points.
        correction: of the plug-in entropies.
        n_permutations: how often the labels are permuted.
        bounds: that the points are compared with.
        warned: takes the warnings.
    """

    def __init__(
        self,
        intake: Intake,
        unit: Unit,
        correction: Correction | None,
        n_permutations: int,
        bounds: PlaneBounds,
        warned: WarnOnce,
    ) -> None:
        self.discretized: dict[str, str] = {}
        """Layer → how it was discretized at the last measurement, in words, of the layers cut into cells."""
        self._intake, self._bounds, self._warned = intake, bounds, warned
        self._unit, self._correction, self._n_permutations = unit, correction, n_permutations

    def of_pass(self, *, epoch: int, shared: bool) -> dict[str, InformationPoint]:
        """Layer → its point.

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
        y = intake.target.symbols(kept.y, epoch)
        sampled_y = None if drawn is None else intake.target.sampled(kept.y, drawn, epoch)
        intake.heads.recognize(None if drawn is None or sampled_y is None else drawn.others, intake.n_coordinates)
        bound = head_bound(intake.heads.head, sampled_y, self._unit)
        found = self._in_bins(kept, n, x, y, bound, epoch)
        intake.variables.bin_waiting()  # by edges that were fitted to the values of all processes
        seen = Pass(None, y, n)
        if drawn is not None:
            sampled_x = sampled_symbols(kept.x, drawn.others.get("pooled x"), epoch, self._warned)
            seen = Pass(input_symbols(drawn.others.get("x id")), sampled_y, drawn.n)
            if intake.has_cells:
                summary = self._summary(drawn.n, sampled_x, sampled_y, bound, epoch, drawn.others.get("sequence"))
                found |= self._in_cells(intake.measured(shared=shared), summary, seen, epoch, shared)
        return self._beside_the_curve(found, seen, shared) if self._bounds.name else found

    def _beside_the_curve(
        self, found: dict[str, InformationPoint], seen: Pass, shared: bool
    ) -> dict[str, InformationPoint]:
        """The points with the bound at each; of several processes the first solves for the curve."""

        def work() -> tuple[dict[str, InformationPoint], BoundLine | None]:
            return self._bounds.applied(found, seen), self._bounds.line

        points, self._bounds.line = on_rank_zero(work) if shared else work()
        return {layer: InformationPoint._make(point) for layer, point in points.items()}

    def _in_bins(
        self, kept: Variables, n: int, x: Symbols | None, y: Symbols | None, bound: float, epoch: int
    ) -> dict[str, InformationPoint]:
        """The points of the layers in bins."""
        layers = list(self._intake.variables.layers)
        if not layers:
            return {}
        summary = self._summary(n, x, y, bound, epoch, None if kept.sequences is None else kept.sequences.rows())
        # One layer after the other: the numbered symbols of a layer take more memory than its ids.
        return {
            layer: self._point(layer, summary, in_bins(kept.layers[layer], epoch, self._warned), Pass(None, y, n))
            for layer in layers
        }

    def _point(self, layer: str, summary: LayerSummary, counted: CountedLayer | None, seen: Pass) -> InformationPoint:
        t = None if counted is None else counted.symbols
        return self._bounds.with_deviations(summary.point(layer, counted), t, seen)

    def _in_cells(
        self, measured: Drawn, summary: LayerSummary, seen: Pass, epoch: int, shared: bool
    ) -> dict[str, InformationPoint]:
        """The points of the layers cut into cells; of several processes the first cuts them for all."""
        intake = self._intake

        def work() -> tuple[dict[str, InformationPoint], dict[str, str]]:
            found, quantizers = {}, intake.watched.quantizers
            for one in in_cells(measured, quantizers, intake.n_coordinates, intake.heads.head, epoch, self._warned):
                found[one.layer] = self._point(one.layer, summary, one.counted, seen)
                self.discretized |= {one.layer: one.how} if one.how else {}
            return found, self.discretized

        found, self.discretized = on_rank_zero(work) if shared else work()
        return {layer: InformationPoint._make(point) for layer, point in found.items()}

    def _summary(
        self, n: int, x: Symbols | None, y: Symbols | None, bound: float, epoch: int, clusters: Tensor | None
    ) -> LayerSummary:
        """The summary of layers with one X and one Y."""
        if y is not None and len(y.counts) == 1:
            self._warned.warn(
                "one class",
                f"all {len(y.numbers)} samples have the same target at epoch {epoch}: H(Y) is 0 and I(T;Y) says "
                "nothing, so it is NaN. Measure on data with several classes.",
            )
        return LayerSummary(
            n,
            x,
            y,
            identity=self._intake.input is None,
            unit=self._unit,
            correction=self._correction,
            n_permutations=self._n_permutations,
            head=self._intake.heads.head,
            bound=bound,
            clusters=clusters,
        )

    def warn_of_verdicts(self, points: Sequence[InformationPoint]) -> None:
        """Warn of each flagged layer once, with advice."""
        for point in points:
            key = f"verdict of {'the target' if point.verdict.startswith('target_') else point.layer}"
            if point.verdict in ("", "ok") or key in self._warned:
                continue
            binned = self._intake.variables.layers.get(point.layer)
            quantizer = self._intake.watched.quantizers[point.layer] if binned is None else binned.fitted
            assert quantizer is not None
            assert not isinstance(quantizer, Quantizer)
            self._warned.warn(key, advice(point, quantizer), VerdictWarning, stacklevel=3)
