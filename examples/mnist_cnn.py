"""A small convolutional network learns MNIST, and its information plane is drawn epoch by epoch.

By default every layer is cut into cells that follow the data, on the validation images::

    python examples/mnist_cnn.py

or put the layers into bins by hand, on the training images, in six ways (``--discretization none``, ``v1`` to ``v5``)::

    python examples/mnist_cnn.py --discretization v3 --epochs 10

MNIST is taken from ``--data-dir`` (in torchvision's layout) or downloaded to there. Where neither works, scikit-learn's
small handwritten digits take its place. ``--limit 5000`` makes a quick try of it.
"""

from __future__ import annotations

import argparse
import gzip
import math
import shlex
import shutil
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import Bins, FixedBins, History, InformationPlaneCallback, Quantizer
from lightning_ib.estimators.registry import BY_NAME
from lightning_ib.functional import quantiles
from lightning_ib.records.reliability import CLIPPED, SATURATED, UNDERSAMPLED

# -- the network -------------------------------------------------------------------------------------------------------


class MNISTNet(pl.LightningModule):
    """Two convolutions and a linear layer: 28 × 28 pixels to the logits of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.out = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x: pixels in [0, 1], shape ``(B, 1, 28, 28)``.

        Returns:
            Logits, shape ``(B, 10)``. On the way, ``conv1`` puts out ``(B, 16, 14, 14)``, ``conv2`` ``(B, 32, 7, 7)``.
        """
        logits: Tensor = self.out(self.conv2(self.conv1(x)).flatten(1))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The cross-entropy of a batch: images ``(B, 1, 28, 28)`` and labels ``(B,)``."""
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log cross-entropy and accuracy of a batch: images ``(B, 1, 28, 28)`` and labels ``(B,)``."""
        x, y = batch
        logits = self(x)
        accuracy = (logits.argmax(1) == y).float().mean()
        self.log_dict({"val_loss": F.cross_entropy(logits, y), "val_acc": accuracy}, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.002)


# -- how the layers are discretized ------------------------------------------------------------------------------------


class ThesisBins(Bins):
    """Two edges a coordinate, a little below its smallest values and half-way up to its largest.

    They are ``q(0.01) − 0.1`` and ``(q(0.99) + 0.1) / 2`` over all samples, q being the linear quantile. This is all it
    takes to make bins of one's own. ``refit=True`` asks for new edges at every measurement: the activations of these
    layers grow as they learn, and the edges follow.
    """

    def __init__(self) -> None:
        super().__init__(refit=True)

    def edges(self, z: Tensor) -> Tensor:
        """The edges for the pooled values ``z`` of all samples, shape ``(N, D)``: shape ``(D, 2)``."""
        low, high = quantiles(z, q=[0.01, 0.99]).unbind(1)
        edges = torch.stack([low - 0.1, (high + 0.1) / 2], dim=1)
        # A coordinate that hardly varies, far above zero, has them the other way round.
        return edges.sort(dim=1).values


Pool = Callable[[Tensor], Tensor]

POOLS: dict[str, tuple[Pool | None, Pool | None]] = {
    "none": (None, None),
    "v1": (nn.MaxPool3d((1, 4, 4)), nn.MaxPool3d((1, 3, 3))),
    "v2": (nn.MaxPool3d((2, 4, 4)), nn.MaxPool3d((2, 3, 3))),
    "v3": (nn.MaxPool3d((4, 4, 4)), nn.MaxPool3d((4, 3, 3))),
    "v4": (nn.MaxPool3d((1, 7, 7)), nn.MaxPool3d((1, 7, 7))),
    "v5": (nn.AvgPool3d((1, 7, 7)), nn.AvgPool3d((1, 7, 7))),
}
"""Experiment → the pools of conv1, on ``(B, 16, 14, 14)``, and of conv2, on ``(B, 32, 7, 7)``: channel, row, column."""


def discretization(name: str) -> dict[str, Any]:
    """The layers to watch in the network, and their discretization.

    Args:
        name: ``"cells"``, ``"none"`` or ``"v1"`` … ``"v5"``.

    Returns:
        The arguments ``layers`` and ``input`` of :class:`InformationPlaneCallback` and of :func:`lightning_ib.measure`.

    Raises:
        KeyError: the name is unknown.
    """
    if name == "cells":
        return {"layers": None, "input": None}
    pool1, pool2 = POOLS[name]
    # A class counts as predicted from a probability of 0.5 on. With "none" the logits are taken as they are.
    out = Quantizer(None, ThesisBins()) if name == "none" else Quantizer(nn.Softmax(dim=1), FixedBins([0.0, 0.5]))
    return {
        "layers": {"conv1": Quantizer(pool1, ThesisBins()), "conv2": Quantizer(pool2, ThesisBins()), "out": out},
        "input": Quantizer(nn.MaxPool2d(4), FixedBins([0.0, 0.5])),
    }


# -- the data ----------------------------------------------------------------------------------------------------------

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
TIMEOUT = (5, 30)  # seconds to connect, and between two pieces of an answer


