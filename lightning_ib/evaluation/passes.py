"""A separate pass over data that restores the model, the data loader and all random states."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ib.capture.batches import Parts, Unpack, is_keywords, unpacked
from lightning_ib.capture.layers import device_of
from lightning_ib.evaluation.preserve import module_state_kept
from lightning_ib.functional.checks import moved
from lightning_ib.measurement.information_plane import InformationPlane

# Of endless data, read at most this many times the wanted number of samples, where few of them count.
_MOST_SHOWN = 20


class ForwardError(RuntimeError):
    """The model raised when it was called in a pass of its own."""


def with_bar(items: Iterable[Any] | None, description: str, total: int | None = None) -> Any:
    """A tqdm bar over ``items``; without items one that is updated by hand.

    Raises:
        ModuleNotFoundError: tqdm is missing.
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("progress=True needs tqdm: pip install tqdm, or leave it out.") from error
    return tqdm(items, desc=description, total=total, dynamic_ncols=True)


@contextmanager
def on_device(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """A model moved to a device, and back at the end; ``None`` leaves it where its first parameter is."""
    home = device_of(model)
    away = home if device is None else torch.device(device)
    try:
        if device is not None:
            model.to(away)
        yield away
    finally:
        if device is not None:
            model.to(home)


@contextmanager
def measuring(
    plane: InformationPlane, model: nn.Module, dataloader: Any, device: torch.device | str | None
) -> Iterator[torch.device]:
    """A model on a device, hooked by ``plane``, in eval mode; its state and random states are restored at the end."""
    with (
        on_device(model, device) as away,
        plane.attach(model),
        preserve_state(model, dataloader),
        module_state_kept(model),
    ):
        yield away


def run_pass(
    plane: InformationPlane,
    batches: Iterable[Any],
    forward: Callable[[Parts], Any],
    *,
    unpack: Unpack | None = None,
    move: Callable[[Any], Any] = lambda batch: batch,
    may_be_empty: bool = False,
    at_most: int | None = None,
) -> None:
    """Run batches through a model that ``plane`` is attached to, and count them in; up to ``at_most`` samples.

    Raises:
        ValueError: the data is empty, unless that is allowed, or unpacking a batch failed.
    """
    empty = True
    for batch in batches:
        if batch is None:  # Lightning's loop leaves it out, too
            continue
        parts = unpacked(move(batch), unpack, plane.sources)
        forward(parts)
        plane.see(parts)
        plane.stochastic.see(parts, forward)
        empty = False
        if at_most is not None and (plane.n_seen >= at_most or plane.n_shown >= _MOST_SHOWN * at_most):
            break
    if empty and not may_be_empty:
        raise ValueError("the data to measure on is empty: it gave no batch.")


def call(model: Callable[..., Any], parts: Parts) -> Any:
    """``model(x)``; of a plain mapping the keywords that its forward takes, or the mapping if none match.

    The label of a mapping is among the keywords where forward names it, as encoders with a decoder need theirs. A
    forward with ``**kwargs`` is called with the label left out first, and with it if that fails.
    """
    x = parts.x
    if not is_keywords(x):
        return model(x)
    try:
        parameters = signature(getattr(model, "forward", model)).parameters.values()
    except (TypeError, ValueError):  # builtins lack a signature
        return model(**x)
    label = {parts.label: parts.y} if parts.label else {}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        if not label or parts.label in {one.name for one in parameters}:
            return model(**x, **label)
        try:
            return model(**x)
        except Exception as error:
            with suppress(Exception):
                return model(**x, **label)
            raise error
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    taken = {key: value for key, value in (x | label).items() if key in named}
    return model(**taken) if taken.keys() - label.keys() else model(x)


def to(batch: Any, device: torch.device) -> Any:
    """A batch, however nested in tuples, lists and mappings, with all that can move on ``device``.

    A mapping of another kind than a plain one goes through as it is, where Lightning's ``apply_to_collection`` takes it
    apart.
    """
    if hasattr(batch, "to"):
        return moved(batch, device) if isinstance(batch, Tensor) else batch.to(device)
    if is_keywords(batch):
        return {key: to(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to(value, device) for value in batch)
    return batch


@contextmanager
def preserve_state(model: nn.Module, dataloader: Any = None) -> Iterator[None]:
    """Eval mode, gradients off, and random states seeded with 0; all of it restored at the end, also after errors.

    The seed makes random augmentation in the data the same at every pass. Restored are the mode of every module, the
    random states of torch (on the CPU and every GPU in use), NumPy and Python, and the generators of ``dataloader``.
    :func:`~lightning_ib.evaluation.preserve.module_state_kept` restores the changes that a forward makes in modules.
    """
    modes = [(module, module.training) for module in model.modules()]
    generators = [g for g in _generators(dataloader) if isinstance(g, torch.Generator)]
    states = [g.get_state() for g in generators]
    numpy = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    python_state = random.getstate()
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad():
            torch.default_generator.manual_seed(0)
            if gpus:
                torch.cuda.manual_seed_all(0)
            if numpy is not None:
                numpy.random.seed(0)
            random.seed(0)
            _evaluating(model)
            yield
    finally:
        for module, training in modes:
            module.training = training
        for generator, state in zip(generators, states):
            generator.set_state(state)
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


def _evaluating(model: nn.Module) -> None:
    """Eval mode, but for modules out of torch.export, which are as they were exported and refuse to change."""
    try:
        model.eval()
    except NotImplementedError:
        for module in model.modules():
            with suppress(NotImplementedError):
                module.eval()


def _generators(dataloader: Any) -> Iterator[Any]:
    while hasattr(dataloader, "iterable"):  # a progress bar around it
        dataloader = dataloader.iterable
    for owner in ("", "sampler", "batch_sampler", "batch_sampler.sampler"):
        target = dataloader
        for part in filter(None, owner.split(".")):
            target = getattr(target, part, None)
        yield getattr(target, "generator", None)
