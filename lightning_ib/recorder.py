"""Watching named modules of a model: which ones, their forward hooks, and taking them off again."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from lightning_ib.exported import Taps
from lightning_ib.functional.checks import plain_tensor

MAX_DEFAULT_LAYERS = 12

Select = Callable[[Any], Tensor]

# What torch.compile, activation checkpointing, FSDP and Lightning put into the names of modules.
_WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}

# Whose wrappers (DistributedDataParallel, AveragedModel, …) call what they wrap ``module``, as a user's model may too.
_WRAPPING_LIBRARIES = {"torch", "lightning", "lightning_fabric", "pytorch_lightning", "deepspeed"}


class NoLayersError(ValueError, RuntimeError):
    """No layer was named, and none that the model has can be measured."""


def default_layers(model: nn.Module) -> list[str]:
    """The layers to watch where none are named: leaf modules with weights, normalisation layers left out.

    Where there are more than twelve, twelve are taken, spread evenly over the depth, the first and the last included.

    Raises:
        NoLayersError: the model has no such module.
    """
    names = leaves_with_weights(model)
    if not names:
        raise NoLayersError(
            f"{type(model).__name__} has no leaf module with weights to watch by default: name the layers "
            f"(layers=[…]). It has {_listed(n for n, _ in model.named_modules() if n)}."
        )
    return spread_over(names)


def spread_over(names: Sequence[str], most: int = MAX_DEFAULT_LAYERS) -> list[str]:
    """At most so many of some names, evenly spread, the first and the last included.

    Example:
        >>> spread_over(["a", "b", "c", "d", "e"], most=3)
        ['a', 'c', 'e']
    """
    if len(names) <= most:
        return list(names)
    return [names[round(k * (len(names) - 1) / (most - 1))] for k in range(most)]


def may_be_hooked_later(model: nn.Module) -> bool:
    """Whether hooks can come and go while a model is in use: in the graphs of torch.compile they stay as they were."""
    return not _in_graphs(model)


def leaves_with_weights(model: nn.Module) -> list[str]:
    """The leaf modules that have weights, in the order in which they are defined.

    Left out are normalisation layers and TorchScript, which takes no hooks. A layer with its adapter (LoRA of PEFT,
    torchtune, LitGPT) counts as one leaf, measured on what the next layer sees: the output of the layer plus that of
    the adapter. It is recognized by a leaf ``base_layer`` or ``original_module``, or by ``lora_A`` and ``lora_B``.
    """
    found: list[str] = []
    inside: set[nn.Module] = set()  # the parts of layers with an adapter
    for name, module in named_modules(model).items():
        if module in inside or not name or "parametrizations" in name.split(".") or not _is_layer(module):
            continue
        found.append(name)
        inside.update(module.modules())
    return found


def _has_adapter(module: nn.Module) -> bool:
    parts = [name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))]
    return any(part in _ADAPTED or part.lower() in ("lora_a", "lora_b") for part in parts)


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a leaf with weights, or one with its adapter."""
    # The projection inside nn.MultiheadAttention is used without being called, and never fires a hook.
    if is_scripted(module) or re.search("norm|NonDynamicallyQuantizableLinear", type(module).__name__, re.IGNORECASE):
        return False
    children = {name for name, _ in module.named_children()}
    if _has_adapter(module):
        adapted = next((getattr(module, name) for name in _ADAPTED if name in children), None)
        return adapted is None or _is_layer(adapted)
    # A layer that is quantized holds its weights packed, and gives them by a method.
    quantized = type(module).__module__.startswith("torch.ao.nn.") and hasattr(module, "weight")
    has_weights = quantized or any(True for _ in module.parameters(recurse=False))
    return children <= {"parametrizations", "_packed_params"} and (has_weights or "parametrizations" in children)


_ADAPTED = ("base_layer", "original_module")


def is_scripted(module: nn.Module) -> bool:
    """Whether a module is TorchScript, which takes no hooks."""
    return isinstance(module, torch.jit.ScriptModule)


