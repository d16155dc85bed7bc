"""Bins: where edges lie, and which are refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib import Bins, CellQuantizer, FixedBins, QuantileBins, Quantizer, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.functional import bucketize, entropy, hash_table, row_ids
from tests.helpers.quantizers import OwnBins, fitted, ids_in_batches, randn, reduced

pytestmark = pytest.mark.usefixtures("one_thread")


# -- FixedBins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edges",
    [[0, 0.5], (0.0, 0.5), torch.tensor([0.0, 0.5]), np.array([0.0, 0.5]), torch.tensor([0.0, 0.5]).half()],
    ids=["list", "tuple", "tensor", "numpy", "half"],
)
def test_fixed_edges_are_kept_in_double(edges):
    found = FixedBins(edges).edges(torch.zeros(3, 7))
    assert found.dtype == torch.float64
    assert found.tolist() == [0.0, 0.5]


def test_fixed_edges_are_not_rounded_to_single_precision():
    assert FixedBins([0.1]).edges(torch.zeros(1, 1)).item() == 0.1
    # The float32 below 0.7 is 0.69999999: below the edge, though it prints as 0.7.
    ids = reduced(FittedQuantizer(Quantizer(None, FixedBins([0.7]))), torch.tensor([0.7, 0.6, 0.71]))
    assert (ids[0] == ids[1]) & (ids[0] != ids[2])


def test_fixed_edges_by_coordinate():
    discretizer = FittedQuantizer(Quantizer(None, FixedBins([[0.0, 1.0], [10.0, 20.0]])))
    z = torch.tensor([[0.5, 15.0], [0.6, 16.0], [1.5, 15.0], [0.5, 5.0]])
    ids = reduced(discretizer, z)
    assert ids[0] == ids[1]
    assert len(ids.unique()) == 3


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ([], r"FixedBins: edges must have shape \(E,\) or \(D, E\) with at least one edge, got \(0,\)"),
        (0.5, r"FixedBins: edges must have shape .* got \(\)"),
        ([[[0.5]]], r"FixedBins: edges must have shape .* got \(1, 1, 1\)"),
        ([[], []], r"FixedBins: edges must have shape .* got \(2, 0\)"),
        ([0.0, math.nan], r"FixedBins: edges must be finite numbers, got \[0.0, nan\]"),
        ([-math.inf, 0.0], r"FixedBins: edges must be finite numbers, got \[-inf, 0.0\]"),
        ([0.5, 0.0], r"FixedBins: edges must ascend, got \[0.5, 0.0\]. Sort them."),
        ([[0.0, 1.0], [3.0, 2.0]], r"FixedBins: edges must ascend, got \[3.0, 2.0\]"),
        ([*range(50), 7.0, 99.0], r"FixedBins: edges must ascend, got \[47.0, 48.0, 49.0, 7.0, 99.0\]"),
    ],
)
def test_fixed_edges_that_are_none_are_refused(edges, sentence):
    with pytest.raises(ValueError, match=sentence):
        FixedBins(edges)


def test_fixed_edges_for_another_number_of_coordinates_are_refused():
    with pytest.raises(ValueError, match=r"FixedBins: edges must have shape .*, here D = 3, got \(2, 1\)"):
        reduced(FittedQuantizer(Quantizer(None, FixedBins([[0.0], [1.0]]))), randn(5, 3))


@pytest.mark.parametrize("make", [lambda e: torch.tensor(e, dtype=torch.float64), np.array], ids=["tensor", "numpy"])
def test_fixed_edges_do_not_follow_later_changes_of_the_callers_tensor(make):
    mine = make([0.0, 0.5])
    bins = FixedBins(mine)
    mine *= -100
    assert bins.edges(torch.zeros(1, 1)).tolist() == [0.0, 0.5]


# -- UniformBins and QuantileBins --------------------------------------------------------------------------------------


def uniform_edges(values, n_bins, low, high, quantiles, per):
    """The documented rule, in NumPy, coordinate by coordinate."""
    columns = [values.ravel()] if per == "layer" else list(values.T)
    ranges = []
    for column in columns:
        a, b = (column.min(), column.max()) if quantiles is None else np.quantile(column, quantiles)
        ranges.append((a if low is None else low, b if high is None else high))
    widest = max(b - a for a, b in ranges) or 1.0
    rows = []
    for a, b in ranges:
        if b == a:
            a, b = a - widest / 2, a + widest / 2
        rows.append([a + (b - a) * k / n_bins for k in range(1, n_bins)])
    shared = per == "layer" or (low is not None and high is not None)
    return np.array(rows[0] if shared else rows)


@pytest.mark.parametrize("per", ["feature", "layer"])
@pytest.mark.parametrize("quantiles", [None, (0.01, 0.99), (0.0, 0.5)])
@pytest.mark.parametrize("high", [None, 9.0])
@pytest.mark.parametrize("low", [None, -9.0, 0])
@pytest.mark.parametrize("n_bins", [2, 5, 30])
def test_uniform_edges_follow_the_documented_rule(n_bins, low, high, quantiles, per):
    z = randn(500, 6).abs() * torch.tensor([1.0, 2.0, 0.1, 1e3, 1e-6, 0.0])
    z[:, 5] = 4.0 if low is None else 0.0  # a constant coordinate
    if high is not None:
        z = z.clamp_max(8.5)
    bins = UniformBins(n_bins, low=low, high=high, quantiles=quantiles, per=per)
    expected = uniform_edges(z.double().numpy(), n_bins, low, high, quantiles, per)
    found = bins.edges(z)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert bins.needs_data == (low is None or high is None)


def test_a_constant_coordinate_has_its_value_in_the_middle_bin():
    z = torch.stack([torch.linspace(0, 10, 11), torch.full((11,), 3.0)], dim=1)
    assert UniformBins(5).edges(z)[1].tolist() == pytest.approx([0.0, 2.0, 4.0, 6.0])
    assert (bucketize(z, edges=UniformBins(5).edges(z))[:, 1] == 2).all()


@pytest.mark.parametrize("per", ["feature", "layer"])
def test_a_constant_layer_has_one_symbol_and_unit_width(per):
    z = torch.full((50, 3), -7.0)
    edges = UniformBins(4, per=per).edges(z)
    assert edges.reshape(-1, 3)[0].tolist() == pytest.approx([-7.25, -7.0, -6.75])
    assert entropy(row_ids(bucketize(z, edges=edges), table=hash_table(n_coordinates=3, n_codes=4))) == 0.0


def test_uniform_bins_with_known_range_hold_no_values():
    discretizer = FittedQuantizer(Quantizer(None, UniformBins(4, low=-1, high=1)))
    assert reduced(discretizer, randn(5, 3)).dtype == torch.int64
    assert discretizer.edges.tolist() == [-0.5, 0.0, 0.5]


def test_what_lies_outside_the_range_falls_into_the_outermost_bins():
    z = torch.tensor([[-1e9], [0.1], [0.9], [1e9]])
    assert bucketize(z, edges=UniformBins(4, low=0, high=1).edges(z)).flatten().tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"low": 1.0, "high": 1.0}, "UniformBins: low must lie below high, got low=1.0 and high=1.0"),
        ({"low": math.nan}, "UniformBins: low must be a finite number, got nan"),
        ({"high": math.inf}, "UniformBins: high must be a finite number, got inf"),
        ({"quantiles": (0.9, 0.1)}, r"two ascending probabilities such as \(0.01, 0.99\), got \(0.9, 0.1\)"),
        ({"quantiles": (0.1, 1.1)}, "two ascending probabilities"),
        ({"quantiles": (0.1, 0.5, 0.9)}, "two ascending probabilities"),
        ({"quantiles": (0.1, math.nan)}, "two ascending probabilities"),
        ({"per": "channel"}, "UniformBins: per must be 'feature' or 'layer', got 'channel'"),
    ],
)
def test_uniform_bins_refuse_a_range_that_is_none(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        UniformBins(4, **options)


@pytest.mark.parametrize("bins", [UniformBins, QuantileBins])
@pytest.mark.parametrize("n_bins", [1, 0, -3, 2.0, True, "4", None])
def test_a_single_bin_is_refused(bins, n_bins):
    told = rf"{bins.__name__}: n_bins must be an integer of at least 2, got {n_bins!r}: "
    with pytest.raises((TypeError, ValueError), match=told):
        bins(n_bins)


@pytest.mark.parametrize("n_bins", [2, 3, 7, 30])
def test_quantile_bins_hold_equal_shares(n_bins):
    z = randn(3000, 5) ** 3
    edges = QuantileBins(n_bins).edges(z)
    assert edges.shape == (5, n_bins - 1)
    for column in bucketize(z, edges=edges).t():
        counts = torch.bincount(column, minlength=n_bins)
        assert counts.max() - counts.min() <= 2
    np.testing.assert_allclose(
        edges.t().numpy(), np.quantile(z.double().numpy(), [k / n_bins for k in range(1, n_bins)], axis=0), rtol=1e-12
    )


def test_quantile_bins_of_tied_values_put_them_together():
    z = torch.tensor([[0.0]] * 90 + [[1.0]] * 10)  # a ReLU unit, mostly off
    ids = fitted(Quantizer(None, QuantileBins(10)), z)[1]
    assert [len(part.unique()) for part in (ids[:90], ids[90:], ids)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("bins", "shown"),
    [
        (UniformBins(30), "UniformBins(n_bins=30)"),
        (UniformBins(4, low=-1, high=2), "UniformBins(n_bins=4, low=-1, high=2)"),
        pytest.param(UniformBins(4, low=0, high=1), "UniformBins(n_bins=4, low=0, high=1)"),
        (
            UniformBins(4, quantiles=(0.01, 0.99), per="layer"),
            "UniformBins(n_bins=4, quantiles=(0.01, 0.99), per='layer')",
        ),
        (FixedBins([0, 0.5]), "FixedBins([0.0, 0.5])"),
        (Quantizer(None, QuantileBins(3)), "Quantizer(pool=None, bins=QuantileBins(n_bins=3))"),
        (CellQuantizer(), "CellQuantizer(256)"),
        (CellQuantizer(64, pool=nn.Flatten()), "CellQuantizer(64, pool=Flatten(start_dim=1, end_dim=-1))"),
    ],
)
def test_reprs_show_what_was_given(bins, shown):
    assert repr(bins) == shown
    if isinstance(bins, Bins):
        assert repr(eval(shown)) == shown


def test_a_refitting_repr_says_so():
    assert "refit=True" in repr(QuantileBins(3, refit=True))
    assert "refit" not in repr(QuantileBins(3))


# -- Bins of one's own -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edges",
    [
        torch.from_numpy(np.array([-0.5, 0.5])),
        torch.from_numpy(np.array([-0.5, 0.5], dtype=np.float32)),
        np.array([-0.5, 0.5]),
        [-0.5, 0.5],
        torch.tensor([[-0.5, 0.5]] * 3),
    ],
    ids=["tensor of numpy", "float32", "numpy", "list", "by coordinate"],
)
def test_own_bins_may_come_from_numpy(edges):
    z = randn(200, 3)
    expected = row_ids(
        torch.from_numpy(np.digitize(z.numpy(), [-0.5, 0.5])), table=hash_table(n_coordinates=3, n_codes=3)
    )
    assert torch.equal(fitted(Quantizer(None, OwnBins(edges)), z)[1], expected)


def test_own_bins_of_integers_and_of_equal_edges_are_taken():
    z = torch.tensor([[0.0], [1.0], [2.0]])
    assert len(fitted(Quantizer(None, OwnBins(torch.tensor([1, 1, 2]))), z)[1].unique()) == 3


def test_own_bins_without_init_work():
    class Median(Bins):
        def __init__(self):
            pass

        def edges(self, z):
            return z.median(0).values.unsqueeze(1)

    assert entropy(fitted(Quantizer(None, Median()), randn(101, 1))[1]) == pytest.approx(1.0, abs=1e-3)


def test_own_bins_must_override_edges():
    class Nothing(Bins):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ([0.0, math.nan], r"OwnBins: edges must be finite numbers, got \[0.0, nan\]"),
        ([0.0, math.inf], r"OwnBins: edges must be finite numbers"),
        ([1.0, 0.0], r"OwnBins: edges must ascend, got \[1.0, 0.0\]. Sort them."),
        ([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], r"OwnBins: edges must ascend, got \[1.0, 0.0\]"),
        ([[0.0], [1.0]], r"OwnBins: edges must have shape .*, here D = 3, got \(2, 1\)"),
        ([], r"OwnBins: edges must have shape .*, here D = 3, got \(0,\)"),
        (0.0, r"OwnBins: edges must have shape .*, here D = 3, got \(\)"),
    ],
)
def test_own_bins_that_are_none_are_refused(edges, sentence):
    discretizer = FittedQuantizer(Quantizer(None, OwnBins(torch.tensor(edges))))
    held = reduced(discretizer, randn(5, 3))
    with pytest.raises(ValueError, match=sentence):
        discretizer.fit(held)
    assert discretizer.edges is None


def test_own_bins_see_all_pooled_values_once():
    bins = OwnBins([0.0])
    discretizer = FittedQuantizer(Quantizer(lambda a: a.amax(2), bins))
    x = randn(20, 3, 4)
    discretizer.begin()
    discretizer.fit(ids_in_batches(discretizer, x, 7))
    discretizer.begin()
    reduced(discretizer, x)
    (seen,) = bins.seen
    assert torch.equal(seen, x.amax(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_of_edges_given_as_numbers_are_numpys(dtype):
    edges = [0.1, 0.7]
    z = torch.tensor([[0.1], [0.7], [0.0], [0.3], [1.0]], dtype=dtype)
    expected = np.digitize(z.numpy()[:, 0], edges)
    for bins in (FixedBins(edges), OwnBins(edges)):
        discretizer = FittedQuantizer(Quantizer(None, bins))
        discretizer.fit(z.clone())
        ids = reduced(discretizer, z)
        assert [len(set(expected[(ids == i).numpy()].tolist())) for i in ids] == [1] * 5
        assert bucketize(z, edges=discretizer.edges).flatten().tolist() == expected.tolist()


def test_frozen_edges_do_not_follow_later_changes_of_what_own_bins_returned():
    buffer = np.array([0.0, 1.0])
    discretizer, _ = fitted(Quantizer(None, OwnBins(torch.from_numpy(buffer))), randn(5, 2))
    buffer[:] = 7.0
    assert discretizer.edges.tolist() == [0.0, 1.0]
