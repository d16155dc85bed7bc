"""Layers that draw their representation: bounds of its information from the network itself, without bins or cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lightning_ib.capture.batches import Parts
from lightning_ib.capture.layers import listed
from lightning_ib.capture.outputs import first_tensor
from lightning_ib.capture.recorder import Recorder
from lightning_ib.distributed import all_gathered, this_process
from lightning_ib.functional.checks import sentence
from lightning_ib.measurement.head import HeadSearch, activation_of
from lightning_ib.measurement.watched import WatchedLayers
from lightning_ib.objectives import BottleneckOutput, GaussianBottleneck
from lightning_ib.records.record import VARIATIONAL, Record, is_about_target, unit_of
from lightning_ib.warn_once import WarnOnce

_COLUMNS = ("valid", "label", "log_q")
_NOTHING: Mapping[str, BottleneckOutput] = MappingProxyType({})
_SAME = 1e-3
"""Of the spread of an output: what batches of other content change by rounding stays below."""


class StochasticLayers:
    r"""The Gaussian bottlenecks among the layers of a measurement: rate and distortion, as bounds of I(X;T) and I(T;Y).

    .. math:: I(X;T) \le \mathrm{E}\, D[q(t|x) \| r(t)], \qquad I(T;Y) \ge H(Y) - \mathrm{E}\, [-\ln q(y|t)]

    q(y|t) is the head of the network, and t is drawn, also where the network in ``eval()`` takes
    the mean in its place: each batch runs through the network once more, with its bottlenecks drawing. The second bound
    is given for a bottleneck that all the head sees goes through, which the first batch shows.

    Source:
        Alemi et al. (2017).

    Cost:
        Each batch of a measurement runs through the network once more.

    Samples:
        Any number: both are means over samples, with the errors of means.

    Trap:
        The rate is at least I(X;T), and far above it where the prior fits the codes badly; the second bound speaks of
        the head as much as of the layer. They are about the drawn code: cells and bins describe its mean.

    Args:
        watched: the layers of the measurement.
        heads: knows which of them may be the head.
        ignore_index: the label of rows that are left out.
        tokens: whether tokens are the samples.
        warned: takes the warnings.
        target: the name of the target, of several the primary one.
    """

    def __init__(
        self,
        watched: WatchedLayers,
        heads: HeadSearch,
        ignore_index: int | None,
        *,
        tokens: bool,
        warned: WarnOnce,
        target: str = "",
    ) -> None:
        self._target = target
        self._watched, self._heads = watched, heads
        self._ignore_index, self._tokens, self._warned = ignore_index, tokens, warned
        self._modules: MutableMapping[str, nn.Module] = WeakValueDictionary()
        self.attach({})
        self.reset()

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, which is detached."""
        return self.__dict__ | {"_modules": {}}

    def attach(self, modules: Mapping[str, nn.Module]) -> None:
        """Note the modules of the layers."""
        self._modules, self._failed = WeakValueDictionary(modules), False
        self._decides: dict[str, bool] = {}  # bottleneck → whether the head sees the input through it alone

    def reset(self) -> None:
        """Begin a pass."""
        self._rates: dict[str, list[Tensor]] = {}
        self._columns: dict[str, list[Tensor]] = {name: [] for name in _COLUMNS}

    @property
    def layers(self) -> list[str]:
        """The names of the bottlenecks."""
        if self._watched.recorder is None:
            return []
        return [layer for layer, module in self._modules.items() if isinstance(module, GaussianBottleneck)]

    # -- a batch -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def see(self, parts: Parts, forward: Callable[[Parts], Any] | None) -> None:
        """Run a batch that was counted in once more, with the bottlenecks drawing.

        A failure is one warning, and there are no bounds from there on.

        Args:
            parts: of the batch.
            forward: calls the network, its state and all random states being put back afterwards.
        """
        layers = self.layers
        if not layers or forward is None or self._failed:
            return
        try:
            codes, output = self._forward(parts, forward)
            for layer in layers:
                if layer not in self._decides and output is not None and len(output) > 1:
                    self._decides[layer] = self._alone(layer, parts, forward, codes, output)
        except Exception as error:
            self._failed = True
            self.reset()
            self._warned.warn(
                "variational",
                f"the rate of {listed(layers)} is not recorded, for which each batch runs through the network once "
                f"more: {sentence(error)} Training goes on.",
            )
            return
        if codes.keys() == set(layers):
            self._keep(parts, {layer: self._rate(code) for layer, code in codes.items()}, output)

    def _rate(self, code: BottleneckOutput) -> Tensor:
        """The rate of each sample, over all places of a code that has some; of each token, where those are samples."""
        rate = code.kl.detach().double()
        return rate.reshape(-1) if self._tokens else rate.reshape(len(rate), -1).sum(1)

    def _forward(
        self, parts: Parts, forward: Callable[[Parts], Any], fixed: Mapping[str, BottleneckOutput] = _NOTHING
    ) -> tuple[dict[str, BottleneckOutput], Tensor | None]:
        """The code of each bottleneck, and the output of the head; some bottlenecks may put out what is given."""
        codes: dict[str, BottleneckOutput] = {}
        outputs: list[Any] = []
        bottlenecks, head = {layer: self._modules[layer] for layer in self.layers}, self._heads.candidate

        def coded(layer: str) -> Callable[[nn.Module, Any, Any], Any]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
                codes[layer] = fixed.get(layer, output)
                return codes[layer]

            return hook

        handles = [module.register_forward_hook(coded(layer)) for layer, module in bottlenecks.items()]
        if head and head in self._modules:
            hook = self._modules[head].register_forward_hook(lambda module, inputs, output: outputs.append(output))
            handles.append(hook)
        try:
            drawing = _drawing(list(bottlenecks.values()), len(self._columns["valid"]))
            with drawing, _unrecorded(self._watched.recorder):
                forward(parts)
        finally:
            for handle in handles:
                handle.remove()
        with suppress(ValueError):
            return codes, first_tensor(outputs[-1]).detach() if outputs else None
        return codes, None

    def _alone(
        self,
        layer: str,
        parts: Parts,
        forward: Callable[[Parts], Any],
        codes: Mapping[str, BottleneckOutput],
        output: Tensor,
    ) -> bool:
        """Whether the head sees the input through one bottleneck alone; else its cross-entropy is not about that code.

        With the code kept, other inputs change nothing then.
        """
        n = len(codes[layer].kl)
        others = tree_map_only(Tensor, lambda x: x.roll(1, 0) if x.ndim and len(x) == n else x, parts.x)
        _, found = self._forward(parts._replace(x=others), forward, {layer: codes[layer]})
        near = float(output.double().std()) * _SAME
        if found is not None and torch.allclose(found.double(), output.double(), rtol=_SAME, atol=near, equal_nan=True):
            return True
        self._warned.warn(
            f"{layer} variational",
            f"layer {layer!r}: the head sees the input on other ways than through this bottleneck, so that H(Y) less "
            "the cross-entropy is no bound of its I(T;Y): its rate alone is recorded.",
        )
        return False

    def _log_likelihoods(self, output: Tensor | None, y: Any) -> Tensor | None:
        """Ln q(y|t) of each row, where the output has a coordinate for each class; NaN for labels that are none."""
        if output is None or not isinstance(y, Tensor) or y.is_complex() or not output.is_floating_point():
            return None
        if output.ndim < 2 or output[..., 0].numel() != y.numel():
            return None
        output = output.reshape(y.numel(), -1).double()
        given = activation_of(self._modules[self._heads.candidate or ""]) == "probabilities"
        if output.shape[1] == 1:
            one = output.log() if given else nn.functional.logsigmoid(output)
            other = (-output).log1p() if given else nn.functional.logsigmoid(-output)
            output = torch.cat((other, one), 1)
        else:
            output = output.log() if given else output.log_softmax(1)
        labels = y.reshape(-1).long()
        known = (labels >= 0) & (labels < output.shape[1]) & (labels == y.reshape(-1))
        log_q = output.gather(1, labels.clamp(0, output.shape[1] - 1)[:, None])[:, 0]
        return torch.where(known, log_q, math.nan)

    def _keep(self, parts: Parts, rates: Mapping[str, Tensor], output: Tensor | None) -> None:
        first, log_q = next(iter(rates.values())), self._log_likelihoods(output, parts.primary)
        valid = torch.ones_like(first, dtype=torch.bool)
        labels = parts.primary.reshape(-1) if log_q is not None and log_q.numel() == first.numel() else None
        if labels is not None and self._ignore_index is not None:
            valid &= labels != self._ignore_index
        if self._tokens and isinstance(parts.mask, Tensor) and parts.mask.numel() == valid.numel():
            valid &= parts.mask.reshape(-1).bool()
        for layer, rate in rates.items():
            self._rates.setdefault(layer, []).append(rate)
        missing = torch.full_like(first, math.nan)
        self._columns["valid"].append(valid)
        self._columns["label"].append(missing if labels is None else labels.double())
        self._columns["log_q"].append(missing if labels is None or log_q is None else log_q)

    # -- the end of a pass ---------------------------------------------------------------------------------------------

    def trim(self, n_rows: int) -> None:
        """Drop the rows after the first ones of this process."""
        self._rates = {layer: [torch.cat(of)[:n_rows]] for layer, of in self._rates.items()}
        self._columns = {name: [torch.cat(of)[:n_rows]] if of else [] for name, of in self._columns.items()}

    def records(self, unit: str, *, epoch: int, step: int, shared: bool) -> list[Record]:
        """Rate as I(X;T), and H(Y) less the cross-entropy as I(T;Y), of each bottleneck, with standard errors.

        Args:
            unit: ``"bits"`` or ``"nats"``.
            epoch: written into the records.
            step: written into the records.
            shared: whether several processes measure together, all of which must call this.
        """
        own = {name: torch.cat(of).cpu() for name, of in (self._rates | self._columns).items() if of}
        given = None if self._failed else (own, self._decides)
        found = all_gathered(given) if shared else [given]
        sound = [one for one in found if one is not None]
        if len(sound) < len(found):  # it failed in one of them
            return []
        parts = [one for one, _ in sound if one]
        if not parts:
            return []
        alone = {layer for layer in self.layers if all(decides.get(layer, False) for one, decides in sound if one)}
        seen = {name: torch.cat([one[name] for one in parts]) for name in parts[0]}
        valid = seen.pop("valid")
        seen = {name: values[valid] for name, values in seen.items()}
        labels, log_q = seen.pop("label"), seen.pop("log_q")
        per_nat = 1 / math.log(2) if unit == "bits" else 1.0
        values = {(layer, "I_XT"): rate for layer, rate in seen.items()}
        if len(labels) and not bool(labels.isnan().any() | log_q.isnan().any()):
            _, at, counts = labels.unique(return_inverse=True, return_counts=True)
            # The information of each row: its mean is H(Y) − E[−ln q(y|t)].
            density = log_q - (counts[at].double() / len(labels)).log()
            values |= {(layer, "I_TY"): density for layer in seen if layer in alone}
        return [
            Record(
                *(epoch, step, layer, VARIATIONAL, quantity),
                float(one.mean()) * per_nat,
                float(one.std()) / math.sqrt(len(one)) * per_nat if len(one) > 1 else math.nan,
                unit_of(quantity, unit),
                len(one),
                "ok" if bool(one.isfinite().all()) else "",
                target=self._target if is_about_target(quantity) else "",
            )
            for (layer, quantity), one in sorted(values.items(), key=lambda pair: list(seen).index(pair[0][0]))
            if len(one)
        ]


@contextmanager
def _drawing(bottlenecks: list[nn.Module], number: int) -> Iterator[None]:
    """Have bottlenecks draw, as in training, with other random numbers for every batch and the same in every pass."""
    modes = [(module, module.training) for module in bottlenecks]
    seed = 1 + this_process()[0] + number * this_process()[1]
    gpus = sorted({p.get_device() for module in bottlenecks for p in module.parameters() if p.is_cuda})

    def draws(module: nn.Module, inputs: Any) -> None:
        """Just before it runs: a pass of its own puts the whole network into eval mode."""
        module.training = True
        if module is bottlenecks[0]:
            torch.manual_seed(seed)

    handles = [module.register_forward_pre_hook(draws) for module in bottlenecks]
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


@contextmanager
def _unrecorded(recorder: Recorder | None) -> Iterator[None]:
    """Keep the hooks of a measurement off."""
    enabled = recorder is not None and recorder.enabled
    try:
        if recorder is not None:
            recorder.enabled = False
        yield
    finally:
        if recorder is not None:
            recorder.enabled = enabled
