"""The default on unusual networks: a table of its values, beside known bounds.

``python benchmarks/trials.py --data-dir DATA`` trains each network from a random start with
``InformationPlaneCallback()`` and prints a row a layer: the first, the middle and the last of those watched, each value
before training and after it. Then the checks that hold for any network, and the warnings of the library.
``--case NAME`` runs one case, ``--every-epoch`` adds all epochs of all layers. Everything is seeded; on a busy core a
run takes from two seconds to a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlaneCallback, InformationPoint, QuantileBins, Quantizer, Record
from lightning_ib.records.record import STANDARD_ERRORS
from lightning_ib.records.reliability import PROBE_EXCESS

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from mnist_cnn import MNISTNet, read_mnist

Data = tuple[Tensor, Tensor]


class Run(NamedTuple):
    """The results of a network's training.

    Attributes:
        name: a short description.
        points: a point a layer and epoch.
        estimates: the values of the probe.
        warned: the warnings, or the error that ended it.
        seconds: how long it took.
    """

    name: str
    points: list[InformationPoint]
    estimates: list[Record]
    warned: list[str]
    seconds: float


class Training(pl.LightningModule):
    """A network and its loss.

    Args:
        net: x → predictions.
        loss: (predictions, y) → a number.
        lr: of Adam.
    """

    def __init__(
        self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy, lr: float = 1e-3
    ) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def forward(self, x: Tensor) -> Tensor:
        """The predictions."""
        predictions: Tensor = self.net(x)
        return predictions

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss."""
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The forward pass."""
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), self.lr)


def run(name: str, build: Callable[[], pl.LightningModule], train: Data, val: Data, epochs: int, **options: Any) -> Run:
    """Train a network with the callback; empty ``options`` are its default."""
    pl.seed_everything(0, verbose=False)
    model, plane, start = build(), InformationPlaneCallback(**options), time.perf_counter()
    loaders = (
        DataLoader(TensorDataset(*train), batch_size=100, shuffle=True),
        DataLoader(TensorDataset(*val), batch_size=500),
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            callbacks=[plane],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
        error = []
        try:
            trainer.fit(model, *loaders)
        except ValueError as raised:
            error = [f"refused: {raised}"]
    said = [str(one.message) for one in caught if "lightning_ib" in one.filename or "layer" in str(one.message)]
    seconds = time.perf_counter() - start
    return Run(name, plane.history.points(), plane.history.estimates(), error + list(dict.fromkeys(said)), seconds)


# -- the data ----------------------------------------------------------------------------------------------------------


class Digits(NamedTuple):
    """MNIST's images ``(N, 1, 28, 28)`` and labels, both parts."""

    train: Data
    val: Data


def mnist(data_dir: Path) -> Digits:
    return Digits(read_mnist(data_dir, "train"), read_mnist(data_dir, "t10k"))


def first(data: Data, n: int) -> Data:
    return data[0][:n], data[1][:n]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- the networks ------------------------------------------------------------------------------------------------------


class Mean(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, D)`` → ``(B, D)``."""
        return x.mean(1)


class Encoder(nn.Module):
    """A transformer encoder with a class token and learned positions; the head reads the class token.

    Args:
        embed: x → tokens ``(B, L, width)``.
        length: L.
        n_classes: the width of the head.
        width: of the tokens.
        depth: how many blocks.
    """

    def __init__(self, embed: nn.Module, length: int, n_classes: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.embed = embed
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, length + 1, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        tokens = self.embed(x)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)[:, 0]))
        return logits


class Patches(nn.Module):
    """Images to sixteen linearly embedded patches of 7 × 7."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 7, 7)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1, 28, 28)`` → ``(B, 16, width)``."""
        patches: Tensor = self.patch(x).flatten(2).transpose(1, 2)
        return patches


class Rows(nn.Module):
    """A GRU that reads an image row by row, and a head on its last state."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(28, width, num_layers=2, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.out(self.gru(x.squeeze(1))[0][:, -1])
        return logits


class Stream(nn.Module):
    """A residual stream: each block adds a function of a normalized copy to it."""

    def __init__(self, n_in: int, n_classes: int, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(n_in, width, bias=False)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        stream = self.embed(x)
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream))
        return logits


class Block(nn.Module):
    """A block of a residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, stream: Tensor) -> Tensor:
        """The stream with the block's output added."""
        added: Tensor = self.down(F.gelu(self.up(self.norm(stream))))
        return stream + added


