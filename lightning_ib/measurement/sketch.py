"""A linear sketch: a few numbers whose norm is that of a vector, on average."""

from __future__ import annotations

import torch
from torch import Tensor

_SIGNS = 2**20
_SEED = 20170703


class Sketch:
    r"""Sums of a vector's entries with random signs, k of them (a count sketch; Charikar, Chen & Farach-Colton 2002).

    Entry i is added to the sum i mod k with a random sign. The map is linear, and the squared norm of the sums has the
    squared norm of the vector for its mean and :math:`2/k` at most for its relative variance, for vectors whose weight
    is spread over many entries. The signs are the same in every process and at every call.

    Args:
        k: the number of sums; an even one is lowered by one, since layers' widths are even as a rule and would put one
            input into one sum.
    """

    def __init__(self, k: int) -> None:
        self.k = k - (k % 2 == 0)
        self._signs: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __call__(self, values: Tensor) -> Tensor:
        """The sketch of a tensor: shape ``(k,)``, float64 for float64 and float32 otherwise.

        Args:
            values: floating point, any shape; sparse ones too.
        """
        values = (values.to_dense() if values.is_sparse else values).reshape(-1)
        values = values if values.dtype == torch.float64 else values.float()
        signs = self._signs_on(values.device, values.dtype)
        rows = max(1, _SIGNS // 2 // self.k)
        sums = values.new_zeros(self.k)
        for number, piece in enumerate(values.split(rows * self.k)):
            # Each piece begins at another sign, so that pieces alike do not add up alike.
            at = number * 323_909 % (_SIGNS - rows * self.k)
            piece = piece * signs[at : at + len(piece)]
            whole = len(piece) // self.k * self.k
            sums += piece[:whole].view(-1, self.k).sum(0)
            sums[: len(piece) - whole] += piece[whole:]
        return sums

    def _signs_on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        if (device, dtype) not in self._signs:
            generator = torch.Generator().manual_seed(_SEED)
            signs = torch.randint(0, 2, (_SIGNS,), generator=generator).mul_(2).sub_(1)
            self._signs[device, dtype] = signs.to(device, dtype)
        return self._signs[device, dtype]
