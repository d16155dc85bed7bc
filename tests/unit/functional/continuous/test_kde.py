"""Entropy and information of a layer with Gaussian noise: against scipy, closed forms, quadrature, and laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from lightning_ib.functional import entropy
from lightning_ib.functional.continuous import gaussian_kernel, kde
from lightning_ib.functional.continuous.gaussian_kernel import kernel_blocks
from lightning_ib.functional.continuous.kde import (
    Bounds,
    entropy_bounds_kde,
    mutual_information_bounds_kde,
    noise_variance_of,
)
from tests.helpers.messages import exactly


def reference_entropy(t, variance, distance_factor):
    """In nats: from scipy's distances, one matrix."""
    t = t.double().flatten(1).numpy()
    n, d = t.shape
    exponents = -cdist(t, t, "sqeuclidean") / (distance_factor * variance)
    return -np.mean(logsumexp(exponents, axis=1) - np.log(n)) + d / 2 * np.log(2 * np.pi * np.e * variance)


def reference_bounds(t, variance):
    return [reference_entropy(t, variance, factor) for factor in (8, 2)]


def reference_information(t, y, variance):
    figures = []
    for factor in (8, 2):
        conditional = sum(
            (y == c).double().mean().item() * reference_entropy(t[y == c], variance, factor) for c in y.unique()
        )
        figures.append(reference_entropy(t, variance, factor) - conditional)
    return figures


