"""The processes that measure together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist


def this_process() -> tuple[int, int]:
    """The rank of this process and the number of processes that measure together."""
    alone = not (dist.is_available() and dist.is_initialized())
    return (0, 1) if alone else (dist.get_rank(), dist.get_world_size())


Result = TypeVar("Result")


def all_gathered(own: Any) -> list[Any]:
    """The objects of all processes, in the order of their ranks; every process must call this."""
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, own)
    return everywhere


def on_rank_zero(work: Callable[[], Result]) -> Result:
    """The result of the first process, for all, each of which must call this; its error is an error in all."""
    rank, world = this_process()
    if world == 1:
        return work()
    box: list[Any] = [None, None]
    error: Exception | None = None
    if rank == 0:
        try:
            box[0] = work()
        except Exception as raised:
            error, box[1] = raised, f"{type(raised).__name__}: {raised}"
    dist.broadcast_object_list(box)
    if error is not None:
        raise error
    if box[1] is not None:
        raise RuntimeError(f"the measurement failed in the first process: {box[1]}")
    result: Result = box[0]
    return result
