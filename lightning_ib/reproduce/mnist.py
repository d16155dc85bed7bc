"""MNIST from a folder of IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from torch import Tensor

from lightning_ib.reproduce.errors import ExperimentError

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_SIDE = 28


def load_mnist(data_dir: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """The pictures and labels of a part of MNIST.

    Args:
        data_dir: the folder with ``MNIST/raw``, whose files may be gzipped.
        split: ``"train"`` or ``"t10k"``.

    Returns:
        Gray values in [0, 1], float32, shape ``(N, 28, 28)``, and labels, int64, shape ``(N,)``.

    Raises:
        ExperimentError: a file is missing or damaged.
    """
    names = [f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"]
    if data_dir is None:
        raise ExperimentError(f"MNIST is needed: give --data-dir DIR with {_how(names)}")
    raw = data_dir / "MNIST" / "raw"
    images, labels = (_read(raw, name, names) for name in names)
    if images.shape[1:] != (_SIDE, _SIDE) or labels.shape != images.shape[:1]:
        raise ExperimentError(
            f"{raw} holds pictures of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)}, expected "
            f"(N, 28, 28) and (N,): put sound copies in their place, from {_MIRROR}."
        )
    return images.float() / 255, labels.long()


def _how(names: list[str]) -> str:
    return f"MNIST/raw/{names[0]}.gz and {names[1]}.gz in it, from {_MIRROR}."


def _read(raw: Path, name: str, names: list[str]) -> Tensor:
    """A file of bytes in the IDX format."""
    found = [path for path in (raw / name, raw / f"{name}.gz") if path.is_file()]
    if not found:
        raise ExperimentError(f"{raw} lacks {name}: --data-dir must hold {_how(names)}")
    path = found[0]
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        n_dimensions = content[3]
        start = 4 + 4 * n_dimensions
        shape = [int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4)]
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("the first bytes are of another format")
        return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, RuntimeError) as error:
        raise ExperimentError(f"{path} is damaged ({error}): put a sound copy in its place, from {_MIRROR}.") from error
