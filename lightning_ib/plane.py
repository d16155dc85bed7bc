"""One measurement of a model: which layers, what is kept of each batch, and the figures it comes to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_ib.functional import (
    NOT_FINITE,
    Symbols,
    Unit,
    add_entropies,
    entropy_of_counts,
    joint,
    joint_counts,
    symbols,
)
from lightning_ib.history import InformationPoint
from lightning_ib.quantize import AutoQuantizer, Narrowing, Quantizer
from lightning_ib.recorder import Recorder, default_layers, device_of, first_tensor, resolve_layers

# How many pooled values of a variable wait to be put into bins together.
_AT_ONCE = 16_384

Layers = Sequence[str] | Mapping[str, Quantizer | None] | None


class InformationPlane(Metric):
    r"""One measurement of a model, in any PyTorch loop.

    It keeps 64-bit ids of the narrowed representations: 8 bytes a sample and layer, whatever the layers' width, 8 more
    a sample for the labels and 8 for a narrowed input; a few batches of pooled values wait, 64 KiB a layer or else one
    batch, to be put into bins together. Only while edges are being fitted, at the first measurement or with
    ``refit=True``, the pooled values of all samples are held: 4 bytes a sample and pooled coordinate, and a few
    times that for a layer at the moment its edges are fitted. :meth:`reset` begins the next measurement; frozen edges
    stay.

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
        **kwargs: Any,
    ) -> None:
        # Counting again is cheap, and points carry the epoch they were asked for.
        super().__init__(**({"compute_with_cache": False} | kwargs))
        self.asked = checked_layers(layers)
        for name, quantizer in (("input", input), ("target", target)):
            if quantizer is not None and not isinstance(quantizer, Quantizer):
                raise TypeError(f"{name} must be a Quantizer or None, got {quantizer!r}.")
        if unit not in get_args(Unit):
            raise ValueError(f"unit must be 'bits' or 'nats', got {unit!r}.")
        self.unit: Unit = unit
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
        for name in (state, f"{state}_held"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

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

    def _reduce(self, layer: str, activation: Tensor) -> Tensor:
        return self.narrowings[layer].values(activation)

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
        taken = self._recorder.take()
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

    def _put_into_bins(self, state: str) -> None:
        """Turn values that wait into ids, where the edges are known: many batches cost little more than one."""
        narrowing, held = self._variables().get(state), getattr(self, f"{state}_held")
        if narrowing is not None and narrowing.edges is not None and held:
            self._keep(state, narrowing.ids(torch.cat(held)))
            held.clear()

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
        for state in (*self._variables(), "y"):
            held, ids = getattr(self, f"{state}_held"), getattr(self, state)
            excess = sum(map(len, (*ids, *held))) - n_samples
            for chunks in (held, ids):  # what waits came last
                while chunks and excess > 0:
                    last = chunks.pop()
                    excess -= len(last)
                    if excess < 0:
                        chunks.append(last[:-excess])

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
                self._keep(state, narrowing.held_ids(torch.cat(held)))
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
                narrowing.shape = seen[0]["shape"]
            if not any(map(len, (*getattr(self, state), *getattr(self, f"{state}_held")))):
                tail, dtype = seen[0]["held"] or ((), torch.int64)
                empty = torch.empty(0, *tail, dtype=dtype, device=self._home)
                setattr(self, f"{state}_held" if seen[0]["held"] else state, [empty])

    def _standing(self) -> dict[str, Any]:
        """What this process has of each variable it counted: nothing, where it saw no batch."""
        standing = {}
        for state in (*self._variables(), "y"):
            narrowing, held = self._variables().get(state), getattr(self, f"{state}_held")
            if any(map(len, (*held, *getattr(self, state)))):
                standing[self._name(state)] = {
                    "held": (tuple(held[0].shape[1:]), held[0].dtype) if held else None,
                    "width": narrowing and narrowing.width,
                    "shape": narrowing and narrowing.shape,
                }
        return standing

    def _forget(self, layers: Sequence[str]) -> None:
        """Go on without some layers: their hooks, narrowings and states."""
        kept = [
            (getattr(self, f"t{k}"), getattr(self, f"t{k}_held"))
            for k, layer in enumerate(self.narrowings)
            if layer not in layers
        ]
        for layer in layers:
            del self.narrowings[layer]
        if self._recorder is not None:
            self._recorder.forget(layers)
        for k, (ids, held) in enumerate(kept):
            setattr(self, f"t{k}", ids)
            setattr(self, f"t{k}_held", held)
        for k in range(len(kept), len(kept) + len(layers)):
            setattr(self, f"t{k}", [])
            setattr(self, f"t{k}_held", [])

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
        identity = self._input is None
        figures = _Figures(n, x, y, identity=identity, unit=self.unit)
        # One layer after the other: the numbered symbols of a layer take more memory than its ids.
        return [
            figures.point(layer, self._counted(f"t{k}", epoch))._replace(epoch=epoch, step=step)
            for k, layer in enumerate(self.narrowings)
        ]

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
                chunks, held = [narrowing.held_ids(z)], []
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

    def _warn_once(self, key: str, message: str) -> None:
        if key not in self._warned and not (self._is_synced and dist.get_rank() > 0):
            self._warned.add(key)
            warnings.warn(message, UserWarning, stacklevel=4)

    def _variables(self) -> dict[str, Narrowing]:
        variables = {f"t{k}": narrowing for k, narrowing in enumerate(self.narrowings.values())}
        variables |= {state: n for state, n in (("x", self._input), ("y", self._target)) if n is not None}
        return variables

    def frozen_state(self) -> dict[str, Any]:
        """The frozen edges and automatic choices of every variable, in tensors and primitives, for a checkpoint."""
        named = {"layers": {layer: narrowing.state_dict() for layer, narrowing in self.narrowings.items()}}
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
        if faults:
            raise ValueError("; ".join(faults))


class _Figures:
    """The figures of all layers against one X and one Y, whose own entropies are counted once.

    Where X is the identity of the sample it determines T, and the joint entropies follow without counting:
    H(X) = H(X,T) = H(X,T,Y) = log N.
    """

    def __init__(self, n: int, x: Symbols | None, y: Symbols | None, *, identity: bool, unit: Unit) -> None:
        self.n, self.x, self.y, self.unit, self.identity = n, x, y, unit, identity
        self.h_x = math.nan if x is None else self.h(x)
        self.h_y = math.nan if y is None else self.h(y)
        self.xy = None if x is None or y is None else joint(x, y)

    def h(self, variable: Symbols) -> float:
        return entropy_of_counts(variable.counts, unit=self.unit)

    def h_with(self, t: Symbols, other: Symbols | None) -> float:
        return math.nan if other is None else entropy_of_counts(joint_counts(t, other), unit=self.unit)

    def point(self, layer: str, t: Symbols | None) -> InformationPoint:
        if t is None:
            return InformationPoint.missing(layer, n_samples=self.n, unit=self.unit)
        n = self.n
        log_n = math.log2(n) if self.unit == "bits" else math.log(n)
        h_t, h_ty = self.h(t), self.h_with(t, self.y)
        if self.identity:
            h_x = h_xt = h_xty = log_n
            h_xy = log_n
        else:
            h_x, h_xt, h_xty = self.h_x, self.h_with(t, self.x), self.h_with(t, self.xy)
            h_xy = math.nan if self.xy is None else self.h(self.xy)
        told = self.y is not None and len(self.y.counts) > 1
        i_ty = add_entropies(h_t, self.h_y, -h_ty) if told else math.nan
        return InformationPoint(
            epoch=0,
            step=0,
            layer=layer,
            i_xt=h_t if self.identity else add_entropies(h_x, h_t, -h_xt),
            i_ty=i_ty,
            h_t=h_t,
            h_x=h_x,
            h_y=self.h_y,
            h_y_given_t=add_entropies(h_ty, -h_t) if told else math.nan,
            i_xt_given_y=add_entropies(h_xy, h_ty, -self.h_y, -h_xty) if told else math.nan,
            n_samples=n,
            n_codes=len(t.counts),
            saturation=h_t / log_n if n > 1 else math.nan,
            unit=self.unit,
        )


def _n_samples(x: Any, taken: Mapping[str, Tensor]) -> int:
    """How many samples a batch without a target has: the rows of the input, else those of the first layer."""
    try:
        return len(first_tensor(x))
    except (ValueError, TypeError):
        return len(next(iter(taken.values()), ()))


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
