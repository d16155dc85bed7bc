"""The kernels of infinitely wide networks."""

import math

import mpmath
import pytest
import torch

from lightning_ib.infinite_width import InfiniteWidthEnsemble
from lightning_ib.infinite_width.activations import ACTIVATIONS

NORMAL = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, generator=NORMAL, dtype=torch.float64)
SLOPES = {
    "relu": lambda u: (u > 0).double(),
    "erf": lambda u: 2 / math.sqrt(math.pi) * (-u.square()).exp(),
    "tanh": lambda u: 1 - u.tanh().square(),
}
FUNCTIONS = {"relu": torch.relu, "erf": torch.erf, "tanh": torch.tanh}


def by_grid(function, k1, k2, c, n=1501, reach=11.0):
    """E f(u) f(v) on a fine grid, for correlated normal u and v."""
    z = torch.linspace(-reach, reach, n, dtype=torch.float64)
    weight = (-z.square() / 2).exp() * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    u = math.sqrt(k1) * z[:, None]
    v = math.sqrt(k2) * (c * z[:, None] + math.sqrt(1 - c * c) * z[None, :])
    return float(weight @ (function(u) * function(v)) @ weight)


@pytest.mark.parametrize(("k1", "k2", "c"), [(1.0, 1.0, 0.5), (2.0, 0.3, 0.99), (9.0, 1.0, -0.7), (25.0, 25.0, 1.0)])
@pytest.mark.parametrize("name", ["erf", "tanh"])
def test_expectations_of_smooth_activations(name, k1, k2, c):
    activation, (a, b) = ACTIVATIONS[name], (torch.tensor([[k]], dtype=torch.float64) for k in (k1, k2))
    gap, slope = activation.duals(a, b, torch.tensor([[1 - c]], dtype=torch.float64))
    dual = (1 - gap) * (activation.power(a) * activation.power(b)).sqrt()
    assert float(dual) == pytest.approx(by_grid(FUNCTIONS[name], k1, k2, c), abs=1e-11)
    assert float(slope) == pytest.approx(by_grid(SLOPES[name], k1, k2, c), abs=1e-9)


