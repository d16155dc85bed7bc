"""One measurement of a model: which layers, what is kept of each batch, and the figures it comes to."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_ib.estimation import Estimation, Progress, checked_max_samples
from lightning_ib.estimators import Estimators, checked_estimators
from lightning_ib.figures import Figures, Layer
from lightning_ib.functional import NOT_FINITE, Correction, Symbols, Unit, checked_correction, symbols
from lightning_ib.functional.checks import checked_unit
from lightning_ib.history import Estimate, InformationPoint
from lightning_ib.quantize import AutoQuantizer, Binned, Narrowing, Quantizer
from lightning_ib.recorder import Recorder, default_layers, device_of, first_tensor, resolve_layers
from lightning_ib.sample import this_process
from lightning_ib.verdict import VerdictWarning, advice

# How many pooled values of a variable wait to be put into bins together.
_AT_ONCE = 16_384

Layers = Sequence[str] | Mapping[str, Quantizer | None] | None


class _Recorded(NamedTuple):
    """What a hook keeps of a batch: the pooled values, and the rows that are sampled for estimators."""

    values: Tensor
    rows: Tensor | None


class InformationPlane(Metric):
    r"""One measurement of a model, in any PyTorch loop.

    It keeps 64-bit ids of the narrowed representations, and how many coordinates lie outside the bins: 9 bytes a sample
    and layer (12 with more than 255 pooled coordinates), whatever the layers' width, 8 more a sample for the labels and
    8 for a narrowed input; a few batches of pooled values wait, 64 KiB a layer or else one batch, to be put into bins
    together. Only while edges are being fitted, at the first measurement or with ``refit=True``, the pooled values of
    all samples are held: 4 bytes a sample and pooled coordinate, and a few times that for a layer at the moment its
    edges are fitted. Where there are ``estimators``, about twice ``max_samples`` rows of each layer are held at the
    most, as wide as it is. :meth:`reset` begins the next measurement; frozen edges stay.

    .. math:: I(X;T) = H(X) + H(T) - H(X,T) \qquad I(T;Y) = H(T) + H(Y) - H(T,Y)

    all of them plug-in entropies of the ids (see :mod:`lightning_ib.functional`).

    Args:
        layers: names of modules or glob patterns (``*`` does not cross a dot, ``**`` does), or a mapping from those to
            a :class:`Quantizer` each (``None``: an automatic one); ``None`` picks leaf modules with weights, without
            normalisation layers, at most twelve, spread over the depth. Layers without a quantizer get an
            :class:`AutoQuantizer`.
        input: ``None`` takes every sample for a symbol of its own, so that H(X) = log N and I(X;T) = H(T); a
            :class:`Quantizer` narrows X. A narrowed X does not determine T, and I(X;T) may lie below I(T;Y).
        target: ``None`` for class labels, integers ``(B,)``; a :class:`Quantizer` for real-valued targets.
        unit: ``"bits"`` or ``"nats"``.
        correction: of the plug-in entropies and of all figures built from them: ``"miller_madow"``, ``"grassberger"``,
            ``"chao_shen"``, ``"james_stein"`` or ``"jackknife"``; ``None`` leaves them as counted.
        shuffles: how often the labels are shuffled for what I(T;Y) is by chance; 0 for not at all.
        estimators: estimators that do not bin, by name (``"kde"``, ``"probe"``, …) or as an
            :class:`~lightning_ib.estimators.Estimator`; :meth:`estimate` gives their figures.
        max_samples: how many rows are sampled for them, the same ones in every pass over the same data.
        keep_rows: sample rows even where there is no estimator; ``estimation.drawn(layers)`` gives them.
        kwargs: passed to :class:`torchmetrics.Metric`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: no layer is named, or the unit is unknown.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
        >>> plane = InformationPlane(["0", "2"])
        >>> x, y = torch.rand(64, 4), torch.arange(64) % 2
        >>> with plane.attach(model):
        ...     _ = model(x)
        ...     plane.update(x, y)
        >>> [(point.layer, point.h_y) for point in plane.compute()]
        [('0', 1.0), ('2', 1.0)]
    """

    full_state_update = True

    def __init__(
        self,
        layers: Layers = None,
        *,
        input: Quantizer | None = None,
        target: Quantizer | None = None,
        unit: Unit = "bits",
        correction: Correction | None = None,
        shuffles: int = 5,
        estimators: Estimators = (),
        max_samples: int = 2000,
        keep_rows: bool = False,
        **kwargs: Any,
    ) -> None:
        # Counting again is cheap, and points carry the epoch they were asked for.
        super().__init__(**({"compute_with_cache": False} | kwargs))
        self.asked = checked_layers(layers)
        for name, quantizer in (("input", input), ("target", target)):
            if quantizer is not None and not isinstance(quantizer, Quantizer):
                raise TypeError(f"{name} must be a Quantizer or None, got {quantizer!r}.")
        checked_unit(unit)
        if correction is not None:
            checked_correction(correction)
        if isinstance(shuffles, bool) or not isinstance(shuffles, int) or shuffles < 0 or shuffles == 1:
            raise ValueError(f"shuffles must be 0 for none, or an integer of at least 2, got {shuffles!r}.")
        self.unit: Unit = unit
        self.correction, self.shuffles = correction, shuffles
        self.estimation = Estimation(
            checked_estimators(estimators), checked_max_samples(max_samples), keep_rows=keep_rows
        )
        """The estimators at work; ``estimation.settled`` is what they set from the layers at the first measurement."""
        self.narrowings: dict[str, Narrowing] = {}
        """Layer → its quantizer at work, in the order the layers are reported; empty before :meth:`attach`."""
        self._input = None if input is None else Narrowing(input)
        self._target = None if target is None else Narrowing(target)
        self._recorder: Recorder | None = None
        self._warned: set[str] = set()
        self._home = torch.device("cpu")
        for state in ("x", "y"):
            self._add_states(state)

    def _add_states(self, state: str) -> None:
        kinds = ("", "_held", "_outside") if state.startswith("t") else ("", "_held")
        for kind in kinds:
            self.add_state(f"{state}{kind}", default=[], dist_reduce_fx="cat")

    def attach(self, model: nn.Module) -> Recorder:
        """Hook the layers of ``model``; use it as ``with plane.attach(model): …``, or call ``remove()`` on the result.

        From here on the next :meth:`update` looks at what the layers put out in the last forward.

        Raises:
            ValueError: the model has no such layers; the sentence tells the nearest right names.
        """
        self.detach()
        names: dict[str, str]
        if self.narrowings:
            names = resolve_layers(model, self.narrowings)
        elif self.asked is None:
            names = {name: name for name in default_layers(model)}
        else:
            names = resolve_layers(model, self.asked)
        if not self.narrowings:
            for k, (name, pattern) in enumerate(names.items()):
                quantizer = None if self.asked is None else self.asked[pattern]
                self.narrowings[name] = Narrowing(AutoQuantizer() if quantizer is None else quantizer)
                self._add_states(f"t{k}")
        self._home = device_of(model)
        asked = {layer: self.narrowings[layer].asked.select for layer in names}
        select = {layer: chosen for layer, chosen in asked.items() if chosen is not None}
        self._recorder = Recorder(model, names, self._reduce, select)
        return self._recorder

    def _reduce(self, layer: str, activation: Tensor) -> _Recorded:
        values = self.narrowings[layer].values(activation)
        return _Recorded(values, self.estimation.rows(activation) if self.estimation.active else None)

    def detach(self) -> None:
        """Take the hooks off. Twice is harmless."""
        if self._recorder is not None:
            self._recorder.remove()
            self._recorder = None

    def reset(self) -> None:
        """Begin a new measurement: drop what was kept. Frozen edges stay; bins with ``refit=True`` forget theirs."""
        for state in self._defaults:
            setattr(self, state, [])  # where compute() failed between processes, it left what was gathered
        super().reset()
        self.estimation.reset()
        for narrowing in self._variables().values():
            narrowing.begin()

    def forward(self, x: Any, y: Tensor | None) -> None:
        """The same as :meth:`update`: one batch has no figures of its own."""
        self.update(x, y)

    def update(self, x: Any, y: Tensor | None) -> None:
        """Count in one batch; call it after the model's forward.

        Args:
            x: the input of the batch, ``(B, …)``; looked at only where ``input`` is a quantizer, and for the number of
                samples where there is no target.
            y: the target: integer labels ``(B,)``, or ``(B, …)`` real values with a quantizer; ``None`` where there is
                none: the figures about Y are NaN then.

        Raises:
            RuntimeError: no model is attached, or a layer did not run since the last update.
            TypeError: the labels are no tensor.
            ValueError: labels are real-valued without a quantizer, or the rows of a layer do not match them.
        """
        if self._recorder is None:
            raise RuntimeError("update needs a model: call it inside `with plane.attach(model):`, after the forward.")
        recorded: dict[str, _Recorded] = self._recorder.take()
        taken = {layer: kept.values for layer, kept in recorded.items()}
        others = {} if y is None else {"y": self._target_values(y)}
        if self._input is not None:
            others["x"] = self._input.values(self._input.asked.selected(x))
        n = len(next(iter(others.values()))) if others else _n_samples(x, taken)
        of = "inputs" if y is None else "labels"
        faults = {layer: self._fault(taken.get(layer), n, of) for layer in self.narrowings}
        self._leave_out({layer: fault for layer, fault in faults.items() if fault is not None})
        if "x" in others and len(others["x"]) != n:
            raise ValueError(f"the input put out {len(others['x'])} rows for {n} labels: its pool must keep the batch.")
        for state, value in ({f"t{k}": taken[layer] for k, layer in enumerate(self.narrowings)} | others).items():
            if not value.is_floating_point():
                self._keep(state, value)
                continue
            held = getattr(self, f"{state}_held")
            held.append(value)
            if sum(chunk.numel() for chunk in held) >= _AT_ONCE:
                self._put_into_bins(state)
        if self.estimation.active:
            rows = {layer: recorded[layer].rows for layer in self.narrowings}
            sampled = {layer: kept for layer, kept in rows.items() if kept is not None}
            real = y.double() if y is not None and self._target is not None and not y.is_floating_point() else y
            self.estimation.keep(n, sampled, self._input_rows(x), real)

    def _input_rows(self, x: Any) -> Tensor | None:
        """The input as estimators see it: as it is, whether it is narrowed or not."""
        if not self.estimation.needs_input:
            return None
        return first_tensor(x) if self._input is None else self._input.asked.selected(x)

    def _put_into_bins(self, state: str) -> None:
        """Turn values that wait into ids, where the edges are known: many batches cost little more than one."""
        narrowing, held = self._variables().get(state), getattr(self, f"{state}_held")
        if narrowing is not None and narrowing.edges is not None and held:
            self._keep_binned(state, narrowing.in_bins(torch.cat(held)))
            held.clear()

    def _keep_binned(self, state: str, binned: Binned) -> None:
        self._keep(state, binned.ids)
        if state.startswith("t"):
            self._keep(f"{state}_outside", binned.outside)

    def _keep(self, state: str, ids: Tensor) -> None:
        chunks = getattr(self, state)
        chunks.append(ids)
        # Merging equal-sized neighbours keeps the list, and the memory it costs, logarithmic in the batches.
        while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
            chunks[-2:] = [torch.cat(chunks[-2:])]

    def trim(self, n_samples: int) -> None:
        """Leave out what was counted after the first ``n_samples``, such as what evened out the shares of processes.

        Args:
            n_samples: how many to keep; where fewer were counted, all are kept.
        """
        self.estimation.trim(n_samples)
        for state in (*self._variables(), "y"):
            held, ids = getattr(self, f"{state}_held"), getattr(self, state)
            _trimmed(n_samples, ids, held)  # what waits came last
            if state.startswith("t"):
                _trimmed(n_samples, getattr(self, f"{state}_outside"))

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gather across processes, as torchmetrics does: 8 bytes a sample and layer once the edges are frozen."""
        available = distributed_available or self.distributed_available_fn
        if should_sync and not self._is_synced and available():
            self._agree(process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def unsync(self, should_unsync: bool = True) -> None:
        """Go back to what this process counted; values it held for a fit that has been made turn into ids."""
        super().unsync(should_unsync)
        for state, narrowing in self._variables().items():
            held = getattr(self, f"{state}_held")
            if should_unsync and held and narrowing.edges is not None:
                self._keep_binned(state, narrowing.held_in_bins(torch.cat(held)))
                held.clear()

    def _agree(self, group: Any) -> None:
        """Bring the states of all processes into one form, so that they can be gathered.

        A process that saw no batch has no states, knows no shapes, and has left no layer out: it follows the others.
        """
        for state in self._variables():
            self._put_into_bins(state)
        standings: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(standings, self._standing(), group=group)
        counted = [standing for standing in standings if standing]
        self._forget([layer for layer in self.narrowings if any(f"layer {layer!r}" not in one for one in counted)])
        for state in (*self._variables(), "y"):
            name, narrowing = self._name(state), self._variables().get(state)
            seen = [standing[name] for standing in counted if name in standing]
            if len({one["width"] for one in seen}) > 1 or len({one["held"] for one in seen}) > 1:
                raise ValueError(
                    f"{name} has another form in one process than in another ({seen}): all processes must narrow "
                    "alike, and start from one checkpoint."
                )
            if not seen:
                continue
            if narrowing is not None:
                narrowing.adopt(seen[0]["shape"], seen[0]["width"])
            if not any(map(len, (*getattr(self, state), *getattr(self, f"{state}_held")))):
                tail, dtype = seen[0]["held"] or ((), torch.int64)
                empty = torch.empty(0, *tail, dtype=dtype, device=self._home)
                setattr(self, f"{state}_held" if seen[0]["held"] else state, [empty])
            if state.startswith("t") and not getattr(self, f"{state}_outside") and seen[0]["outside"] is not None:
                setattr(self, f"{state}_outside", [torch.empty(0, dtype=seen[0]["outside"], device=self._home)])

    def _standing(self) -> dict[str, Any]:
        """What this process has of each variable it counted: nothing, where it saw no batch."""
        standing = {}
        for state in (*self._variables(), "y"):
            narrowing, held = self._variables().get(state), getattr(self, f"{state}_held")
            if any(map(len, (*held, *getattr(self, state)))):
                standing[self._name(state)] = {
                    "held": (tuple(held[0].shape[1:]), held[0].dtype) if held else None,
                    "outside": next((c.dtype for c in getattr(self, f"{state}_outside", [])), None),
                    "width": narrowing and narrowing.width,
                    "shape": narrowing and narrowing.shape,
                }
        return standing

    def _forget(self, layers: Sequence[str]) -> None:
        """Go on without some layers: their hooks, narrowings and states."""
        kinds = ("", "_held", "_outside")
        kept = [
            {kind: getattr(self, f"t{k}{kind}") for kind in kinds}
            for k, layer in enumerate(self.narrowings)
            if layer not in layers
        ]
        for layer in layers:
            del self.narrowings[layer]
        if self._recorder is not None:
            self._recorder.forget(layers)
        for k, states in enumerate(kept + [{kind: [] for kind in kinds} for _ in layers]):
            for kind, chunks in states.items():
                setattr(self, f"t{k}{kind}", chunks)

    @staticmethod
    def _fault(value: Tensor | None, n: int, of: str) -> Exception | None:
        """What is wrong with what a layer put out for a batch of ``n``, if anything is."""
        if value is None:
            return RuntimeError(
                "never ran in this forward, so there is nothing to measure: name a module that is called as a module "
                "(not through its .forward, its weights or a fused path). A compiled model that ran before with other "
                "layers watched, or none, needs torch.compiler.reset() first, and so does another like it."
            )
        if len(value) != n:
            return ValueError(
                f"put out {len(value)} rows for {n} {of}: its first dimension must be the batch. Name another "
                "module, or one that runs once a forward over the whole batch, or give Quantizer(select=…), which puts "
                "the batch first: lambda output: output.transpose(0, 1), say."
            )
        return None

    def _leave_out(self, faults: dict[str, Exception]) -> None:
        """Go on without layers at fault, if nobody asked for them by name and nothing was counted yet."""
        if faults and (self.asked is not None or self._update_count > 1 or len(faults) == len(self.narrowings)):
            fault = next(iter(faults.values()))
            alike = [layer for layer, other in faults.items() if str(other) == str(fault)]
            raise type(fault)(f"layer {', '.join(map(repr, alike))} {fault}")
        self._forget(list(faults))
        for layer, fault in faults.items():
            self._warn_once(layer, f"layer {layer!r} is left out, nobody having named it: it {fault}")

    def _target_values(self, y: Tensor) -> Tensor:
        if not isinstance(y, Tensor):
            raise TypeError(f"the target must be a tensor, got {type(y).__name__}: convert it in unpack.")
        if self._target is not None:
            return self._target.values(y)
        if y.is_floating_point() or y.is_complex():
            raise ValueError(
                f"the labels are real-valued ({y.dtype}): give target=Quantizer(bins=QuantileBins(10)), say, to put "
                "them into bins, or convert class labels to integers in unpack."
            )
        if y.ndim == 0 or y.numel() != len(y):
            raise ValueError(
                f"the labels have shape {tuple(y.shape)}: one class index for each sample, (B,), is needed. Convert "
                "them in unpack (one-hot labels: y.argmax(1)), or give target=Quantizer(…)."
            )
        return y.detach().reshape(-1).long().clone()

    def compute(self, *, epoch: int = 0, step: int = 0) -> list[InformationPoint]:
        """The figures of this measurement, a point a layer.

        A layer with a NaN or an infinity in it gives a point of NaNs, and one warning that names it.

        Args:
            epoch: what to write into the points.
            step: what to write into the points.

        Raises:
            ValueError: nothing was counted, or bins gave edges that descend or are NaN.
        """
        n = sum(len(chunk) for state in ("t0", "t0_held") for chunk in _listed(getattr(self, state, [])))
        if n == 0:
            raise ValueError("nothing was counted: no batch was seen. Is the data empty?")
        x, y = self._counted("x", epoch), self._counted("y", epoch)
        if y is not None and len(y.numbers) != n:
            raise ValueError(f"{len(y.numbers)} of {n} samples came with a target: give one for each, or for none.")
        if y is not None and len(y.counts) == 1:
            self._warn_once(
                "one class",
                f"all {len(y.numbers)} samples have the same target at epoch {epoch}: H(Y) is 0 and I(T;Y) says "
                "nothing, so it is NaN. Measure on data with several classes.",
            )
        figures = Figures(
            n,
            x,
            y,
            identity=self._input is None,
            unit=self.unit,
            correction=self.correction,
            shuffles=self.shuffles,
        )
        points = []
        # One layer after the other: the numbered symbols of a layer take more memory than its ids.
        for k, (layer, narrowing) in enumerate(self.narrowings.items()):
            point = figures.point(layer, self._layer(f"t{k}", narrowing, epoch))._replace(epoch=epoch, step=step)
            points.append(point)
            key = f"verdict of {layer}"
            if point.verdict not in ("", "ok") and key not in self._warned:
                self._warn_once(key, advice(point, narrowing), VerdictWarning)
        return points

    def estimate(self, *, epoch: int = 0, step: int = 0, progress: Progress = lambda pairs: pairs) -> list[Estimate]:
        """The figures of the estimators that do not bin, for all layers; with several processes all must ask.

        What one sets from a layer's scale is set at its first measurement and frozen, as edges are. A figure that
        cannot be had is NaN, and one warning says why.

        Args:
            epoch: what to write into the estimates.
            step: what to write into the estimates.
            progress: wraps the pairs of layer and estimator, for a progress bar.
        """
        if not self.estimation.estimators:
            return []
        return self.estimation.estimate(
            self.narrowings, unit=self.unit, epoch=epoch, step=step, warn=self._warn_once, progress=progress
        )

    def _layer(self, state: str, narrowing: Narrowing, epoch: int) -> Layer | None:
        counted = self._counted(state, epoch)
        if counted is None:
            return None
        outside = sum(int(chunk.sum()) for chunk in _listed(getattr(self, f"{state}_outside")))
        values = len(counted.numbers) * (narrowing.n_coordinates or 0)
        told = narrowing.tells_outside and values > 0
        return Layer(counted, outside / values if told else math.nan, narrowing.quantizer.bins.tails)

    def _counted(self, state: str, epoch: int) -> Symbols | None:
        """The symbols of a variable; none where it was not recorded or is not finite."""
        narrowing = self._variables().get(state)
        if not self._is_synced:
            self._put_into_bins(state)
        held, chunks = _listed(getattr(self, f"{state}_held")), _listed(getattr(self, state))
        if held and narrowing is not None:
            z = torch.cat(held)
            if narrowing.edges is None and bool(z.isfinite().all()):
                self._fit(state, narrowing, z)
            if narrowing.edges is None:  # not finite, or a constant no choice was made for: one symbol
                chunks = [torch.where(z.isfinite().all(1), 0, NOT_FINITE)]
            else:
                binned = narrowing.held_in_bins(z)
                chunks, held = [binned.ids], []
                if state.startswith("t"):
                    setattr(self, f"{state}_outside", [binned.outside])
        if not chunks:
            return None
        ids = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
        if not held and not self._is_synced:  # in one piece from here on; values that were held have served
            setattr(self, f"{state}_held", [])
            setattr(self, state, [ids])
        del chunks
        if narrowing is not None and (missing := int((ids == NOT_FINITE).sum())):
            name = self._name(state)
            self._warn_once(
                name,
                f"{name} gave NaN or infinite values in {missing} of {len(ids)} samples at epoch {epoch}: its figures "
                "are NaN until they are finite again. Training is not touched.",
            )
            return None
        return symbols(ids)

    def _fit(self, state: str, narrowing: Narrowing, z: Tensor) -> None:
        try:
            narrowing.fit(z)
        except ValueError as error:
            raise ValueError(f"{self._name(state)} cannot be put into bins: {error}") from error

    def _name(self, state: str) -> str:
        names = {"x": "the input", "y": "the target"}
        return names.get(state) or f"layer {list(self.narrowings)[int(state[1:])]!r}"

    def _warn_once(self, key: str, message: str, kind: type[UserWarning] = UserWarning) -> None:
        if key not in self._warned and this_process()[0] == 0:
            self._warned.add(key)
            warnings.warn(message, kind, stacklevel=4)

    def _variables(self) -> dict[str, Narrowing]:
        variables = {f"t{k}": narrowing for k, narrowing in enumerate(self.narrowings.values())}
        variables |= {state: n for state, n in (("x", self._input), ("y", self._target)) if n is not None}
        return variables

    def frozen_state(self) -> dict[str, Any]:
        """The frozen edges and automatic choices of every variable, in tensors and primitives, for a checkpoint."""
        named: dict[str, Any] = {"layers": {layer: n.state_dict() for layer, n in self.narrowings.items()}}
        if self.estimation.settled:
            named["estimators"] = copy.deepcopy(self.estimation.settled)
        return named | {k: n.state_dict() for k, n in (("input", self._input), ("target", self._target)) if n}

    def load_frozen_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`frozen_state` gave; call it after :meth:`attach`. Layers it does not name are left.

        Raises:
            ValueError: a part of ``state`` is not what :meth:`frozen_state` gives; all other parts are taken up.
        """
        layers = state.get("layers", {}) if isinstance(state, Mapping) else None
        if not isinstance(layers, Mapping):
            raise ValueError("the frozen edges are no mapping with the edges of the 'layers'")
        parts = [(f"layer {layer!r}", narrowing, layers.get(layer)) for layer, narrowing in self.narrowings.items()]
        parts += [(f"the {k}", n, state.get(k)) for k, n in (("input", self._input), ("target", self._target)) if n]
        faults = []
        for name, narrowing, saved in parts:
            try:
                narrowing.load_state_dict({} if saved is None else saved)
            except ValueError as error:
                faults.append(f"what is frozen for {name} {error}")
        try:
            self.estimation.load(state.get("estimators", {}) if isinstance(state, Mapping) else {})
        except ValueError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))


def _n_samples(x: Any, taken: Mapping[str, Tensor]) -> int:
    """How many samples a batch without a target has: the rows of the input, else those of the first layer."""
    try:
        return len(first_tensor(x))
    except (ValueError, TypeError):
        return len(next(iter(taken.values()), ()))


def _trimmed(n: int, *lists: list[Tensor]) -> None:
    """Cut off what comes after the first ``n`` rows of lists that follow one another."""
    excess = sum(len(chunk) for chunks in lists for chunk in chunks) - n
    for chunks in reversed(lists):
        while chunks and excess > 0:
            last = chunks.pop()
            excess -= len(last)
            if excess < 0:
                chunks.append(last[:-excess])


def _listed(state: Tensor | list[Tensor]) -> list[Tensor]:
    """A list state, which is one tensor after it was gathered across processes, an empty one if there was nothing."""
    return [chunk for chunk in ([state] if isinstance(state, Tensor) else state) if len(chunk)]


def checked_layers(layers: Layers) -> dict[str, Quantizer | None] | None:
    """``layers`` as a mapping from names or patterns to quantizers, where they are of a kind that is allowed.

    Raises:
        TypeError: they are not.
        ValueError: there is none.
    """
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, (Mapping, Sequence)):
        raise TypeError(
            f"layers must be a list of module names, a mapping from names to Quantizer, or None, got {layers!r}."
            + (f" Did you mean [{layers!r}]?" if isinstance(layers, str) else "")
        )
    if not layers:
        raise ValueError("layers is empty: name at least one module, or give None to have them picked.")
    asked = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers)
    for name, quantizer in asked.items():
        if not isinstance(name, str):
            raise TypeError(f"layers must name modules by strings as in named_modules(), got {name!r}.")
        if quantizer is not None and not isinstance(quantizer, Quantizer):
            raise TypeError(f"the layer {name!r} needs a Quantizer or None, got {quantizer!r}.")
    return asked