def perceptron(*widths: int) -> nn.Sequential:
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in zip(widths, widths[1:])]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


# -- the cases ---------------------------------------------------------------------------------------------------------


def vit(data_dir: Path) -> Iterator[Run]:
    """A small vision transformer on MNIST."""
    digits = mnist(data_dir)
    yield run(
        "ViT, MNIST",
        lambda: Training(Encoder(Patches(), 16, 10)),
        first(digits.train, 9000),
        first(digits.val, 3000),
        6,
    )


def counting(n: int, seed: int) -> Data:
    """Sequences of 32 tokens out of 20, and how often token 0 comes, 0 … 5."""
    generator = seeded(seed)
    y = torch.randint(6, (n,), generator=generator)
    tokens = torch.randint(1, 20, (n, 32), generator=generator)
    places = torch.rand(n, 32, generator=generator).argsort(1)
    tokens[places < y.unsqueeze(1)] = 0
    return tokens, y


def patterns(n: int, seed: int) -> Data:
    """Sequences of 32 tokens out of 50 with one of eight pairs of tokens, one after the other, at any place."""
    generator = seeded(seed)
    y = torch.randint(8, (n,), generator=generator)
    tokens = torch.randint(0, 50, (n, 32), generator=generator)
    place = torch.randint(31, (n,), generator=generator)
    rows = torch.arange(n)
    tokens[rows, place], tokens[rows, place + 1] = 50 + y // 4, 52 + y % 4
    return tokens, y


def tokens(data_dir: Path) -> Iterator[Run]:
    """Transformer encoders on sequences of tokens."""
    yield run(
        "encoder, count of a token",
        lambda: Training(Encoder(nn.Embedding(20, 64), 32, 6, depth=2)),
        counting(12_000, 1),
        counting(4000, 2),
        6,
    )
    yield run("BERT, a pair of tokens", bert, patterns(12_000, 1), patterns(4000, 2), 5)


