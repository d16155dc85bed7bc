"""The networks on clusters, and the information in their code."""

import math

import pytest
import torch

from lightning_ib.reproduce.clusters import Model, Training, clusters, code_information, train

SHORT = Training(n_epochs=4, n_information=100, n_draws=2)


@pytest.mark.parametrize("draw", [0, 2])
def test_the_points_are_those_of_scikit_learn(draw):
    datasets = pytest.importorskip("sklearn.datasets")
    expected, classes = datasets.make_blobs(
        300, n_features=2, centers=5, cluster_std=0.7, shuffle=True, random_state=draw
    )
    x, y = clusters(300, draw)
    assert torch.equal(x, torch.from_numpy(expected).float())
    assert torch.equal(y, torch.from_numpy(classes))


def test_information_is_the_mean_of_log_density_ratios():
    """Against densities one by one, with the same draws."""
    mean, std = torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.2
    mean -= mean.mean(0)
    torch.manual_seed(3)
    found = code_information(mean, std)
    torch.manual_seed(3)
    z = mean + std * torch.randn_like(mean)
    logs = (-(((z[:, None] - mean) / std) ** 2) / 2 - std.log() - math.log(2 * math.pi) / 2).sum(2)
    own = logs.diagonal()
    torch.testing.assert_close(found.monte_carlo, (own - logs.logsumexp(1) + math.log(7)).mean())
    torch.testing.assert_close(found.upper, (own - logs.mean(1)).mean())


@pytest.mark.parametrize("std", [1.0, 1e-7, 1e-10])
def test_equal_means_are_not_told_apart_however_narrow_the_noise(std):
    """49 of 50 samples are alike: the information is the entropy of whether one is the other."""
    mean = torch.zeros(50, 8)
    mean[0] = 10
    torch.manual_seed(0)
    found = code_information(mean, torch.full_like(mean, std))
    assert float(found.monte_carlo) == pytest.approx(math.log(50) / 50 - 0.98 * math.log(0.98))


def test_two_gaussians_have_the_information_of_a_binary_channel():
    """I = log 2 − E log(1 + exp(−2 a (a + ε))) for means ±a and unit variance, by numerical integration."""
    a = 0.8
    e = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.exp(-e.square() / 2) / math.sqrt(2 * math.pi)
    truth = math.log(2) - float(torch.trapezoid(density * torch.log1p(torch.exp(-2 * a * (a + e))), e))
    mean = torch.tensor([[a], [-a]], dtype=torch.float64).repeat(1000, 1)
    found = code_information(mean, torch.ones_like(mean))
    assert float(found.monte_carlo) == pytest.approx(truth, abs=0.03)


def test_of_n_points_the_information_is_at_most_log_n_and_jensens_bound_is_not():
    found = code_information(1e3 * torch.randn(20, 5).double(), torch.ones(20, 5).double())
    assert float(found.monte_carlo) == pytest.approx(math.log(20), rel=1e-12)
    assert float(found.upper) > 1e4


def test_a_seed_gives_the_same_values_and_leaves_the_caller_alone():
    before = torch.get_rng_state()
    rows = [train(Model(0.0, 32, 0.01, 0, 3), SHORT) for _ in range(2)]
    assert rows[0] == rows[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert train(Model(0.0, 32, 0.01, 0, 4), SHORT)["test_loss"] != rows[0]["test_loss"]
    assert rows[0]["n_parameters"] == 2 * (2 * 32 + 32 + 32**2 + 32 + 32 * 16 + 16 + 16**2 + 16) + 16 * 5 + 5
    assert rows[0]["gap_loss"] == rows[0]["test_loss"] - rows[0]["train_loss"]


def test_a_network_that_diverges_has_no_values():
    row = train(Model(0.0, 32, 0.0, 0, 0), SHORT._replace(rate=1e30))
    assert row["verdict"] == "diverged"
    assert not row["train_accuracy"] > 0


def test_the_constraint_pulls_the_information_to_where_it_is_held():
    free, low, high = (
        train(Model(rate, 32, 0.0, 0, 0), Training(n_epochs=60, n_information=50, n_draws=2, held=held))["i_xz"]
        for rate, held in ((0.0, 0.0), (2e-3, 0.0), (2e-3, 3.9))
    )
    assert low < free < high
