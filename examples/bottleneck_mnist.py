"""The network, the training and the errors that the examples of training objectives on MNIST share."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlaneCallback
from lightning_ib.objectives import BottleneckOutput, ConditionalPrior, GaussianBottleneck, mean_log_probabilities

sys.path.insert(0, str(Path(__file__).parent))
from mnist_cnn import load_data, whole_number  # noqa: E402

N_CLASSES = 10
LATENT = 32
N_DRAWS = 12


class Terms(Protocol):
    """What the losses give: the loss and its parts, with names."""

    @property
    def loss(self) -> Tensor:
        """The loss of a batch."""

    def _asdict(self) -> dict[str, Any]: ...


class BottleneckNet(pl.LightningModule):
    """Two hidden layers of 256 units, a Gaussian code of 32, and a linear decoder.

    Args:
        objective: a loss of logits, labels and rate.
        conditional: whether the prior is r(z|y) rather than N(0, I).
        steps: of the whole training, over which the learning rate falls.
        min_std: the least standard deviation of the code.
    """

    measured: Sequence[str] | None = None
    """The layers of the information plane; None for all."""

    def __init__(
        self, objective: nn.Module, *, conditional: bool = False, steps: int = 1200, min_std: float = 1e-3
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.bottleneck = GaussianBottleneck(256, LATENT, min_std=min_std)
        self.decoder = nn.Linear(LATENT, N_CLASSES)
        self.prior = ConditionalPrior(N_CLASSES, LATENT) if conditional else None
        self.objective = objective
        self.steps = steps

    def encode(self, x: Tensor, samples: int | None = None) -> BottleneckOutput:
        """The code of images ``(B, 1, 28, 28)`` with pixels in [0, 1]."""
        code: BottleneckOutput = self.bottleneck(self.encoder(2 * x - 1), samples)
        return code

    def rate(self, code: BottleneckOutput, y: Tensor) -> Tensor:
        """Nats per image: an upper bound of I(X;Z), or of I(X;Z|Y) with the conditional prior."""
        return code.kl if self.prior is None else self.prior.kl(code, y)

    def terms(self, logits: Tensor, x: Tensor, y: Tensor, code: BottleneckOutput) -> Terms:
        """The terms of the objective."""
        terms: Terms = self.objective(logits, y, self.rate(code, y))
        return terms

    def forward(self, x: Tensor) -> Tensor:
        """Logits: of one draw of the code in training, of its mean in eval mode."""
        logits: Tensor = self.decoder(self.encode(x).sample)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        code = self.encode(x)
        terms = self.terms(self.decoder(code.sample), x, y, code)
        self.log_dict(terms._asdict())
        return terms.loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the terms of a batch and the accuracy of the mean code."""
        x, y = batch
        code = self.encode(x)
        logits = self.decoder(code.sample)
        terms = self.terms(logits, x, y, code)
        self.log_dict({f"val_{name}": value for name, value in terms._asdict().items()})
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with a learning rate that falls from 1e-3 to 3e-5."""
        adam = torch.optim.Adam(self.parameters(), lr=1e-3)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps, eta_min=3e-5)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


class Errors(NamedTuple):
    """How often a network errs.

    Attributes:
        one_draw: on one draw of the code, the mean over the draws.
        many_draws: by the mean probabilities over the draws.
        mean_code: on the mean of the code.
    """

    one_draw: float
    many_draws: float
    mean_code: float


def errors(net: BottleneckNet, code: BottleneckOutput, logits: Tensor, y: Tensor) -> Errors:
    """The errors on the labels ``(N,)``, for the logits ``(samples, N, K)`` of draws of the code."""

    def error(guess: Tensor) -> float:
        return float((guess.argmax(-1) != y).double().mean())

    return Errors(error(logits), error(mean_log_probabilities(logits)), error(net.decoder(code.mean)))


def label_entropy(y: Tensor) -> Tensor:
    """H(Y) of class labels in nats."""
    share = torch.bincount(y).double() / len(y)
    entropy: Tensor = -torch.special.xlogy(share, share).sum()
    return entropy


# -- the run -----------------------------------------------------------------------------------------------------------


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags that the examples share."""
    p.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that holds MNIST/raw (%(default)s)")
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto", help="which data (%(default)s)")
    p.add_argument("--epochs", type=whole_number(1), default=4, metavar="N", help="epochs of training (%(default)s)")
    p.add_argument("--batch-size", type=whole_number(1), default=200, metavar="N", help="batch size (%(default)s)")
    p.add_argument("--limit", type=whole_number(1), metavar="N", help="take the first N images only, for a quick try")
    p.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="random seed (%(default)s)")
    p.add_argument("--log-dir", type=Path, default=Path(), help="folder to put lightning_logs into (%(default)s)")


def weight(text: str) -> float:
    """For argparse: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, got {text!r}")
    return value


class Data(NamedTuple):
    """The images, and the steps of a training."""

    training: TensorDataset
    validation: TensorDataset
    steps: int


def data(args: argparse.Namespace) -> Data:
    """What the flags ask for.

    Raises:
        SystemExit: the data is unavailable.
    """
    try:
        datasets = load_data(args.data, args.data_dir)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    training, validation = (TensorDataset(*(t[: args.limit] for t in dataset.tensors)) for dataset in datasets)
    return Data(training, validation, args.epochs * math.ceil(len(training) / args.batch_size))


def trained(
    makers: Sequence[Callable[[], BottleneckNet]], of: Data, args: argparse.Namespace
) -> Iterator[tuple[BottleneckNet, TensorBoardLogger]]:
    """Fit networks one after another, each with its information plane measured in the validation loop.

    Args:
        makers: each makes a network; all start from the same seed.
        of: what they learn.
        args: the flags.
    """
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Layers this small gain nothing from a second thread, and two take twice the CPU time.
    torch.set_num_threads(1)
    for make in makers:
        pl.seed_everything(args.seed, verbose=False)
        net, logger = make(), TensorBoardLogger(args.log_dir)
        trainer = pl.Trainer(
            max_epochs=args.epochs,
            devices=1,
            log_every_n_steps=10,
            logger=logger,
            callbacks=[InformationPlaneCallback(net.measured, unit="nats")],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches = DataLoader(of.training, batch_size=args.batch_size, shuffle=True)
        trainer.fit(net, batches, DataLoader(of.validation, batch_size=1000))
        yield net, logger
