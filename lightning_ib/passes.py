"""A pass of one's own over data, which leaves no trace in the model, the data loader or any random state."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from lightning_ib.batches import Parts, Unpack, described, is_keywords, unpacked
from lightning_ib.functional import Correction, Unit
from lightning_ib.history import InformationPoint
from lightning_ib.plane import MAX_SAMPLES, InformationPlane, Layers
from lightning_ib.preserve import module_state_kept
from lightning_ib.quantize import Quantizer
from lightning_ib.recorder import device_of

# Of data without an end, how many times as many samples are read as are to count, where few of them do.
_MOST_SHOWN = 20


def measure(
    model: nn.Module,
    dataloader: Iterable[Any],
    layers: Layers = None,
    *,
    input: Quantizer | None = None,
    target: Quantizer | None = None,
    unpack: Unpack | None = None,
    unit: Unit = "bits",
    correction: Correction | None = None,
    shuffles: int = 0,
    max_samples: int = MAX_SAMPLES,
    head: str | bool | None = None,
    ignore_index: int | None = None,
    tokens: bool = False,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> list[InformationPoint]:
    """Measure a trained network once: eval mode, no gradient, and everything put back as it was.

    Args:
        model: any module; it is called as ``model(x)``, or with the keywords that it takes where x is a mapping.
        dataloader: an iterable of batches.
        layers: see :class:`InformationPlane`.
        input: see :class:`InformationPlane`.
        target: see :class:`InformationPlane`.
        unpack: batch → (x, y), for batches in which the target is not recognized: see
            :func:`~lightning_ib.batches.parts_of`.
        unit: ``"bits"`` or ``"nats"``.
        correction: see :class:`InformationPlane`.
        shuffles: see :class:`InformationPlane`.
        max_samples: see :class:`InformationPlane`.
        head: see :class:`InformationPlane`.
        ignore_index: see :class:`InformationPlane`.
        tokens: see :class:`InformationPlane`; ``unpack`` may then return (x, y, mask).
        device: where to run; by default where the model's first parameter is. The model is moved back afterwards.
        progress: show a tqdm bar over the batches.

    Returns:
        A point for each layer.

    Raises:
        TypeError: the data is a tensor, a data set or a mapping, which gives no batches.
        ValueError: the data is empty, a batch cannot be unpacked, or an argument is wrong: see
            :class:`InformationPlane`.

    Example:
        >>> data = [(torch.rand(32, 4), torch.arange(32) % 4) for _ in range(8)]
        >>> points = measure(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), data, ["0", "2"])
        >>> [point.layer for point in points], points[0].n_samples
        (['0', '2'], 256)
    """
    checked_loader(dataloader)
    home = device_of(model)
    away = home if device is None else torch.device(device)
    plane = InformationPlane(
        layers,
        input=input,
        target=target,
        unit=unit,
        correction=correction,
        shuffles=shuffles,
        max_samples=max_samples,
        head=head,
        ignore_index=ignore_index,
        tokens=tokens,
    )
    try:
        if device is not None:
            model.to(away)
        with plane.attach(model), undisturbed(model, dataloader):
            batches = with_bar(dataloader, "Information plane") if progress else dataloader
            run_pass(plane, batches, lambda parts: call(model, parts), unpack=unpack, move=lambda one: to(one, away))
            return plane.compute()
    finally:
        if device is not None:
            model.to(home)


def checked_loader(dataloader: Any) -> None:
    """Refuse what is iterable and gives single samples, or nothing, instead of batches.

    Raises:
        TypeError: it is a tensor, a data set that is not iterable, a mapping or a string, or not iterable at all.
    """
    single = isinstance(dataloader, (Tensor, str, Mapping, Dataset)) and not isinstance(dataloader, IterableDataset)
    if single or not (hasattr(dataloader, "__iter__") or hasattr(dataloader, "__getitem__")):
        advice = (
            "DataLoader(dataset, batch_size=256)" if isinstance(dataloader, Dataset) else "DataLoader(…) or [(x, y)]"
        )
        raise TypeError(f"the data must be an iterable of batches, got {described(dataloader)}: give {advice}, say.")


def with_bar(items: Iterable[Any], description: str, total: int | None = None) -> Any:
    """A tqdm bar over ``items``.

    Raises:
        ModuleNotFoundError: there is no tqdm.
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("progress=True needs tqdm: pip install tqdm, or leave it out.") from error
    return tqdm(items, desc=description, total=total, dynamic_ncols=True)


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
        ValueError: there is no batch, unless there may be none, or a batch cannot be unpacked.
    """
    empty = True
    for batch in batches:
        if batch is None:  # Lightning's loop leaves it out, too
            continue
        parts = unpacked(move(batch), unpack)
        forward(parts)
        plane.see(parts)
        empty = False
        if at_most is not None and (plane.n_seen >= at_most or plane.n_shown >= _MOST_SHOWN * at_most):
            break
    if empty and not may_be_empty:
        raise ValueError("the data to measure on is empty: it gave no batch.")


def call(model: Callable[..., Any], parts: Parts) -> Any:
    """``model(x)``; of a plain mapping the keywords that its forward takes, or the mapping if it takes none of them.

    The label of a mapping is among the keywords where forward names it, as encoders with a decoder need theirs, or
    where it is called ``labels`` and forward takes any.
    """
    x = parts.x
    if not is_keywords(x):
        return model(x)
    try:
        parameters = signature(getattr(model, "forward", model)).parameters.values()
    except (TypeError, ValueError):  # not known of what is not written in Python
        return model(**x)
    label = {parts.label: parts.y} if parts.label else {}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        named = {one.name for one in parameters} | {"labels"}
        return model(**x, **{key: value for key, value in label.items() if key in named})
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    taken = {key: value for key, value in (x | label).items() if key in named}
    return model(**taken) if taken.keys() - label.keys() else model(x)


def to(batch: Any, device: torch.device) -> Any:
    """A batch, however nested in tuples, lists and mappings, with all that can move on ``device``."""
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True) if isinstance(batch, Tensor) else batch.to(device)
    if is_keywords(batch):
        return {key: to(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to(value, device) for value in batch)
    return batch


def iter_once(dataloader: Any) -> bool:
    """Whether data is an iterator, which the first pass uses up: other loaders begin anew when they are asked to."""
    once = isinstance(dataloader, Iterator) and not hasattr(dataloader, "__len__")
    return once and type(dataloader).__iter__(dataloader) is dataloader


def in_order(dataloader: Any, rank: int = 0, world: int = 1) -> Any:
    """A loader over the same data whose iteration moves nothing of the original's, in order where that is up to us.

    A loader that shuffles or drops its last batch shows other samples at every pass: the new one shows every sample
    once. A sampler of one's own is copied. Subclasses of DataLoader and iterable data sets are returned as they are:
    only they know what they show.

    Args:
        dataloader: any iterable of batches.
        rank: which of several processes this is.
        world: how many processes share the data out. A loader that does so already is left to it, and so are batch
            samplers of one's own: see :func:`is_share`.
    """
    if getattr(dataloader, "persistent_workers", False) and not _made_anew(dataloader):
        # Its one iterator belongs to the training loop, which loses its place where another pass begins.
        dataloader = copy.copy(dataloader)
        dataloader._iterator = None
    if not _made_anew(dataloader):
        return dataloader
    options: dict[str, Any]
    sampler: Any = dataloader.sampler
    batch_sampler = dataloader.batch_sampler
    data = {id(dataloader.dataset): dataloader.dataset}  # samplers refer to it; it is not copied with them
    if batch_sampler is not None and dataloader.batch_size is None:
        options = {"batch_sampler": copy.deepcopy(batch_sampler, data)}
    else:
        if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == len(sampler.data_source):
            sampler = SequentialSampler(sampler.data_source)
        sampler = copy.deepcopy(sampler, data)
        if type(sampler) is DistributedSampler:
            sampler.shuffle = False
        elif world > 1 and not isinstance(sampler, DistributedSampler):
            sampler = Share(sampler, rank, world)
        options = {"sampler": sampler, "batch_size": dataloader.batch_size}
    return DataLoader(
        dataloader.dataset,
        **options,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
        pin_memory=dataloader.pin_memory,
        timeout=dataloader.timeout,
        worker_init_fn=dataloader.worker_init_fn,
        multiprocessing_context=dataloader.multiprocessing_context,
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=dataloader.prefetch_factor,
    )


def _made_anew(dataloader: Any) -> bool:
    return type(dataloader) is DataLoader and not isinstance(dataloader.dataset, IterableDataset)


class Share(DistributedSampler[Any]):
    """What one of several processes takes of a sampler: every world-th, evened out by repeating the first.

    Even shares keep processes in step whose forward passes need one another.

    Args:
        whole: the sampler to share out; every process must draw the same from it.
        rank: which process this is.
        world: how many there are.
    """

    def __init__(self, whole: Sampler[Any], rank: int, world: int) -> None:
        super().__init__(whole, num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """The share of this process."""
        drawn = list(self.dataset)  # type: ignore[call-overload]
        return (drawn[index] for index in super().__iter__())


def _sampler(dataloader: Any) -> Any:
    """What picks single samples for a loader, where something does."""
    batches = getattr(dataloader, "batch_sampler", None)
    own = getattr(batches, "sampler", None)
    return own if own is not None else getattr(dataloader, "sampler", None)


def is_share(dataloader: Any) -> bool:
    """Whether a loader shows one process' share already: through its sampler, or as an iterable data set should."""
    return isinstance(_sampler(dataloader), DistributedSampler) or isinstance(
        getattr(dataloader, "dataset", None), IterableDataset
    )


