"""A network with a stochastic bottleneck learns MNIST by the variational dual information bottleneck, beside VIB.

The loss has three terms: the rate of the code z, the cross-entropy of the decoder with weight β, and with weight γ the
dual term, the divergence of the decoder q(y|z) from the smoothed label. γ = 0 is the loss of VIB. Some runs share
β + γ, the weight of the labels, and differ in the term that it is given to::

    python examples/dual_ib_mnist.py

prints a table of them (two to three minutes). ``--prior conditional`` takes the reverse encoder r(z|y) in place of
r(z) = N(0, I), so that γ = 0 is CEB. ``--limit 5000 --epochs 1`` makes a quick try of it. Data as in ``mnist_cnn.py``.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import InformationPlaneCallback
from lightning_ib.objectives import (
    BottleneckOutput,
    ConditionalPrior,
    DualIBTerms,
    GaussianBottleneck,
    VariationalDualIBLoss,
)

sys.path.insert(0, str(Path(__file__).parent))
from mnist_cnn import load_data, tensorboard_command, whole_number  # noqa: E402

N_CLASSES = 10
LATENT = 32
SMOOTHING = 0.1
N_DRAWS = 12
WEIGHTS = ((1000.0, 0.0), (100.0, 0.0), (50.0, 50.0), (0.0, 100.0), (10.0, 0.0), (5.0, 5.0), (0.0, 10.0))
"""β and γ of each run."""


class BottleneckNet(pl.LightningModule):
    """Two hidden layers of 256 units, a Gaussian code of 32, and a linear decoder.

    Args:
        beta: the weight of the cross-entropy.
        gamma: the weight of the dual term.
        conditional: whether the prior is r(z|y) rather than N(0, I).
        steps: of the whole training, over which the learning rate falls.
    """

    def __init__(self, beta: float, gamma: float, *, conditional: bool = False, steps: int = 1200) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.bottleneck = GaussianBottleneck(256, LATENT)
        self.decoder = nn.Linear(LATENT, N_CLASSES)
        self.prior = ConditionalPrior(N_CLASSES, LATENT) if conditional else None
        self.objective = VariationalDualIBLoss(beta, gamma, smoothing=SMOOTHING)
        self.steps = steps

    def encode(self, x: Tensor, samples: int | None = None) -> BottleneckOutput:
        """The code of images ``(B, 1, 28, 28)`` with pixels in [0, 1]."""
        code: BottleneckOutput = self.bottleneck(self.encoder(2 * x - 1), samples)
        return code

    def rate(self, code: BottleneckOutput, y: Tensor) -> Tensor:
        """Nats per image: an upper bound of I(X;Z), or of I(X;Z|Y) with the conditional prior."""
        return code.kl if self.prior is None else self.prior.kl(code, y)

    def forward(self, x: Tensor) -> Tensor:
        """Logits: of one draw of the code in training, of its mean in eval mode."""
        logits: Tensor = self.decoder(self.encode(x).sample)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        code = self.encode(x)
        terms: DualIBTerms = self.objective(self.decoder(code.sample), y, self.rate(code, y))
        self.log_dict(terms._asdict())
        return terms.loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the terms of a batch and the accuracy of the mean code."""
        x, y = batch
        code = self.encode(x)
        logits = self.decoder(code.sample)
        terms = self.objective(logits, y, self.rate(code, y))
        self.log_dict({f"val_{name}": value for name, value in terms._asdict().items()})
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with a learning rate that falls from 1e-3 to 3e-5."""
        adam = torch.optim.Adam(self.parameters(), lr=1e-3)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.steps, eta_min=3e-5)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falling, "interval": "step"}}


class Row(NamedTuple):
    """A trained network on the test images, in nats. Terms and the error of one draw are means over twelve draws.

    Attributes:
        beta: the weight of the cross-entropy.
        gamma: the weight of the dual term.
        rate: the upper bound of I(X;Z), or of I(X;Z|Y) with the conditional prior.
        i_zy: the lower bound of I(Z;Y), H(Y) − cross-entropy.
        dual: the mean of D[q(y|z) ‖ smoothed label].
        one_draw: the error of the decoder on one draw.
        many_draws: the error of its mean probabilities over the draws.
        mean_code: the error on the mean of the code.
    """

    beta: float
    gamma: float
    rate: float
    i_zy: float
    dual: float
    one_draw: float
    many_draws: float
    mean_code: float


@torch.no_grad()
def evaluate(net: BottleneckNet, x: Tensor, y: Tensor) -> Row:
    """Measure a network on images ``(N, 1, 28, 28)`` and labels ``(N,)``."""
    net.eval()
    code = net.encode(x, N_DRAWS)
    logits = net.decoder(code.sample)
    terms = net.objective(logits, y, net.rate(code, y))
    share = torch.bincount(y).double() / len(y)
    entropy = -torch.special.xlogy(share, share).sum()

    def error(guess: Tensor) -> float:
        return float((guess.argmax(-1) != y).double().mean())

    return Row(
        net.objective.beta,
        net.objective.gamma,
        float(terms.rate),
        float(entropy - terms.distortion),
        float(terms.dual),
        error(logits),
        error(logits.softmax(-1).mean(0)),
        error(net.decoder(code.mean)),
    )


def table(rows: Sequence[Row], n: int, *, conditional: bool) -> str:
    """The networks as text, and how those with γ > 0 differ from the one with the same β + γ and γ = 0.

    Args:
        rows: one for each network.
        n: test images.
        conditional: whether the prior is r(z|y).
    """
    lines = [
        f"{n} test images, in nats:",
        "",
        "     β       γ     rate   I(Z;Y) ≥    dual   error: one draw  12 draws  mean code",
    ]
    for row in rows:
        terms = f"{row.rate:7.2f}   {row.i_zy:8.3f}  {row.dual:6.3f}"
        errors = f"{row.one_draw:15.2%}  {row.many_draws:8.2%}  {row.mean_code:9.2%}"
        lines.append(f"{row.beta:6g}  {row.gamma:6g}  {terms}   {errors}")
    bounded = "I(X;Z|Y)" if conditional else "I(X;Z)"
    lines += [
        "",
        f"rate: upper bound of {bounded}; I(Z;Y) ≥ H(Y) − cross-entropy of one draw;",
        f"dual: divergence of the decoder from labels smoothed by {SMOOTHING:g}, of one draw",
    ]
    for row in rows:
        for other in rows:
            if row.gamma > 0 and other.gamma == 0 and other.beta == row.beta + row.gamma:
                lines += ["", difference(other, row, n)]
    return "\n".join(lines)


def difference(before: Row, after: Row, n: int) -> str:
    """What changes from one network to another, in a sentence with the standard error of an error."""
    error = math.sqrt(before.mean_code * (1 - before.mean_code) / n)
    return (
        f"β + γ = {before.beta:g}, γ from 0 to {after.gamma:g}: dual term {before.dual:.3f} → {after.dual:.3f}, "
        f"rate {before.rate:.2f} → {after.rate:.2f},\nI(Z;Y) ≥ {before.i_zy:.3f} → {after.i_zy:.3f}, "
        f"error of the mean code {before.mean_code:.2%} → {after.mean_code:.2%} (one seed; standard error of each "
        f"{error:.2%})."
    )


def weight(text: str) -> float:
    """For argparse: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, got {text!r}")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Train a stochastic bottleneck on MNIST by the variational dual IB.")
    p.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that holds MNIST/raw (%(default)s)")
    p.add_argument("--data", choices=["auto", "mnist", "digits"], default="auto", help="which data (%(default)s)")
    p.add_argument(
        "--prior", choices=["standard", "conditional"], default="standard", help="r(z) or r(z|y) (%(default)s)"
    )
    p.add_argument(
        "--weights",
        type=weight,
        nargs=2,
        action="append",
        metavar=("BETA", "GAMMA"),
        help="a run with these weights; can be repeated (by default seven)",
    )
    p.add_argument("--epochs", type=whole_number(1), default=4, metavar="N", help="epochs of training (%(default)s)")
    p.add_argument("--batch-size", type=whole_number(1), default=200, metavar="N", help="batch size (%(default)s)")
    p.add_argument("--limit", type=whole_number(1), metavar="N", help="take the first N images only, for a quick try")
    p.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, metavar="N", help="random seed (%(default)s)")
    p.add_argument("--log-dir", type=Path, default=Path(), help="folder to put lightning_logs into (%(default)s)")
    return p


