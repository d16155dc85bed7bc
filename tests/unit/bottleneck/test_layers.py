"""Layers beside the bound, and the parts of the dual."""

import math

import pytest
import torch

from lightning_ib.bottleneck import (
    critical_betas,
    decoder_statistics,
    distance_to_bound,
    error_exponent,
    exponential_family,
    geometric_decoder,
    ib_curve,
)
from lightning_ib.bottleneck.joint import divergence
from tests.unit.bottleneck.distributions import ERASURE, HARD, random_joint


@pytest.mark.parametrize(("seed", "factor"), [(0, 1.05), (1, 1.5), (0, 3.0), (1, 10.0)])
def test_an_optimal_encoder_is_on_the_bound_and_self_consistent(seed, factor):
    p = random_joint(6, 3, seed)
    curve = ib_curve(p, [factor * critical_betas(p).onset])
    found = distance_to_bound(curve.encoder(0), p)
    assert 0 <= found.gap < 1e-9
    assert found.i_xt == pytest.approx(float(curve.i_xt), abs=1e-9)
    assert found.self_consistency == pytest.approx(0, abs=1e-9)
    assert found.beta_slope == pytest.approx(float(curve.beta), rel=1e-3)
    assert found.beta_self_consistent == pytest.approx(float(curve.beta), rel=1e-5)
    assert not found.degenerate


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_that_of_a_fine_curve(seed):
    p = random_joint(5, 3, seed)
    generator = torch.Generator().manual_seed(seed)
    encoder = (2 * torch.randn(5, 4, generator=generator, dtype=torch.float64)).softmax(1)
    found = distance_to_bound(encoder, p)
    onset = critical_betas(p).onset
    fine = ib_curve(p, onset * torch.logspace(0.001, 2, 80, dtype=torch.float64))
    assert found.gap > 0
    assert found.bound <= float(fine.bound(found.i_xt)) + 1e-10
    assert found.bound == pytest.approx(float(fine.bound(found.i_xt)), abs=1e-3)


@pytest.mark.slow
def test_a_straight_segment():
    noisy = torch.tensor([[0.8, 0.2], [0.2, 0.8]], dtype=torch.float64)
    found = distance_to_bound(noisy, ERASURE)
    assert found.bound == pytest.approx(0.6 * found.i_xt, abs=1e-9)
    assert found.gap == pytest.approx(0, abs=1e-9)
    assert found.beta_slope == pytest.approx(1 / 0.6, rel=1e-6)


def test_hard_labels_bound_by_the_broken_line():
    identity = torch.eye(4, dtype=torch.float64)
    found = distance_to_bound(identity, HARD)
    assert found.bound == pytest.approx(ib_curve(HARD, [2.0]).i_xy)
    assert found.gap == pytest.approx(0, abs=1e-9)


def test_a_layer_that_ignores_x():
    p = random_joint(4, 3)
    found = distance_to_bound(torch.full((4, 2), 0.5, dtype=torch.float64), p)
    assert (found.gap, found.i_xt, found.i_ty) == (0, 0, 0)
    assert math.isnan(found.beta_self_consistent)
    assert found.degenerate


def test_a_deterministic_layer_is_degenerate_and_its_gap_is_not():
    p = torch.tensor([[0.5, 0.1, 0.0], [0.05, 0.1, 0.05], [0.0, 0.05, 0.15]], dtype=torch.float64)
    found = distance_to_bound(torch.tensor([[1.0, 0], [0, 1], [0, 1]], dtype=torch.float64), p)
    assert found.beta_self_consistent == math.inf
    assert found.self_consistency == pytest.approx(0, abs=1e-12)
    assert found.degenerate
    assert found.gap > 0


def as_one_hot(numbers):
    return torch.nn.functional.one_hot(numbers).double()


@pytest.mark.parametrize("seed", range(4))
def test_symbols_are_a_deterministic_encoder(seed):
    p = random_joint(9, 3, seed)
    numbers = torch.randint(4, (9,), generator=torch.Generator().manual_seed(seed))
    curve = ib_curve(p, [2.0, 8.0]) if seed else None  # solving for the bound takes most of the time
    by_symbols, by_rows = (distance_to_bound(layer, p, curve=curve) for layer in (7 - 2 * numbers, as_one_hot(numbers)))
    assert by_symbols == pytest.approx(by_rows, abs=1e-9)


@pytest.mark.slow
def test_clusters_that_say_the_same_of_y_count_as_one_and_cost_what_they_keep():
    """Cutting each cluster of an optimal encoder in two by a coin keeps a bit more of X, and no β undoes that."""
    p = random_joint(6, 3, 2)
    curve = ib_curve(p, [3 * critical_betas(p).onset])
    encoder = curve.encoder(0)
    twice = torch.cat([0.5 * encoder, 0.5 * encoder], 1)
    coin, plain = distance_to_bound(twice, p), distance_to_bound(encoder, p)
    assert coin == pytest.approx(plain, abs=1e-9)
    # By the identity of x instead of a coin: I(X;T) grows, and I(T;Y) stays where p(y|x) is the same in both halves.
    halved = p.repeat_interleave(2, 0) / 2
    own = torch.zeros(12, 2 * encoder.shape[1], dtype=torch.float64)
    own[0::2, : encoder.shape[1]] = own[1::2, encoder.shape[1] :] = encoder
    kept = distance_to_bound(own, halved, curve=ib_curve(halved, [3.0]))  # the bound is not looked at
    assert kept.i_ty == pytest.approx(plain.i_ty, abs=1e-9)
    assert kept.i_xt == pytest.approx(plain.i_xt + 1, abs=1e-9)
    assert kept.self_consistency == pytest.approx(1, abs=1e-9)
    assert kept.beta_self_consistent == pytest.approx(plain.beta_self_consistent, rel=1e-6)


