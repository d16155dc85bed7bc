"""Bounds for finite samples: values written down independently, limits, and bad input."""

import math

import pytest
import torch

from lightning_ib.bottleneck import finite_sample_bound, input_compression_bound
from tests.unit.bottleneck.distributions import random_joint

# Eight inputs in a hierarchy of pairs and quadruples; H(T|y) is the same for all y, so that its term vanishes.
PAIRS = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 0)
HALVES = torch.eye(2, dtype=torch.float64).repeat_interleave(4, 0)


def symmetric_joint():
    """Eight inputs and four labels, the same seen from each label."""
    rows = torch.full((8, 4), 0.1, dtype=torch.float64)
    for x in range(8):
        rows[x, x // 2] = 0.7
    return rows / 8


@pytest.mark.parametrize(
    ("encoder", "m", "i_xt", "i_ty"),
    [
        (PAIRS, 1_000, 1.2809, 2.5618),
        (PAIRS, 10_000, 0.6924, 1.3848),
        (PAIRS, 100_000, 0.3098, 0.6196),
        (HALVES, 10_000, 0.3790, 0.7580),
    ],
)
def test_deviations_of_clusters_are_those_worked_out_by_hand(encoder, m, i_xt, i_ty):
    found = finite_sample_bound(encoder, symmetric_joint(), m, unit="nats")
    assert found.i_xt == pytest.approx(i_xt, abs=5e-5)
    assert found.i_ty == pytest.approx(i_ty, abs=5e-5)


def test_the_formula_of_a_noisy_encoder_is_written_out_again():
    p_xy, m, delta = random_joint(5, 3, seed=4), 5_000, 0.1
    encoder = (2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).softmax(1)
    p_x, p_y = p_xy.sum(1), p_xy.sum(0)
    scale = (2 + math.sqrt(2 * math.log((3 + 2) / delta))) / math.sqrt(m)

    def f(z):
        return z * math.log(1 / z) if z <= 1 / math.e else 1 / math.e

    def entropy(p):
        return -sum(float(one) * math.log(float(one)) for one in p)

    def spread(values):
        mean = sum(values) / len(values)
        return math.sqrt(sum((one - mean) ** 2 for one in values))

    of_t = sum(f(scale * spread([float(one) for one in encoder[:, t]])) for t in range(4))
    of_x = scale * spread([entropy(row) for row in encoder])
    of_y = scale * spread([entropy(((p_x * (p_xy[:, y] / p_x)) / p_y[y]) @ encoder) for y in range(3)])
    found = finite_sample_bound(encoder, p_xy, m, delta=delta, unit="bits")
    assert found.i_xt == pytest.approx((of_t + of_x) / math.log(2), rel=1e-12)
    assert found.i_ty == pytest.approx((2 * of_t + of_y) / math.log(2), rel=1e-12)


def test_inputs_that_come_once_prove_nothing():
    n = 500
    p_xy = torch.eye(2, dtype=torch.float64).repeat(n // 2, 1) / n
    encoder = torch.eye(10, dtype=torch.float64).repeat(n // 10, 1)
    alone = finite_sample_bound(encoder, p_xy, n)
    assert alone.i_xt_vacuous
    assert alone.i_ty_vacuous
    unused = torch.cat([encoder, torch.zeros(n, 400, dtype=torch.float64)], 1)
    assert finite_sample_bound(unused, p_xy, n) == alone
    few = finite_sample_bound(torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64) / 2, 1_000_000)
    assert not few.i_xt_vacuous
    assert not few.i_ty_vacuous


def test_input_compression_counts_typical_cells():
    found = input_compression_bound(torch.tensor([0.0, 8.0]), 10_000, delta=0.05)
    expected = [math.sqrt((cells + math.log(40)) / 20_000) for cells in (1, 256)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert float(input_compression_bound(8 * math.log(2), 10_000, unit="nats")) == pytest.approx(expected[1], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"n_samples": 0}, ValueError, "n_samples must be an integer of at least 1, got 0"),
        ({"n_samples": 10.0}, TypeError, "n_samples must be an integer of at least 1, got 10.0"),
        ({"delta": 0.0}, ValueError, "delta must be a positive finite number of at most 1, got 0.0"),
        ({"unit": "bit"}, ValueError, "did you mean 'bits'"),
        ({"p_t_given_x": PAIRS[:3]}, ValueError, "with X = 8 as in p_xy, got"),
        ({"p_xy": symmetric_joint() * 2}, ValueError, "p_xy must sum to 1"),
    ],
)
def test_bad_input_is_one_sentence(arguments, error, sentence):
    given = {"p_t_given_x": PAIRS, "p_xy": symmetric_joint(), "n_samples": 100} | arguments
    with pytest.raises(error, match=sentence):
        finite_sample_bound(**given)


def test_a_negative_information_is_refused():
    with pytest.raises(ValueError, match="i_xt must be informations of at least 0, got -1"):
        input_compression_bound(-1.0, 100)