def scripted_layers(model: nn.Module) -> list[str]:
    """The outermost modules of TorchScript that have weights."""
    found: list[str] = []
    for name, module in named_modules(model).items():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and is_scripted(module) and any(True for _ in module.parameters()):
            found.append(name)
    return found


def resolve_layers(model: nn.Module, patterns: Iterable[str]) -> dict[str, str]:
    """The modules that names and glob patterns stand for.

    In a pattern ``*`` and ``?`` stand for anything but a dot, ``**`` for anything: ``conv*`` is ``conv1`` and
    ``conv2``, ``**.attention`` is every module of that name, however deep.

    Args:
        model: the model whose modules are meant, by the names of :func:`named_modules`.
        patterns: names and patterns.

    Returns:
        Module name → what named it: the name itself, or else the first pattern that fits.

    Raises:
        ValueError: a pattern names nothing; the sentence tells the nearest right names. Or it names TorchScript.
    """
    modules = named_modules(model)
    names = [name for name in modules if name]
    found: dict[str, str] = {}
    for pattern in patterns:
        matches = [name for name in names if _matches(pattern, name)]
        if not matches:
            first = _first_name(model, pattern)
            if first is not None:
                raise ValueError(
                    f"{type(model).__name__} calls one module both {first!r} and {pattern!r}: name it {first!r}. It is "
                    "watched once, and of several calls in a forward the last counts."
                )
            # A name of the wrapper's, such as "module.out", ends in the model's own.
            ends = [pattern.split(".", k)[-1] for k in range(1, pattern.count(".") + 1)]
            near = [end for end in ends if end in names][:1]
            near = near or difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the model has {_listed(names)}."
            raise ValueError(f"{type(model).__name__} has no layer {pattern!r}: {hint}")
        for name in matches:
            if is_scripted(modules[name]):
                raise ValueError(
                    f"layer {name!r} is TorchScript, which takes no hooks: name a module of Python's around it, script "
                    "it after the run, or leave it out."
                )
            if found.setdefault(name, pattern) != pattern and name == pattern:
                found[name] = pattern
    return found


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """``model.named_modules()``, without what torch.compile, activation checkpointing, FSDP, DDP and others put in."""
    return _plainly_named(model)


def _plainly_named(model: nn.Module, *, remove_duplicate: bool = True) -> dict[str, nn.Module]:
    modules = dict(model.named_modules(remove_duplicate=remove_duplicate))
    wrapping = {name for name, m in modules.items() if _is_of_a_library(type(m))}

    def plain(name: str) -> str:
        parts = name.split(".")
        return ".".join(
            part
            for k, part in enumerate(parts)
            if part not in _WRAPPERS and not (part == "module" and ".".join(parts[:k]) in wrapping)
        )

    return {plain(name): module for name, module in modules.items()}


def _is_of_a_library(kind: type[nn.Module]) -> bool:
    """Whether a module is a library's, other than a container that a user puts modules into."""
    return kind.__module__.split(".")[0] in _WRAPPING_LIBRARIES and not kind.__module__.startswith("torch.nn.modules.")


def _first_name(model: nn.Module, name: str) -> str | None:
    """The name that ``named_modules()`` gives to a module that has several, ``name`` being another of them."""
    everywhere = _plainly_named(model, remove_duplicate=False)
    return next((n for n, module in named_modules(model).items() if module is everywhere.get(name)), None)


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


def _matches(pattern: str, name: str) -> bool:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    regex = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.fullmatch("".join(regex.get(part, re.escape(part)) for part in parts), name) is not None


def _in_graphs(model: nn.Module) -> set[nn.Module]:
    """The modules that torch.compile may put into a graph, which never calls a hook that comes after it was made."""
    found: set[nn.Module] = set()
    for module in model.modules():
        whole = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
        kinds = takewhile(lambda kind: kind is not nn.Module, type(module).__mro__)
        if whole or any(_is_compiled(value) for owner in (module, *kinds) for value in vars(owner).values()):
            found.update(module.modules())
    return found


