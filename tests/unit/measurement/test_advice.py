"""What a layer in doubt is advised to do helps it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ib import FixedBins, QuantileBins, Quantizer, UniformBins
from tests.helpers.verdicts import first_coordinates, measured, numbers


def tried(z, told, bins=UniformBins):
    """The points of every discretizer that the advice names."""
    found = []
    if pool := numbers(r"a coarser pool, to at most (\d+) of its (\d+) coordinates with (\d+) bins each", told):
        assert 1 <= pool[0] < pool[1] == z[0].numel()
        found.append(measured(z, Quantizer(first_coordinates(pool[0]), bins(int(pool[2])))))
    if fewer := numbers(r"at most (\d+) bins for its (\d+) coordinates", told):
        assert fewer[1] == z[0].numel()
        found.append(measured(z, Quantizer(None, bins(int(fewer[0])))))
    return [point for point, _ in found]


@pytest.mark.parametrize("bins", [UniformBins, QuantileBins])
@pytest.mark.parametrize(("n", "width", "n_bins"), [(1000, 5, 30), (500, 2, 30), (4000, 40, 3), (300, 1, 200)])
def test_a_saturated_layer_is_ok_with_the_pool_or_the_bins_that_are_advised(n, width, n_bins, bins):
    z = torch.randn(n, width)
    point, told = measured(z, Quantizer(bins=bins(n_bins)))
    assert point.verdict in ("saturated", "undersampled")
    after = tried(z, told, bins)
    assert after
    assert [point.verdict for point in after] == ["ok"] * len(after)


@given(st.integers(60, 2000), st.integers(1, 12), st.integers(2, 40), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_every_discretization_that_is_advised_is_ok(n, width, n_bins, seed):
    z = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    point, told = measured(z, Quantizer(bins=UniformBins(n_bins)))
    assert (told == "") == (point.verdict == "ok")
    assert all(after.verdict == "ok" for after in tried(z, told))


@pytest.mark.parametrize(("width", "n_bins"), [(4, 6), (3, 10), (2, 30)])
def test_an_undersampled_layer_is_told_how_many_more_samples(width, n_bins):
    z = torch.randn(500, width)
    point, told = measured(z, Quantizer(bins=UniformBins(n_bins)))
    assert point.verdict == "undersampled"
    (n,) = numbers(r"at least (\d+) samples", told)
    assert n > point.n_samples
    # Not a promise, since more samples show more symbols: but these layers have few enough.
    assert measured(torch.randn(int(n), width), Quantizer(bins=UniformBins(n_bins)))[0].verdict == "ok"


def test_an_undersampled_layer_is_told_what_chance_gives():
    point, told = measured(torch.randn(500, 4), Quantizer(bins=UniformBins(6)))
    chance = f"(I(T;Y) is {point.i_ty:.2f} bits, and {point.i_ty_permuted:.2f} with permuted labels)"
    assert chance in told
    assert f"{point.singleton_fraction:.0%} of the samples have a symbol of their own" in told


def test_a_saturated_layer_is_told_how_much():
    point, told = measured(torch.randn(400, 5), Quantizer(bins=UniformBins(30)))
    assert f"H(T) is {point.saturation:.2f} of log N: its values tell the samples apart, not what was learned" in told


def test_a_layer_of_too_few_samples_for_cells_is_told_how_many():
    point, told = measured(torch.randn(3, 4), None)
    assert point.verdict in ("saturated", "undersampled")
    assert told.endswith("Measure on more than the 3 samples: at least 100.")
    (n,) = numbers(r"at least (\d+)\.", told)
    assert measured(torch.randn(int(n), 4), None)[0].verdict == "ok"


@pytest.mark.parametrize(
    ("quantizer", "why"),
    [
        (None, "Its activations do not depend on the input: look for dead units."),
        (Quantizer(bins=UniformBins(4)), "Its values lie between 2 and 2: use finer bins, or look for dead units."),
    ],
)
def test_a_constant_layer_is_told_so(quantizer, why):
    point, told = measured(torch.full((300, 3), 2.0), quantizer)
    assert (point.h_t, point.i_ty, point.n_codes, point.singleton_fraction) == (0, 0, 1, 0)
    assert (
        told
        == f"layer 'layer' is constant at epoch 0: all its samples have one symbol, and H(T) and I(T;Y) are 0. {why}"
    )


def test_bins_too_wide_for_a_layer_show_what_it_holds():
    point, told = measured(torch.linspace(3.25, 4.5, 300)[:, None], Quantizer(bins=FixedBins([-9.0, 0.0, 9.0])))
    assert (point.verdict, point.clipped_fraction) == ("constant", 0)
    assert "Its values lie between 3.25 and 4.5: use finer bins" in told


def test_a_layer_of_one_symbol_because_it_is_outside_its_bins_is_told_other_edges():
    z = torch.randn(1500, 1)
    point, told = measured(z, Quantizer(bins=UniformBins(10)), again=z + 900)
    assert (point.verdict, point.clipped_fraction) == ("constant", 1)
    assert "100% of its values lie outside its bins, which were fitted at the first measurement" in told
    assert measured(z + 900, Quantizer(bins=widened(told)))[0].verdict == "ok"


def test_a_saturated_layer_of_few_samples_is_told_what_helps():
    z = torch.randn(200, 5)
    _, told = measured(z, Quantizer(bins=UniformBins(30)))
    after = tried(z, told)
    assert after
    assert [point.verdict for point in after] == ["ok"] * len(after)


def widened(told):
    """The bins that are advised for values outside."""
    n_bins, low, high = numbers(r"UniformBins\((\d+), low=([-+.e\d]+), high=([-+.e\d]+)\)", told)
    return UniformBins(int(n_bins), low=low, high=high)


@pytest.mark.parametrize("bins", [FixedBins([-1, -0.5, 0, 0.5, 1]), UniformBins(30, low=-1, high=1)])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0), (1e4, 0), (0.3, -7), (1.0, -2), (1e4, -2), (1.0, 3)])
def test_a_clipped_layer_is_not_in_the_bins_that_are_advised(bins, scale, offset):
    """Not all of it on one side of them: that would be constant."""
    z = scale * (offset + torch.randn(1500, 1) * 3)
    point, told = measured(z, Quantizer(bins=bins))
    assert point.verdict == "clipped"
    assert f"{point.clipped_fraction:.0%} of its values lie outside its bins" in told
    after, _ = measured(z, Quantizer(bins=widened(told)))
    assert after.clipped_fraction < 0.002
    assert after.verdict == "ok"


@pytest.mark.parametrize(
    "z",
    [
        torch.linspace(0, 63.44, 300)[:, None],  # advised: high=63.4
        1000 + torch.linspace(-1, 1, 300)[:, None],  # advised: low=999, high=1e+03
        torch.full((300, 2), 5.0),  # advised: low=5, high=5, which UniformBins refuses
    ],
)
def test_the_bins_that_are_advised_hold_all_values(z):
    """Beside a single sample at 0, without which they would all have one symbol."""
    z[0] = 0
    _, told = measured(z, Quantizer(bins=UniformBins(4, low=-1, high=1)))
    assert measured(z, Quantizer(bins=widened(told)))[0].clipped_fraction == 0


@pytest.mark.parametrize("bins", [UniformBins(10), QuantileBins(10), UniformBins(10, quantiles=(0.01, 0.99))])
def test_a_layer_that_left_its_bins_behind_is_told_two_ways_out(bins):
    z = torch.randn(1500, 1)
    point, told = measured(z, Quantizer(bins=bins), again=20 * z + 3)
    assert point.verdict == "clipped"
    assert "is clipped at epoch 1: " in told
    assert "which were fitted at the first measurement and left behind since" in told
    assert "or refit=True" in told
    again = measured(20 * z + 3, Quantizer(bins=widened(told)))[0]
    assert again.clipped_fraction < 0.002
    assert again.verdict == "ok"


def test_advice_is_of_the_values_of_its_own_measurement():
    """The range of the first is forgotten: its values may be gone for good."""
    z = torch.randn(1500, 1)
    _, told = measured(100 * z, Quantizer(bins=UniformBins(10)), again=z + 900)
    bins = widened(told)
    assert (bins.low, bins.high) == (pytest.approx(900 + z.min(), abs=1), pytest.approx(900 + z.max(), abs=1))


class Trimmed(UniformBins):
    """Of one's own, fitted anew every time, to the middle of the values."""

    tails = 0.0

    def edges(self, z):
        return super().edges(z[(z.abs() < z.abs().median()).all(1)])


def test_bins_that_refit_are_not_told_to_refit():
    z = torch.randn(1500, 1)
    _, told = measured(z, Quantizer(bins=Trimmed(8, refit=True)))
    assert "is clipped at epoch 0: " in told
    assert "which were fitted at this measurement to a part of the values: what looks like compression" in told
    assert "refit" not in told
    assert "left behind" not in told
    assert measured(z, Quantizer(bins=widened(told)))[0].verdict == "ok"


def test_bins_that_were_given_are_not_told_to_refit():
    _, told = measured(torch.randn(500, 1) * 9, Quantizer(bins=UniformBins(8, low=-1, high=1)))
    assert " clipped " in told
    assert "refit" not in told