@pytest.mark.slow
def test_a_curve_given_for_many_layers_bounds_from_above():
    p = random_joint(7, 3, 5)
    curve = ib_curve(p, unit="nats")
    for seed in range(2):
        encoder = (2 * torch.randn(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).softmax(1)
        exact, read = distance_to_bound(encoder, p), distance_to_bound(encoder, p, curve=curve)
        assert exact.bound - 1e-9 <= read.bound <= exact.bound + 1e-3
        assert read._replace(gap=0, bound=0, beta_slope=0) == exact._replace(gap=0, bound=0, beta_slope=0)
        assert read.beta_slope == pytest.approx(exact.beta_slope, rel=0.2)
    assert distance_to_bound(torch.arange(7), p, curve=curve).beta_slope == math.inf


@pytest.mark.parametrize(
    ("layer", "curve", "error", "sentence"),
    [
        (torch.arange(5), None, ValueError, "must be of the same samples, got 5 of one and 4 of the other"),
        (torch.eye(4), "dual", ValueError, "curve must be of kind 'ib', got 'dual'"),
        (torch.eye(4), "other", ValueError, "curve must be that of p_xy, got one of another distribution"),
        (torch.eye(4), "tensor", TypeError, "curve must be a BottleneckCurve, got a Tensor"),
    ],
)
def test_layers_and_curves_that_do_not_fit_are_refused(layer, curve, error, sentence):
    p = random_joint(4, 3)
    given = {
        None: lambda: None,
        "dual": lambda: ib_curve(p, [1.0, 2.0], kind="dual"),
        "other": lambda: ib_curve(random_joint(4, 3, 1), [3.0]),
        "tensor": lambda: p,
    }[curve]()
    with pytest.raises(error, match=sentence):
        distance_to_bound(layer, p, curve=given)


# -- the dual ----------------------------------------------------------------------------------------------------------


def encoder(x, t, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x, t, generator=generator, dtype=torch.float64).softmax(1)


def test_no_decoder_has_less_distortion_than_the_geometric_one():
    p = random_joint(6, 4)
    q = encoder(6, 2)
    rows = p / p.sum(1, keepdim=True)
    share = p.sum(1)[:, None] * q / (p.sum(1) @ q)

    def distortion(s):
        return (share * divergence(s[None], rows[:, None])).sum(0)

    s = geometric_decoder(q, p)
    best = distortion(s)
    log_z = (share.T @ rows.log()).exp().sum(1).log()
    torch.testing.assert_close(best, -log_z)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = (s.log() + 0.3 * torch.randn(2, 4, generator=generator, dtype=torch.float64)).softmax(1)
        assert (distortion(other) >= best).all()


def test_the_dual_preserves_exponential_families_and_mixtures_do_not():
    generator = torch.Generator().manual_seed(0)
    statistics, multipliers = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (6, 5))
    rows = exponential_family(statistics, multipliers)
    p_x = torch.full((6,), 1 / 6, dtype=torch.float64)
    q = encoder(6, 3)
    own = exponential_family(decoder_statistics(q, p_x, statistics), multipliers)
    torch.testing.assert_close(own, geometric_decoder(q, p_x[:, None] * rows), rtol=0, atol=1e-14)
    mixture = (p_x[:, None] * q / (p_x @ q)).T @ rows
    assert (own - mixture).abs().max() > 1e-3


def test_the_error_exponent_is_equally_far_from_both():
    p0, p1 = random_joint(2, 5, 3).softmax(1) ** 9
    p0, p1 = p0 / p0.sum(), p1 / p1.sum()
    found = error_exponent(p0, p1, unit="nats")
    for p in (p0, p1):
        assert float(divergence(found.center, p)) == pytest.approx(found.exponent, abs=1e-12)
    weights = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    grid = -(weights * p0.log() + (1 - weights) * p1.log()).logsumexp(1)
    assert float(grid.max()) <= found.exponent + 1e-15
    assert float(grid.max()) == pytest.approx(found.exponent, abs=1e-6)


def test_the_center_of_two_x_is_the_duals_cluster_of_both():
    p = random_joint(2, 4, 6)
    rows = p / p.sum(1, keepdim=True)
    found = error_exponent(rows[0], rows[1])
    weights = torch.tensor([found.weight, 1 - found.weight], dtype=torch.float64)
    decoder = geometric_decoder(torch.ones(2, 1, dtype=torch.float64), weights[:, None] * rows)
    torch.testing.assert_close(decoder[0], found.center)