@pytest.mark.parametrize("c", [1 - 1e-12, 1 - 1e-5, 0.995, 0.3, -0.9])
def test_expectations_of_relu_with_forty_digits(c):
    """Close to c = 1 the angle depends on digits of 1 − c that c does not have."""
    gap = torch.tensor([[1 - c]], dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    found, slope = ACTIVATIONS["relu"].duals(one, one, gap)
    with mpmath.workdps(40):
        angle = mpmath.acos(1 - mpmath.mpf(float(gap)))
        exact = 1 - (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / mpmath.pi
        exact_slope = (mpmath.pi - angle) / (2 * mpmath.pi)
    assert float(found) == pytest.approx(float(exact), rel=1e-12, abs=0)
    assert float(slope) == pytest.approx(float(exact_slope), rel=1e-15, abs=0)


def test_kernels_of_nearly_equal_inputs_keep_their_digits():
    """A ReLU network of two layers at inputs that differ by 1e-7, beside forty digits."""
    x, other = X[:1], X[:1] * (1 + 1e-7) + 1e-7 * X[1:2]
    found = float(InfiniteWidthEnsemble(2, weight_variance=2.0, bias_variance=0.0).ntk(x, other))
    with mpmath.workdps(40):
        a, b = ([mpmath.mpf(v) for v in row[0].tolist()] for row in (x, other))
        k11, k22, k12 = (2 * mpmath.fsum(p * q for p, q in zip(*pair)) / 4 for pair in ((a, a), (b, b), (a, b)))
        ntk = k12
        for _ in range(2):
            angle = mpmath.acos(k12 / mpmath.sqrt(k11 * k22))
            k12 = mpmath.sqrt(k11 * k22) * (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / mpmath.pi
            ntk = k12 + ntk * (mpmath.pi - angle) / mpmath.pi
    assert found == pytest.approx(float(ntk), rel=1e-14)


@pytest.mark.parametrize("bias", [0.0, 0.2])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equal_opposite_collinear_and_zero_inputs(name, bias):
    x = torch.cat([X, X[:1], 3 * X[:1], -X[:1], 0 * X[:1]])
    ensemble = InfiniteWidthEnsemble(3, activation=name, bias_variance=bias)
    for kernel in (ensemble.nngp(x), ensemble.ntk(x)):
        torch.testing.assert_close(kernel, kernel.T, rtol=0, atol=1e-14)
        torch.testing.assert_close(kernel[0], kernel[6], rtol=0, atol=1e-14)
        assert torch.linalg.eigvalsh(kernel).min() > -1e-13 * kernel.max()
        assert bool((kernel[-1] == 0).all()) is (bias == 0)


def test_a_linear_model_has_the_kernel_of_its_inputs():
    ensemble = InfiniteWidthEnsemble(0, weight_variance=3.0, bias_variance=0.5)
    expected = 0.5 + 3 * X @ X.T / 4
    torch.testing.assert_close(ensemble.nngp(X), expected)
    torch.testing.assert_close(ensemble.ntk(X), expected)


def test_blocks_of_pairs_make_no_difference(monkeypatch):
    ensemble = InfiniteWidthEnsemble(2, activation="tanh")
    whole = ensemble.ntk(X, X[:4])
    monkeypatch.setattr("lightning_ib.infinite_width.kernels._BLOCK", 7)
    torch.testing.assert_close(ensemble.ntk(X, X[:4]), whole, rtol=0, atol=1e-14)


def test_images_are_flattened_and_half_precision_is_read():
    ensemble = InfiniteWidthEnsemble(1)
    images = X.reshape(6, 1, 2, 2)
    torch.testing.assert_close(ensemble.ntk(images), ensemble.ntk(X))
    assert ensemble.ntk(images.half(), X).dtype == torch.float64


# -- convolutions ------------------------------------------------------------------------------------------------------

IMAGES = torch.randn(4, 2, 3, 4, generator=NORMAL, dtype=torch.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_convolutions_of_single_pixels_are_full_connections(name):
    x, settings = torch.cat([X, X[:1]]), {"activation": name, "weight_variance": 1.7}
    pixels = InfiniteWidthEnsemble(2, kernel_size=1, pooling=True, **settings)
    connected = InfiniteWidthEnsemble(2, **settings)
    torch.testing.assert_close(pixels.nngp(x[:, :, None, None]), connected.nngp(x), rtol=1e-13, atol=0)
    torch.testing.assert_close(pixels.ntk(x[:, :, None, None]), connected.ntk(x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("pooling", [False, True])
def test_convolutions_agree_with_wide_networks(pooling):
    """The products of the gradients of 60 networks of 96 channels, of tanh, for which there is no other reference."""
    ensemble = InfiniteWidthEnsemble(
        1, activation="tanh", weight_variance=1.7, bias_variance=0.1, kernel_size=3, pooling=pooling
    )
    generator, channels, found = torch.Generator().manual_seed(0), 96, []
    shapes = (channels, 2, 3, 3), (channels,), (channels * (1 if pooling else 12),), (1,)
    for _ in range(60):
        weights = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
        filters, bias = weights[0] * math.sqrt(1.7 / 18), weights[1] * math.sqrt(0.1)
        hidden = torch.tanh(torch.nn.functional.conv2d(IMAGES, filters, bias, padding=1))
        hidden = hidden.mean((2, 3)) if pooling else hidden.flatten(1)
        outputs = hidden @ weights[2] * math.sqrt(1.7 / hidden.shape[1]) + math.sqrt(0.1) * weights[3]
        gradients = [torch.autograd.grad(output, weights, retain_graph=True) for output in outputs]
        rows = torch.stack([torch.cat([one.flatten() for one in of]) for of in gradients])
        found.append(rows @ rows.T)
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / math.sqrt(len(found))
    assert ((mean - ensemble.ntk(IMAGES)).abs() < 4 * error + 0.005).all()


def test_an_ensemble_of_convolutional_networks():
    y = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    ensemble = InfiniteWidthEnsemble(2, kernel_size=3, pooling=True).fit(IMAGES, y)
    found = ensemble.at([0.0, math.inf], IMAGES, y)
    torch.testing.assert_close(found.variance[0], ensemble.nngp(IMAGES).diagonal())
    torch.testing.assert_close(found.mean[1], y)
    assert float(found.i_yz[1]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "x", "message"),
    [
        ({"kernel_size": 2}, IMAGES, "kernel_size must be odd.*got 2: give 3"),
        ({"pooling": True}, IMAGES, "pooling is of convolutional networks: give kernel_size=3"),
        ({"kernel_size": 3, "hidden_layers": 0}, IMAGES, "hidden_layers must be an integer of at least 1"),
        ({"kernel_size": 3}, X, r"x1 must be images of shape \(N, C, H, W\) for kernel_size, got \(6, 4\)"),
        ({"kernel_size": 3, "pooling": True}, torch.zeros(100, 3, 32, 32), "takes 10.1 GB of memory"),
    ],
)
def test_convolutions_that_cannot_be(settings, x, message):
    with pytest.raises(ValueError, match=message):
        InfiniteWidthEnsemble(**{"hidden_layers": 1, **settings}).nngp(x)
