"""Spectra: against the singular values of NumPy, known covariances, and rows that cannot be used."""

import itertools
import math

import numpy as np
import pytest
import torch

from lightning_ib.functional import participation_ratio, spectrum
from lightning_ib.functional.geometry.rows import rounding_of
from tests.helpers.messages import exactly


def by_svd(rows):
    """The quantities of a spectrum from singular values of the centered rows, in NumPy."""
    x = rows.double().numpy()
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    s = s[s > 1e-6 * s[0]]
    p, q = s / s.sum(), s**2 / (s**2).sum()
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = units @ units.T
    found = {
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "effective_rank_of_variances": np.exp(-(q * np.log(q)).sum()),
        "spectral_entropy": -(q * np.log2(q)).sum(),
        "participation_ratio_plug_in": 1 / (q**2).sum(),
        "anisotropy": q[0],
        "normalized_std": units.std(0, ddof=1).mean(),
        "mean_cosine": cosines[~np.eye(len(x), dtype=bool)].mean(),
        "rank": len(s),
    }
    if len(s) > 18:
        j = np.arange(10, min(100, len(s)) + 1)
        # numpy.polyfit squares its weights
        found["alpha"] = -np.polyfit(np.log(j), np.log(s[j - 1] ** 2), 1, w=j**-0.5)[0]
    return found


def rows_of(kind):
    g = torch.Generator().manual_seed(0)
    if kind == "rank 10":
        return torch.randn(200, 10, generator=g).double() @ torch.randn(10, 300, generator=g).double()
    if kind == "repeated":
        return torch.randn(7, 60, generator=g).repeat(30, 1)
    if kind == "power law":
        return torch.randn(400, 120, generator=g).double() * torch.arange(1, 121).double() ** -0.7
    n, d, shift, scale = {
        "tall": (300, 40, 0.0, 1.0),
        "wide": (60, 200, 0.0, 1.0),
        "blocks": (1100, 600, 0.0, 1.0),
        "far from zero": (300, 40, 1e4, 1.0),
        "tiny": (300, 40, 0.0, 1e-160),
        "huge": (300, 40, 0.0, 1e153),
    }[kind]
    return scale * (torch.randn(n, d, generator=g).double() + shift)


@pytest.mark.parametrize("kind", ["tall", "wide", "blocks", "rank 10", "repeated", "power law", "far from zero"])
def test_as_numpy(kind):
    rows = rows_of(kind)
    found = spectrum(rows)
    for name, expected in by_svd(rows).items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-10, abs=1e-12), name


@pytest.mark.parametrize("kind", ["tiny", "huge"])
def test_squares_stay_in_range(kind):
    found, expected = spectrum(rows_of(kind)), spectrum(rows_of("tall"))
    assert found[:8] == pytest.approx(expected[:8], rel=1e-10)


@pytest.mark.parametrize("width", [64, 1000, 4096])
def test_ten_equal_directions_are_ten_at_any_width(width):
    directions, _ = torch.linalg.qr(torch.randn(width, 10).double())
    scores, _ = torch.linalg.qr(torch.randn(200, 11).double() + torch.ones(200, 11) * (torch.arange(11) == 0))
    scores = scores - scores.mean(0)
    scores, _ = torch.linalg.qr(scores[:, 1:])
    for rows in (scores @ directions.T, (scores @ directions.T).float()):
        found = spectrum(rows)
        assert found.rank == 10
        assert (found.effective_rank, found.effective_rank_of_variances) == pytest.approx((10, 10), rel=1e-5)


def test_isotropic_and_spiked_gaussians():
    n, d = 4000, 20
    isotropic = spectrum(torch.randn(n, d))
    assert isotropic.effective_rank == pytest.approx(d, rel=0.01)
    assert isotropic.participation_ratio == pytest.approx(d, rel=0.01)
    assert isotropic.anisotropy == pytest.approx(1 / d, rel=0.25)
    assert isotropic.normalized_std == pytest.approx(1 / math.sqrt(d), rel=0.01)
    assert isotropic.mean_cosine == pytest.approx(0, abs=0.001)
    variances = torch.ones(d)
    variances[0] = 100
    spiked = spectrum(torch.randn(n, d) * variances.sqrt())
    p, s = variances / variances.sum(), variances.sqrt() / variances.sqrt().sum()
    assert spiked.anisotropy == pytest.approx(100 / 119, rel=0.03)
    assert spiked.effective_rank == pytest.approx(float((-s * s.log()).sum().exp()), rel=0.03)
    assert spiked.effective_rank_of_variances == pytest.approx(float((-p * p.log()).sum().exp()), rel=0.05)
    assert spiked.participation_ratio == pytest.approx(119**2 / (100**2 + 19), rel=0.05)


