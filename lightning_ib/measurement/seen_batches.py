"""The batches of a pass: how many rows each has, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ib.capture.outputs import first_tensor
from lightning_ib.distributed import this_process


class Batch(NamedTuple):
    """One batch.

    Attributes:
        n_samples: how many samples the loader returned: sequences, where the rows are tokens.
        n_rows: how many rows each layer put out.
        valid: bool ``(n_rows,)`` on the host: which of them count; ``None`` for all.
    """

    n_samples: int
    n_rows: int
    valid: Tensor | None = None

    @property
    def n_valid(self) -> int:
        """How many rows count."""
        return self.n_rows if self.valid is None else int(self.valid.sum())


class TokenShape(NamedTuple):
    """The shape of a batch of tokens.

    Attributes:
        n_sequences: how many sequences there are.
        places: the shape ``(B, L, …)`` of the labels or the mask; ``None`` if both are absent.
    """

    n_sequences: int
    places: tuple[int, ...] | None


def token_shape(x: Any, y: Any, mask: Any, layers: Iterable[tuple[int, ...]]) -> TokenShape:
    """The shape of a batch of tokens, as its labels, its mask, or else its input show it.

    Args:
        x: the input.
        y: the target.
        mask: which tokens count.
        layers: the shape that each layer put out its rows in.

    Raises:
        ValueError: a label came for each sequence instead of each token.
    """
    by_place = next((one for one in (y, mask) if isinstance(one, Tensor)), None)
    if isinstance(y, Tensor) and y.ndim == 1 and any(len(places) > 1 for places in layers):
        raise ValueError(
            f"the target has one label for each of {len(y)} samples, and tokens=True takes one a token, (B, "
            "L): leave tokens out, or give the labels of tokens in unpack."
        )
    n_sequences = len(first_tensor(x if by_place is None else by_place))
    return TokenShape(n_sequences, None if by_place is None else tuple(by_place.shape))


def n_samples_of(x: Any) -> int:
    """How many samples an input has; 0 where that is unknown."""
    with suppress(Exception):  # it is the user's, and may be of any kind
        return len(first_tensor(x))
    return 0


class SeenBatches:
    """The batches that a process has seen since the measurement began.

    Args:
        ignore_index: the label of rows that are left out; ``None`` keeps all.
    """

    def __init__(self, ignore_index: int | None) -> None:
        self.ignore_index = ignore_index
        self.reset()

    def __len__(self) -> int:
        return len(self._batches)

    def reset(self) -> None:
        """Begin a measurement."""
        self._batches: list[Batch] = []
        self.n_valid = 0
        """How many rows count."""
        self.n_idle = 0
        """The number of batches in which all layers stayed idle."""

    @property
    def n_rows(self) -> int:
        """How many rows were seen, counted or ignored."""
        return sum(batch.n_rows for batch in self._batches)

    def add(self, batch: Batch) -> None:
        """Count in a batch."""
        self._batches.append(batch)
        self.n_valid += batch.n_valid

    def pass_over(self, x: Any) -> None:
        """Skip a batch in which all layers stayed idle."""
        self._batches.append(Batch(n_samples_of(x), 0))
        self.n_idle += 1

    def valid(self, ys: Iterable[Tensor], mask: Tensor | None, n: int) -> Tensor | None:
        """Which of ``n`` rows count, bool ``(n,)`` on the host; ``None`` where all do.

        Args:
            ys: the targets, ``(n, …)`` each: a row with an ignored label, in any of them, is left out.
            mask: 0 where a row is left out, n values.
            n: how many rows there are.

        Raises:
            ValueError: the mask has another number of values.
        """
        if mask is not None and mask.numel() != n:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)}, and there are {n} rows: give (B, L), one a token."
            )
        counting = [] if mask is None else [mask.detach().reshape(-1).bool()]
        if self.ignore_index is not None:
            labels = [y.detach().reshape(n, -1) for y in ys if len(y) == n]
            counting += [of.ne(self.ignore_index).all(1) for of in labels]
        if not counting:
            return None
        device = counting[0].device  # of all of them as a rule: the host then waits for it once
        return torch.stack([of.to(device) for of in counting]).all(0).cpu()

    def sequences(self, n_sequences: int, n_rows: int, device: torch.device) -> Tensor:
        """The sequence of each token of the next batch, int64 ``(n_rows,)``, numbered through all processes.

        Raises:
            ValueError: the sequences differ in length.
        """
        rank, world = this_process()
        before = sum(batch.n_samples for batch in self._batches)
        numbers = rank + world * torch.arange(before, before + n_sequences, device=device)
        if n_sequences == 0 or n_rows % n_sequences:
            raise ValueError(
                f"{n_rows} tokens are not those of {n_sequences} sequences of one length: pad them, with a mask."
            )
        return numbers.repeat_interleave(n_rows // n_sequences)

    def rows_of(self, n_samples: int) -> tuple[int, int]:
        """How many rows the first ``n_samples`` samples have, and how many of those count."""
        n_rows = n_valid = 0
        for batch in self._batches:
            seen = min(n_samples, batch.n_samples)
            rows = seen * (batch.n_rows // max(1, batch.n_samples))
            n_samples, n_rows = n_samples - seen, n_rows + rows
            n_valid += Batch(seen, rows, None if batch.valid is None else batch.valid[:rows]).n_valid
        return n_rows, n_valid
