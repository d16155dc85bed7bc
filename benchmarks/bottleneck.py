"""The time of the bottleneck's curve and its certified distance from the optimum, beside embo where that is installed.

Run it as ``python benchmarks/bottleneck.py``. It prints a Markdown table: for 50 β from the onset to a hundred times
it, the seconds of each solver and, of its objectives, the largest distance from the certified lower bound and how many
of the 50 are within 1e-8 bits of it. The largest distribution takes a while, and embo is left out there.

embo (Piasini et al. 2020, ``pip install embo``) runs with ten restarts, a relative tolerance of 1e-13 and up to 20 000
steps: looser tolerances stop far from the optimum. It computes divergences in bits inside a natural exponential, so its
β is β ln 2.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_ib.bottleneck import BottleneckCurve, critical_betas, ib_curve

SHAPES = ((16, 4), (61, 2), (256, 10))
KINDS: tuple[Literal["ib", "dual"], ...] = ("ib", "dual")
N_BETAS = 50
CLOSE = 1e-8
RESTARTS, STEPS, TOLERANCE = 10, 20_000, 1e-13


def random_joint(x: int, y: int) -> Tensor:
    """A joint distribution with rows and marginal drawn from flat Dirichlet distributions."""
    torch.manual_seed(0)
    one = torch.ones(1, dtype=torch.float64)
    rows = torch.distributions.Dirichlet(one.expand(y)).sample((x,)) + 1e-4
    p_x: Tensor = torch.distributions.Dirichlet(3 * one.expand(x)).sample()
    return p_x[:, None] * rows / rows.sum(1, keepdim=True)


def embo_objectives(p: Tensor, beta: Tensor, i_xy: float) -> Tensor:
    """The objectives that embo reaches, in bits."""
    import numpy as np
    from embo import InformationBottleneck  # type: ignore[import-not-found, unused-ignore]

    np.random.seed(0)
    joint = p.numpy()
    p_x, p_y = joint.sum(1), joint.sum(0)
    rows = (joint / p_x[:, None]).T
    found = []
    for b in beta.tolist():
        i_xt, i_ty, *_ = InformationBottleneck.beta_iter(
            1, b * math.log(2), p_x, p_y, rows, len(p_x), RESTARTS, STEPS, rtol=TOLERANCE
        )
        found.append(float(i_xt) + b * (i_xy - float(i_ty)))
    return torch.tensor(found, dtype=torch.float64)


def line(name: str, seconds: float, excess: Tensor) -> None:
    """One row of the table."""
    close = int((excess <= CLOSE).sum())
    print(f"| {name} | {seconds:.2f} | {float(excess.max()):.1e} | {close} of {len(excess)} |", flush=True)


def timed_curve(solve: Callable[[], BottleneckCurve]) -> tuple[BottleneckCurve, float]:
    """A curve and the seconds it took."""
    start = time.perf_counter()
    curve = solve()
    return curve, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--device", default="cpu", help="of lightning-ib (default: cpu)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        import embo  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        embo = None
    print("| solver and distribution | seconds | largest excess, bits | within 1e-8 |\n| --- | ---: | ---: | ---: |")
    ib_curve(random_joint(4, 2).to(arguments.device), [5.0])  # warm-up
    for x, y in SHAPES:
        p = random_joint(x, y).to(arguments.device)
        curves = {}
        for kind in KINDS:
            onset = critical_betas(p, kind=kind).onset
            beta = onset * torch.logspace(0.01, 2, N_BETAS, dtype=torch.float64)
            curves[kind], seconds = timed_curve(lambda: ib_curve(p, beta, kind=kind))  # noqa: B023
            line(f"lightning-ib, {kind}, {x} × {y}", seconds, curves[kind].gap.cpu())
        if embo is not None and x < 100:
            curve = curves["ib"]
            start = time.perf_counter()
            objectives = embo_objectives(p.cpu(), curve.beta.cpu(), curve.i_xy)
            seconds = time.perf_counter() - start
            line(f"embo, ib, {x} × {y}", seconds, objectives - (curve.objective - curve.gap).cpu())


if __name__ == "__main__":
    main()
