"""Infinite ensembles beside values that are known without them, and beside finite networks."""

import json
import math
from pathlib import Path

import pytest
import torch

from lightning_ib.infinite_width import InfiniteWidthEnsemble

VALUES = json.loads((Path(__file__).parent / "infinite_width.json").read_text())
REFERENCE = {name: VALUES[name] for name in ("relu_1", "erf_1", "relu_3")}
"""Kernels checked with 40 digits and with neural-tangents 0.6.5, informations by adaptive quadrature; in nats."""

NAMES = {
    "mean": "mu",
    "variance": "var",
    "i_xz": "I_XZ",
    "i_xz_upper": "I_XZ_pairwise_upper",
    "i_xz_lower": "I_XZ_pairwise_lower",
    "i_xz_left_out": "I_XZ_upper_leave_one_out",
    "i_yz": "I_YZ",
    "i_zd": "I_ZD_given_X_upper_mean",
    "train_loss": "train_loss",
    "test_loss": "test_loss",
    "test_loss_of_mean": "test_loss_of_mean",
    "distance": "distance_moved_sq",
    "fisher": "fisher_trace_mean",
}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def ensemble_of(case):
    given = case["input"]
    return InfiniteWidthEnsemble(
        given["hidden_layers"],
        activation=given["activation"],
        weight_variance=given["weight_variance"],
        bias_variance=given["bias_variance"],
    )


@pytest.mark.parametrize("case", REFERENCE.values(), ids=REFERENCE)
def test_kernels(case):
    ensemble, train, test = ensemble_of(case), double(case["input"]["X_train"]), double(case["input"]["X_test"])
    for name, inputs in {"train": (train,), "test_train": (test, train), "test": (test, test)}.items():
        torch.testing.assert_close(ensemble.nngp(*inputs), double(case[f"nngp_{name}"]), rtol=0, atol=1e-13)
        torch.testing.assert_close(ensemble.ntk(*inputs), double(case[f"ntk_{name}"]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_convolutional_kernels(activation, pooling):
    x = double(VALUES["convolutional"]["x"])
    expected = VALUES["convolutional"]["kernels"][activation + "_pooling" * pooling]
    ensemble = InfiniteWidthEnsemble(
        2, activation=activation, weight_variance=1.7, bias_variance=0.1, kernel_size=3, pooling=pooling
    )
    torch.testing.assert_close(ensemble.nngp(x), double(expected["nngp"]), rtol=0, atol=1e-13)
    torch.testing.assert_close(ensemble.ntk(x), double(expected["ntk"]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("quantity", NAMES)
@pytest.mark.parametrize("case", REFERENCE.values(), ids=REFERENCE)
def test_values_over_time(case, quantity):
    given = case["input"]
    ensemble = ensemble_of(case).fit(double(given["X_train"]), double(given["y_train"]))
    times = [at["t"] for at in case["at"]]
    found = ensemble.at(times, double(given["X_test"]), double(given["y_test"]), unit="nats")
    expected = double([at[NAMES[quantity]] for at in case["at"]])
    torch.testing.assert_close(getattr(found, quantity), expected, rtol=1e-10, atol=1e-12)


def trained(ensemble, x, y, x_test, *, width, networks, rate, steps):
    """Outputs of finite networks of one hidden layer of erf units after gradient descent, and the way of their weights.

    Args:
        ensemble: the infinite one.
        x: training inputs, ``(N, D)``.
        y: targets, ``(N, k)``.
        x_test: test inputs, ``(n, D)``.
        width: of the hidden layer.
        networks: how many.
        rate: of the descent.
        steps: of the descent.

    Returns:
        ``(networks, n, k)`` and ``(networks,)``.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = (width, x.shape[1]), (width, 1), (y.shape[1], width), (y.shape[1], 1)
    start = [torch.randn(networks, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    weights = [one.clone().requires_grad_() for one in start]
    w, b = math.sqrt(ensemble.weight_variance), math.sqrt(ensemble.bias_variance)

    def outputs(inputs):
        first, first_bias, second, second_bias = weights
        hidden = torch.erf(w / math.sqrt(x.shape[1]) * first @ inputs.T + b * first_bias)
        return (w / math.sqrt(width) * second @ hidden + b * second_bias).mT

    for _ in range(steps):
        loss = (outputs(x) - y).square().sum() / 2
        for one, gradient in zip(weights, torch.autograd.grad(loss, weights)):
            one.data -= rate * gradient
    way = sum((one.data - origin).square().flatten(1).sum(1) for one, origin in zip(weights, start))
    return outputs(x_test).detach(), way


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
def test_wide_networks_agree_within_sampling_error(outputs):
    """200 networks of width 1024, trained by gradient descent from random starts."""
    generator = torch.Generator().manual_seed(1)
    x, x_test = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 5))
    y = torch.randn(4, outputs, generator=generator, dtype=torch.float64).sign()
    ensemble = InfiniteWidthEnsemble(1, activation="erf", weight_variance=1.5, bias_variance=0.1).fit(x, y)
    rate, steps, networks = 0.05, 40, 200
    z, way = trained(ensemble, x, y, x_test, width=1024, networks=networks, rate=rate, steps=steps)
    found = ensemble.at(rate * steps, x_test)

    error = (found.variance / networks).sqrt()[:, None]
    assert ((z.mean(0) - found.mean).abs() < 4 * error + 0.01).all()  # 0.01 for the width and the steps
    # of a Gaussian, a variance from 200 has a standard error of 7 %
    spread = z.var(0).mean(1) / found.variance
    assert ((spread - 1).abs() < 4 * math.sqrt(2 / (networks * outputs)) + 0.02).all()
    assert way.mean().item() == pytest.approx(found.distance.item(), rel=0.1)
