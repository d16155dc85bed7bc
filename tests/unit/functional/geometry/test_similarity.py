"""Linear CKA: against Gram matrices and an independent formula; sketches against the exact value."""

import math

import pytest
import torch

from lightning_ib.functional import cka_of_sketches, cka_sketch, linear_cka
from lightning_ib.functional.geometry.rows import centered_rows
from lightning_ib.functional.geometry.similarity import cka_products, sketch_of_centered


def by_kernels(x, y, unbiased=False):
    """From the N × N kernels, by the definition of HSIC or of its unbiased estimator (Song et al. 2012)."""
    k, m = (a.double() @ a.double().T for a in (x, y))
    n = len(x)

    def hsic(a, b):
        if not unbiased:
            center = torch.eye(n).double() - 1 / n
            return float((center @ a @ center * b).sum())
        a, b = a - a.diag().diag(), b - b.diag().diag()
        products = (a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a @ b).sum()
        return float(products)

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("d", [5, 90])
def test_as_from_kernels(d):
    x, y = torch.randn(40, d), torch.randn(40, 7) + 3
    y[:, :5] += x[:, :5]
    assert linear_cka(x, y) == pytest.approx(by_kernels(x, y), rel=1e-10)
    assert linear_cka(x, y, debiased=True) == pytest.approx(by_kernels(x, y, unbiased=True), rel=1e-9)


def test_rotations_scales_and_shifts_keep_it():
    x = torch.randn(50, 6).double()
    turned = 1e-3 * x @ torch.linalg.qr(torch.randn(6, 6).double())[0] + 10
    assert linear_cka(x, turned) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, 1e-170 * x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, x, debiased=True) == pytest.approx(1)


def test_unrelated_rows():
    values = [linear_cka(torch.randn(100, 100), torch.randn(100, 100)) for _ in range(10)]
    debiased = [linear_cka(torch.randn(100, 100), torch.randn(100, 100), debiased=True) for _ in range(10)]
    assert sum(values) / 10 == pytest.approx(0.5, abs=0.02)
    assert sum(debiased) / 10 == pytest.approx(0, abs=0.02)


def test_constant_rows():
    assert math.isnan(linear_cka(torch.ones(5, 2), torch.randn(5, 3)))
    assert math.isnan(linear_cka(torch.randn(3, 2), torch.randn(3, 2), debiased=True))
    sketch = cka_sketch(torch.ones(5, 2))
    assert not sketch.any()
    assert all(map(math.isnan, cka_of_sketches(sketch, cka_sketch(torch.randn(5, 2)))))


@pytest.mark.parametrize("kind", ["isotropic", "few directions", "outlier"])
def test_sketches_estimate_it_within_their_errors(kind):
    x = torch.randn(300, 30)
    if kind == "few directions":
        x = x * torch.arange(1, 31) ** -2.0
    if kind == "outlier":
        x[17] *= 20
    deviations, errors = [], []
    for noise in (0.1, 0.5, 1.0, 2.0):
        y = x + noise * torch.randn_like(x) * x.std(0)
        exact = linear_cka(x, y)
        for _ in range(12):  # another order of the samples has other signs
            order = torch.randperm(300)
            value, error = cka_of_sketches(cka_sketch(x[order]), cka_sketch(y[order]))
            deviations.append((value - exact) / error)
            errors.append(error / ((1 - exact**2) / math.sqrt(2048)))
    spread = math.sqrt(sum(one**2 for one in deviations) / len(deviations))
    # With an outlier most of the product stands in one place of the sketch, and the error is far too large.
    assert (0 if kind == "outlier" else 0.7) < spread < 1.6
    if kind == "isotropic":
        assert sum(errors) / len(errors) == pytest.approx(1, abs=0.2)


def test_a_sketch_is_its_definition():
    from lightning_ib.functional.geometry.similarity import _hashed

    x = torch.randn(9, 4).double()
    k = (x - x.mean(0)) @ (x - x.mean(0)).T
    (a, s), (b, t) = _hashed(9, 16)
    expected = torch.zeros(16).double()
    for i in range(9):
        for j in range(9):
            expected[int(a[i] + b[j]) % 16] += s[i] * t[j] * k[i, j]
    assert torch.allclose(cka_sketch(x, length=16).double(), expected / expected.norm(), atol=1e-5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="x and y must be of the same samples, got 3 of one and 4 of the other"):
        linear_cka(torch.randn(3, 2), torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"the sketches must have one length, got \(8,\) and \(4,\)"):
        cka_of_sketches(torch.ones(8), torch.ones(4))
    with pytest.raises(TypeError, match="debiased must be True or False"):
        linear_cka(torch.randn(3, 2), torch.randn(3, 2), debiased=1)


@pytest.mark.parametrize("scale", [1e-250, 1e-25, 1e25, 1e250])
def test_the_scale_of_rows_is_free(scale):
    x, y = torch.randn(2, 50, 8, dtype=torch.float64)
    assert linear_cka(scale * x, y) == pytest.approx(linear_cka(x, y), rel=1e-9)
    torch.testing.assert_close(cka_sketch(scale * x), cka_sketch(x))


@pytest.mark.parametrize("d", [30, 80])
def test_a_sketch_of_the_matrix_is_that_of_the_rows(d):
    z = centered_rows(torch.randn(50, d))
    whole, rows = sketch_of_centered(z, z @ z.T), sketch_of_centered(z)
    torch.testing.assert_close(whole, rows, rtol=0, atol=1e-6)
    a, b = torch.randn(2, 50, d, dtype=torch.float64)
    between, within_a, within_b = cka_products(a, b)
    assert cka_products(a, b, within_a, b @ b.T) == pytest.approx((between, within_a, within_b))
    assert between == pytest.approx(float((a.T @ b).square().sum()))
    assert within_b == pytest.approx(float((b.T @ b).square().sum()))


def test_rows_that_differ_by_one_rounding_are_like_nothing():
    x = torch.where(torch.rand(100, 5) < 0.5, 1 - torch.finfo(torch.float32).eps / 2, 1.0)
    assert x.unique().numel() == 2
    assert math.isnan(linear_cka(x, torch.randn(100, 3)))
    assert not cka_sketch(x).any()


def test_no_similarity_exceeds_1():
    for seed in range(20):
        x = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        sketch = cka_sketch(x)
        assert linear_cka(1e-300 * x, x) <= 1
        assert linear_cka(x, x, debiased=True) <= 1
        assert cka_of_sketches(sketch, sketch)[0] <= 1
