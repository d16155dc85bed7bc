"""The batch of all processes, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_ib.functional.checks import kind_of

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)


def gather_batch(values: Tensor) -> Tensor:
    r"""The samples of all processes, in the order of the ranks: the whole batch of a step that several processes share.

    A bound that compares the samples of a batch, such as :func:`nonlinear_ib_bound`, depends on how many there are.
    With this it is that of the whole batch in every process. The numbers of samples may differ between the processes.

    The gradient of what each process computes from the result reaches the values of all: it is the sum over the
    processes. With the mean over the processes that DistributedDataParallel takes of the gradients, a loss that all
    processes compute from the gathered batch has the gradient of one process with the whole batch. A mean over the
    samples of a process, such as the cross-entropy, is averaged by DistributedDataParallel as ever: there a sample of a
    process with fewer of them counts more.

    All processes must call this equally often and in the same order, or some wait: in a validation loop, too, they need
    the same number of batches, as Lightning's sampler deals them. Where no process group of ``torch.distributed``
    is up, the values are given back as they are.

    Args:
        values: of this process, shape ``(B, …)``.

    Returns:
        Shape ``(total B, …)``.

    Raises:
        TypeError: ``values`` is no tensor.
        ValueError: in every process: the shapes of a sample or the dtypes differ between the processes.

    Example:
        >>> gather_batch(torch.arange(3))  # one process
        tensor([0, 1, 2])
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"values must be a tensor of shape (B, …), got {kind_of(values)}.")
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    gathered: Tensor = torch.compiler.disable(_gathered)(values)  # collectives are no part of a graph
    return gathered


def _gathered(values: Tensor) -> Tensor:
    width = values[0].numel() if values.ndim and len(values) else -1  # any, where there are no samples
    code = _DTYPES.index(values.dtype) if values.dtype in _DTYPES else -1
    own = torch.tensor([len(values) if values.ndim else -1, width, code], device=values.device)
    each = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(each, own)
    sizes, widths, codes = torch.stack(each).T.tolist()
    if min(sizes) < 1 or len(set(widths)) > 1 or len(set(codes)) > 1 or code < 0:
        names = [str(_DTYPES[i]) if i >= 0 else "another dtype" for i in codes]
        found = ", ".join(f"{max(n, 0)} × {max(d, 0)} of {name}" for n, d, name in zip(sizes, widths, names))
        raise ValueError(
            "A batch that is gathered must have at least one sample in each process, all of one shape and dtype, got "
            f"(samples × values, by rank) {found}: drop the incomplete batch (drop_last=True), or gather=False."
        )
    gathered: Tensor = _AllGather.apply(values, sizes)  # type: ignore[no-untyped-call]
    return gathered


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int]) -> Tensor:
        ctx.start, ctx.n = sum(sizes[: dist.get_rank()]), len(own)
        # Collectives take tensors of one size: smaller ones are filled up.
        filled = own.new_zeros(max(sizes), *own.shape[1:])
        filled[: len(own)] = own
        each = [torch.empty_like(filled) for _ in sizes]
        dist.all_gather(each, filled)
        return torch.cat([values[:n] for values, n in zip(each, sizes)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.n], None