def train(
    net: BottleneckNet, training: TensorDataset, validation: TensorDataset, args: argparse.Namespace
) -> TensorBoardLogger:
    """Fit a network, with its information plane measured in the validation loop."""
    logger = TensorBoardLogger(args.log_dir)
    plane = InformationPlaneCallback(unit="nats")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        devices=1,
        log_every_n_steps=10,
        logger=logger,
        callbacks=[plane],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        net, DataLoader(training, batch_size=args.batch_size, shuffle=True), DataLoader(validation, batch_size=1000)
    )
    return logger


def main(argv: Sequence[str] | None = None) -> None:
    """Train a network for each pair of weights, and print the table.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: a flag is wrong, or the data is unavailable.
    """
    args = parser().parse_args(argv)
    try:
        datasets = load_data(args.data, args.data_dir)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    training, validation = (TensorDataset(*(t[: args.limit] for t in dataset.tensors)) for dataset in datasets)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Layers this small gain nothing from a second thread, and two take twice the CPU time.
    torch.set_num_threads(1)
    steps = args.epochs * math.ceil(len(training) / args.batch_size)
    rows = []
    for beta, gamma in args.weights or WEIGHTS:
        pl.seed_everything(args.seed, verbose=False)
        net = BottleneckNet(beta, gamma, conditional=args.prior == "conditional", steps=steps)
        logger = train(net, training, validation, args)
        rows.append(evaluate(net, *validation.tensors))
    print(f"\n{table(rows, len(validation), conditional=args.prior == 'conditional')}\n")
    print(f"All runs, in a browser:\n    {tensorboard_command(str(Path(logger.log_dir).parent))}")


if __name__ == "__main__":
    main()
