"""Training objectives beside values that are known without them."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lightning_ib.bottleneck import ib_curve
from lightning_ib.objectives import (
    CEBLoss,
    GaussianBottleneck,
    SurrogateIBLoss,
    VariationalDualIBLoss,
    VIBLoss,
    gaussian_kl,
    gaussian_reconstruction,
    hsic,
    information_objective,
    log_variance_bound,
    nonlinear_ib_bound,
)
from tests.reference.test_bottleneck import REFERENCE as CURVES
from tests.reference.test_bottleneck import double, joint

pytestmark = pytest.mark.slow

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


# -- bottlenecks that learn --------------------------------------------------------------------------------------------


def learned(rho, loss, *, conditional=False, steps=600):
    """The terms after training on Gaussian channels of correlations ρ, with a Gaussian decoder of learned variances.

    With ``conditional`` the rate is that of a linear Gaussian b(z|y).
    """
    rho = torch.tensor(rho)
    n = len(rho)
    bottleneck, decoder, reverse = GaussianBottleneck(n, n), torch.nn.Linear(n, n), torch.nn.Linear(n, n)
    scales = torch.nn.Parameter(torch.zeros(2, n))
    parameters = [*bottleneck.parameters(), *decoder.parameters(), *reverse.parameters(), scales]
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def terms(samples):
        x = torch.randn(samples, n)
        y = rho * x + (1 - rho**2).sqrt() * torch.randn(samples, n)
        code = bottleneck(x)
        distortion = gaussian_reconstruction(y, decoder(code.sample), variance=scales[0].exp())
        rate = (
            gaussian_kl(code.mean, code.std, reverse(y), scales[1].exp().expand(samples, n)) if conditional else code.kl
        )
        return loss.combine(distortion, rate)

    for _ in range(steps):
        optimizer.zero_grad()
        terms(2000).loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return terms(200_000)


@pytest.mark.parametrize(
    "case", [REFERENCE["gaussian_vib"][i] for i in (0, 1, 3)], ids=lambda case: f"{case['beta_vib']}"
)
def test_a_bottleneck_learns_the_optimum_of_a_gaussian_channel(case):
    """At β above ρ² nothing is worth its rate."""
    terms = learned([case["rho"]], VIBLoss(case["beta_vib"]))
    assert float(terms.rate) == pytest.approx(case["rate_nats"], rel=0.02, abs=0.01)
    assert float(terms.loss) == pytest.approx(case["loss"], abs=0.01)


def test_a_bottleneck_learns_the_optimum_of_several_gaussian_channels():
    """At this β one of the three has no rate."""
    case = REFERENCE["gaussian_ib_vector"][1]
    rho = [math.sqrt(1 - eigenvalue) for eigenvalue in case["lambdas"]]
    terms = learned(rho, VIBLoss(1 / case["beta_ib"]), steps=800)
    assert float(terms.rate) == pytest.approx(case["I_XT"], rel=0.02)
    h_y = 1.5 * math.log(2 * math.pi * math.e)
    assert h_y - float(terms.distortion) == pytest.approx(case["I_TY"], rel=0.02)


def test_the_point_of_minimum_necessary_information_is_that_of_vib_at_a_half():
    """γ = 1 is β = ½ of VIB, where the rate of CEB is I(X;Z) − I(Z;Y)."""
    case = REFERENCE["gaussian_vib"][1]
    assert case["beta_vib"] == 0.5
    terms = learned([case["rho"]], CEBLoss(1), conditional=True)
    assert float(terms.rate) == pytest.approx(case["rate_nats"] - case["I_TY_nats"], rel=0.02)
    assert float(terms.distortion) == pytest.approx(case["distortion_nats"], abs=0.01)


# -- bounds that compare the samples of a batch ------------------------------------------------------------------------


@pytest.mark.parametrize("case", REFERENCE["nonlinear_ib"], ids=lambda case: f"{case['noise_var']}")
def test_pairwise_bounds(case):
    means = double(case["means"])
    for side in ("upper", "lower"):
        bound = nonlinear_ib_bound(means, case["noise_var"], bound=side)
        assert float(bound) == pytest.approx(case[f"I_{side}_nats"], abs=1e-12)


def test_dependence():
    case = REFERENCE["hsic"]
    x, y = double(case["X"]), double(case["Y"])
    sigmas = {"sigma_x": case["sigma_x"], "sigma_y": case["sigma_y"]}
    for estimator, key in (
        ("biased", "hsic_biased_m_minus_1"),
        ("unbiased", "hsic_unbiased"),
        ("normalized", "nhsic_eps_1e_5"),
    ):
        expected = pytest.approx(case[key], abs=1e-9)
        assert float(hsic(x, y, **sigmas, estimator=estimator)) == expected
        assert float(hsic(x, y.argmax(1), **sigmas, estimator=estimator)) == expected


def test_surrogates():
    case = REFERENCE["surrogates"]
    t, y, noise = double(case["Z"]), torch.tensor(case["y"]), case["noise_var"]
    assert float(log_variance_bound(t, noise_variance=noise)) == pytest.approx(case["logvar_Z_nats"], abs=1e-12)
    assert float(log_variance_bound(t)) == pytest.approx(case["logvar_Z_nats"], abs=1e-12)
    given_y = log_variance_bound(t, y, noise_variance=noise)
    assert float(given_y) == pytest.approx(case["logvar_Z_given_Y_nats"], abs=1e-12)
    logits = torch.zeros(len(t), 3)
    rate = SurrogateIBLoss(1, "square_norm")(logits, y, t).rate
    assert float(rate) == pytest.approx(case["mean_sq_norm"], abs=1e-12)


# -- the information objective -----------------------------------------------------------------------------------------


def test_the_objective_of_a_discrete_distribution():
    case = REFERENCE["discrete"]
    p_xyt = double(case["p_xy"])[:, :, None] * double(case["p_t_given_x"])[:, None]
    p_ty, p_xt, p_y = p_xyt.sum(0).T, p_xyt.sum(1), p_xyt.sum((0, 2))

    def entropy(p):
        return -torch.special.xlogy(p, p).sum()

    h_x_given_t, h_t_given_y = entropy(p_xt) - entropy(p_xt.sum(0)), entropy(p_ty) - entropy(p_y)
    assert float(h_x_given_t) == pytest.approx(case["H_X_given_T"], abs=1e-12)
    assert float(h_t_given_y) == pytest.approx(case["H_T_given_Y"], abs=1e-12)
    weights = {"lambda1": case["lambda1"], "lambda2": case["lambda2"]}
    found = information_objective(entropy(p_ty) - entropy(p_xt.sum(0)), h_x_given_t, h_t_given_y, **weights)
    assert float(entropy(p_y) - found) == pytest.approx(case["objective"], abs=1e-12)
