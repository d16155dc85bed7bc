"""The tensor (B, …) in the output of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from lightning_ib.functional.checks import plain_tensor

Select = Callable[[Any], Tensor]


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first tensor in a tuple, list or mapping (such as a ``ModelOutput``).

    A packed or nested sequence is padded with zeros to ``(B, L, …)``, L being the longest of the batch.

    Raises:
        ValueError: the output holds no tensor.
    """
    return _padded(_first(output))


def selected(output: Any, select: Select) -> Tensor:
    """The tensor that ``select`` takes out of an output.

    Raises:
        ValueError: ``select`` returned something else.
    """
    tensor = select(output)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"select must return a tensor with the batch first, got {type(tensor).__name__}.")
    return plain_tensor(tensor)


def _first(output: Any) -> Tensor | PackedSequence:
    if isinstance(output, (Tensor, PackedSequence)):
        return output
    if isinstance(output, (tuple, list, Mapping)):
        for value in output.values() if isinstance(output, Mapping) else output:
            try:
                return _first(value)
            except ValueError:
                continue
    raise ValueError(
        f"its output holds no tensor, it is a {type(output).__name__}: name a module inside it instead, or give "
        "Quantizer(select=…), which takes a tensor out of the output."
    )


def _padded(found: Tensor | PackedSequence) -> Tensor:
    if isinstance(found, PackedSequence):
        return pad_packed_sequence(found, batch_first=True)[0]
    return plain_tensor(found.to_padded_tensor(0.0) if found.is_nested else found)