def test_the_exponent_of_a_power_law():
    variances = torch.arange(1, 151).double() ** -1.3
    signs = torch.linalg.qr(torch.randn(300, 151).double())[0]
    scores = torch.linalg.qr((signs - signs.mean(0))[:, :150])[0]
    found = spectrum(scores * variances.sqrt())
    assert (found.alpha, found.alpha_r2) == pytest.approx((1.3, 1), rel=1e-9)
    assert (found.alpha_first, found.alpha_last) == (10, 100)
    assert math.isnan(spectrum(scores[:, :18]).alpha)
    assert spectrum(scores[:, :19]).alpha_last == 19


def test_the_participation_ratio_averages_over_four_different_rows():
    x = torch.randn(6, 3).double() @ torch.randn(3, 3).double() + 5
    squared, of_square = [], []
    for i, j, k, m in itertools.permutations(range(6), 4):
        a, b = x[i] - x[j], x[k] - x[m]
        squared.append(float((a @ a) * (b @ b)))
        of_square.append(float(a @ b) ** 2)
    expected = math.fsum(squared) / math.fsum(of_square)
    assert participation_ratio(x) == pytest.approx(expected, rel=1e-12)
    assert spectrum(x).participation_ratio == pytest.approx(expected, rel=1e-10)
    assert math.isnan(participation_ratio(x[:3]))


@pytest.mark.parametrize("d", [10, 200])
def test_few_rows_bias_the_plug_in_and_spare_the_correction(d):
    draws = [torch.randn(40, d) for _ in range(60)]
    corrected = sum(map(participation_ratio, draws)) / len(draws)
    plug_in = sum(participation_ratio(x, corrected=False) for x in draws) / len(draws)
    assert corrected == pytest.approx(d, rel=0.04)
    assert plug_in == pytest.approx(1 / (1 / 40 + 1 / d), rel=0.05)
    x = draws[0]
    found = spectrum(x)
    assert found.participation_ratio == pytest.approx(participation_ratio(x), rel=1e-9)
    assert found.participation_ratio_plug_in == pytest.approx(participation_ratio(x, corrected=False), rel=1e-10)


def test_rows_that_are_all_the_same_have_no_spectrum():
    found = spectrum(torch.full((10, 5), 3.3))
    assert all(math.isnan(value) for value in found[:7])
    assert found.reason == "all 10 rows are the same up to rounding, and have no spectrum"
    assert found.normalized_std == 0
    assert found.mean_cosine == pytest.approx(1)
    assert (found.rank, found.n, found.d) == (0, 10, 5)
    assert math.isnan(participation_ratio(torch.ones(5, 2)))
    assert math.isnan(spectrum(torch.zeros(4, 2)).mean_cosine)


def test_rows_of_zeros_have_no_direction():
    x = torch.randn(30, 4)
    with_zeros = torch.cat([x, torch.zeros(5, 4)])
    assert spectrum(with_zeros).mean_cosine == pytest.approx(spectrum(x).mean_cosine, rel=1e-12)


@pytest.mark.parametrize(("n", "capped"), [(8, True), (10, True), (11, False)])
def test_few_rows_cap_a_spectrum(n, capped):
    found = spectrum(torch.randn(n, 10))
    assert found.capped == capped
    assert found.rank == min(n - 1, 10)


def test_nats_and_further_dimensions():
    x = torch.randn(50, 2, 3)
    assert spectrum(x, unit="nats").spectral_entropy == pytest.approx(spectrum(x).spectral_entropy * math.log(2))
    assert spectrum(x) == spectrum(x.flatten(1))


