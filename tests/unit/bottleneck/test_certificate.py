"""The certificate beside an exhaustive search, and the critical β beside their definitions."""

import pytest
import torch

from lightning_ib.bottleneck import critical_betas, ib_curve
from lightning_ib.bottleneck.distortion import distortion
from lightning_ib.bottleneck.joint import checked_joint, divergence
from tests.unit.bottleneck.distributions import ASYMMETRIC, INDEPENDENT, random_joint


def log_g_on_a_grid(p, curve, cells):
    """The largest ln G of a curve's first point over a grid of the simplex, from its definition."""
    p_x, rows = p.sum(1), p / p.sum(1, keepdim=True)
    axes = torch.cartesian_prod(*[torch.arange(1, cells)] * (p.shape[1] - 1)).reshape(-1, p.shape[1] - 1)
    axes = axes[axes.sum(1) < cells]
    grid = torch.cat([axes, cells - axes.sum(1, keepdim=True)], 1).double() / cells

    def distances(s):
        if curve.kind == "dual":
            return divergence(s[None], rows[:, None])
        return divergence(rows[:, None], s[None])

    beta = float(curve.beta[0])
    log_z = (curve.p_t[0].log() - beta * distances(curve.p_y_given_t[0])).logsumexp(1)
    return float((p_x.log()[:, None] - log_z[:, None] - beta * distances(grid)).logsumexp(0).max())


@pytest.mark.parametrize("kind", ["ib", "dual"])
@pytest.mark.parametrize("factor", [0.9, 1.001, 1.1, 1.6, 4.0, 20.0])
@pytest.mark.parametrize(("x", "y", "cells", "seed"), [(6, 2, 4000, 0), (7, 3, 120, 1), (9, 4, 36, 2)])
def test_nothing_on_a_grid_of_the_simplex_violates_the_certificate(x, y, cells, seed, factor, kind):
    p = random_joint(x, y, seed)
    curve = ib_curve(p, [factor * critical_betas(p, kind=kind).onset], kind=kind, unit="nats")
    assert log_g_on_a_grid(p, curve, cells) <= float(curve.gap) + 1e-11


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["ib", "dual"])
def test_the_onset_is_the_data_processing_constant(seed, kind):
    """1 / sup_q D(s_q‖s_p) / D(q‖p) for the IB, D(s_p‖s_q) for the dual, is approached from above and never passed."""
    p = random_joint(4, 3, seed, spread=1.5)
    onset, local = critical_betas(p, kind=kind)
    joint = checked_joint(p)
    problem = distortion(joint, dual=kind == "dual")
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-2, 1, 4000, dtype=torch.float64)[:, None]
    q = (joint.p_x.log() + scale * torch.randn(4000, 4, generator=generator, dtype=torch.float64)).softmax(1)
    s_p, s_q = problem.centroid(joint.p_x @ problem.features), problem.centroid(q @ problem.features)
    lost = divergence(s_q, s_p) if kind == "ib" else divergence(s_p, s_q)
    seen = float((divergence(q, joint.p_x) / lost).min())
    assert onset <= local * (1 + 1e-12)
    assert onset * (1 - 1e-9) <= seen <= onset * 1.2


def test_the_local_beta_is_the_second_singular_value():
    p = random_joint(6, 4)
    scaled = p / (p.sum(1, keepdim=True) * p.sum(0)).sqrt()
    assert critical_betas(p).local == pytest.approx(1 / float(torch.linalg.svdvals(scaled)[1]) ** 2, abs=1e-10)


def test_both_sides_of_the_onset():
    onset = critical_betas(ASYMMETRIC).onset
    curve = ib_curve(ASYMMETRIC, [onset * (1 - 1e-6), onset * (1 + 1e-6)])
    assert curve.n_clusters.tolist() == [1, 2]


def test_nearly_equal_rows():
    """β is in the thousands, and rounding must not pass for a cluster."""
    p = torch.tensor([[0.3888, 0.1112], [0.3898, 0.1102]], dtype=torch.float64)
    onset, local = critical_betas(p)
    assert 0 < onset <= local
    curve = ib_curve(p, [0.99 * onset, 2 * onset, 1e3 * onset])
    assert curve.n_clusters.tolist() == [1, 2, 2]
    assert (curve.gap < 1e-8).all()


def test_rare_symbols():
    p = random_joint(8, 3)
    p = p * torch.logspace(0, -8, 8, dtype=torch.float64)[:, None]
    p = p / p.sum()
    curve = ib_curve(p, critical_betas(p).onset * torch.logspace(0.01, 3, 12, dtype=torch.float64))
    assert (curve.gap < 1e-8).all()


def test_independence_has_no_critical_beta():
    assert critical_betas(INDEPENDENT) == critical_betas(INDEPENDENT, kind="dual") == (float("inf"),) * 2
