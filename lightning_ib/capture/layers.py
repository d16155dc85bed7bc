"""The layers of a model: their names, the default choice, and the meaning of a pattern."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from lightning_ib.capture.exported import exported_kinds

MAX_DEFAULT_LAYERS = 12


# The parts that torch.compile, activation checkpointing, FSDP and Lightning put into the names of modules.
_WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}


LIBRARIES = {"torch", "lightning", "lightning_fabric", "pytorch_lightning", "deepspeed"}
"""Packages of library modules; their wrappers (DistributedDataParallel, …) call the wrapped module ``module``."""


class NoLayersError(ValueError, RuntimeError):
    """No layer was named, and the model lacks layers that can be measured."""


def default_layers(model: nn.Module) -> list[str]:
    """The layers to watch by default: leaf modules with weights, normalization layers left out.

    Of more than twelve, twelve are taken, spread evenly over the depth, the first and the last included. This is
    provisional: an instrument chooses again among those that run.

    Raises:
        NoLayersError: the model lacks such modules.
    """
    names = leaves_with_weights(model)
    if not names:
        raise NoLayersError(
            f"{type(model).__name__} has no leaf module with weights to watch by default: name the layers "
            f"(layers=[…]). It has {listed(n for n, _ in model.named_modules() if n)}."
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


def leaves_with_weights(model: nn.Module) -> list[str]:
    """The leaf modules that have weights, in the order in which they are defined.

    Left out are normalization layers, the prior of a loss, and TorchScript, which takes no hooks. A layer with its
    adapter (LoRA of PEFT, torchtune, LitGPT) counts as one leaf, measured on the input of the next layer: the output
    of the layer plus that of the adapter. It is recognized by a leaf ``base_layer`` or ``original_module``, or by
    ``lora_A`` and ``lora_B``.
    """
    found: list[str] = []
    inside: set[nn.Module] = set()  # the parts of layers with an adapter
    modules = named_modules(model)
    exported = exported_kinds(modules)
    for name, module in modules.items():
        if module in inside or not name or "parametrizations" in name.split(".") or not _is_layer(module):
            continue
        if _NO_LAYER.search(exported.get(name, "")):
            continue
        found.append(name)
        inside.update(module.modules())
    return found


def _has_adapter(module: nn.Module) -> bool:
    parts = [name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))]
    return any(part in _ADAPTED or part.lower() in ("lora_a", "lora_b") for part in parts)


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a leaf with weights, or one with its adapter."""
    # The projection inside nn.MultiheadAttention is used as a weight, so that its hooks stay idle.
    if is_scripted(module) or _NO_LAYER.search(type(module).__name__):
        return False
    children = {name for name, _ in module.named_children()}
    if _has_adapter(module):
        adapted = next((getattr(module, name) for name in _ADAPTED if name in children), None)
        return adapted is None or _is_layer(adapted)
    # A layer that is quantized holds its weights packed, and gives them by a method.
    quantized = type(module).__module__.startswith("torch.ao.nn.") and hasattr(module, "weight")
    has_weights = quantized or any(True for _ in module.parameters(recurse=False))
    return children <= {"parametrizations", "_packed_params"} and (has_weights or "parametrizations" in children)


# A prior holds parameters of a loss, outside of the forward.
_NO_LAYER = re.compile("norm|NonDynamicallyQuantizableLinear|^ConditionalPrior$", re.IGNORECASE)

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
        model: the model that holds the modules, by the names of :func:`named_modules`.
        patterns: names and patterns.

    Returns:
        Module name → the argument that named it: the name itself, or else the first pattern that fits.

    Raises:
        ValueError: a pattern matches nothing (the sentence gives the nearest right names), or TorchScript.
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
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the model has {listed(names)}."
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
    """``model.named_modules()``, less the wrappers of torch.compile, activation checkpointing, FSDP, DDP and others."""
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
    return kind.__module__.split(".")[0] in LIBRARIES and not kind.__module__.startswith("torch.nn.modules.")


def _first_name(model: nn.Module, name: str) -> str | None:
    """The name that ``named_modules()`` gives to a module that has several, ``name`` being another of them."""
    everywhere = _plainly_named(model, remove_duplicate=False)
    return next((n for n, module in named_modules(model).items() if module is everywhere.get(name)), None)


def _matches(pattern: str, name: str) -> bool:
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    regex = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.fullmatch("".join(regex.get(part, re.escape(part)) for part in parts), name) is not None


def listed(names: Iterable[str], most: int = 20) -> str:
    """The names in a sentence, the first of many.

    Example:
        >>> listed(["conv", "fc", "out"], most=2)
        "'conv', 'fc', … (1 more)"
    """
    names = list(names)
    more = f", … ({len(names) - most} more)" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) + more) or "no named modules"


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer of a model is; the CPU where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
