"""A network with a stochastic bottleneck learns MNIST by VIB, by CEB and by the information objective.

VIB weighs the rate of the code z, an upper bound of I(X;Z), with β. Four β give four points of the rate-distortion
plane::

    python examples/vib_mnist.py

prints a table of them (two minutes), with the errors on one draw of the code, on twelve and on its mean, and a plot.
Beside VIB stand CEB, whose rate bounds I(X;Z|Y), and the objective max I(Z;Y) − λ1 H(X|Z) − λ2 H(Z|Y), with a decoder
of images. ``--limit 5000 --epochs 1`` makes a quick try of it. Data as in ``mnist_cnn.py``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from lightning_ib.objectives import (
    BottleneckOutput,
    CEBLoss,
    ConditionalPrior,
    InformationLoss,
    InformationTerms,
    VIBLoss,
    bernoulli_reconstruction,
)
from lightning_ib.records.files import replacing

sys.path.insert(0, str(Path(__file__).parent))
from bottleneck_mnist import (  # noqa: E402
    LATENT,
    N_DRAWS,
    BottleneckNet,
    add_flags,
    data,
    errors,
    label_entropy,
    trained,
    weight,
)
from mnist_cnn import tensorboard_command  # noqa: E402
from tanh_vs_relu import picture  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BETAS = (1e-5, 1e-3, 1e-2, 1e-1)
GAMMA = 10.0
LAMBDAS = (1e-3, 1e-2)
ZERO_ENTROPY_STD = 0.242
"""1/√(2πe): noise of this standard deviation has entropy 0."""


class InformationNet(BottleneckNet):
    """The network with a decoder of images, for the information objective.

    Args:
        objective: the loss.
        steps: of the whole training.
    """

    measured = ("encoder.1", "encoder.3", "bottleneck", "decoder")  # the images are drawn in training alone

    def __init__(self, objective: InformationLoss, *, steps: int) -> None:
        super().__init__(objective, conditional=True, steps=steps, min_std=ZERO_ENTROPY_STD)
        self.painter = nn.Sequential(nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, 784))

    def terms(self, logits: Tensor, x: Tensor, y: Tensor, code: BottleneckOutput) -> InformationTerms:
        """The terms of the objective."""
        assert self.prior is not None
        painted = bernoulli_reconstruction(x.flatten(1), self.painter(code.sample))
        terms: InformationTerms = self.objective(logits, y, painted, self.prior.cross_entropy(code, y))
        return terms


class Row(NamedTuple):
    """A trained network on the test images, in nats. Terms and the error of one draw are means over twelve draws.

    Attributes:
        name: the objective.
        setting: its weights.
        rate: an upper bound of I(X;Z).
        i_zy: the lower bound of I(Z;Y), H(Y) − distortion.
        distortion: the cross-entropy, an upper bound of H(Y|Z).
        one_draw: the error of the decoder on one draw.
        many_draws: the error of its mean probabilities over the draws.
        mean_code: the error on the mean of the code.
    """

    name: str
    setting: str
    rate: float
    i_zy: float
    distortion: float
    one_draw: float
    many_draws: float
    mean_code: float


def rate(code: BottleneckOutput, prior: ConditionalPrior | None, y: Tensor) -> Tensor:
    """An upper bound of I(X;Z) in nats: E ln q(z|x)/r(z), with r(z) = N(0, I), or the mixture of r(z|y) over labels."""
    if prior is None:
        return code.kl.mean()
    share = torch.bincount(y, minlength=prior.num_classes) / len(y)
    mean, std = prior(torch.arange(prior.num_classes))
    encoder, total = Normal(code.mean, code.std), code.kl.new_zeros(())
    for z in code.sample:
        of_class = Normal(mean, std).log_prob(z[:, None]).sum(-1)
        total += (encoder.log_prob(z).sum(-1) - (of_class + share.log()).logsumexp(1)).mean()
    return total / len(code.sample)


@torch.no_grad()
def evaluate(name: str, setting: str, net: BottleneckNet, x: Tensor, y: Tensor) -> Row:
    """Measure a network on images ``(N, 1, 28, 28)`` and labels ``(N,)``."""
    net.eval()
    code = net.encode(x, N_DRAWS)
    logits = net.decoder(code.sample)
    distortion = float(VIBLoss(0)(logits, y, code.kl).distortion)
    i_zy = float(label_entropy(y)) - distortion
    return Row(name, setting, float(rate(code, net.prior, y)), i_zy, distortion, *errors(net, code, logits, y))


def table(rows: Sequence[Row], n: int) -> str:
    """The networks as text.

    Args:
        rows: one for each network.
        n: test images.
    """
    lines = [
        f"{n} test images, in nats:",
        "",
        f"{'objective':12} {'weights':20}   rate   I(Z;Y) ≥   error: one draw  12 draws  mean code",
    ]
    for row in rows:
        values = (
            f"{row.rate:7.2f}   {row.i_zy:8.3f}   {row.one_draw:15.2%}  {row.many_draws:8.2%}  {row.mean_code:9.2%}"
        )
        lines.append(f"{row.name:12} {row.setting:20}{values}")
    return "\n".join(
        [
            *lines,
            "",
            "rate: upper bound of I(X;Z), with r(z) = N(0, I) for VIB, for the others the mixture of r(z|y) over y;",
            "I(Z;Y) ≥ H(Y) − cross-entropy of one draw; 12 draws: by their mean probabilities",
        ]
    )


MARKERS = {"VIB": "o", "CEB": "s", "information": "D"}
LEAST_RATE = 0.8
"""The smallest rate of the picture."""


def draw(rows: Sequence[Row], h_y: float) -> Figure:
    """The rate-distortion plane, and the errors over the rate.

    Args:
        rows: one for each network.
        h_y: H(Y) in nats.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=130, layout="constrained")
    plane, below = figure.subplots(1, 2)
    _draw_plane(plane, rows, h_y)
    for axes in (plane, below):
        axes.set_xscale("log")
        axes.set_xlim(LEAST_RATE, limit(rows))
        axes.set_xlabel("rate ≥ I(X;Z) [nats]")
        axes.grid(alpha=0.25, linewidth=0.6)
    vib = sorted((row for row in rows if row.name == "VIB"), key=lambda row: row.rate)
    kinds = {"one_draw": ("one draw", "C3"), "many_draws": (f"{N_DRAWS} draws", "C0"), "mean_code": ("mean code", "C2")}
    for kind, (label, color) in kinds.items():
        below.plot([r.rate for r in vib], [100 * getattr(r, kind) for r in vib], "o-", color=color, label=label)
        for row in rows:
            if row.name != "VIB":
                below.plot(row.rate, 100 * getattr(row, kind), MARKERS[row.name], color=color, markersize=8)
    below.set_ylabel("test error [%]")
    below.set_ylim(bottom=0)
    below.legend(frameon=False, title="VIB, and the others as in the plane", title_fontsize=9)
    return figure