def clusters(n=400, d=6, classes=5, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    centers = 3 * torch.randn(classes, d, generator=g, dtype=dtype)
    return centers[y] + torch.randn(n, d, generator=g, dtype=dtype), y


@pytest.mark.parametrize("variance", [1e-4, 0.1, 3.0, 1e4])
@pytest.mark.parametrize("d", [1, 6, 40])
def test_agrees_with_scipy(d, variance):
    t, y = clusters(d=d)
    noise = d / 2 * math.log(2 * math.pi * math.e * variance)
    expected = reference_bounds(t, variance)
    assert entropy_bounds_kde(t, noise_variance=variance, unit="nats") == pytest.approx(expected, abs=1e-8)
    of_x = mutual_information_bounds_kde(t, noise_variance=variance, unit="nats")
    assert of_x == pytest.approx([h - noise for h in expected], abs=1e-8)
    of_y = mutual_information_bounds_kde(t, y, noise_variance=variance, unit="nats")
    assert of_y == pytest.approx(reference_information(t, y, variance), abs=1e-8)


def test_float32_agrees_with_the_float64_of_the_same_values():
    t, y = clusters(dtype=torch.float32)
    of_y = mutual_information_bounds_kde(t, y, noise_variance=1e-3)
    assert of_y == mutual_information_bounds_kde(t.double(), y, noise_variance=1e-3)
    assert mutual_information_bounds_kde(t + 1000, y, noise_variance=0.1, unit="nats") == pytest.approx(
        reference_information(t + 1000, y, 0.1), abs=1e-8
    )


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_no_digits_are_lost_where_norms_are_large_beside_the_noise(offset):
    """Two clusters, far apart, of rows that are closer than the noise, some of them equal."""
    t, y = clusters(n=200, d=3, classes=2)
    t = torch.cat([t[:100], t[:100]]) + offset * y[:, None]
    expected = reference_bounds(t, 0.5)
    assert entropy_bounds_kde(t, noise_variance=0.5, unit="nats") == pytest.approx(expected, abs=1e-8)


def test_images_are_flattened():
    t = torch.arange(48.0).reshape(4, 2, 3, 2) % 7
    flat = entropy_bounds_kde(t.double().flatten(1), noise_variance=2.0)
    assert entropy_bounds_kde(t, noise_variance=2.0) == flat
    assert entropy_bounds_kde(t.half(), noise_variance=2.0) == flat


@pytest.mark.parametrize("block", [1, 7, 64, 400, 5000])
def test_blocks_do_not_matter(monkeypatch, block):
    t, y = clusters(n=65 if block == 1 else 400)
    expected = mutual_information_bounds_kde(t, y, noise_variance=0.5)
    entropy = entropy_bounds_kde(t, noise_variance=0.5)
    monkeypatch.setattr(gaussian_kernel, "_BLOCK", block)
    assert mutual_information_bounds_kde(t, y, noise_variance=0.5) == pytest.approx(expected, abs=1e-12)
    assert entropy_bounds_kde(t, noise_variance=0.5) == pytest.approx(entropy, abs=1e-12)


@pytest.mark.parametrize("limit", [0.0, math.inf])
def test_distances_are_the_same_from_a_product_and_from_differences(monkeypatch, limit):
    t, _ = clusters(d=3)
    expected = np.exp(-cdist(t, t, "sqeuclidean") / 8)
    monkeypatch.setattr(gaussian_kernel, "_CANCELLATION", limit)
    monkeypatch.setattr(gaussian_kernel, "_BLOCK", 150)
    whole = torch.full((400, 400), math.nan, dtype=torch.float64)
    for i, j, kernel in kernel_blocks(t, 2.0):
        whole[i, j], whole[j, i] = kernel, kernel.T
    assert np.abs(whole.numpy() - expected).max() < 1e-13
    assert (whole.diagonal() == 1).all()
    assert whole.max() == 1


def test_all_samples_apart_tell_everything():
    t, y = clusters(n=300)
    for unit, most in (("bits", math.log2(300)), ("nats", math.log(300))):
        assert mutual_information_bounds_kde(t, noise_variance=1e-12, unit=unit) == (most, most)
        h_y = entropy(y, unit=unit)
        assert mutual_information_bounds_kde(t, y, noise_variance=1e-12, unit=unit) == (h_y, h_y)


def test_what_is_more_than_rounding_is_left():
    off, rounded = (torch.tensor([1 - by, 1 + by], dtype=torch.float64) for by in (2e-12, 5e-13))
    assert kde.information_in(off, 1.0, "nats") == (1 - 2e-12, 1 + 2e-12)
    assert kde.information_in(rounded, 1.0, "nats") == (1, 1)


def test_equal_rows_are_one_value_however_little_noise():
    t = torch.tensor([[0.1, 0.7], [0.3, 0.2], [0.1, 0.7], [0.3, 0.2]])
    assert mutual_information_bounds_kde(t, noise_variance=1e-30) == pytest.approx([1, 1], abs=1e-12)


def test_noise_that_drowns_everything_leaves_nothing():
    t, y = clusters()
    assert mutual_information_bounds_kde(t, noise_variance=1e14) == pytest.approx([0, 0], abs=1e-12)
    assert mutual_information_bounds_kde(t, y, noise_variance=1e14) == pytest.approx([0, 0], abs=1e-12)


def test_a_constant_layer_has_the_entropy_of_the_noise():
    t, y = torch.full((50, 3), 0.1), torch.arange(50) % 3
    h = 1.5 * math.log(2 * math.pi * math.e * 0.2)
    assert entropy_bounds_kde(t, noise_variance=0.2, unit="nats") == pytest.approx([h, h], abs=1e-12)
    assert mutual_information_bounds_kde(t, noise_variance=0.2) == (0, 0)
    assert mutual_information_bounds_kde(t, y, noise_variance=0.2) == (0, 0)


def test_one_class_tells_nothing_and_a_class_may_have_one_sample():
    t, _ = clusters(n=100)
    assert mutual_information_bounds_kde(t, torch.zeros(100, dtype=torch.long), noise_variance=0.5) == (0, 0)
    of_x = mutual_information_bounds_kde(t, noise_variance=0.5)
    assert mutual_information_bounds_kde(t, torch.arange(100), noise_variance=0.5) == pytest.approx(of_x, abs=1e-12)


def test_the_mixture_lies_between_the_bounds():
    """Its entropy by Monte Carlo, within four standard errors."""
    g = np.random.default_rng(0)
    centers, variance = 2 * g.standard_normal((30, 3)), 0.7
    x = centers[g.integers(30, size=20_000)] + math.sqrt(variance) * g.standard_normal((20_000, 3))
    log_density = logsumexp(-cdist(x, centers, "sqeuclidean") / (2 * variance), axis=1) - np.log(30)
    surprise = 1.5 * np.log(2 * np.pi * variance) - log_density
    error = 4 * surprise.std() / math.sqrt(len(x))
    lower, upper = entropy_bounds_kde(torch.from_numpy(centers), noise_variance=variance, unit="nats")
    assert lower < surprise.mean() - error
    assert surprise.mean() + error < upper
    assert upper - lower < 1.5


def normals_information(a, variance):
    """I(T;Y) in nats of T = ±a + noise, Y the sign, by quadrature."""

    def density(x, mean):
        return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    def integrand(x):
        p, q = density(x, -a), density(x, a)
        return 0.5 * p * math.log(2 * p / (p + q)) + 0.5 * q * math.log(2 * q / (p + q)) if p and q else 0.0

    reach = a + 12 * math.sqrt(variance)
    return quad(integrand, -reach, reach, epsabs=1e-12, limit=200, points=[-a, 0, a])[0]


@pytest.mark.parametrize("a", [0.2, 0.5, 1.0, 1.5, 3.0])
def test_two_points_with_noise(a):
    """Here the classes are single Gaussians, so that the bounds on I(T;Y) are bounds."""
    t, y = torch.tensor([[-a]] * 50 + [[a]] * 50), torch.arange(100) // 50
    truth = normals_information(a, 0.25)
    lower, upper = mutual_information_bounds_kde(t, y, noise_variance=0.25, unit="nats")
    assert lower <= truth <= upper
    assert mutual_information_bounds_kde(t, noise_variance=0.25, unit="nats") == pytest.approx([lower, upper])
    if a == 3.0:
        assert [lower, truth, upper] == pytest.approx([math.log(2)] * 3, abs=1e-6)


def test_two_normals_whose_spread_is_the_layers_and_the_noise_together():
    """T itself normal in each class: the noise makes it wider, and the estimate from the upper bound is close."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(4000) % 2
    t = (4.0 * y - 2 + torch.randn(4000, generator=g))[:, None]
    truth = normals_information(2.0, 1 + 0.1)
    assert mutual_information_bounds_kde(t, y, noise_variance=0.1, unit="nats").upper == pytest.approx(truth, abs=0.03)


def test_the_estimates_about_classes_are_no_bounds():
    """The lower exceeds the upper here: what the docstring warns of."""
    values = torch.tensor([0.937, -2.176, -3.553, 4.708, 0.366])
    y0, y1 = torch.tensor([1, 0, 435, 13, 39]), torch.tensor([54, 3, 11, 443, 0])
    t = torch.cat([values.repeat_interleave(y0), values.repeat_interleave(y1)])[:, None]
    y = torch.arange(len(t)) >= y0.sum()
    lower, upper = mutual_information_bounds_kde(t, y, noise_variance=1.0, unit="nats")
    assert lower > upper + 0.004


samples = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=2), min_size=n, max_size=n),
        st.lists(st.integers(-3, 3), min_size=n, max_size=n),
        st.floats(0.01, 10),
        st.permutations(range(n)),
    )
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(samples)
def test_laws(sample):
    values, labels, variance, order = sample
    t, y = torch.tensor(values, dtype=torch.float64), torch.tensor(labels)
    of_x = mutual_information_bounds_kde(t, noise_variance=variance)
    of_y = mutual_information_bounds_kde(t, y, noise_variance=variance)
    h = entropy_bounds_kde(t, noise_variance=variance)
    assert 0 <= of_x.lower <= of_x.upper + 1e-12
    assert of_x.upper <= math.log2(len(t)) + 1e-12
    assert h.lower <= h.upper + 1e-12
    p = y.unique(return_counts=True)[1].double() / len(y)
    assert max(of_y) <= -(p * p.log2()).sum().item() + 1e-12
    for bound in (0, 1):  # a class' entropy is at least the noise's
        assert of_y[bound] <= of_x[bound] + 1e-12

    def close(a, b):
        return a == pytest.approx(b, abs=1e-10)

    assert close(mutual_information_bounds_kde(t[order], y[order], noise_variance=variance), of_y)  # any order
    assert close(mutual_information_bounds_kde(t, 7 - 3 * y, noise_variance=variance), of_y)  # any names
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    assert close(mutual_information_bounds_kde(t @ rotation + 30, y, noise_variance=variance), of_y)
    assert close(mutual_information_bounds_kde(3 * t, y, noise_variance=9 * variance), of_y)
    assert close(entropy_bounds_kde(3 * t, noise_variance=9 * variance), [b + 2 * math.log2(3) for b in h])
    assert close(mutual_information_bounds_kde(torch.cat([t, t]), noise_variance=variance), of_x)  # seen twice
    nats = mutual_information_bounds_kde(t, y, noise_variance=variance, unit="nats")
    assert close([b / math.log(2) for b in nats], of_y)


def test_noise_from_the_scale_of_the_layer():
    t, _ = clusters(n=3000, d=4)
    assert noise_variance_of(t) == pytest.approx(0.1 * t.numpy().var(0).mean(), rel=1e-12)
    assert noise_variance_of(t, share=2.0) == pytest.approx(2 * t.numpy().var(0).mean(), rel=1e-12)
    assert noise_variance_of(10 * t + 5) == pytest.approx(100 * noise_variance_of(t), rel=1e-12)
    assert noise_variance_of(t.float() + 1000) == pytest.approx(noise_variance_of(t), rel=1e-3)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_noise_has_to_be_positive(value):
    t, y = clusters(n=10)
    message = f"noise_variance must be a positive finite number, got {value}."
    for estimate in (
        lambda: entropy_bounds_kde(t, noise_variance=value),
        lambda: mutual_information_bounds_kde(t, y, noise_variance=value),
    ):
        with pytest.raises(ValueError, match=exactly(message)):
            estimate()
    with pytest.raises(ValueError, match="^share must be a positive finite number, got "):
        noise_variance_of(t, share=value)


@pytest.mark.parametrize("value", [0.1, 0.0, 7e8])
def test_a_constant_layer_sets_no_noise(value):
    with pytest.raises(
        ValueError, match=exactly("t is constant and has no scale to take a noise from: give noise_variance yourself.")
    ):
        noise_variance_of(torch.full((2049, 3), value))


@pytest.mark.parametrize(
    ("t", "y", "error", "message"),
    [
        (torch.tensor([[1.0], [math.nan]]), None, ValueError, "t has NaN or infinite values in 1 of 2 rows"),
        (torch.tensor([[1.0], [math.inf]]), None, ValueError, "t has NaN or infinite values in 1 of 2 rows"),
        (torch.ones(1, 3), None, ValueError, r"t must have shape \(N, D\) with N at least 2"),
        ([[1.0], [2.0]], None, TypeError, "t must be a tensor"),
        (torch.eye(3), torch.tensor([0, 1]), ValueError, "t and y must be of the same samples, got 3 .* and 2"),
        (torch.eye(3), torch.tensor([0.0, 1.0, 1.0]), TypeError, "y must be class labels"),
        (torch.eye(3), torch.tensor([[0], [1], [1]]), ValueError, r"y must be class labels of shape \(N,\)"),
    ],
)
def test_what_is_not_taken(t, y, error, message):
    with pytest.raises(error, match=f"^{message}"):
        mutual_information_bounds_kde(t, y, noise_variance=1.0)
    if y is None:
        with pytest.raises(error, match=f"^{message}"):
            entropy_bounds_kde(t, noise_variance=1.0)
        with pytest.raises(error, match=f"^{message}"):
            noise_variance_of(t)


def test_the_unit_is_checked():
    t, y = clusters(n=10)
    for estimate in (entropy_bounds_kde, mutual_information_bounds_kde):
        with pytest.raises(ValueError, match="^unit must be 'bits' or 'nats', got 'shannon'.$"):
            estimate(t, noise_variance=1.0, unit="shannon")


def test_nothing_else_is_touched():
    """Inputs, gradients, random states; and the figures do not depend on the mode they are called in."""
    t, y = clusters(n=50, dtype=torch.float32)
    kept, kept_y, state = t.clone(), y.clone(), torch.get_rng_state()
    expected = mutual_information_bounds_kde(t, y, noise_variance=0.5)
    assert isinstance(expected, Bounds)
    assert all(type(bound) is float for bound in expected)
    with torch.inference_mode():
        assert mutual_information_bounds_kde(t.clone(), y, noise_variance=0.5) == expected
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert mutual_information_bounds_kde(t, y, noise_variance=0.5) == expected
    assert mutual_information_bounds_kde(t.clone().requires_grad_(), y, noise_variance=0.5) == expected
    entropy_bounds_kde(t.double(), noise_variance=0.5)
    noise_variance_of(t)
    assert torch.equal(t, kept)
    assert torch.equal(y, kept_y)
    assert torch.equal(torch.get_rng_state(), state)
