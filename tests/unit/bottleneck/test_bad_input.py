"""Every fault has one sentence, and costs no memory."""

import pytest
import torch

from lightning_ib.bottleneck import (
    agglomerative_ib,
    critical_betas,
    distance_to_bound,
    error_exponent,
    gaussian_ib,
    geometric_decoder,
    ib_curve,
)
from tests.unit.bottleneck.distributions import HARD, INDEPENDENT, random_joint

GOOD = random_joint(3, 2)
EYE = torch.eye(2, dtype=torch.float64)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


DISTRIBUTIONS = [
    (double([[0.6, -0.1], [0.25, 0.25]]), ValueError, "must not be negative, got -0.1"),
    (double([[0.6, 0.1], [0.25, 0.25]]), ValueError, r"must sum to 1, got 1.2: give p_xy / p_xy.sum\(\)"),
    (double([[0.5, 0.5], [0, 0]]), ValueError, "rows of zeros, 1 of them"),
    (double([[0.5, 0], [0.5, 0]]), ValueError, "columns of zeros, 1 of them"),
    (double([[0.5], [0.5]]), ValueError, "at least two labels"),
    (double([[float("nan"), 0.5], [0.25, 0.25]]), ValueError, "NaN"),
    (double([0.5, 0.5]), ValueError, "must have shape"),
    (torch.ones(2, 2, dtype=torch.long), TypeError, "p_xy.double()"),
    ([[0.5, 0.5]], TypeError, "got a list"),
]


@pytest.mark.parametrize("function", [ib_curve, critical_betas, agglomerative_ib])
@pytest.mark.parametrize(("p", "error", "message"), DISTRIBUTIONS)
def test_distributions(function, p, error, message):
    with pytest.raises(error, match=message):
        function(p)


@pytest.mark.parametrize(
    ("betas", "error", "message"),
    [
        ([0.0], ValueError, "got 0: give β > 0"),
        ([1.0, -2.0], ValueError, "got -2"),
        ([float("nan")], ValueError, "got nan"),
        ([float("inf")], ValueError, "got inf"),
        ([], ValueError, "at least 1"),
        ([[1.0]], ValueError, "shape"),
        ("high", TypeError, "got 'high'"),
    ],
)
def test_betas(betas, error, message):
    with pytest.raises(error, match=message):
        ib_curve(GOOD, betas)
    with pytest.raises(error, match=message):
        gaussian_ib(EYE, EYE / 2, EYE, betas)


def test_words():
    with pytest.raises(ValueError, match="did you mean 'dual'"):
        ib_curve(GOOD, kind="dua")
    with pytest.raises(ValueError, match="did you mean 'bits'"):
        ib_curve(GOOD, unit="bit")
    with pytest.raises(ValueError, match="kind must be 'ib' or 'dual'"):
        critical_betas(GOOD, kind="deterministic")
    with pytest.raises(ValueError, match="smoothing must be"):
        ib_curve(GOOD, smoothing=-0.1)


def test_independent_variables_without_betas():
    with pytest.raises(ValueError, match="independent"):
        ib_curve(INDEPENDENT)
    with pytest.raises(ValueError, match="independent"):
        gaussian_ib(EYE, 0 * EYE, EYE)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ib_curve(HARD, [2.0], kind="dual"),
        lambda: critical_betas(HARD, kind="dual"),
        lambda: geometric_decoder(torch.ones(4, 1, dtype=torch.float64), HARD),
    ],
)
def test_hard_labels_in_the_dual(call):
    with pytest.raises(ValueError, match="8 of 12 entries|6 of 9 entries") as raised:
        call()
    assert "smoothing=0.01" in str(raised.value)


def test_memory_is_named_before_it_is_taken():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(2100, 400, generator=generator)
    p = p.double() / p.double().sum()
    for call in (
        lambda: ib_curve(p, [10.0]),
        lambda: critical_betas(p),
        lambda: distance_to_bound(torch.ones(2100, 1), p),
    ):
        with pytest.raises(ValueError, match="2100 different rows .* GiB"):
            call()
    with pytest.raises(ValueError, match="at most 2048"):
        agglomerative_ib(p)


def test_many_equal_rows_are_no_matter():
    p = GOOD[:, None, :].expand(3, 20_000, 2).reshape(-1, 2) / 20_000
    torch.testing.assert_close(ib_curve(p, [5.0]).i_ty, ib_curve(GOOD, [5.0]).i_ty)


@pytest.mark.parametrize(
    ("cov_x", "cov_xy", "cov_y", "message"),
    [
        (torch.ones(2, 2).double(), EYE / 10, EYE, "cov_x must be positive definite"),
        (EYE, EYE / 10, double([[1, 2], [2, 1]]), "cov_y must be positive definite"),
        (EYE, EYE, EYE, "determine each other"),
        (EYE, 2 * EYE, EYE, "no joint distribution"),
        (EYE, EYE[:1], EYE, "shapes"),
        (double([[1, 0.5], [0.1, 1]]), EYE / 10, EYE, "symmetric"),
        (EYE, EYE * float("nan"), EYE, "NaN"),
        (EYE, EYE[0], EYE, "must be a matrix"),
    ],
)
def test_covariances(cov_x, cov_xy, cov_y, message):
    with pytest.raises(ValueError, match=message):
        gaussian_ib(cov_x, cov_xy, cov_y, [2.0])


def test_informations_of_a_bound():
    curve = ib_curve(GOOD, [5.0])
    for wrong in (-1.0, float("nan"), torch.tensor([0.1, -0.1])):
        with pytest.raises(ValueError, match="at least 0"):
            curve.bound(wrong)
    with pytest.raises(ValueError, match="kind='ib'"):
        ib_curve(GOOD, [5.0], kind="dual").bound(0.1)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (torch.ones(2, 1).double(), "X = 3"),
        (torch.full((3, 2), 0.6).double(), "summing to 1"),
        (double([[2.0, -1.0], [1, 0], [1, 0]]), "not negative"),
    ],
)
def test_encoders(encoder, message):
    with pytest.raises(ValueError, match=message):
        distance_to_bound(encoder, GOOD)


def test_parts_of_the_dual():
    with pytest.raises(ValueError, match="without probability"):
        geometric_decoder(double([[1, 0], [1, 0], [1, 0]]), GOOD)
    with pytest.raises(ValueError, match="positive probabilities"):
        error_exponent(double([0.5, 0.5]), double([1.0, 0.0]))
    with pytest.raises(ValueError, match="the same y"):
        error_exponent(double([0.5, 0.5]), double([0.2, 0.3, 0.5]))
