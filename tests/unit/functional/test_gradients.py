"""The signal and the noise of gradients, and the growth of the weights' distance: known answers, laws, bad input."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib.functional import gradient_signal, weight_diffusion


def sums(gradients):
    """What a callback sums up: the mean squared norm, the squared norm of the mean, the number of batches."""
    g = torch.as_tensor(gradients, dtype=torch.float64)
    return of(float(g.square().sum(1).mean()), float(g.mean(0).square().sum()), len(g))


def of(mean_square_norm, square_norm_of_mean, n_batches):
    return {
        "mean_square_norm": mean_square_norm,
        "square_norm_of_mean": square_norm_of_mean,
        "n_batches": n_batches,
    }


@pytest.mark.parametrize(
    ("g_sq", "trace_of_sample", "batch", "m", "snr", "scale"),
    [
        # Linear regression with x ~ N(0, Σ): tr C = (d'Σd + s²) tr Σ + ‖Σd‖².
        (9.0, 37.5, 8, 20, 1.3856406460551016, 25 / 6),
        (0.2138, 4.4453, 16, 25, 0.8772296535776507, 20.79186155285314),
        (0.00465625, 15.531975, 32, 50, 0.09794444119446573, 3335.726174496643),
    ],
)
def test_expected_sums_of_a_regression_give_its_signal_to_noise_ratio(g_sq, trace_of_sample, batch, m, snr, scale):
    trace = trace_of_sample / batch
    found = gradient_signal(**of(g_sq + trace, g_sq + trace / m, m), samples_per_batch=batch)
    assert found.snr_unbiased == pytest.approx(snr, rel=1e-9)
    assert found.std == pytest.approx(math.sqrt(trace), rel=1e-12)
    assert found.noise_scale == pytest.approx(scale, rel=1e-9)
    assert found.floor == pytest.approx(1 / math.sqrt(m), rel=1e-15)
    assert found.snr > found.snr_unbiased


def test_one_order_of_a_small_population():
    found = gradient_signal(**sums([[0.5, 1.0], [1.0, 1.0], [1.5, -0.5]]), samples_per_batch=2)
    assert found.mean == pytest.approx(1.118033988749895, rel=1e-12)
    assert found.std == pytest.approx(1.0, rel=1e-12)
    assert found.snr_unbiased**2 == pytest.approx(0.9166666666666667, rel=1e-12)
    assert found.noise_scale == pytest.approx(2.181818181818182, rel=1e-12)


def test_over_all_orders_the_spread_is_that_of_the_population():
    """Without replacement, at fixed weights: the mean over all orders of tr Σ is tr S²/B, with N − 1 in S²."""
    samples = np.array([[1, 0], [0, 2], [-1, 1], [3, 1], [2, -2], [1, 1]], float)
    traces = []
    for order in itertools.permutations(range(6)):
        batches = samples[list(order)].reshape(3, 2, 2).mean(1)
        traces.append(gradient_signal(**sums(batches)).std ** 2)
    assert np.mean(traces) == pytest.approx(samples.var(0, ddof=1).sum() / 2, rel=1e-12)


def test_pure_noise_lies_at_the_floor():
    generator = torch.Generator().manual_seed(0)
    found = [gradient_signal(**sums(torch.randn(40, 500, generator=generator))) for _ in range(20)]
    assert np.mean([one.snr for one in found]) == pytest.approx(found[0].floor, rel=0.02)
    assert np.mean([one.snr_unbiased for one in found]) < found[0].floor / 2


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(
    st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=2, max_size=8),
    st.floats(0.001, 1000),
)
def test_ratios_do_not_depend_on_the_scale_of_the_loss(gradients, factor):
    g = torch.tensor(gradients, dtype=torch.float64)
    one, other = (
        gradient_signal(**sums(g), samples_per_batch=4),
        gradient_signal(**sums(factor * g), samples_per_batch=4),
    )
    assert other.mean == pytest.approx(factor * one.mean, rel=1e-9, abs=1e-12)
    if one.std > 1e-6 * one.mean:  # else rounding decides
        assert other.std == pytest.approx(factor * one.std, rel=1e-6, abs=1e-9 * factor)
        assert other.snr == pytest.approx(one.snr, rel=1e-6)
    assert one.snr_unbiased <= one.snr or math.isnan(one.snr)


def test_equal_gradients_are_all_signal_and_a_single_one_says_nothing():
    found = gradient_signal(**sums([[3.0, 4.0]] * 5), samples_per_batch=2)
    assert (found.mean, found.std, found.snr, found.noise_scale) == (5, 0, math.inf, 0)
    alone = gradient_signal(**of(25.0, 25.0, 1))
    assert (alone.mean, alone.floor) == (5, 1)
    assert all(math.isnan(one) for one in (alone.std, alone.snr, alone.snr_unbiased, alone.noise_scale))
    assert math.isnan(gradient_signal(**of(2.0, 1.0, 4)).noise_scale)
    still = gradient_signal(**of(0.0, 0.0, 4), samples_per_batch=2)
    assert math.isnan(still.snr)
    assert math.isnan(gradient_signal(**of(math.inf, 1.0, 4)).snr)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((-1.0, 1.0, 3), ValueError, "mean_square_norm must be a number of at least 0, got -1.0"),
        ((1.0, float("nan"), 3), ValueError, "square_norm_of_mean must be a number of at least 0, got nan"),
        ((1.0, 1.0, 0), ValueError, "n_batches must be an integer of at least 1, got 0"),
        ((1.0, 1.0, 2.0), TypeError, "n_batches must be an integer"),
    ],
)
def test_sums_that_cannot_be_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        gradient_signal(**of(*arguments))


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_a_power_law_has_its_exponent(exponent):
    times = [1, 3, 10, 30, 100, 300]
    found = weight_diffusion(times, distances=[2 * t**exponent for t in times])
    assert found.exponent == pytest.approx(exponent, abs=1e-12)
    assert (found.first, found.last) == (1, 300)


def test_a_logarithm_is_a_straight_line_over_decades():
    times = [1, 10, 100, 1000]
    found = weight_diffusion(times, distances=[0.5 + 0.25 * math.log10(t) for t in times])
    assert found.per_decade == pytest.approx(0.25, rel=1e-12)
    assert found.per_decade_r2 == pytest.approx(1, rel=1e-12)
    assert found.exponent_r2 < 0.999


def test_a_random_walk_has_exponent_one_half():
    generator = torch.Generator().manual_seed(0)
    path = torch.randn(1000, 2000, generator=generator).cumsum(0).norm(dim=1)
    times = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert weight_diffusion(times, distances=[float(path[t - 1]) for t in times]).exponent == pytest.approx(
        0.5, abs=0.02
    )


def test_the_fit_is_over_its_window_and_over_moved_weights():
    times, distances = [0, 1, 10, 100, 1000], [0.0, 7.0, 1.0, 10.0, 100.0]
    found = weight_diffusion(times, distances=distances, window=(10, 1000))
    assert found.exponent == pytest.approx(1, abs=1e-12)
    assert (found.first, found.last) == (10, 1000)


@pytest.mark.parametrize("times", [[1, 2, 4, 8], [1, 100], [5]])
def test_nothing_is_claimed_from_under_one_and_a_half_decades_or_two_times(times):
    found = weight_diffusion(times, distances=[float(t) for t in times])
    assert math.isnan(found.exponent)
    assert math.isnan(found.per_decade)
    assert found.last == times[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1, 2], [1.0]), "must be of the same number, got 2 and 1"),
        (([1, 2], [1.0, -1.0]), "a distance must be a finite number of at least 0, got -1.0"),
        (([1, 2], [1.0, 1.0], (5, 1)), "window must be"),
    ],
)
def test_times_and_distances_that_do_not_fit_are_refused(arguments, sentence):
    *positional, window = arguments if len(arguments) == 3 else (*arguments, None)
    with pytest.raises(ValueError, match=sentence):
        weight_diffusion(positional[0], distances=positional[1], window=window)
