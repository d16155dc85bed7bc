"""MNIST from a folder of IDX files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import torch
from torch import Tensor

from lightning_ib.reproduce.errors import ExperimentError

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_SIDE = 28


def load_mnist(data_dir: Path | None, split: str, n: int = 1) -> tuple[Tensor, Tensor]:
    """The first pictures and labels of a part of MNIST.

    Args:
        data_dir: the folder with ``MNIST/raw``, whose files may be gzipped.
        split: ``"train"`` or ``"t10k"``.
        n: how many.

    Returns:
        Gray values in [0, 1], float32, shape ``(N, 28, 28)``, and labels, int64, shape ``(N,)``.

    Raises:
        ExperimentError: a file is missing or damaged, there are fewer pictures, or labels above 9.
    """
    images, labels = _files(data_dir, split)
    largest = max(labels.tolist(), default=0)
    if len(images) < n or largest > 9:
        raise ExperimentError(
            f"{data_dir} holds {len(images)} pictures of {split} with labels up to {largest}, expected {n} or more "
            f"with labels from 0 to 9: put sound copies in their place, from {_MIRROR}."
        )
    return images[:n].float() / 255, labels[:n].long()


def standardized(pictures: Tensor) -> Tensor:
    """Gray values with about mean 0 and deviation 1, by the numbers of the training part."""
    return (pictures - 0.1307) / 0.3081


def checksum(data_dir: Path | None) -> str:
    """Of all pictures and labels, packed or not, in hexadecimal digits.

    Raises:
        ExperimentError: a file is missing or damaged.
    """
    crc = 0
    for split in ("train", "t10k"):
        for values in _files(data_dir, split):
            crc = zlib.crc32(values.numpy().data, crc)
    return f"{crc:08x}"


def _files(data_dir: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """All pictures and labels of a part, uint8."""
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
    return images, labels


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
    except (OSError, EOFError, ValueError, IndexError, RuntimeError, zlib.error) as error:
        raise ExperimentError(f"{path} is damaged ({error}): put a sound copy in its place, from {_MIRROR}.") from error