class Logits(nn.Module):
    """A model of transformers', from tokens to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.model(input_ids=x).logits
        return logits


def bert() -> pl.LightningModule:
    # transformers looks for a package "kernels", and would find the benchmark of that name.
    with contextlib.suppress(ValueError):
        sys.path.remove(str(Path(__file__).resolve().parent))
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 56, "hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 32}
    options: dict[str, Any] = {**sizes, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 8}
    return Training(Logits(BertForSequenceClassification(BertConfig(**options))))


def gru(data_dir: Path) -> Iterator[Run]:
    """A recurrent network on MNIST, row by row."""
    digits = mnist(data_dir)
    yield run("GRU, MNIST by rows", lambda: Training(Rows()), first(digits.train, 9000), first(digits.val, 3000), 5)


def pairs(data: Data, n: int, seed: int) -> Data:
    """Two images side by side, ``(n, 1, 28, 56)``, and their two digits as one of a hundred classes."""
    left, right = torch.randint(len(data[1]), (2, n), generator=seeded(seed))
    return torch.cat([data[0][left], data[0][right]], 3), 10 * data[1][left] + data[1][right]


def pair_net() -> pl.LightningModule:
    return Training(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU()),
            nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
            nn.Sequential(nn.Flatten(), nn.Linear(32 * 7 * 14, 128), nn.ReLU()),
            nn.Linear(128, 100),
        )
    )


def groups(n: int, seed: int) -> Data:
    """120 normal clusters in 40 coordinates, class by class."""
    centers = 2 * torch.randn(120, 40, generator=seeded(7))
    generator = seeded(seed)
    y = torch.randint(120, (n,), generator=generator)
    return centers[y] + 1.5 * torch.randn(n, 40, generator=generator), y


def classes(data_dir: Path) -> Iterator[Run]:
    """A hundred classes and more."""
    digits = mnist(data_dir)
    train, val = pairs(digits.train, 20_000, 1), pairs(digits.val, 10_000, 2)
    yield run("CNN, 100 pairs of digits", pair_net, train, val, 4)
    yield run(
        "perceptron, 120 clusters",
        lambda: Training(perceptron(40, 128, 128, 120)),
        groups(20_000, 1),
        groups(10_000, 2),
        5,
    )


def waves(n: int, seed: int) -> Data:
    """Ten uniform coordinates, and a smooth function of three of them."""
    x = 2 * torch.rand(n, 10, generator=seeded(seed)) - 1
    return x, torch.sin(3 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]


def regression(data_dir: Path) -> Iterator[Run]:
    """A real-valued target: the default, and the output in bins."""
    build = lambda: Training(perceptron(10, 64, 64, 1), F.mse_loss, 3e-3)  # noqa: E731
    yield run("perceptron, real target", build, waves(10_000, 1), waves(4000, 2), 8)
    layers = {"net.0": None, "net.2": None, "net.4": Quantizer(bins=QuantileBins(20, refit=True))}
    yield run("… and the output in 20 bins", build, waves(10_000, 1), waves(4000, 2), 8, layers=layers)


def rare(data: Data, n: int) -> Data:
    """Digits, of which one in twenty is a 3, label 1."""
    threes, others = (data[1] == 3).nonzero().flatten(), (data[1] != 3).nonzero().flatten()
    chosen = torch.cat([threes[: n // 20], others[: n - n // 20]])
    chosen = chosen[torch.randperm(n, generator=seeded(3))]
    return data[0][chosen], (data[1][chosen] == 3).long()


def narrow(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), perceptron(784, 64, 32, width))


def one_logit_loss(logit: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit.squeeze(1), y.float())


def imbalance(data_dir: Path) -> Iterator[Run]:
    """One positive in twenty: two logits, one logit, and one logit with the labels that its loss takes."""
    digits = mnist(data_dir)
    train, val = rare(digits.train, 12_000), rare(digits.val, 6000)
    yield run("5 % positives, two logits", lambda: Training(narrow(2)), train, val, 4)
    build = lambda: Training(narrow(1), one_logit_loss)  # noqa: E731
    yield run("5 % positives, one logit", build, train, val, 4)
    real = (train[0], train[1].float()), (val[0], val[1].float())
    yield run("… labels 0. and 1. as real numbers", build, *real, 4)


def sizes(data_dir: Path) -> Iterator[Run]:
    """The same training, measured on 300, 1 000 and 10 000 images."""
    digits = mnist(data_dir)
    for n in (300, 1000, 10_000):
        yield run(f"CNN, MNIST, N = {n}", MNISTNet, first(digits.train, 12_000), first(digits.val, n), 3)


def nuisance(n: int, seed: int, spread: float = 10.0) -> Data:
    """Ten clusters in 16 coordinates beside 16 coordinates of noise of ``spread`` times the spread, all rotated."""
    centers = torch.randn(10, 16, generator=seeded(7))
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=seeded(8))).Q
    generator = seeded(seed)
    y = torch.randint(10, (n,), generator=generator)
    small = centers[y] + 0.3 * torch.randn(n, 16, generator=generator)
    return torch.cat([small, spread * torch.randn(n, 16, generator=generator)], 1) @ rotation, y


def stream(data_dir: Path) -> Iterator[Run]:
    """A residual stream that carries noise of ten times the spread of the informative coordinates."""
    layers = ["embed", "blocks.*", "head"]
    for spread in (1.0, 10.0):
        yield run(
            f"residual stream, noise × {spread:g}",
            lambda: Training(Stream(32, 10)),
            nuisance(12_000, 1, spread),
            nuisance(6000, 2, spread),
            8,
            layers=[f"net.{layer}" for layer in layers],
        )


CASES: dict[str, Callable[[Path], Iterator[Run]]] = {
    case.__name__: case for case in (vit, tokens, gru, classes, regression, imbalance, sizes, stream)
}


# -- the table ---------------------------------------------------------------------------------------------------------

HEADER = (
    "| network, epochs | layer | I(T;Y) | permuted | probe | Fano | H(T) | cells | verdict |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)


def probe_of(found: Run, point: InformationPoint, name: str = "I_TY") -> float:
    same = (one for one in found.estimates if (one.epoch, one.layer, one.quantity) == (point.epoch, point.layer, name))
    return next((one.value for one in same if one.source == "probe"), math.nan)


def both(before: float, after: float, digits: int = 2) -> str:
    shown = ["–" if math.isnan(value) else f"{value:.{digits}f}" for value in (before, after)]
    return "–" if shown == ["–", "–"] else " → ".join(shown)


def rows(found: Run) -> Iterator[str]:
    """A row for the first, the middle and the last layer."""
    if not found.points:
        yield f"| {found.name} | {found.warned[0]} |" + " |" * 7
        return
    layers = list(dict.fromkeys(point.layer for point in found.points))
    last = max(point.epoch for point in found.points)
    at = {(point.epoch, point.layer): point for point in found.points}
    n = "" if "N = " in found.name else f"N = {found.points[0].n_samples}, "
    what = f"{found.name}, {n}H(Y) = {found.points[0].h_y:.2f}, epoch 0 → {last}"
    for layer in dict.fromkeys([layers[0], layers[len(layers) // 2], layers[-1]]):
        p, q = at[0, layer], at[last, layer]
        accuracy = "" if math.isnan(q.accuracy) else f" (accuracy {both(p.accuracy, q.accuracy, 3)})"
        columns = [
            what,
            f"`{layer}`{accuracy}",
            both(p.i_ty, q.i_ty),
            both(p.i_ty_permuted, q.i_ty_permuted),
            both(probe_of(found, p), probe_of(found, q)),
            both(p.i_ty_fano, q.i_ty_fano),
            both(p.h_t, q.h_t),
            both(p.n_codes, q.n_codes, 0),
            q.verdict if p.verdict == q.verdict else f"{p.verdict} → {q.verdict}",
        ]
        what = ""
        yield "| " + " | ".join(columns) + " |"


def checks(found: Run) -> Iterator[str]:
    """The checks that hold for any network, and the layers where cells and probe differ."""
    heads = [point for point in found.points if not math.isnan(point.accuracy)]
    for point in heads:
        if point.verdict == "ok" and point.i_ty < point.i_ty_fano - STANDARD_ERRORS * point.i_ty_se - 1e-9:
            yield f"FAULT: {point.layer}, epoch {point.epoch}: ok at {point.i_ty:.3f}, Fano {point.i_ty_fano:.3f}"
    if heads:
        fell = heads[-1].h_t < heads[0].h_t
        yield f"H(T) of the head {'falls' if fell else 'rises'}: " + ", ".join(f"{point.h_t:.2f}" for point in heads)
    for point in found.points:
        if point.i_ty > point.h_y + 1e-9 or point.i_ty < point.i_ty_permuted / 10:
            yield f"FAULT: {point.layer}, epoch {point.epoch}: I(T;Y) = {point.i_ty:.3f} of H(Y) = {point.h_y:.3f}"
    last = max((point.epoch for point in found.points), default=0)
    for when in (0, last):
        far = [p for p in found.points if p.epoch == when and probe_of(found, p) - p.i_ty > PROBE_EXCESS * p.h_y]
        if far:
            shown = ", ".join(f"{p.layer} {p.i_ty:.2f} against {probe_of(found, p):.2f}" for p in far)
            yield f"epoch {when}, the probe reads far more than the cells: {shown}"


def every_epoch(found: Run) -> str:
    """All points as text."""
    lines = ["epoch layer  I(T;Y) ± se  permuted  probe (accuracy)  Fano  H(T)  cells  explained  accuracy  verdict"]
    for p in found.points:
        lines.append(
            f"{p.epoch:3} {p.layer}  {p.i_ty:.3f} ± {p.i_ty_se:.3f}  {p.i_ty_permuted:.3f}  {probe_of(found, p):.3f} "
            f"({probe_of(found, p, 'accuracy'):.3f})  {p.i_ty_fano:.3f}  {p.h_t:.2f}  {p.n_codes}  "
            f"{p.explained_variance:.2f}  {p.accuracy:.4f}  {p.verdict}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the cases, and print their results."""
    parser = argparse.ArgumentParser(description="What the default reads of other networks.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that holds MNIST/raw (%(default)s)")
    parser.add_argument("--case", choices=list(CASES), action="append", help="run this one only")
    parser.add_argument("--every-epoch", action="store_true", help="add all epochs of all layers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs: list[Run] = []
    for case in args.case or CASES:
        for found in CASES[case](args.data_dir):
            runs.append(found)
            print(f"{found.name}: {found.seconds:.0f} s", file=sys.stderr, flush=True)
    print(HEADER, *(row for found in runs for row in rows(found)), sep="\n")
    for found in runs:
        print(f"\n{found.name}", *(f"- {line}" for line in checks(found)), sep="\n")
        print(*(f"- said: {line}" for line in found.warned), sep="\n")
        if args.every_epoch:
            print(every_epoch(found))


if __name__ == "__main__":
    main()
