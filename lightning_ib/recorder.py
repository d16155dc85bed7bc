"""Watching named modules of a model: which ones, their forward hooks, and taking them off again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

MAX_DEFAULT_LAYERS = 12


def default_layers(model: nn.Module) -> list[str]:
    """The layers to watch where none are named: leaf modules with weights, normalisation layers left out.

    Where there are more than twelve, twelve are taken, spread evenly over the depth, the first and the last included.

    Raises:
        ValueError: the model has no such module.
    """
    names = [
        name
        for name, module in named_modules(model).items()
        if name
        and "parametrizations" not in name.split(".")
        and all(child == "parametrizations" for child, _ in module.named_children())
        and (hasattr(module, "parametrizations") or any(True for _ in module.parameters(recurse=False)))
        # The projection inside nn.MultiheadAttention is used without being called, and never fires a hook.
        and not re.search("norm|NonDynamicallyQuantizableLinear", type(module).__name__, re.IGNORECASE)
    ]
    if not names:
        raise ValueError(
            f"{type(model).__name__} has no leaf module with weights to watch by default: name the layers "
            f"(layers=[…]). It has {_listed(n for n, _ in model.named_modules() if n)}."
        )
    if len(names) <= MAX_DEFAULT_LAYERS:
        return names
    step = (len(names) - 1) / (MAX_DEFAULT_LAYERS - 1)
    return [names[round(i * step)] for i in range(MAX_DEFAULT_LAYERS)]


def resolve_layers(model: nn.Module, patterns: Iterable[str]) -> dict[str, str]:
    """The modules that names and glob patterns stand for.

    In a pattern ``*`` and ``?`` stand for anything but a dot, ``**`` for anything: ``conv*`` is ``conv1`` and
    ``conv2``, ``**.attention`` is every module of that name, however deep.

    Args:
        model: the model whose ``named_modules()`` are meant; ``_orig_mod.`` (torch.compile) is dropped from its names.
        patterns: names and patterns.

    Returns:
        Module name → what named it: the name itself, or else the first pattern that fits.

    Raises:
        ValueError: a pattern names nothing; the sentence tells the nearest right names.
    """
    names = [name for name in named_modules(model) if name]
    found: dict[str, str] = {}
    for pattern in patterns:
        matches = [name for name in names if _matches(pattern, name)]
        if not matches:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the model has {_listed(names)}."
            raise ValueError(f"{type(model).__name__} has no layer {pattern!r}: {hint}")
        for name in matches:
            if found.setdefault(name, pattern) != pattern and name == pattern:
                found[name] = pattern
    return found


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """``model.named_modules()`` without the ``_orig_mod`` that torch.compile puts into names."""
    return {
        ".".join(part for part in name.split(".") if part != "_orig_mod"): module
        for name, module in model.named_modules()
    }


def _matches(pattern: str, name: str) -> bool:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    regex = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.fullmatch("".join(regex.get(part, re.escape(part)) for part in parts), name) is not None


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = list(names)
    more = f", … ({len(names) - most} more)" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) + more) or "no named modules"


class Recorder:
    """Forward hooks on named modules that keep, of the last forward, what ``reduce`` makes of each output.

    A hook never raises into the model's forward: an error waits for :meth:`take`. Where a module fires more than once
    in a forward, the last call counts.

    Args:
        model: the model to watch.
        layers: names of its modules.
        reduce: ``(layer, activation (B, …)) → Tensor``, called in the hook, with gradients off. What it returns must
            not share memory with the activation.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str], reduce: Callable[[str, Tensor], Tensor]) -> None:
        self.enabled = True
        self._reduce = reduce
        self._taken: dict[str, Tensor | Exception] = {}
        modules = named_modules(model)
        watched = {layer: modules[layer] for layer in layers}
        self._handles: dict[str, RemovableHandle] = {
            layer: module.register_forward_hook(_Hook(self, layer)) for layer, module in watched.items()
        }

    def record(self, layer: str, module: nn.Module, output: Any) -> None:
        """Keep what ``reduce`` makes of an output; called by the hooks."""
        try:
            activation = first_tensor(output)
            if getattr(module, "batch_first", True) is False and activation.ndim > 1:
                activation = activation.transpose(0, 1)
            with torch.no_grad():
                self._taken[layer] = self._reduce(layer, activation)
        except Exception as error:  # raised in take(), outside the user's forward
            self._taken[layer] = error

    def take(self) -> dict[str, Tensor]:
        """What was kept since the last call, by layer; it is handed over.

        Raises:
            ValueError: the output of a layer could not be reduced; the sentence names the layer.
        """
        taken, self._taken = self._taken, {}
        for layer, value in taken.items():
            if isinstance(value, Exception):
                raise ValueError(f"layer {layer!r} could not be recorded: {value}") from value
        return {layer: value for layer, value in taken.items() if isinstance(value, Tensor)}

    def remove(self) -> None:
        """Take the hooks off and drop what was kept. Twice is harmless."""
        self.forget(list(self._handles))
        self._taken.clear()

    def forget(self, layers: Iterable[str]) -> None:
        """Take the hooks of some layers off."""
        for layer in layers:
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
            self.recorder.record(self.layer, module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, self.layer)


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first tensor in a tuple, list or mapping (such as a ``ModelOutput``).

    Raises:
        ValueError: there is none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list, Mapping)):
        for value in output.values() if isinstance(output, Mapping) else output:
            try:
                return first_tensor(value)
            except ValueError:
                continue
    raise ValueError(f"its output holds no tensor, it is a {type(output).__name__}: name a module inside it instead.")


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer of a model is; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
