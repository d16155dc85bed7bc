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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ib.objectives import VariationalDualIBLoss

sys.path.insert(0, str(Path(__file__).parent))
from bottleneck_mnist import N_DRAWS, BottleneckNet, add_flags, data, errors, label_entropy, trained, weight  # noqa: E402
from mnist_cnn import tensorboard_command  # noqa: E402

SMOOTHING = 0.1
WEIGHTS = ((1000.0, 0.0), (100.0, 0.0), (50.0, 50.0), (0.0, 100.0), (10.0, 0.0), (5.0, 5.0), (0.0, 10.0))
"""β and γ of each run."""


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
    objective = net.objective
    assert isinstance(objective, VariationalDualIBLoss)
    net.eval()
    code = net.encode(x, N_DRAWS)
    logits = net.decoder(code.sample)
    terms = objective(logits, y, net.rate(code, y))
    return Row(
        objective.beta,
        objective.gamma,
        float(terms.rate),
        float(label_entropy(y) - terms.distortion),
        float(terms.dual),
        *errors(net, code, logits, y),
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Train a stochastic bottleneck on MNIST by the variational dual IB.")
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
    add_flags(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train a network for each pair of weights, and print the table.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: a flag is wrong, or the data is unavailable.
    """
    args = parser().parse_args(argv)
    conditional = args.prior == "conditional"
    of = data(args)

    def make(beta: float, gamma: float) -> BottleneckNet:
        objective = VariationalDualIBLoss(beta, gamma, smoothing=SMOOTHING)
        return BottleneckNet(objective, conditional=conditional, steps=of.steps)

    rows = []
    for net, logger in trained([partial(make, *pair) for pair in args.weights or WEIGHTS], of, args):
        rows.append(evaluate(net, *of.validation.tensors))
        folder = Path(logger.log_dir).parent
    print(f"\n{table(rows, len(of.validation), conditional=conditional)}\n")
    print(f"All runs, in a browser:\n    {tensorboard_command(str(folder))}")


if __name__ == "__main__":
    main()