def limit(rows: Sequence[Row]) -> float:
    """The largest rate of the picture."""
    return max([40.0, *(2.5 * row.rate for row in rows)])


def _draw_plane(axes: Axes, rows: Sequence[Row], h_y: float) -> None:
    vib = sorted((row for row in rows if row.name == "VIB"), key=lambda row: row.rate)
    axes.plot([row.rate for row in vib], [row.distortion for row in vib], color="0.6", linewidth=1.2)
    for name, marker in MARKERS.items():
        of = [row for row in rows if row.name == name]
        axes.plot([r.rate for r in of], [r.distortion for r in of], marker, linestyle="", label=name, markersize=8)
        for row in of:
            at, above = (row.rate, row.distortion), 9 if name == "VIB" else -16
            axes.annotate(row.setting, at, (0, above), textcoords="offset points", fontsize=8, ha="center")
    low, high = LEAST_RATE, limit(rows)
    top = 1.15 * max([h_y / 4, *(row.distortion for row in rows)])
    x = torch.logspace(math.log10(low), math.log10(high), 200)
    axes.fill_between(x, 0, (h_y - x).clamp(0, top), color="0.5", alpha=0.18, linewidth=0, label="impossible")
    axes.set_ylim(0, top)
    axes.set_ylabel("distortion ≥ H(Y|Z) [nats]")
    axes.legend(frameon=False)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description="Train a stochastic bottleneck on MNIST by VIB, CEB and λ1, λ2.")
    p.add_argument("--betas", type=weight, nargs="*", default=BETAS, metavar="BETA", help="of VIB (by default four)")
    p.add_argument("--gamma", type=weight, default=GAMMA, help="of CEB, the weight of the cross-entropy (%(default)s)")
    p.add_argument(
        "--lambdas",
        type=weight,
        nargs=2,
        default=LAMBDAS,
        metavar=("L1", "L2"),
        help="λ1 and λ2 (by default %(default)s)",
    )
    p.add_argument(
        "--out", type=picture, default=Path("vib_mnist.png"), metavar="FILE", help="where to draw (%(default)s)"
    )
    add_flags(p)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    """Train a network for each objective, print the table and draw the picture.

    Args:
        argv: the arguments of the command line; by default the real ones.

    Raises:
        SystemExit: a flag is wrong, the data is unavailable, or the picture cannot be written.
    """
    args = parser().parse_args(argv)
    of = data(args)
    lambda1, lambda2 = args.lambdas

    def vib(beta: float) -> BottleneckNet:
        return BottleneckNet(VIBLoss(beta), steps=of.steps)

    runs: list[tuple[str, str, Callable[[], BottleneckNet]]] = [
        ("VIB", f"β = {beta:g}", partial(vib, beta)) for beta in args.betas
    ]
    runs += [
        ("CEB", f"γ = {args.gamma:g}", lambda: BottleneckNet(CEBLoss(args.gamma), conditional=True, steps=of.steps)),
        (
            "information",
            f"λ = {lambda1:g}, {lambda2:g}",
            lambda: InformationNet(InformationLoss(lambda1, lambda2), steps=of.steps),
        ),
    ]
    rows = []
    for (name, setting, _), (net, logger) in zip(runs, trained([make for *_, make in runs], of, args)):
        rows.append(evaluate(name, setting, net, *of.validation.tensors))
        folder = Path(logger.log_dir).parent
    print(f"\n{table(rows, len(of.validation))}\n")
    try:
        with replacing(args.out) as partial_file:
            draw(rows, float(label_entropy(of.validation.tensors[1]))).savefig(
                partial_file, format=args.out.suffix[1:].lower()
            )
    except OSError as error:
        sys.exit(f"error: {args.out} cannot be written: {error}.")
    print(f"The rate-distortion plane: {args.out}")
    print(f"All runs, in a browser:\n    {tensorboard_command(str(folder))}")


if __name__ == "__main__":
    main()
