"""The Gaussian bound between layers: known answers, laws, the true information beside it, bad input."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from lightning_ib.bottleneck import gaussian_ib
from lightning_ib.functional import GaussianBound, gaussian_compression_bound, weight_noise_variance
from tests.helpers.messages import exactly

W = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=torch.float64)
S = torch.tensor([[1.0, 0.2], [0.2, 1.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)


def bound(w=W, s=S, n=0.25, unit="nats"):
    return gaussian_compression_bound(w, covariance=s, noise_covariance=n, unit=unit)


def drawn(seed, k, d, rank=None):
    """Weights and a covariance of some rank."""
    g = torch.Generator().manual_seed(seed)
    half = torch.randn(d, d if rank is None else rank, generator=g, dtype=torch.float64)
    return torch.randn(k, d, generator=g, dtype=torch.float64), half @ half.T


# --- Known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0.25, torch.tensor(0.25), torch.tensor([0.25, 0.25]), 0.25 * EYE])
def test_two_units(n):
    found = bound(n=n)
    assert found.joint == pytest.approx(1.5720416553883962, abs=1e-14)
    assert found.per_unit == pytest.approx(1.5899593784787291, abs=1e-14)
    in_bits = [value / math.log(2) for value in found]
    assert bound(n=n, unit="bits") == pytest.approx(in_bits, abs=1e-14)


def test_the_formula_written_out():
    w, s = drawn(0, 3, 5)
    _, n = drawn(1, 1, 3)
    n += torch.eye(3)
    signal = w @ s @ w.T
    joint = torch.linalg.slogdet(torch.eye(3) + torch.linalg.solve(n, signal)).logabsdet / 2
    assert bound(w, s, n).joint == pytest.approx(float(joint), rel=1e-12)
    variances = n.diagonal()
    per_unit = (1 + signal.diagonal() / variances).log().sum() / 2
    assert bound(w, s, variances).per_unit == pytest.approx(float(per_unit), rel=1e-12)
    diagonal = s.diagonal()
    assert bound(w, diagonal, n) == pytest.approx(bound(w, diagonal.diag(), n), rel=1e-12, nan_ok=True)


def test_it_lies_above_the_information_of_two_coins():
    """T uniform on {±1}²: twice that of one coin in noise, whose density is a mixture of two normals."""

    def density(u):
        return (math.exp(-((u - 1) ** 2) / 2) + math.exp(-((u + 1) ** 2) / 2)) / math.sqrt(8 * math.pi)

    h, _ = integrate.quad(lambda u: -density(u) * math.log(density(u)), -12, 12, epsabs=1e-13)
    exact = 2 * (h - math.log(2 * math.pi * math.e) / 2)
    assert exact == pytest.approx(0.6736616406936635, abs=1e-12)
    found = bound(EYE, EYE, 1.0)
    assert found == pytest.approx((math.log(2), math.log(2)), abs=1e-15)
    assert exact < found.joint


@pytest.mark.parametrize("beta", [2.0, 5.0, 40.0, 200.0])
def test_it_is_reached_by_the_gaussian_bottleneck(beta):
    g = torch.Generator().manual_seed(3)
    half = torch.randn(5, 9, generator=g, dtype=torch.float64)
    of_all = half @ half.T
    x, xy, y = of_all[:3, :3], of_all[:3, 3:], of_all[3:, 3:]
    curve = gaussian_ib(x, xy, y, [beta], unit="nats")
    assert int(curve.n_components[0]) == {2: 0, 5: 1, 40: 2, 200: 2}[beta]
    found = bound(curve.projection[0], x, 1.0)
    assert found.joint == pytest.approx(float(curve.i_xt[0]), abs=1e-10)


# --- Laws -------------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    k=st.integers(1, 6),
    d=st.integers(1, 6),
    rank=st.integers(1, 6),
    noise=st.floats(1e-3, 1e3),
)
def test_laws(seed, k, d, rank, noise):
    w, s = drawn(seed, k, d, rank)
    found = bound(w, s, noise)
    assert 0 < found.joint <= found.per_unit * (1 + 1e-12)
    # U may be turned, and T, too.
    turn, _ = torch.linalg.qr(drawn(seed + 1, k, k)[0])
    assert bound(turn @ w, s, noise).joint == pytest.approx(found.joint, rel=1e-9)
    turn, _ = torch.linalg.qr(drawn(seed + 2, d, d)[0])
    assert bound(w @ turn, turn.T @ s @ turn, noise) == pytest.approx(found, rel=1e-9)
    # The same scale in signal and noise, as numbers or a matrix.
    assert bound(3 * w, s, 9 * noise) == pytest.approx(found, rel=1e-9)
    assert bound(w, s, noise * torch.eye(k)) == pytest.approx(found, rel=1e-6)
    more = bound(w, s, 1.5 * noise)
    assert more.joint < found.joint
    assert more.per_unit < found.per_unit
    # A unit fewer says no more.
    assert bound(w[:-1], s, noise).joint <= found.joint * (1 + 1e-12) if k > 1 else True


def test_weights_of_zero_pass_nothing():
    assert bound(torch.zeros(3, 2), S) == (0.0, 0.0)
    assert bound(W, torch.zeros(2, 2)) == (0.0, 0.0)
    assert bound(W, torch.zeros(2)) == (0.0, 0.0)


def test_many_units_see_a_few_directions():
    """A thousand copies of one unit: the joint bound is that of one with a thousandth of the noise."""
    w = W[:1].repeat(1000, 1)
    assert bound(w, S).joint == pytest.approx(bound(W[:1], S, 0.25 / 1000).joint, rel=1e-12)
    assert bound(w, S).per_unit == pytest.approx(1000 * bound(W[:1], S).joint, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-160, 1e-9, 1e160])
def test_values_at_the_ends_of_float64(scale):
    """Of one unit: ½ log(1 + r), whose series is r/2, and which is log of the root where r is large."""
    one = torch.ones(1, 1, dtype=torch.float64)
    for found in bound(scale * one, one, 1.0):
        assert found == pytest.approx(math.log(scale) if scale > 1 else scale**2 / 2, rel=1e-12, abs=1e-300)
    assert bound(one, one, 1e300).joint == pytest.approx(5e-301, rel=1e-9)


def test_noise_that_units_share_has_no_bound_by_units():
    """The difference of two units is nearly free of noise: jointly they say more than the sum over them."""
    shared = torch.tensor([[1.0, 0.999], [0.999, 1.0]])
    found = bound(EYE, EYE, shared)
    assert found.joint > bound(EYE, EYE, shared.diagonal()).per_unit + 2
    assert math.isnan(found.per_unit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_covariance_in_single_precision(dtype):
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    s = torch.cov(rows.T).to(dtype)  # of rank 39: rounding makes some eigenvalues negative
    assert float(torch.linalg.eigvalsh(s.double())[0]) < 0
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    exact = bound(w, torch.cov(rows.double().T))
    assert bound(w, s) == pytest.approx(exact, rel=1e-5 if dtype is torch.float32 else 1e-2)


# --- Weights as noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("v", "expected"), [(0.01, 3.892330242061), (0.1, 1.7690646180786498), (1, 0.4102917366222335)]
)
def test_weights_as_noise(v, expected):
    variance = weight_noise_variance(torch.full((2, 2), float(v)), second_moment=S)
    assert variance.tolist() == pytest.approx([2 * v, 2 * v])
    assert bound(n=variance).per_unit == pytest.approx(expected, rel=1e-6)


def test_weights_as_noise_against_samples():
    g = torch.Generator().manual_seed(0)
    t = torch.randn(400, 3, generator=g, dtype=torch.float64) + torch.tensor([1.0, 0.0, -2.0])
    halves = torch.randn(2, 3, 3, generator=g, dtype=torch.float64)
    v, moment = halves @ halves.mT, t.T @ t / len(t)
    # E over T of T'VT, the variance of the pre-activation at that T.
    expected = [float(((t @ one) * t).sum(1).mean()) for one in v]
    assert weight_noise_variance(v, second_moment=moment).tolist() == pytest.approx(expected, rel=1e-12)
    variances, diagonal = v.diagonal(dim1=1, dim2=2), moment.diagonal()
    found = weight_noise_variance(variances, second_moment=moment)
    assert found.tolist() == pytest.approx((variances @ diagonal).tolist(), rel=1e-12)
    for one in (v, variances):
        assert weight_noise_variance(one, second_moment=diagonal).tolist() == pytest.approx(found.tolist(), rel=1e-12)


def test_weights_as_noise_give_no_bound():
    """One unit with a weight of mean and variance 1: noise that scales with T leaves 0.813 nats, and never less than
    0.420.
    """
    one = torch.ones(1, 1)
    noise = weight_noise_variance(one, second_moment=one)
    assert bound(one, one, noise).joint == pytest.approx(math.log(2) / 2, rel=1e-12)
    assert bound(one, one, noise).joint < 0.8130102745


# --- Bad input --------------------------------------------------------------------------------------------------------

NAN = torch.tensor([[1.0, math.nan], [0.2, 1.0]])
NO_NOISE = "without noise in every direction the information has no finite bound."


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"w": [[1.0]]}, TypeError, "weight must be a floating-point tensor of shape (K, D), got a list."),
        (
            {"w": torch.ones(2, 2, dtype=torch.long)},
            TypeError,
            "weight must be a floating-point tensor of shape (K, D), got torch.int64: give weight.double().",
        ),
        ({"w": NAN}, ValueError, "weight has NaN or infinite entries: leave those samples or units out."),
        ({"s": NAN}, ValueError, "covariance has NaN or infinite entries: leave those samples or units out."),
        ({"w": torch.ones(2)}, ValueError, "weight must have shape (K, D), K and D at least 1, got (2,)."),
        ({"w": torch.ones(0, 2)}, ValueError, "weight must have shape (K, D), K and D at least 1, got (0, 2)."),
        (
            {"s": torch.eye(3)},
            ValueError,
            "covariance must have shape (D,) or (D, D) with D = 2, got (3, 3).",
        ),
        (
            {"n": torch.ones(3)},
            ValueError,
            "noise_covariance must have shape (K,) or (K, K) with K = 2, got (3,).",
        ),
        ({"s": W}, ValueError, "covariance must be symmetric: give (covariance + covariance.T) / 2."),
        ({"n": W}, ValueError, "noise_covariance must be symmetric: give (noise_covariance + noise_covariance.T) / 2."),
        (
            {"s": torch.tensor([[1.0, 2.0], [2.0, 1.0]])},
            ValueError,
            "covariance must have eigenvalues of at least 0, got -1: estimate it from samples, all entries from the "
            "same ones.",
        ),
        (
            {"s": torch.tensor([1.0, -0.5])},
            ValueError,
            "covariance must hold variances of at least 0, got -0.5.",
        ),
        ({"n": 0}, ValueError, f"noise_covariance must be a positive finite number, got 0: {NO_NOISE}"),
        ({"n": math.inf}, ValueError, f"noise_covariance must be a positive finite number, got inf: {NO_NOISE}"),
        ({"n": True}, TypeError, "noise_covariance must be a positive finite number, got True: give a float."),
        (
            {"n": torch.tensor([1.0, 0.0])},
            ValueError,
            f"noise_covariance must be positive definite, got a smallest variance of 0: {NO_NOISE}",
        ),
        (
            {"n": torch.zeros(2, 2)},
            ValueError,
            f"noise_covariance must be positive definite, got a smallest variance of 0: {NO_NOISE}",
        ),
        ({"unit": "bit"}, ValueError, "unit must be 'bits' or 'nats', got 'bit': did you mean 'bits'?"),
    ],
)
def test_what_is_wrong_is_said(arguments, error, message):
    with pytest.raises(error, match=exactly(message)):
        bound(**arguments)


@pytest.mark.parametrize("seed", range(8))
def test_noise_that_is_zero_in_one_direction(seed):
    """Up to rounding, which leaves its smallest eigenvalue on either side of 0."""
    w, n = drawn(seed, 5, 5, rank=4)
    with pytest.raises(ValueError, match="^noise_covariance must be positive definite, got a smallest variance of "):
        bound(w, torch.eye(5), n)


@pytest.mark.parametrize(
    ("v", "moment", "message"),
    [
        (torch.ones(2), S, "weight_covariance must have shape (K, D) or (K, D, D), got (2,)."),
        (torch.ones(2, 2, 3), S, "weight_covariance must have shape (K, D) or (K, D, D), got (2, 2, 3)."),
        (-EYE, S, "weight_covariance must hold variances of at least 0, got -1."),
        (torch.ones(2, 3), S, "second_moment must have shape (D,) or (D, D) with D = 3, got (2, 2)."),
        (
            torch.stack([EYE, W]),
            S,
            "weight_covariance[1] must be symmetric: give (weight_covariance[1] + weight_covariance[1].T) / 2.",
        ),
    ],
)
def test_what_is_wrong_with_random_weights_is_said(v, moment, message):
    with pytest.raises(ValueError, match=exactly(message)):
        weight_noise_variance(v, second_moment=moment)


def test_the_result_is_plain_numbers():
    found = bound(W.requires_grad_(), S)
    W.requires_grad_(False)
    assert isinstance(found, GaussianBound)
    assert {type(value) for value in found} == {float}
    assert np.isfinite(found).all()