def test_bad_rows():
    with pytest.raises(TypeError, match="rows must be real numbers in floating point, got torch.int64"):
        spectrum(torch.ones(4, 2, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=exactly("rows has NaN or infinite values in 1 of 3 rows: leave those rows out.")
    ):
        spectrum(torch.tensor([[0.0], [1.0], [math.nan]]))
    with pytest.raises(ValueError, match="N at least 2"):
        participation_ratio(torch.ones(1, 2))


def of_rank_10(n, d, dtype, mean=0.0):
    """Rows of ten directions of equal variance, one of the mean, rounded to a dtype."""
    g = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(d, 10, generator=g))[0].T * d**0.5
    return (torch.randn(n, 10, generator=g) @ directions + mean).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "d", "mean"), [(300, 120, 0.0), (120, 300, 0.0), (300, 120, 10.0)])
def test_rounded_values_add_no_direction(dtype, n, d, mean):
    exact, found = spectrum(of_rank_10(n, d, torch.float32, mean)), spectrum(of_rank_10(n, d, dtype, mean))
    assert exact.rank == found.rank == 10
    assert found.effective_rank == pytest.approx(exact.effective_rank, rel=1e-3)
    assert math.isnan(found.alpha)
    rounded_before = of_rank_10(n, d, dtype, mean).float()
    known = spectrum(rounded_before, rounding=rounding_of(dtype))
    assert known._replace(alpha=0, alpha_r2=0) == found._replace(alpha=0, alpha_r2=0)
    if dtype == torch.bfloat16:
        assert spectrum(rounded_before).rank > 100
        assert spectrum(torch.randn(n, d).to(dtype)).rank == min(d, n - 1)  # true directions stay


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1e307])
def test_the_scale_of_rows_is_free(scale):
    rows = torch.randn(40, 8, dtype=torch.float64).round(decimals=1)
    found, expected = spectrum(rows * scale), spectrum(rows)
    rel = 1e-9 if scale > 1e-300 else 1e-2  # numbers below 1e-308 have few digits
    for name in ("effective_rank", "participation_ratio", "anisotropy", "normalized_std", "mean_cosine"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=rel, abs=1e-3 if rel > 0.001 else 0)
    assert participation_ratio(rows * scale) == pytest.approx(participation_ratio(rows), rel=rel)
    lengths = torch.logspace(-300, 300, 40, dtype=torch.float64).unsqueeze(1)
    assert spectrum(rows * lengths).mean_cosine == pytest.approx(expected.mean_cosine, rel=1e-9)


@pytest.mark.parametrize("kind", ["one coordinate", "power law"])
def test_eigenvalues_of_many_decades_are_those_of_singular_values(kind):
    rows = np.random.default_rng(0).standard_normal((300, 60))
    rows *= np.where(np.arange(60) == 0, 1e7, 1.0) if kind == "one coordinate" else np.arange(1, 61) ** -5.0
    s = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    p, j = s / s.sum(), np.arange(10, 61)
    found = spectrum(torch.from_numpy(rows))
    assert found.rank == 60
    assert found.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-12)
    assert found.alpha == pytest.approx(-np.polyfit(np.log(j), np.log(s[9:] ** 2), 1, w=j**-0.5)[0], rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 8, 600])
@pytest.mark.parametrize("together", [True, False], ids=["rows", "values"])
def test_rows_that_differ_by_one_rounding_are_constant(dtype, d, together):
    """The largest value below 1 in place of 1, in whole rows or here and there."""
    below = torch.tensor(1 - torch.finfo(dtype).eps / 2, dtype=dtype)
    x = torch.where(torch.rand(300, 1 if together else d) < 0.5, below, below.new_ones(())).expand(300, d)
    assert x.unique().numel() == 2
    found = spectrum(x)
    assert all(math.isnan(value) for value in found[:7])
    assert found.reason == "all 300 rows are the same up to rounding, and have no spectrum"
    assert math.isnan(found.anisotropy)
    assert found.mean_cosine == pytest.approx(1, rel=1e-5)
    assert math.isnan(participation_ratio(x))
    assert spectrum(x.double() + 0.1 * torch.rand(300, d), rounding=rounding_of(dtype)).reason == ""


def test_the_entropy_of_one_direction_is_zero_without_a_sign():
    found = spectrum(torch.randn(2, 6).repeat(20, 1)).spectral_entropy
    assert (found, math.copysign(1, found)) == (0.0, 1.0)
