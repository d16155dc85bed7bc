"""The Gaussian bound at a chosen noise: its closed form, its place beside the function, its label."""

import math

import pytest
import torch
from torch import nn

from lightning_ib import InformationPlane
from lightning_ib.estimators import GaussianChannel, Rows
from lightning_ib.functional import gaussian_compression_bound
from lightning_ib.plot import plot_estimates
from tests.helpers.estimators import estimated, values
from tests.helpers.messages import exactly


def bound(t, noise=0.5, unit="nats", **options):
    return GaussianChannel(noise, **options).estimate(Rows(t), {}, unit)["compression_bound"]


def test_it_is_the_log_determinant():
    t = torch.randn(300, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = torch.cov(t.T, correction=0)
    expected = 0.5 * float(torch.logdet(torch.eye(7) + covariance / 0.5))
    assert bound(t) == pytest.approx(expected, rel=1e-12)
    assert bound(t, unit="bits") == pytest.approx(expected / math.log(2), rel=1e-12)
    assert bound(t.view(300, 7, 1, 1)) == bound(t)


def test_of_a_linear_layer_it_is_that_of_its_weights_and_the_layer_before():
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(200, 5, generator=generator, dtype=torch.float64).tanh()
    weight = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    covariance = torch.cov(before.T, correction=0)
    expected = gaussian_compression_bound(weight, covariance=covariance, noise_covariance=0.1, unit="nats").joint
    assert bound(before @ weight.T + 3.0, noise=0.1) == pytest.approx(expected, rel=1e-9)


def test_it_lies_above_the_information_of_the_noisy_layer():
    """Two coins and unit noise: 0.67366 nats are passed on, by quadrature."""
    t = torch.tensor([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    assert bound(t, noise=1.0) == pytest.approx(math.log(2), rel=1e-12)
    assert bound(t, noise=1.0) > 0.6736616406936635


def test_it_is_a_line_over_epochs_labelled_by_its_noise():
    model = nn.Sequential(nn.Linear(4, 3))
    plane = InformationPlane(["0"], estimators=[GaussianChannel(0.25)], head=False)
    x, records = torch.randn(150, 4, generator=torch.Generator().manual_seed(0)), []
    for epoch in range(3):
        with torch.no_grad():
            model[0].weight.mul_(0.5)
        records += estimated(plane, model, x, None, epoch=epoch)
    found = [one.value for one in records if one.quantity == "compression_bound"]
    assert found == sorted(found, reverse=True)
    assert values(records)["0", "gaussian", "noise_variance"] == 0.25
    figure = plot_estimates(records)
    assert [axes.get_title() for axes in figure.axes] == ["bound, Gaussian, at noise σ² = 0.25"]
    assert figure.axes[0].get_ylabel() == "[bits]"


@pytest.mark.parametrize(
    ("noise", "error", "message"),
    [
        (0.0, ValueError, "GaussianChannel: noise_variance must be a positive finite number, got 0.0."),
        ("a", TypeError, "GaussianChannel: noise_variance must be a positive finite number, got 'a': give a float."),
    ],
)
def test_wrong_noise_is_refused(noise, error, message):
    with pytest.raises(error, match=exactly(message)):
        GaussianChannel(noise)


@pytest.mark.parametrize(
    ("t", "message"), [(torch.ones(1, 2), "two rows, got 1"), (torch.full((3, 2), math.nan), "NaN")]
)
def test_rows_without_a_covariance_are_refused(t, message):
    with pytest.raises(ValueError, match=message):
        bound(t)
