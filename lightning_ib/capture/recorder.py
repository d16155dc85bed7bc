"""Watching named modules of a model: their forward hooks, and taking them off again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import takewhile
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from lightning_ib.capture.exported import Taps
from lightning_ib.capture.layers import named_modules
from lightning_ib.capture.outputs import Select, _first, _padded, selected
from lightning_ib.functional.checks import plain_tensor


def may_be_hooked_later(model: nn.Module) -> bool:
    """Whether hooks can come and go while a model is in use: in the graphs of torch.compile they stay as they were."""
    return not _in_graphs(model)


def _sequence_first(model: nn.Module) -> set[nn.Module]:
    """The modules that put out (L, B, …): those that say ``batch_first=False``, and PyTorch's transformers around them.

    A transformer layer says it through its attention only, and all that is inside works in the same order.
    """
    found: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and not module.batch_first:
            found.add(module)
        attentions = (m for m in module.modules() if isinstance(m, nn.MultiheadAttention))
        if isinstance(module, _TRANSFORMERS) and any(not attention.batch_first for attention in attentions):
            found.update(module.modules())
    return found


_TRANSFORMERS = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def _in_graphs(model: nn.Module) -> set[nn.Module]:
    """The modules that torch.compile may put into a graph, which calls only the hooks that it was made with."""
    found: set[nn.Module] = set()
    for module in model.modules():
        whole = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        kinds = takewhile(lambda kind: kind is not nn.Module, type(module).__mro__)
        if whole or any(_is_compiled(value) for owner in (module, *kinds) for value in vars(owner).values()):
            found.update(module.modules())
    return found


def _is_compiled(value: Any) -> bool:
    """Whether an attribute is a function that torch.compile made and compiles."""
    made = isinstance(value, FunctionType) and hasattr(value, "_torchdynamo_orig_callable")
    return made and not getattr(value, "_torchdynamo_disable", False)


class Recorder:
    """Forward hooks on named modules that keep, of the last forward, the result of ``reduce`` for each output.

    Errors in a hook wait for :meth:`take`, outside the model's forward. Where a module fires more than once
    in a forward, the last call counts. Within a graph of torch.compile an output is copied, and reduced only in
    :meth:`take`: the graph stays whole, and one batch of the layer's activations is held until then.

    The hooks are on only while ``enabled`` is set, so that TorchScript can compile the model at other times. Those
    inside torch.compile stay on, and idle: its graphs call only the hooks they were made with.

    Of a nested output the first tensor in it is taken, and the batch comes first: sequence-first modules of
    PyTorch (``batch_first=False``) are transposed, packed and nested sequences padded with zeros. A quantized tensor
    is dequantized, and one of a subclass, such as MONAI's MetaTensor, becomes a plain tensor.

    Args:
        model: the model to watch.
        layers: names of its modules.
        reduce: ``(layer, activation (B, …)) → anything``, called in the hook, with gradients off. Its result must have
            memory of its own.
        select: layer → a callable that takes the tensor, batch first, out of the output as the module returned it.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        reduce: Callable[[str, Tensor], Any],
        select: Mapping[str, Select] | None = None,
    ) -> None:
        self._reduce = reduce
        self._select = dict(select or {})
        self._taken: dict[str, Any] = {}
        self._compiled: dict[str, Any] = {}  # copies of outputs from within a compiled graph, which wait for take()
        self._warned = False
        modules = named_modules(model)
        watched = {layer: modules[layer] for layer in layers}
        self._taps = Taps(modules, watched)
        watched |= self._taps.modules
        batch_second = _sequence_first(model)
        self._batch_second = {layer for layer, module in watched.items() if module in batch_second}
        graphs = _in_graphs(model)
        self._watched, self._handles = watched, dict[str, RemovableHandle]()
        self._always_on = {layer for layer, module in watched.items() if module in graphs}
        self.enabled = True

    @property
    def enabled(self) -> bool:
        """Whether outputs are recorded."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        if not enabled:
            for layer in self._handles.keys() - self._always_on:
                self._handles.pop(layer).remove()
            return
        try:
            for layer in self._watched.keys() - self._handles.keys():
                self._handles[layer] = self._watched[layer].register_forward_hook(_Hook(self, layer))
        except BaseException:
            self.remove()
            raise

    @property
    def ran(self) -> bool:
        """Whether a layer has run since the last :meth:`take`."""
        return bool(self._taken or self._compiled)

    def record(self, layer: str, output: Any) -> None:
        """Keep the result of ``reduce`` for an output; called by the hooks."""
        if torch.compiler.is_compiling():
            # These lines are compiled with the model; the ones below would break its graph.
            with torch.no_grad():
                self._compiled[layer] = tree_map_only(Tensor, torch.clone, output)
            return
        self._taken.pop(layer, None)  # in the order of the last calls: the layer that ran last is the last key
        try:
            with torch.no_grad():
                self._taken[layer] = self._reduce(layer, self._activation(layer, output))
        except Exception as error:  # waits for take(), outside the user's forward
            self._taken[layer] = error

    def _activation(self, layer: str, output: Any) -> Tensor:
        """The tensor (B, …) in an output."""
        if layer in self._select:
            return selected(output, self._select[layer])
        found = _first(output)
        if isinstance(found, PackedSequence) or found.is_nested:
            self._warn_of_ragged(layer, found)
            return _padded(found)
        found = plain_tensor(found)
        return found.transpose(0, 1) if layer in self._batch_second and found.ndim > 2 else found

    def _warn_of_ragged(self, layer: str, found: Tensor | PackedSequence) -> None:
        if not self._warned:
            self._warned = True
            kind = "PackedSequence" if isinstance(found, PackedSequence) else "nested tensor"
            warnings.warn(
                f"layer {layer!r} puts out sequences of different lengths (a {kind}): they are padded with zeros to "
                "the longest of each batch, and its values depend on how the data is batched. Give it a "
                "Quantizer(select=…) that takes a tensor (B, …) out of the output.",
                UserWarning,
                stacklevel=2,
            )

    def take(self, faults: dict[str, Exception] | None = None) -> dict[str, Any]:
        """The results since the last call, by layer, in the order in which they ran; they are handed over.

        Args:
            faults: collects the errors of layers by name; where it is None the first one is raised.

        Raises:
            ValueError: the output of a layer could not be reduced; the sentence names the layer.
        """
        compiled, self._compiled = self._compiled, {}
        for layer, output in compiled.items():
            self.record(layer, output)
        taken, self._taken = self._taken, {}
        for layer, value in list(taken.items()):
            if not isinstance(value, Exception):
                continue
            if faults is None:
                raise ValueError(f"layer {layer!r} could not be recorded: {value}") from value
            faults[layer] = taken.pop(layer)
        return taken

    def remove(self) -> None:
        """Take the hooks off and drop the results. Idempotent."""
        self.forget(list(self._watched))
        self._taps.remove()
        self._taken.clear()
        self._compiled.clear()

    def forget(self, layers: Iterable[str]) -> None:
        """Take the hooks of some layers off."""
        for layer in layers:
            self._watched.pop(layer, None)
            if layer in self._handles:
                self._handles.pop(layer).remove()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class _Hook:
    """A forward hook that can be pickled and copied, with its module; the copy is idle."""

    def __init__(self, recorder: Recorder | None, layer: str) -> None:
        self.recorder, self.layer = recorder, layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.recorder is not None and self.recorder.enabled:
            self.recorder.record(self.layer, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, self.layer)
