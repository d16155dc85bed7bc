"""What a model keeps beside its weights, as it was before a pass: buffers, metrics, plain attributes of its modules."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

# What torch, Lightning and DeepSpeed keep in attributes of their wrappers is theirs to know.
_LIBRARIES = {"torch", "lightning", "lightning_fabric", "pytorch_lightning", "deepspeed"}
_OF_EVERY_MODULE = set(vars(nn.Module()))
_PLAIN = (int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, dict, set, deque)


@contextmanager
def module_state_kept(model: nn.Module) -> Iterator[None]:
    """Put back what forward passes change in the modules of a model, weights aside, whatever happens.

    That is every buffer, changed in place or replaced; and of the modules that are not torch's or Lightning's the
    attributes that are tensors, numbers or strings, and what lists, dictionaries and sets hold: counters, moving
    averages, caches, the states of metrics. Attributes of other kinds are not looked into.
    """
    lazy = {module for module in model.modules() if isinstance(module, LazyModuleMixin)}
    kept = [_Kept(module) for module in model.modules() if module not in lazy]
    try:
        yield
    finally:
        with torch.no_grad():
            for one in kept:
                one.put_back()


class _Kept:
    """The buffers and attributes of one module."""

    def __init__(self, module: nn.Module) -> None:
        own = type(module).__module__.split(".")[0] not in _LIBRARIES
        self._places: list[dict[str, Any]] = [module._buffers] + ([vars(module)] if own else [])
        self._values = [{name: _Value(value) for name, value in _plain(place).items()} for place in self._places]

    def put_back(self) -> None:
        for place, values in zip(self._places, self._values):
            for name in _plain(place).keys() - values.keys():
                del place[name]
            for name, value in values.items():
                place[name] = value.as_it_was()


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    kinds = (Tensor, *_PLAIN, *_CONTAINERS)
    return {k: v for k, v in attributes.items() if k not in _OF_EVERY_MODULE and isinstance(v, kinds)}


class _Value:
    """An attribute: which object it is, and what that holds."""

    def __init__(self, value: Any) -> None:
        self._value: Any = value
        self._held: Any = None
        if isinstance(value, Tensor):
            self._held = value.detach().clone()
        elif isinstance(value, _CONTAINERS):
            self._held = copy(value)

    def as_it_was(self) -> Any:
        value = self._value
        if isinstance(value, Tensor):
            # Not by its version: batch norm writes without counting. Not always: a graph may hold it for backward.
            if not value.is_inference() and not value.is_meta and not torch.equal(value, self._held):
                value.detach().copy_(self._held)
        elif isinstance(value, _CONTAINERS) and list(map(id, _items(value))) != list(map(id, _items(self._held))):
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(self._held)
        return value


def _items(container: Any) -> Iterator[Any]:
    yield from container
    if isinstance(container, dict):
        yield from container.values()
