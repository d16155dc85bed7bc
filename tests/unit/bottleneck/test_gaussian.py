"""The Gaussian bottleneck and its dual."""

import math

import pytest
import torch

from lightning_ib.bottleneck import gaussian_ib


def covariances(dx, dy, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(dx + dy, 2 * (dx + dy), generator=generator, dtype=torch.float64)
    cov = a @ a.T / (2 * (dx + dy))
    return cov[:dx, :dx], cov[:dx, dx:], cov[dx:, dx:]


@pytest.mark.parametrize(("dx", "dy"), [(1, 1), (3, 2), (2, 4)])
def test_no_linear_projection_is_above_the_bound(dx, dy):
    x, xy, y = covariances(dx, dy)
    curve = gaussian_ib(x, xy, y, unit="nats")
    rest = x - xy @ torch.linalg.solve(y, xy.T)
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(300, dx, dx, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, 300)[:, None, None]
    noise = torch.eye(dx, dtype=torch.float64)
    total, given_y = (torch.logdet(a @ cov @ a.mT + noise) / 2 for cov in (x, rest))
    assert (total - given_y <= curve.bound(total) + 1e-12).all()
    torch.testing.assert_close(curve.bound(curve.i_xt), curve.i_ty, rtol=0, atol=1e-12)


def test_the_objective_has_the_distortion_as_its_slope():
    for kind in ("ib", "dual"):
        beta = torch.linspace(3, 3.004, 5, dtype=torch.float64)
        curve = gaussian_ib(*covariances(3, 2), beta, kind=kind, unit="nats")
        f = curve.objective
        slope = float((f[0] - 8 * f[1] + 8 * f[3] - f[4]) / 0.012)
        assert slope == pytest.approx(float((f[2] - curve.i_xt[2]) / beta[2]), abs=1e-9)


def test_the_dual_has_the_encoder_of_the_bottleneck_one_beta_later():
    beta = torch.linspace(0.5, 20, 9, dtype=torch.float64)
    dual, curve = gaussian_ib(*covariances(3, 3), beta, kind="dual"), gaussian_ib(*covariances(3, 3), beta + 1)
    torch.testing.assert_close(dual.projection, curve.projection)
    torch.testing.assert_close(dual.i_ty, curve.i_ty)
    torch.testing.assert_close(dual.critical_betas, curve.critical_betas - 1)
    assert (dual.i_ty_decoder >= 0).all()


def test_a_change_of_coordinates_changes_nothing():
    x, xy, y = covariances(3, 2)
    m = torch.tensor([[1, 2, 0], [0, 1, -1], [1, 0, 3]], dtype=torch.float64)
    a, b = gaussian_ib(x, xy, y, [4.0]), gaussian_ib(m @ x @ m.T, m @ xy, y, [4.0])
    torch.testing.assert_close(a.i_ty, b.i_ty)
    torch.testing.assert_close(a.eigenvalues, b.eigenvalues)


@pytest.mark.parametrize("extra", [0.0, 1e-9, -1e-9])
def test_directions_without_y_are_never_active(extra):
    """Rounding puts λ at 1 + 1e-15 there, or at 1 − 1e-15."""
    one = torch.eye(2, dtype=torch.float64)
    xy = torch.full((2, 2), 0.25, dtype=torch.float64) + extra * torch.eye(2, dtype=torch.float64)
    curve = gaussian_ib(one, xy, one, [2.0, 1e6])
    assert curve.critical_betas.tolist() == [pytest.approx(4, rel=1e-6), math.inf]
    assert curve.i_ty.isfinite().all()
    assert (curve.projection[:, 1] == 0).all()


def test_more_x_than_y():
    curve = gaussian_ib(*covariances(5, 2), [1e4])
    assert curve.critical_betas.isfinite().sum() == 2
    assert int(curve.n_components) == 2


def test_picture():
    pytest.importorskip("matplotlib")
    assert gaussian_ib(*covariances(2, 2)).plot().get_ylabel() == "I(T;Y) [bits]"