def genuine(dataloader: Any) -> int | None:
    """How many samples, from the first, a loader shows before it repeats some to even out the shares of processes.

    A DistributedSampler gives process r the samples r, r + W, …, and goes on with the first ones again until every
    process has as many. ``None`` where nothing is repeated.
    """
    sampler = _sampler(dataloader)
    # Subclasses that share out in another way are theirs to know; Lightning's wrapper does it as torch does.
    kinds = ("DistributedSampler", "DistributedSamplerWrapper", "Share")
    if not isinstance(sampler, DistributedSampler) or type(sampler).__name__ not in kinds:
        return None
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]


@contextmanager
def undisturbed(model: nn.Module, dataloader: Any = None) -> Iterator[None]:
    """Eval mode, no gradient, and random states seeded with 0; all of it put back at the end, whatever happens.

    The seed makes random augmentation in the data the same at every pass. Put back are the mode of every module, what
    :func:`~lightning_ib.preserve.module_state_kept` says, the random states of torch (on the CPU and every GPU in use),
    NumPy and Python, and the generators of ``dataloader``.
    """
    modes = [(module, module.training) for module in model.modules()]
    generators = [g for g in _generators(dataloader) if isinstance(g, torch.Generator)]
    states = [g.get_state() for g in generators]
    numpy = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    python_state = random.getstate()
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad(), module_state_kept(model):
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