def download(raw: Path, name: str) -> Path:
    """Download one of the files in ``MD5`` into the folder ``raw``; a failed download leaves the folder clean.

    Raises:
        OSError: the download failed; the message gives the reason.
    """
    try:
        # Imported here, since both are needed only for a download.
        import pooch
        import requests
    except ImportError as error:
        raise OSError(f"{name} is not in {raw}, and to download it takes pooch: pip install pooch") from error
    try:
        downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
        path = pooch.retrieve(MIRROR + name, f"md5:{MD5[name]}", fname=name, path=raw, downloader=downloader)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise OSError(
            f"{name} is not in {raw}, and {MIRROR} cannot be reached to download it: name the folder that holds "
            "MNIST/raw with --data-dir"
        ) from error
    except (OSError, ValueError) as error:
        raise OSError(f"{name} is not in {raw}, and its download failed ({error}): try again") from error
    return Path(path)


def read_idx(path: Path) -> Tensor:
    """Read a file of bytes in the IDX format, which MNIST comes in; gzipped if its name ends in ``.gz``.

    Returns:
        uint8, of the shape that the file names: images ``(N, 28, 28)``, labels ``(N,)``.

    Raises:
        ValueError: the file is damaged.
    """
    repair = "delete it, and it is downloaded anew, or put a sound copy in its place"
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged, it cannot be unpacked ({error}): {repair}") from error
    # Two zero bytes, 8 for unsigned bytes, the number of dimensions; then the dimensions, then the values.
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != b"\x00\x00\x08" or len(content) < start:
        raise ValueError(f"{path} is damaged, it does not begin as an IDX file of bytes does: {repair}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape) or len(content) == start:
        raise ValueError(
            f"{path} is damaged, it holds {len(content) - start} values where it should hold {math.prod(shape)} "
            f"(shape {shape}): {repair}"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def read_mnist(data_dir: Path, split: str) -> tuple[Tensor, Tensor]:
    """One part of MNIST, from ``data_dir``/MNIST/raw; files missing there, packed or unpacked, are downloaded.

    Args:
        data_dir: the folder that torchvision calls the root.
        split: ``"train"`` or ``"t10k"``.

    Returns:
        Images in [0, 1], float32 ``(N, 1, 28, 28)``, and labels, int64 ``(N,)``.

    Raises:
        OSError: a file is missing and its download failed.
        ValueError: a file is damaged.
    """
    raw = data_dir / "MNIST" / "raw"
    tensors = []
    for name in (f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"):
        found = [path for path in (raw / name, raw / f"{name}.gz") if path.exists()]
        tensors.append(read_idx(found[0] if found else download(raw, f"{name}.gz")))
    images, labels = tensors
    if images.shape != (len(labels), 28, 28) or labels.ndim != 1:
        raise ValueError(
            f"the {split} files in {raw} are not MNIST's, with images of shape {tuple(images.shape)} and labels of "
            f"shape {tuple(labels.shape)} where (N, 28, 28) and (N,) are expected: delete them, and they are "
            "downloaded anew, or put sound copies in their place"
        )
    return images.unsqueeze(1).float() / 255, labels.long()


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The 1797 handwritten digits that come with scikit-learn, enlarged from 8 × 8 to the size of MNIST's.

    Returns:
        The first 1500 for training and the other 297, by other writers, for validation; of each the images in [0, 1],
        float32 ``(N, 1, 28, 28)``, and the labels, int64 ``(N,)``.

    Raises:
        ImportError: scikit-learn is missing.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    x = F.interpolate(x, size=(28, 28), mode="bilinear")
    y = torch.from_numpy(bunch.target).long()
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])


def load_data(which: str, data_dir: Path) -> tuple[TensorDataset, TensorDataset]:
    """Data to train on and to validate on.

    Args:
        which: ``"mnist"``, ``"digits"``, or ``"auto"``: MNIST, or if it is unavailable, with a warning, the digits.
        data_dir: where MNIST lies or is to be put.

    Returns:
        Two data sets of images ``(1, 28, 28)`` and labels.

    Raises:
        RuntimeError: the data is unavailable; the message gives the reason and advice.
    """
    if which != "digits":
        try:
            return TensorDataset(*read_mnist(data_dir, "train")), TensorDataset(*read_mnist(data_dir, "t10k"))
        except (OSError, ValueError) as error:
            if which == "mnist":
                raise RuntimeError(f"MNIST cannot be had, since {error}, or take --data digits.") from error
            warnings.warn(
                f"MNIST cannot be had, since {error}. Taking scikit-learn's 8 × 8 handwritten digits instead: 1500 "
                "images to train on, whose values are not to be compared with MNIST's.",
                UserWarning,
                stacklevel=2,
            )
    try:
        training, validation = digits()
    except ImportError as error:
        raise RuntimeError("the handwritten digits come with scikit-learn: pip install scikit-learn.") from error
    return TensorDataset(*training), TensorDataset(*validation)


# -- the run -----------------------------------------------------------------------------------------------------------


def table(history: History) -> str:
    """The points as text, a row for each epoch and layer; epoch 0 is before training."""
    first = history[0]
    log_n = math.log(first.n_samples, 2 if first.unit == "bits" else math.e)
    width = max(len("layer"), *(len(point.layer) for point in history))
    read = {(e.epoch, e.layer): e.value for e in history.estimates() if e.source == "probe" and e.quantity == "I_TY"}
    rows = [
        f"Information in {first.unit}, over {first.n_samples} images: log N = {log_n:.3f}, "
        f"H(X) = {first.h_x:.3f}, H(Y) = {first.h_y:.3f}",
        "",
        f"epoch  {'layer':{width}}  I(X;T)  I(T;Y)  chance   probe    Fano    H(T)  verdict",
    ]
    for point in history:
        numbers = [point.i_xt, point.i_ty, point.i_ty_permuted]
        numbers += [read.get((point.epoch, point.layer), math.nan), point.i_ty_fano, point.h_t]
        shown = "  ".join("     –" if math.isnan(number) else f"{number:6.3f}" for number in numbers)
        rows.append(f"{point.epoch:5}  {point.layer:{width}}  {shown}  {point.verdict}".rstrip())
    rows += ["", "chance: I(T;Y) under permuted labels; probe: what a linear probe reads of the same rows"]
    rows += ["Fano: the least I(T;Y) of every layer, by the accuracy of the head"]
    rows += [f"{verdict}: {DOUBTS[verdict]}" for verdict in DOUBTS if any(p.verdict == verdict for p in history)]
    return "\n".join(rows)


DOUBTS = {
    "saturated": f"H(T) > {SATURATED} log N. Such values tell the images apart, not what was learned",
    "clipped": f"more than {CLIPPED:.0%} of the values lie outside the bins. What looks like compression may be theirs",
    "undersampled": f"more than {UNDERSAMPLED:.0%} of the images have a symbol of their own. See chance",
    "constant": "all images have one symbol",
    "too_coarse": "I(T;Y) lies below what the accuracy proves",
}


def tensorboard_command(log_dir: str) -> str:
    """The command to see the run in TensorBoard, with a hundred steps of every picture instead of ten."""
    # Unless the environment is activated, its programs are off the path.
    program = ["tensorboard"] if shutil.which("tensorboard") else [sys.executable, "-m", "tensorboard.main"]
    return shlex.join([*program, "--logdir", log_dir])


def whole_number(low: int, high: float = math.inf) -> Callable[[str], int]:
    """For argparse: an integer between ``low`` and ``high``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            limits = f"of at least {low}" if high == math.inf else f"between {low} and {high}"
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, got {text!r}")
        return value

    return parse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Train a small network on MNIST and draw its information plane.")
    p.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that holds MNIST/raw (%(default)s)")
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto", help="which data (%(default)s)")
    p.add_argument(
        "--discretization",
        choices=["cells", *POOLS],
        default="cells",
        help="how layers are discretized (%(default)s); 'none' takes 6 GB of memory",
    )
    p.add_argument(
        "--estimators",
        nargs="+",
        choices=sorted(BY_NAME),
        default=["probe"],
        metavar="NAME",
        help=f"estimators beside the counted values: {', '.join(sorted(BY_NAME))} (probe)",
    )
    p.add_argument("--epochs", type=whole_number(1), default=10, metavar="N", help="epochs of training (%(default)s)")
    p.add_argument("--batch-size", type=whole_number(1), default=100, metavar="N", help="batch size (%(default)s)")
    p.add_argument("--limit", type=whole_number(1), metavar="N", help="take the first N images only, for a quick try")
    p.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="random seed (%(default)s)")
    p.add_argument("--log-dir", type=Path, default=Path(), help="folder to put lightning_logs into (%(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, and print the results.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: a flag is wrong, or the data is unavailable.
    """
    args = parser().parse_args(argv)
    pl.seed_everything(args.seed)
    try:
        datasets = load_data(args.data, args.data_dir)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    training, validation = (TensorDataset(*(t[: args.limit] for t in dataset.tensors)) for dataset in datasets)

    # The images lie in memory: worker processes would make loading slower.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # With cells everything is left at its default: measured in the forward passes of the validation loop.
    data = None if args.discretization == "cells" else "train"
    plane = InformationPlaneCallback(
        **discretization(args.discretization), data=data, unit="nats", estimators=args.estimators
    )
    logger = TensorBoardLogger(args.log_dir)
    # One device: on several, every batch would be as many times larger.
    trainer = pl.Trainer(max_epochs=args.epochs, devices=1, logger=logger, log_every_n_steps=10, callbacks=[plane])
    trainer.fit(
        MNISTNet(),
        DataLoader(training, batch_size=args.batch_size, shuffle=True),
        DataLoader(validation, batch_size=1000),
    )

    print(f"\n{table(plane.history)}\n")
    print(f"The information plane: {plane.figure_path or 'not drawn, since no point of it is finite'}")
    print(f"The whole run, in a browser:\n    {tensorboard_command(logger.log_dir)}")


if __name__ == "__main__":
    main()
