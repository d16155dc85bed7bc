"""The information of layers with known noise: densities written out, closed forms, atoms, bounds."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from lightning_ib.reproduce.known_noise import known_noise_information, normal_channel_information
from tests.helpers.samples import generator, normal


def found(mean, std, *, draws=4, **options):
    return known_noise_information(mean, std, draws=draws, generator=generator(99), **options)


def test_agrees_with_densities_written_out():
    mean, std = normal(30, 3), 0.1 + normal(30, 3, seed=1).abs()
    one = found(mean, std, draws=1)
    t = mean + std * torch.randn(30, 3, generator=generator(99), dtype=torch.float64)
    log_p = Normal(mean, std).log_prob(t[:, None]).sum(2)
    own = log_p.diagonal()
    assert one.lower == pytest.approx(float((own - log_p.logsumexp(1) + math.log(30)).mean()))
    others = log_p.masked_fill(torch.eye(30, dtype=torch.bool), -math.inf).logsumexp(1)
    upper = own - others + math.log(29)
    assert one.upper == pytest.approx(float(upper.mean()))
    assert one.upper_error == pytest.approx(float(upper.std()) / math.sqrt(30))
    assert one.noise_entropy == pytest.approx(float(Normal(mean, std).entropy().sum(1).mean()))


def test_the_bounds_between_components():
    mean, std = normal(30, 2), 0.3 + normal(30, 2, seed=1).abs()
    one = found(mean, std, draws=500)
    p = [Normal(m, s) for m, s in zip(mean, std)]
    kl = torch.stack([torch.stack([torch.distributions.kl_divergence(a, b).sum() for b in p]) for a in p])
    assert one.pairwise_upper == pytest.approx(float(-((-kl).exp().mean(1)).log().mean()))
    assert one.pairwise_lower < one.lower < one.pairwise_upper
    grid = torch.linspace(-9, 9, 3001, dtype=torch.float64)[:, None]
    a, b = (Normal(m[0], s[0]).log_prob(grid).exp() for m, s in zip(mean[:2], std[:2]))
    overlap = float((a * b).sqrt().sum() * 18 / 3000)
    two = found(mean[:2, :1], std[:2, :1])
    assert two.pairwise_lower == pytest.approx(math.log(2) - math.log(1 + overlap), abs=1e-9)


def test_a_gaussian_channel_lies_between():
    x = normal(700, 2)
    one = found(x, torch.ones_like(x))
    assert one.lower - 3 * one.lower_error < math.log(2) < one.upper + 3 * one.upper_error
    assert one.upper - one.lower < 0.02


@pytest.mark.parametrize("d", [1, 2, 4, 8])
def test_a_multiplicative_channel_lies_between(d):
    x = normal(300, d, seed=d)
    one, truth = found(x, 0.3 * x.abs()), d * normal_channel_information(0.3)
    assert one.lower - 3 * one.lower_error < truth < one.upper + 3 * one.upper_error
    assert one.lower <= math.log(300)


def test_the_multiplicative_channel():
    """For a small s the limit; for s = 1 a value of another quadrature."""
    limit = -math.log(0.1) + (float(np.euler_gamma) + math.log(2)) / 2
    assert normal_channel_information(0.1) == pytest.approx(limit, abs=0.006)
    assert normal_channel_information(1.0) == pytest.approx(0.813010, abs=1e-6)


def test_units_without_noise_are_atoms():
    """Two values of which one is 0 and has no noise: which of them it was is known, nothing else."""
    z = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(20)[:, None]
    one = found(z, 0.5 * z)
    assert one.lower == pytest.approx(math.log(2))
    assert one.upper == pytest.approx(math.log(39 / 19))
    assert (one.pairwise_lower, one.pairwise_upper) == pytest.approx((math.log(2), math.log(2)))


def test_a_rectified_channel_stays_finite():
    z = normal(300, 2).relu()
    one = found(z, 0.5 * z)
    assert 1 < one.lower < one.upper < 5
    signs = -sum(p * math.log(p) for p in [float((z > 0).all(1).double().mean())])
    assert one.lower > signs
    lone = torch.cat([z, torch.tensor([[-1.0, 2.0]])])
    stds = torch.cat([0.5 * z, torch.zeros(1, 2)])
    assert found(lone, stds).upper == math.inf


def test_the_random_state_is_left_alone():
    state = torch.get_rng_state()
    assert found(normal(9, 2), torch.ones(9, 2).double()) == found(normal(9, 2), torch.ones(9, 2).double())
    assert torch.equal(torch.get_rng_state(), state)


def test_pairs_can_be_left_out():
    assert math.isnan(found(normal(9, 2), torch.ones(9, 2).double(), n_pairwise=0).pairwise_upper)
