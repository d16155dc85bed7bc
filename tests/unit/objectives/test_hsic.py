"""Dependence by kernels: what it is by its definition, where it is 0, what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_ib.objectives import HSICLoss, hsic

ESTIMATORS = ["biased", "unbiased", "normalized"]


def normal(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, y, sigma_x, sigma_y):
    """The three estimators by matrix products."""
    m = len(x)
    kernels = [(-(v[:, None] - v).square().sum(-1) / (2 * s * s)).exp() for v, s in ((x, sigma_x), (y, sigma_y))]
    eye = torch.eye(m, dtype=torch.float64)
    h = eye - 1 / m
    k, ell = (h @ kernel @ h for kernel in kernels)
    r = [centered @ torch.linalg.inv(centered + 1e-5 * m * eye) for centered in (k, ell)]
    k0, l0 = (kernel * (1 - eye) for kernel in kernels)
    unbiased = (k0 @ l0).trace() + k0.sum() * l0.sum() / ((m - 1) * (m - 2)) - 2 * (k0 @ l0).sum() / (m - 2)
    return (k @ ell).trace() / (m - 1) ** 2, unbiased / (m * (m - 3)), (r[0] @ r[1]).trace()


@settings(max_examples=30)
@given(m=st.integers(4, 12), seed=st.integers(0, 10_000), sigma=st.floats(0.3, 4.0))
def test_it_is_its_definition(m, seed, sigma):
    x, y = normal((m, 3), seed), normal((m, 2), seed + 1)
    for estimator, expected in zip(ESTIMATORS, by_definition(x, y, sigma, 1.0), strict=True):
        found = hsic(x, y, sigma_x=sigma, sigma_y=1.0, estimator=estimator)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
        swapped = hsic(y, x, sigma_x=1.0, sigma_y=sigma, estimator=estimator)
        torch.testing.assert_close(swapped, found, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_constant_depends_on_nothing(estimator):
    found = hsic(torch.ones(6, 2).double(), normal((6, 3)), sigma_x=1.0, sigma_y=1.0, estimator=estimator)
    assert found.item() == pytest.approx(0, abs=1e-12)


def test_the_unbiased_one_is_zero_in_the_mean_for_independent_variables():
    draws = [[hsic(normal((8, 1), 2 * i), normal((8, 1), 2 * i + 1), sigma_x=1.0, sigma_y=1.0, estimator=e)
              for e in ("unbiased", "biased")] for i in range(400)]  # fmt: skip
    unbiased, biased = torch.tensor(draws).unbind(1)
    error = float(unbiased.std() / 20)
    assert abs(float(unbiased.mean())) < 3 * error
    assert float(biased.mean()) > 10 * error


def test_the_normalized_one_is_at_most_the_rank():
    x = 100 * normal((9, 2))
    assert 7.9 < hsic(x, x, sigma_x=1.0, sigma_y=1.0, estimator="normalized") < 8


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_and_precision(estimator):
    x, y = normal((6, 2)).requires_grad_(), torch.tensor([0, 1, 0, 2, 1, 0])
    options = {"sigma_x": 1.0, "sigma_y": 1.0, "estimator": estimator}
    assert torch.autograd.gradcheck(lambda x: hsic(x, y, **options), x)
    exact = hsic(x, y, **options)
    single = hsic(x.detach().float(), y, **options)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(exact.item(), rel=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(hsic(x.detach().float(), y, **options), single)
    assert hsic(x.bfloat16(), y, **options).dtype == torch.float32


def test_the_normalized_one_is_solved_in_double_precision():
    x, y = normal((100, 2)).float(), torch.arange(100) % 3
    options = {"sigma_x": 1.0, "sigma_y": 1.0, "estimator": "normalized"}
    assert hsic(x, y, **options).item() == pytest.approx(hsic(x.double(), y, **options).item(), rel=1e-5)


def test_labels_stand_for_one_hot_rows_and_nan_for_nan():
    x, y = normal((6, 2)), torch.tensor([4, 1, 4, 2, 1, 4])
    rows = (y[:, None] == torch.tensor([1, 2, 4])).double()
    for estimator in ESTIMATORS:
        options = {"sigma_x": 1.0, "sigma_y": 0.7, "estimator": estimator}
        torch.testing.assert_close(hsic(x, y, **options), hsic(x, rows, **options))
        assert hsic(x * math.nan, y, **options).isnan()


def test_the_loss_is_a_sum_over_layers():
    first, second = nn.Linear(4, 5), nn.Linear(5, 2)
    x, y = torch.randn(10, 4), torch.arange(10) % 3
    layers = [first(x).tanh(), second(first(x).tanh())]
    terms = HSICLoss(3, sigma=0.5)(layers, x, y)
    width = [0.5 * math.sqrt(d) for d in (5, 2)]
    of_x = sum(hsic(t, x, sigma_x=w, sigma_y=1.0, estimator="normalized") for t, w in zip(layers, width))
    of_y = sum(hsic(t, y, sigma_x=w, sigma_y=0.5, estimator="normalized") for t, w in zip(layers, width))
    torch.testing.assert_close(tuple(terms), (of_x - 3 * of_y, of_x, of_y))
    terms.loss.backward()
    # The last bias moves all values alike, and distances are as they were.
    assert all(parameter.grad.abs().sum() > 0 for parameter in (*first.parameters(), second.weight))


def test_a_layer_trained_by_it_tells_the_labels_apart():
    x = torch.randn(60, 2)
    y = (x[:, 0] * x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer, loss = torch.optim.Adam(net.parameters(), 0.01), HSICLoss(100)
    before = loss([net(x)], x, y)
    for _ in range(100):
        optimizer.zero_grad()
        loss([net(x)], x, y).loss.backward()
        optimizer.step()
    after = loss([net(x)], x, y)
    assert after.hsic_y > before.hsic_y + 0.2
    assert after.loss < before.loss


X, Y = normal((5, 2)), torch.arange(5)
GIVEN = {"sigma_x": 1.0, "sigma_y": 1.0}
REFUSED = [
    (lambda: hsic(X, Y, sigma_x=0, sigma_y=1), ValueError, "sigma_x must be a positive finite number, got 0: give the"),
    (lambda: hsic(X, Y[:4], **GIVEN), ValueError, "x and y must be of the same samples, got 5 of one and 4 of the ot"),
    (lambda: hsic(X[:3], Y[:3], **GIVEN, estimator="unbiased"), ValueError, "The unbiased estimator needs at least 4"),
    (lambda: hsic(X[:1], Y[:1], **GIVEN), ValueError, "The biased estimator needs at least 2 samples, got 1"),
    (lambda: hsic(X, None, **GIVEN), TypeError, r"y must be a floating-point tensor of shape \(B, D\), got a NoneType"),
    (lambda: hsic(X[:, :0], Y, **GIVEN), ValueError, r"x must have shape \(B, D\) .* got \(5, 0\)"),
    (lambda: hsic(X, X.long(), **GIVEN), ValueError, r"y must be class labels of shape \(B,\), got \(5, 2\)"),
    (lambda: hsic(X, Y, **GIVEN, estimator="normal"), ValueError, "got 'normal': did you mean 'normalized'"),
    (lambda: HSICLoss(1)(X, X, Y), ValueError, r"layers must be a list of at least one tensor .* got a Tensor: give"),
    (lambda: HSICLoss(1)([], X, Y), ValueError, "layers must be a list .* got none"),
    (lambda: HSICLoss(1, sigma=-1), ValueError, "HSICLoss: sigma must be a positive finite number, got -1"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