def _is_compiled(value: Any) -> bool:
    """Whether an attribute is a function that torch.compile made, and not one that it leaves alone."""
    made = isinstance(value, FunctionType) and hasattr(value, "_torchdynamo_orig_callable")
    return made and not getattr(value, "_torchdynamo_disable", False)


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = list(names)
    more = f", … ({len(names) - most} more)" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) + more) or "no named modules"


class Recorder:
    """Forward hooks on named modules that keep, of the last forward, what ``reduce`` makes of each output.

    A hook never raises into the model's forward: an error waits for :meth:`take`. Where a module fires more than once
    in a forward, the last call counts. Within a graph of torch.compile an output is copied, and reduced only in
    :meth:`take`: the graph stays whole, and one batch of the layer's activations is held until then.

    The hooks are on only while ``enabled`` is set, so that TorchScript can compile the model at other times. Those
    inside torch.compile stay on, and idle: its graphs call only the hooks they were made with.

    Of an output that is no tensor the first tensor in it is taken, and the batch comes first: sequence-first modules of
    PyTorch (``batch_first=False``) are transposed, packed and nested sequences padded with zeros. A quantized tensor
    is dequantized, and one of a subclass, such as MONAI's MetaTensor, becomes a plain tensor.

    Args:
        model: the model to watch.
        layers: names of its modules.
        reduce: ``(layer, activation (B, …)) → anything``, called in the hook, with gradients off. What it returns must
            not share memory with the activation.
        select: layer → a callable that takes the tensor, batch first, out of the output as the module gave it.
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
        """Keep what ``reduce`` makes of an output; called by the hooks."""
        if torch.compiler.is_compiling():
            # These lines are compiled with the model; what follows otherwise would break its graph.
            with torch.no_grad():
                self._compiled[layer] = tree_map_only(Tensor, torch.clone, output)
            return
        self._taken.pop(layer, None)  # in the order of the last calls, which tells the layer that ran last
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
                "the longest of each batch, and its figures depend on how the data is batched. Give it a "
                "Quantizer(select=…) that takes a tensor (B, …) out of the output.",
                UserWarning,
                stacklevel=2,
            )

    def take(self, faults: dict[str, Exception] | None = None) -> dict[str, Any]:
        """What was kept since the last call, by layer, in the order in which they ran; it is handed over.

        Args:
            faults: takes why the outputs of layers could not be reduced; without it that is raised.

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
        """Take the hooks off and drop what was kept. Twice is harmless."""
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
    """A forward hook that can be pickled and copied, with its module; the copy records nothing."""

    def __init__(self, recorder: Recorder | None, layer: str) -> None:
        self.recorder, self.layer = recorder, layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.recorder is not None and self.recorder.enabled:
            self.recorder.record(self.layer, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, self.layer)


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first tensor in a tuple, list or mapping (such as a ``ModelOutput``).

    A packed or nested sequence is padded with zeros to ``(B, L, …)``, L being the longest of the batch.

    Raises:
        ValueError: there is none.
    """
    return _padded(_first(output))


def selected(output: Any, select: Select) -> Tensor:
    """The tensor that ``select`` takes out of an output.

    Raises:
        ValueError: it is none.
    """
    tensor = select(output)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"select must return a tensor with the batch first, got {type(tensor).__name__}.")
    return plain_tensor(tensor)


def _first(output: Any) -> Tensor | PackedSequence:
    if isinstance(output, (Tensor, PackedSequence)):
        return output
    if isinstance(output, (tuple, list, Mapping)):
        for value in output.values() if isinstance(output, Mapping) else output:
            try:
                return _first(value)
            except ValueError:
                continue
    raise ValueError(
        f"its output holds no tensor, it is a {type(output).__name__}: name a module inside it instead, or give "
        "Quantizer(select=…), which takes a tensor out of the output."
    )


def _padded(found: Tensor | PackedSequence) -> Tensor:
    if isinstance(found, PackedSequence):
        return pad_packed_sequence(found, batch_first=True)[0]
    return plain_tensor(found.to_padded_tensor(0.0) if found.is_nested else found)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer of a model is; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
