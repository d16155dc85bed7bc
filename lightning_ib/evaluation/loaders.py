"""Loaders for separate passes: sequential order, and sharding over processes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from lightning_ib.capture.batches import described


def checked_loader(dataloader: Any) -> None:
    """Refuse iterables that yield single samples, or are empty, instead of batches.

    Raises:
        TypeError: it is a tensor, a map-style data set, a mapping, a string, or something else than an iterable.
    """
    single = isinstance(dataloader, (Tensor, str, Mapping, Dataset)) and not isinstance(dataloader, IterableDataset)
    if single or not (hasattr(dataloader, "__iter__") or hasattr(dataloader, "__getitem__")):
        advice = (
            "DataLoader(dataset, batch_size=256)" if isinstance(dataloader, Dataset) else "DataLoader(…) or [(x, y)]"
        )
        raise TypeError(f"the data must be an iterable of batches, got {described(dataloader)}: give {advice}, say.")


def iter_once(dataloader: Any) -> bool:
    """Whether data is an iterator, which the first pass uses up: other loaders begin anew when they are asked to."""
    once = isinstance(dataloader, Iterator) and not hasattr(dataloader, "__len__")
    return once and type(dataloader).__iter__(dataloader) is dataloader


def sequential_loader(dataloader: Any, rank: int = 0, world: int = 1) -> Any:
    """A loader over the same data that leaves the state of the original untouched, and is sequential if possible.

    A loader that shuffles or drops its last batch shows other samples at every pass: the new one shows every sample
    once. A sampler of one's own is copied. Subclasses of DataLoader and iterable data sets are returned as they are:
    their samples are up to them.

    Args:
        dataloader: any iterable of batches.
        rank: which of several processes this is.
        world: how many processes the data is sharded over. A loader that is sharded already stays as it is, and so
            do custom batch samplers: see :func:`is_share`.
    """
    if getattr(dataloader, "persistent_workers", False) and not _can_be_rebuilt(dataloader):
        # Its one iterator belongs to the training loop, which loses its place where another pass begins.
        dataloader = copy.copy(dataloader)
        dataloader._iterator = None
    if not _can_be_rebuilt(dataloader):
        return dataloader
    options: dict[str, Any]
    sampler: Any = dataloader.sampler
    batch_sampler = dataloader.batch_sampler
    data = {id(dataloader.dataset): dataloader.dataset}  # samplers refer to it; the copies must share it
    if batch_sampler is not None and dataloader.batch_size is None:
        options = {"batch_sampler": copy.deepcopy(batch_sampler, data)}
    else:
        if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == len(sampler.data_source):
            sampler = SequentialSampler(sampler.data_source)
        sampler = copy.deepcopy(sampler, data)
        if type(sampler) is DistributedSampler:
            sampler.shuffle = False
        elif world > 1 and not isinstance(sampler, DistributedSampler):
            sampler = ShardedSampler(sampler, rank, world)
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


def _can_be_rebuilt(dataloader: Any) -> bool:
    return type(dataloader) is DataLoader and not isinstance(dataloader.dataset, IterableDataset)


class ShardedSampler(DistributedSampler[Any]):
    """The shard of one process: every world-th sample of a sampler, padded by repeating the first ones.

    Equal shards keep processes in step if their forward passes are collective.

    Args:
        whole: the sampler to shard; every process must draw the same from it.
        rank: which process this is.
        world: how many there are.
    """

    def __init__(self, whole: Sampler[Any], rank: int, world: int) -> None:
        super().__init__(whole, num_replicas=world, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """The shard of this process."""
        drawn = list(self.dataset)  # type: ignore[call-overload]
        return (drawn[index] for index in super().__iter__())


def _sampler(dataloader: Any) -> Any:
    """The sampler of single samples in a loader, or ``None``."""
    batches = getattr(dataloader, "batch_sampler", None)
    own = getattr(batches, "sampler", None)
    return own if own is not None else getattr(dataloader, "sampler", None)


def is_share(dataloader: Any) -> bool:
    """Whether a loader is sharded already: through its sampler, or as an iterable data set should be."""
    return isinstance(_sampler(dataloader), DistributedSampler) or isinstance(
        getattr(dataloader, "dataset", None), IterableDataset
    )


def n_unpadded_samples(dataloader: Any) -> int | None:
    """How many samples a loader shows before the padding of its distributed sampler.

    A DistributedSampler assigns process r the samples r, r + W, …, and pads with the first ones until every process
    has as many. ``None`` without padding.
    """
    sampler = _sampler(dataloader)
    # Subclasses may shard in another way; Lightning's wrapper does it as torch does.
    kinds = ("DistributedSampler", "DistributedSamplerWrapper", "ShardedSampler")
    if not isinstance(sampler, DistributedSampler) or type(sampler).__name__ not in kinds:
        return None
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]
