"""The instrument of gradients: what two sums over the batches of an epoch say about each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_ib.capture.layers import NoLayersError, default_layers, named_modules, resolve_layers
from lightning_ib.functional import GradientSignal
from lightning_ib.functional.checks import checked_flag, checked_integer
from lightning_ib.functional.gradients import signal_of
from lightning_ib.measurement.sketch import Sketch
from lightning_ib.records.history import History
from lightning_ib.records.record import ALL_LAYERS, GRADIENT, Record

_CHUNK = 2**16  # a norm in float32 over more values than that is off by more than its last digits


@dataclass
class _Sums:
    """The sums of one parameter.

    Attributes:
        parameter: the parameter.
        start: the weights of the start, or their sketch, on the CPU; None until the first step is seen.
        total: Σ g, or its sketch; None before the first gradient.
        squares: Σ ‖g‖².
        n: the number of gradients.
        n_samples: the number of samples that they are means of.
    """

    parameter: nn.Parameter
    start: Tensor | None = None
    total: Tensor | None = None
    squares: Tensor | None = None
    n: int = 0
    n_samples: int = 0

    def reset(self) -> None:
        if self.n:
            assert self.total is not None
            assert self.squares is not None
            self.total.zero_()
            self.squares.zero_()
        self.n = self.n_samples = 0


class GradientSNR:
    r"""The gradients' signal and noise in layers, their weights' norm :math:`\|w\|`, and the way :math:`\|w - w_0\|`.

    The ratios are those of :func:`~lightning_ib.functional.gradient_signal`. It keeps Σ g and Σ ‖g‖² of each parameter,
    reads gradients where they lie, and draws no random numbers.

    Source:
        The way from the start: Hoffer, Hubara & Soudry (2017).

    Cost:
        A number for each watched weight on its device, and one on the CPU for the weights of the start. Nothing waits
        for the device before ``compute()``.

    Samples:
        None: norms of the weights as they are.

    Trap:
        Before a normalization layer weights may grow without any change of what the network computes. Sums in float32
        tell ratios of up to some thousand; gradients whose squares are below its range give NaN.

    Args:
        layers: names as in ``named_modules()`` or glob patterns; ``None`` takes leaf modules with weights,
            normalization layers left out, at most twelve, spread over the depth. Of a module with submodules all
            weights count.
        biases: whether biases count too; by default the weights alone, as in the field.
        sketch: if set, so many numbers (about) a parameter are kept in place of the parameter's own size: the norms of
            the mean gradient, of its spread and of the way the weights went are then estimates, with a relative
            standard deviation of their squares of :math:`\sqrt{2/k}`.

    Attributes:
        layers: the names of the watched layers.
        n_skipped: how many steps were left out since the last :meth:`reset`, see :meth:`skip`.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: one is out of its range.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> instrument = GradientSNR()
        >>> instrument.attach(model)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(16, 8)).square().mean().backward()
        ...     instrument.see(n_samples=16)
        ...     optimizer.step()
        >>> measured = instrument.compute(epoch=1, step=3)
        >>> sorted({record.layer for record in measured.records()}), measured.records()[0].quantity
        (['0', '2', 'all_layers'], 'grad_mean')
    """

    def __init__(
        self, layers: str | Sequence[str] | None = None, *, biases: bool = False, sketch: int | None = None
    ) -> None:
        named = [layers] if isinstance(layers, str) else layers
        if named is not None:
            listed = isinstance(named, Sequence) and all(isinstance(name, str) for name in named)
            if not listed or not named or "" in named:
                kind = ValueError if listed else TypeError
                raise kind(f"layers must be names as in named_modules(), a list of at least one, got {layers!r}.")
        self._named = None if named is None else list(named)
        self._biases = checked_flag(biases, "biases")
        self._sketch = None if sketch is None else Sketch(checked_integer(sketch, "sketch", at_least=16, at_most=2**16))
        self._of_layer: dict[str, list[_Sums]] = {}
        self._sums: dict[int, _Sums] = {}  # by the identity of the parameter: a shared one counts once
        self._starts: Mapping[str, Tensor] = {}  # of a checkpoint, for the parameters that come
        self._names: dict[int, str] = {}
        self._keeps_start = True
        self.n_skipped = 0

    @property
    def layers(self) -> list[str]:
        """The names of the watched layers, without that of all of them."""
        return list(self._of_layer)

    @property
    def n_steps(self) -> int:
        """The number of steps since the last :meth:`reset`: the most that any parameter had a gradient in."""
        return max((one.n for one in self._sums.values()), default=0)

    @property
    def n_samples(self) -> int:
        """The number of samples behind the gradients of those steps; 0 where it is unknown."""
        return max((one.n_samples for one in self._sums.values()), default=0)

    @property
    def idle_layers(self) -> list[str]:
        """The layers to which no gradient came, although they are trained."""
        return [
            layer
            for layer, sums in self._of_layer.items()
            if not any(one.n for one in sums) and any(one.parameter.requires_grad for one in sums)
        ]

    @property
    def broken_layers(self) -> list[str]:
        """The layers whose gradients were infinite or NaN; this waits for the device."""
        return [
            layer
            for layer, sums in self._of_layer.items()
            if any(one.squares is not None and not math.isfinite(one.squares.item()) for one in sums if one.n)
        ]

    # -- the model -----------------------------------------------------------------------------------------------------

    def find(self, model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Layer → its weights, by their names in the model.

        Raises:
            ValueError: the model lacks a layer that was named, one has no weights, or no layer of the model has.
        """
        modules = named_modules(model)
        asked = resolve_layers(model, self._named) if self._named is not None else {}
        layers = list(asked) if self._named is not None else default_layers(model)
        found = {
            layer: [
                (f"{layer}.{name}", parameter)
                for name, parameter in modules[layer].named_parameters()
                if self._biases or not _is_bias(name)
            ]
            for layer in layers
        }
        for layer, weights in found.items():
            if weights or asked.get(layer) != layer:  # of a pattern those that have weights are meant
                continue
            with_weights = [name for name in default_layers(model) if name != layer]
            near = next((name for name in with_weights if name.startswith(f"{layer}.")), with_weights[0])
            raise ValueError(
                f"layer {layer!r} ({type(modules[layer]).__name__}) has no weights, and so no gradients: name one that "
                f"has, such as {near!r}."
            )
        found = {layer: weights for layer, weights in found.items() if weights}
        if not found:
            if self._named is not None:
                raise ValueError(
                    f"{', '.join(map(repr, self._named))} match no layer with weights in {type(model).__name__}: name "
                    f"one that has, such as {default_layers(model)[0]!r}."
                )
            raise NoLayersError(f"{type(model).__name__} has no layer whose weights could be watched.")
        return found

    def attach(self, model: nn.Module, frozen: Mapping[str, Any] | None = None, *, keeps_start: bool = True) -> None:
        """Watch the weights of a model.

        Args:
            model: the model.
            frozen: the weights that distances are taken from, as from :meth:`frozen_state`; by default those of now.
            keeps_start: whether :meth:`frozen_state` holds them; a share of the weights is of use in no other process.

        Raises:
            ValueError: see :meth:`find`.
        """
        found = self.find(model)
        self.detach()
        self._starts, self._keeps_start = {}, keeps_start
        if frozen is not None:
            self.load_frozen_state(frozen)
        for layer, weights in found.items():
            self._of_layer[layer] = []
            for name, parameter in weights:
                sums = self._sums.setdefault(id(parameter), _Sums(parameter))
                self._names.setdefault(id(parameter), name)
                self._of_layer[layer].append(sums)
        for sums in self._sums.values():
            self._keep_start(sums)

    def detach(self) -> None:
        """Let go of the model, and keep the weights of its start. Idempotent."""
        self._starts = self.frozen_state()["start"]
        self._of_layer, self._sums, self._names = {}, {}, {}
        self.n_skipped = 0

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the weights of the start, and not the model."""
        alone = {"_of_layer": {}, "_sums": {}, "_names": {}, "_starts": self.frozen_state()["start"], "n_skipped": 0}
        return self.__dict__ | alone

    def reset(self) -> None:
        """Begin a new epoch; the weights of the start stay."""
        self.n_skipped = 0
        for sums in self._sums.values():
            sums.reset()

    def _keep_start(self, sums: _Sums) -> None:
        """Keep the weights of the start, once they are there, unless a checkpoint brought them."""
        if sums.start is not None or is_lazy(sums.parameter):
            return
        saved = self._starts.get(self._names[id(sums.parameter)])
        weights = _local(sums.parameter.detach())
        if saved is not None and self._sketch is not None and saved.shape == weights.shape:
            saved = self._of(saved)
        now = self._of(weights)
        sums.start = now.to("cpu", copy=True) if saved is None or saved.shape != now.shape else saved

    def _of(self, values: Tensor) -> Tensor:
        """What is kept of values of the size of a parameter."""
        return values if self._sketch is None else self._sketch(values)

    def frozen_state(self) -> dict[str, Any]:
        """The weights of the start, by the names of the parameters, for a checkpoint."""
        starts = {self._names[key]: sums.start for key, sums in self._sums.items() if sums.start is not None}
        return {"start": dict(self._starts) | starts if self._keeps_start else {}}

    def load_frozen_state(self, state: Any) -> None:
        """Take the weights of the start from a checkpoint.

        Raises:
            ValueError: they are of another kind.
        """
        starts = state.get("start") if isinstance(state, Mapping) else None
        if not isinstance(starts, Mapping) or not all(isinstance(one, Tensor) for one in starts.values()):
            raise ValueError("the weights of the start are missing, so that distances are from where this run begins")
        self._starts = starts
        for sums in self._sums.values():
            sums.start = None
            self._keep_start(sums)
        ours = {self._names[key]: sums.start for key, sums in self._sums.items()}
        if any(name in starts and one is not None and starts[name].numel() < one.numel() for name, one in ours.items()):
            raise ValueError(
                "the weights of the start are a sketch of another size, so that distances are from where this run "
                "begins"
            )

    # -- the steps -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def see(self, parameters: Iterable[Tensor] | None = None, *, n_samples: int = 0, scale: float = 1.0) -> None:
        """Count in the gradients of an optimizer step, before it is taken.

        Args:
            parameters: those that the step will move; all by default. Parameters without a gradient are passed over.
            n_samples: the number of samples that the gradient is the mean over, in all processes; 0 where it is
                unknown.
            scale: what the loss was multiplied by, and not yet divided.
        """
        seen = self._sums.values() if parameters is None else filter(None, (self._sums.get(id(p)) for p in parameters))
        fresh = {one.parameter: one for one in seen}  # each once, whatever the order
        gradients, totals, squares = [], [], []
        for parameter, one in fresh.items():
            if parameter.grad is None:
                continue
            gradient = _local(parameter.grad)
            self._keep_start(one)
            if one.total is None or one.squares is None:
                like = self._of(gradient.to_dense() if gradient.is_sparse else gradient)
                one.total = torch.zeros_like(like, dtype=_wide(like.dtype))
                one.squares = torch.zeros((), dtype=torch.float64, device=like.device)
            one.n += 1
            one.n_samples += n_samples
            gradients.append(gradient)
            totals.append(one.total)
            squares.append(one.squares)
        if gradients:
            kept = [self._of(one) for one in gradients]
            _add(totals, kept, 1 / scale)
            torch._foreach_add_(squares, _square_norms(kept), alpha=1 / scale**2)

    def skip(self) -> None:
        """Count a step that the optimizer will skip, its gradients being infinite under a loss scale."""
        self.n_skipped += 1

    # -- the values ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def compute(
        self,
        *,
        epoch: int = 0,
        step: int = 0,
        summed: Callable[[Tensor], Tensor] | None = None,
        n_copies: int = 1,
    ) -> History:
        """The records of each layer since the last :meth:`reset`, which stays as it is.

        Args:
            epoch: the epochs of training so far.
            step: the optimizer steps so far.
            summed: sums a tensor over processes that hold a share of the weights each; a collective call.
            n_copies: how many of these hold the same share of a plain tensor; a DTensor knows it by itself.

        Returns:
            For each layer, and for all of them as ``"all_layers"``, ``grad_mean``, ``grad_std``, ``grad_snr``,
            ``grad_snr_unbiased``, ``grad_snr_floor``, ``noise_scale``, ``weight_norm`` and ``weight_distance``; those
            of gradients are NaN where none came.
        """
        norms = torch.stack([torch.stack(self._norms(one, n_copies)) for one in self._sums.values()])
        values = (norms if summed is None else summed(norms)).cpu().tolist()
        of = dict(zip(self._sums, values))
        layers = dict(self._of_layer)
        if len(layers) > 1:
            layers[ALL_LAYERS] = list(self._sums.values())
        return History(
            record
            for layer, sums in layers.items()
            for record in _records(epoch, step, layer, sums, [of[id(one.parameter)] for one in sums])
        )

    def _norms(self, one: _Sums, n_copies: int) -> list[Tensor]:
        """Σ‖g‖², ‖Σg‖², ‖w‖² and ‖w − w₀‖², in float64 on the device of the first parameter."""
        device = next(iter(self._sums.values())).parameter.device
        if one.start is None:  # no forward gave a lazy parameter its values yet
            return [torch.tensor(math.nan, dtype=torch.float64, device=device)] * 4
        now = _local(one.parameter.detach())
        distance = self._of(now).to("cpu", torch.float64) - one.start.double()
        zero = torch.zeros((), dtype=torch.float64)
        total, squares = (zero, zero) if one.total is None else (one.total.double().square().sum(), one.squares)
        assert squares is not None
        found = [squares, total, _square_norms([now])[0], distance.square().sum()]
        return [value.to(device) / _n_copies(one.parameter, n_copies) for value in found]


def _records(
    epoch: int, step: int, layer: str, sums: Sequence[_Sums], norms: Sequence[Sequence[float]]
) -> Iterable[Record]:
    counted = [(one, of) for one, of in zip(sums, norms) if one.n]
    n_samples = max((one.n_samples for one, _ in counted), default=0)
    values = dict.fromkeys(GradientSignal._fields, math.nan)
    known = [(one, squares, of_sum) for one, (squares, of_sum, *_) in counted]
    if known and all(math.isfinite(q + s) and not _underflows(one, q, s) for one, q, s in known):
        parts = [
            (squares / one.n, of_sum / one.n**2, one.n, one.n_samples / one.n or math.nan)
            for one, squares, of_sum in known
        ]
        values = signal_of(parts)._asdict()
    named = {
        "grad_mean": values["mean"],
        "grad_std": values["std"],
        "grad_snr": values["snr"],
        "grad_snr_unbiased": values["snr_unbiased"],
        "grad_snr_floor": values["floor"],
        "noise_scale": values["noise_scale"],
        "weight_norm": math.sqrt(sum(of[2] for of in norms)),
        "weight_distance": math.sqrt(sum(of[3] for of in norms)),
    }
    for quantity, value in named.items():
        yield Record(epoch, step, layer, GRADIENT, quantity, value, n_samples=n_samples)


def _underflows(one: _Sums, squares: float, of_sum: float) -> bool:
    """Whether gradients are so small that their squares lose digits in float32."""
    assert one.total is not None
    return of_sum > 0 and squares < 1e-36 * one.n * one.parameter.numel() and one.total.dtype == torch.float32


def _is_bias(name: str) -> bool:
    return "bias" in name.rsplit(".", 1)[-1]


def _local(values: Any) -> Tensor:
    """The share of a tensor that this process holds, complex numbers as pairs."""
    if hasattr(values, "to_local"):  # a DTensor
        values = values.to_local()
    own: Tensor = torch.view_as_real(values) if values.is_complex() else values
    return own


def _n_copies(parameter: Tensor, otherwise: int) -> int:
    """How many processes of a device mesh hold the same share of a parameter."""
    mesh = getattr(parameter, "device_mesh", None)  # of a DTensor
    if mesh is None:
        return otherwise
    placements: Any = parameter.placements  # type: ignore[attr-defined]
    return math.prod(mesh.size(k) for k, one in enumerate(placements) if one.is_replicate())


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _add(totals: list[Tensor], gradients: list[Tensor], factor: float) -> None:
    plain = [k for k, one in enumerate(gradients) if not one.is_sparse and one.dtype == totals[k].dtype]
    if plain:
        torch._foreach_add_([totals[k] for k in plain], [gradients[k] for k in plain], alpha=factor)
    for k in set(range(len(totals))) - set(plain):
        totals[k].add_(gradients[k].to(totals[k].dtype), alpha=factor)


def _square_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """‖·‖² of each, float64: norms of pieces in float32, whose squares are summed in float64."""
    if not tensors:
        return []
    pieces = [_pieces(one) for one in tensors]
    norms = torch._foreach_norm([piece for of in pieces for piece in of])
    found, at = [], 0
    for of in pieces:
        found.append(torch.stack([norm.double() for norm in norms[at : at + len(of)]]).square().sum())
        at += len(of)
    return found


def _pieces(values: Tensor) -> Sequence[Tensor]:
    if values.is_sparse:
        values = values.coalesce().values()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()  # its squares would underflow
    return values.reshape(-1).split(_CHUNK) or (values.reshape(-1),)
