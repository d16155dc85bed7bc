"""Restores the state of a model beside its weights: buffers, metrics, plain attributes of its modules."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from lightning_ib.capture.layers import LIBRARIES

_OF_EVERY_MODULE = set(vars(nn.Module()))
_PLAIN = (int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, dict, set, deque, tuple)


@contextmanager
def module_state_kept(model: nn.Module) -> Iterator[None]:
    """Restore the state that forward passes change in the modules of a model, weights aside, also after errors.

    That is every buffer, changed in place or replaced; and of modules that are the user's or another library's than
    torch or Lightning, the attributes that are tensors, numbers, strings, or lists, tuples, dictionaries and sets of
    such: counters, moving averages, caches, the states of metrics. Attributes of other kinds, sparse tensors and
    TorchScript are skipped. Modules that are made in the first forward stay made.
    """
    others = (LazyModuleMixin, torch.jit.ScriptModule)
    kept = [_ModuleState(module) for module in model.modules() if not isinstance(module, others)]
    try:
        yield
    finally:
        with torch.no_grad():
            for one in kept:
                one.restore()


class _ModuleState:
    """The buffers and attributes of one module."""

    def __init__(self, module: nn.Module) -> None:
        # Attributes of the modules of torch, Lightning and DeepSpeed are internal to those libraries.
        kinds = (kind for kind in type(module).__mro__ if kind not in (object, nn.Module))
        own = any(kind.__module__.split(".")[0] not in LIBRARIES for kind in kinds)
        places: list[dict[str, Any]] = [module._buffers] + ([vars(module)] if own else [])
        self._places = [
            (place, set(place), {name: _Attribute(value) for name, value in _plain_attributes(place).items()})
            for place in places
        ]

    def restore(self) -> None:
        for place, names, values in self._places:
            for name in _plain_attributes(place).keys() - names:
                del place[name]
            for name, value in values.items():
                place[name] = value.restored()


def _plain_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in attributes.items()
        if name not in _OF_EVERY_MODULE and isinstance(value, (Tensor, *_PLAIN, *_CONTAINERS)) and not _is_freed(value)
    }


def _is_freed(value: Any) -> bool:
    """Whether the memory of a tensor was freed, as of weights that FSDP has sharded: FSDP restores them."""
    strided = isinstance(value, Tensor) and not value.is_meta and value.layout is torch.strided
    return strided and value.numel() > 0 and value.untyped_storage().nbytes() == 0


class _Attribute:
    """An attribute: its object, and the contents of that."""

    def __init__(self, value: Any, around: tuple[int, ...] = ()) -> None:
        self._value: Any = value
        self._held: Any = None
        self._parts: list[_Attribute] = []
        if isinstance(value, Tensor):
            # Tensors made in inference mode are read-only in this pass.
            if value.layout is torch.strided and not value.is_meta and not value.is_inference():
                self._held = value.detach().clone()
        elif isinstance(value, _CONTAINERS) and id(value) not in around:
            self._held = copy(value)
            parts = (one for one in _items(value) if isinstance(one, (Tensor, *_CONTAINERS)) and not _is_freed(one))
            self._parts = [_Attribute(one, (*around, id(value))) for one in parts]

    def restored(self) -> Any:
        value = self._value
        if self._held is None:
            return value
        if isinstance(value, Tensor):
            with suppress(
                RuntimeError, NotImplementedError
            ):  # one place that stands for many, as of an expanded tensor
                self._write_back(value)
        else:
            for part in self._parts:
                part.restored()
            if not isinstance(value, tuple) and list(map(id, _items(value))) != list(map(id, _items(self._held))):
                value.clear()
                (value.extend if isinstance(value, (list, deque)) else value.update)(self._held)
        return value

    def _write_back(self, value: Tensor) -> None:
        if value.shape != self._held.shape:  # replaced through .data
            value.data = self._held
        # Compared by value: batch norm writes without a new version. Equal ones stay: backward may need them.
        elif not torch.equal(value, self._held):
            value.detach().copy_(self._held)


def _items(container: Any) -> Iterator[Any]:
    yield from container
    if isinstance(container, dict):
        yield from container.values()
