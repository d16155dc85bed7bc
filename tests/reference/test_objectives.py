"""Training objectives beside values that are known without them."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lightning_ib.bottleneck import ib_curve
from lightning_ib.objectives import GaussianBottleneck, VariationalDualIBLoss, gaussian_kl
from tests.reference.test_bottleneck import REFERENCE as CURVES
from tests.reference.test_bottleneck import double, joint

REFERENCE = json.loads((Path(__file__).parent / "objectives.json").read_text())
STARTS = {"three_symbol": (0, 1, 2), "hier8x4": (0, 0, 1, 1, 2, 2, 3, 3)}
"""The cluster of each x at the start of the descent."""


@pytest.mark.parametrize("name", ["kl_a", "kl_b", "kl_c"])
def test_divergences(name):
    case = REFERENCE[name]
    assert float(gaussian_kl(double(case["mu"]), double(case["sigma"]))) == pytest.approx(case["kl_nats"], abs=1e-14)


def minimum(p_x, p_y_given_x, clusters, loss, *, reverse=False):
    """The least loss of a discrete encoder q(t|x) and decoder q(y|t) by descent, with the exact r(t) or r(t|y)."""
    start = F.one_hot(torch.tensor(clusters)).double()
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    encoder = (3 * start + noise).requires_grad_()
    decoder = (start.T / start.sum(0)[:, None] @ p_y_given_x.log()).requires_grad_()
    tuned = {"tolerance_grad": 1e-8, "tolerance_change": 1e-12, "history_size": 20, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([encoder, decoder], max_iter=500, **tuned)

    def value():
        log_q = encoder.log_softmax(1)
        flow = p_x[:, None] * log_q.exp()
        if reverse:
            joint_ty = p_y_given_x.T @ flow
            log_prior = p_y_given_x @ (joint_ty / joint_ty.sum(1, keepdim=True)).log()
        else:
            log_prior = flow.sum(0).log()
        logits = decoder[:, None].expand(-1, len(p_x), -1)
        return (flow.T * loss(logits, p_y_given_x, (log_q - log_prior).T).loss).sum()

    def closure():
        optimizer.zero_grad()
        now = value()
        now.backward()
        return now

    optimizer.step(closure)
    return value().item()


@pytest.mark.parametrize(
    ("name", "beta", "f"),
    [(name, row["beta"], row["F"]) for name in STARTS for row in CURVES[name]["dual"]["rows"]],
)
def test_the_optimum_of_the_loss_is_that_of_the_dual(name, beta, f):
    """γ is the β of the dual, β is 0, and r(t) the exact marginal."""
    p_x, rows = double(CURVES[name]["p"]), double(CURVES[name]["A"])
    found = minimum(p_x, rows, STARTS[name], VariationalDualIBLoss(0, beta, reduction="none"))
    curve = ib_curve(joint(name), [beta], kind="dual", unit="nats")
    assert float(curve.objective[0]) - 1e-9 <= found <= float(curve.objective[0]) + 2e-6
    assert found == pytest.approx(f, abs=2e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("beta", [2.5, 5.0])
def test_without_the_dual_term_it_is_that_of_the_bottleneck(beta, reverse):
    """F(β) − β I(X;Y) + β H(Y) with r(t): VIB; F(β + 1) − (β + 1) I(X;Y) + β H(Y) with r(t|y): CEB."""
    case = CURVES["three_symbol"]
    p_x, rows = double(case["p"]), double(case["A"])
    loss = VariationalDualIBLoss(beta, 0, reduction="none")
    found = minimum(p_x, rows, STARTS["three_symbol"], loss, reverse=reverse)
    weight = beta + reverse
    curve = ib_curve(joint("three_symbol"), [weight], unit="nats")
    p_y = p_x @ rows
    h_y = float(-(p_y * p_y.log()).sum())
    assert found == pytest.approx(float(curve.objective[0]) - weight * curve.i_xy + beta * h_y, abs=2e-6)


@pytest.mark.parametrize(
    "case", [REFERENCE["gaussian_vib"][i] for i in (0, 1, 3)], ids=lambda case: f"{case['beta_vib']}"
)
def test_a_bottleneck_learns_the_optimum_of_a_gaussian_channel(case):
    """Distortion + β rate, with a Gaussian decoder of learned variance; at β above ρ² nothing is worth its rate."""
    rho, beta = case["rho"], case["beta_vib"]
    bottleneck = GaussianBottleneck(1, 1)
    decoder = torch.nn.Linear(1, 1)
    log_variance = torch.nn.Parameter(torch.zeros(()))
    parameters = [*bottleneck.parameters(), *decoder.parameters(), log_variance]
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    steps = 600
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def terms(n):
        x = torch.randn(n, 1)
        y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n, 1)
        code = bottleneck(x)
        error = (y - decoder(code.sample)).square()
        return ((error / log_variance.exp() + log_variance + math.log(2 * math.pi)) / 2).mean(), code.kl.mean()

    for _ in range(steps):
        distortion, rate = terms(2000)
        optimizer.zero_grad()
        (distortion + beta * rate).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        distortion, rate = terms(200_000)
    assert float(rate) == pytest.approx(case["rate_nats"], rel=0.02, abs=0.01)
    assert float(distortion + beta * rate) == pytest.approx(case["loss"], abs=0.01)
