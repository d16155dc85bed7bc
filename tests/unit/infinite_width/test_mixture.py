"""The information in mixtures of Gaussians, beside integration by others."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import logsumexp

from lightning_ib.infinite_width.mixture import Components, mixture_information


def components(mean, std, labels=None, points=(), resolution=1e-6):
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    is_point = torch.zeros(len(mean), dtype=torch.bool)
    is_point[list(points)] = True
    label = None if labels is None else torch.tensor(labels)
    return Components(mean.reshape(len(mean), -1), std.square(), is_point, resolution, label)


def by_quad(mean, std, left_out=False):
    """I(X;Z) by adaptive quadrature, a component at a time."""

    def log_p(z):
        return [-(((z - m) / s) ** 2) / 2 - math.log(s) - math.log(2 * math.pi) / 2 for m, s in zip(mean, std)]

    def integrand(z, k):
        values = log_p(z)
        others = [v for j, v in enumerate(values) if j != k] if left_out else values
        return math.exp(values[k]) * (values[k] - logsumexp(others) + math.log(len(others)))

    total = 0.0
    for k, (m, s) in enumerate(zip(mean, std)):
        kinks = sorted({p for n, t in zip(mean, std) for p in (n - 6 * t, n, n + 6 * t) if abs(p - m) < 9 * s})
        total += quad(integrand, m - 9 * s, m + 9 * s, args=(k,), points=kinks or None, limit=400, epsabs=1e-12)[0]
    return total / len(mean)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.0, 0.5, 2.0], [1.0, 1.0, 1.0]),
        ([0.0, 0.5, 2.0, 2.1], [1.0, 0.1, 0.01, 3.0]),
        ([-3.0, 0.0, 0.001, 5.0], [0.002, 2.0, 0.001, 0.5]),
    ],
)
def test_integrals_in_one_dimension(mean, std):
    found = mixture_information(components(mean, std))
    assert found.i_xz == pytest.approx(by_quad(mean, std), abs=1e-9)
    assert found.i_xz_left_out == pytest.approx(by_quad(mean, std, left_out=True), rel=1e-5)
    assert found.standard_error == 0


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_laws(data):
    """The bounds bracket, and no information exceeds its entropy."""
    n = data.draw(st.integers(1, 7))
    numbers = st.floats(-5, 5).map(lambda value: round(value, 3))
    mean = data.draw(st.lists(numbers, min_size=n, max_size=n))
    std = data.draw(st.lists(st.sampled_from([1e-5, 0.01, 0.3, 1.0, 4.0]), min_size=n, max_size=n))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    found = mixture_information(components(mean, std, labels))
    assert -1e-9 <= found.i_xz_lower <= found.i_xz + 1e-9
    assert found.i_xz <= min(found.i_xz_upper, math.log(n)) + 1e-9
    assert found.i_yz <= found.i_xz + 1e-9
    assert n == 1 or found.i_xz <= found.i_xz_left_out + 1e-9
    shuffled = mixture_information(components(mean[::-1], std[::-1], labels[::-1]))
    assert shuffled.i_xz == pytest.approx(found.i_xz, abs=1e-10)
    assert shuffled.i_yz == pytest.approx(found.i_yz, abs=1e-10)


def test_point_masses_are_counted():
    """Two at one place are one symbol; beside them the others have no density there."""
    found = mixture_information(components([1.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 2.0], [0, 1, 1, 0], points=[0, 1, 2]))
    assert found.i_xz == pytest.approx(math.log(4) - 0.5 * math.log(2))
    assert found.i_yz == pytest.approx(0.5 * math.log(2))
    assert found.i_xz_lower == found.i_xz_upper == pytest.approx(found.i_xz)
    assert found.i_xz_left_out == math.inf


def test_point_masses_are_the_limit_of_narrow_components():
    mean, labels = [1.0, 1.0, -1.0, 0.0, 0.7], [0, 1, 1, 0, 1]
    narrow = mixture_information(components(mean, [1e-9, 1e-9, 1e-9, 2.0, 1.5], labels))
    limit = mixture_information(components(mean, [0.0, 0.0, 0.0, 2.0, 1.5], labels, points=[0, 1, 2]))
    assert limit.i_xz == pytest.approx(narrow.i_xz, abs=1e-6)
    assert limit.i_yz == pytest.approx(narrow.i_yz, abs=1e-6)


def test_two_outputs_agree_with_a_grid():
    mean = torch.tensor([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    std = torch.tensor([1.0, 0.6, 1.4], dtype=torch.float64)
    place = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(place, place)
    log_p = -torch.cdist(grid, mean).square() / (2 * std.square()) - 2 * std.log() - math.log(2 * math.pi)
    share = log_p.softmax(1)
    weight = log_p.exp().mean(1) * (place[1] - place[0]) ** 2
    expected = math.log(3) + float(weight @ torch.xlogy(share, share).sum(1))
    found = mixture_information(Components(mean, std.square(), torch.zeros(3).bool(), 0.0))
    assert found.standard_error < 1e-3
    assert found.i_xz == pytest.approx(expected, abs=5 * found.standard_error)


def test_draws_leave_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    first = mixture_information(components([[0.0, 1.0], [1.0, 1.0]], [1.0, 1.0]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert mixture_information(components([[0.0, 1.0], [1.0, 1.0]], [1.0, 1.0])).i_xz == first.i_xz


def test_a_chain_of_point_masses_is_one_place():
    """Each within the resolution of the next."""
    chain = mixture_information(
        components([0.0, 0.9, 1.8, 2.7], [0.0] * 4, [0, 1, 0, 1], points=range(4), resolution=1.0)
    )
    assert (chain.i_xz, chain.i_yz) == pytest.approx((0, 0))
