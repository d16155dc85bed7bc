"""Bins: where edges lie, what a pool may do, and what stays frozen; and what a CellQuantizer is asked for."""

import io
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ib import Bins, CellQuantizer, FixedBins, QuantileBins, Quantizer, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.functional import NOT_FINITE, bucketize, entropy, hash_table, row_ids, sketch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors here are tiny: where the cores are shared, threads would spend the time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reduced(discretizer, activation):
    """One batch as it is kept: ids where the edges are known, else values."""
    z = discretizer.values(activation)
    return z if discretizer.edges is None else discretizer.discretize(z).ids


def fitted(quantizer, activation):
    """A discretizer that has seen ``activation`` in one measurement, and the ids of that."""
    discretizer = FittedQuantizer(quantizer)
    held = reduced(discretizer, activation)
    assert held.is_floating_point()
    discretizer.fit(held)
    return discretizer, discretizer.discretize_held(held).ids


def ids_in_batches(discretizer, activation, batch_size):
    return torch.cat([reduced(discretizer, batch) for batch in activation.split(batch_size)])


# --- FixedBins -------------------------------------------------------------------------------------------------------


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


# --- UniformBins and QuantileBins ------------------------------------------------------------------------------------


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


# --- Bins of one's own -----------------------------------------------------------------------------------------------


class OwnBins(Bins):
    """Gives what it was told to, and remembers what it was shown."""

    def __init__(self, edges, **options):
        super().__init__(**options)
        self.given, self.seen = edges, []

    def edges(self, z):
        self.seen.append(z.clone())
        return self.given


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


# --- Quantizer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "arrives"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.int64, torch.float64),
        (torch.int8, torch.float64),
        (torch.uint8, torch.float64),
        (torch.bool, torch.float64),
    ],
)
@pytest.mark.parametrize("pool", [None, nn.Flatten(), lambda a: a])
def test_every_real_dtype_is_pooled(dtype, arrives, pool):
    x = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]]]).to(dtype)
    pooled = Quantizer(pool).pooled(x)
    assert pooled.dtype == arrives
    assert pooled.tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]


def test_large_integers_keep_their_value():
    x = torch.tensor([2**40, 2**40 + 1])
    assert Quantizer().pooled(x).flatten().tolist() == [2**40, 2**40 + 1]


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 3), (5, 2, 3, 4), (5, 2, 3, 4, 2), (0, 3)])
def test_without_a_pool_every_coordinate_is_kept(shape):
    x = randn(*shape)
    assert torch.equal(Quantizer().pooled(x), x.reshape(shape[0], math.prod(shape[1:])))


def test_pooled_values_have_no_gradient():
    x = randn(4, 3).requires_grad_()
    weights = nn.Linear(3, 2)
    with torch.no_grad():
        assert not Quantizer(weights).pooled(x).requires_grad
    assert not Quantizer().pooled(x * 2).requires_grad


def test_pools_run_in_full_precision_under_autocast():
    pool = nn.Linear(64, 4)
    x = randn(32, 64)
    with torch.no_grad():
        expected = Quantizer(pool).pooled(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(Quantizer(pool).pooled(x), expected)
            assert torch.is_autocast_enabled("cpu")


def test_what_a_pool_puts_out_is_made_real_too():
    assert Quantizer(lambda a: a > 0).pooled(torch.tensor([-1.0, 2.0])).tolist() == [[0.0], [1.0]]
    assert Quantizer(lambda a: a.argmax(1)).pooled(torch.eye(3)).dtype == torch.float64


@pytest.mark.parametrize(
    ("pool", "came"),
    [
        (lambda a: a.mean(), r"\(\)"),
        (lambda a: a.mean(0), r"\(3,\)"),
        (lambda a: a.flatten(), r"\(15,\)"),
        (lambda a: a.t(), r"\(3, 5\)"),
        (lambda a: (a, a), "tuple"),
        (lambda a: a.numpy(), "ndarray"),
        (lambda a: None, "NoneType"),
    ],
)
def test_a_pool_that_breaks_the_batch_is_refused(pool, came):
    with pytest.raises(
        ValueError, match=rf"the pool <lambda> must return a tensor with the batch first, \(5, …\), got {came}"
    ):
        Quantizer(pool).pooled(randn(5, 3))


def test_the_pool_is_named_in_the_refusal():
    with pytest.raises(ValueError, match=r"the pool Flatten\(start_dim=0, end_dim=-1\) must return"):
        Quantizer(nn.Flatten(0)).pooled(randn(5, 3))


def test_a_number_is_no_batch():
    with pytest.raises(ValueError, match=r"got a single number, not a batch \(B, …\)"):
        Quantizer().pooled(torch.tensor(1.0))


def test_complex_values_need_a_pool_that_is_refused_or_real():
    with pytest.raises(ValueError, match="got complex values: take real ones, with pool=torch.view_as_real for one"):
        Quantizer().pooled(torch.zeros(3, 2, dtype=torch.complex64))


def test_the_pool_that_the_refusal_of_complex_values_asks_for_works():
    assert Quantizer(torch.view_as_real).pooled(torch.zeros(3, 2, dtype=torch.complex64)).shape == (3, 4)


@pytest.mark.parametrize("pool", [3, "max", [nn.MaxPool2d(4)]])
def test_a_pool_must_be_callable(pool):
    with pytest.raises(TypeError, match=r"Quantizer: pool must be a callable on \(B, …\) or None, got"):
        Quantizer(pool)


@pytest.mark.parametrize("bins", [30, [0.0, 0.5], FixedBins])
def test_bins_must_be_bins(bins):
    with pytest.raises(TypeError, match=r"Quantizer: bins must be Bins such as FixedBins\(\[0.0, 0.5\]\), got"):
        Quantizer(None, bins)


@pytest.mark.parametrize("make", [Quantizer, CellQuantizer])
def test_select_takes_the_tensor_to_discretize(make):
    pair = (torch.rand(4, 3), torch.rand(4, 2))
    assert make().selected(pair) is pair[0]
    assert make(select=lambda output: output[1]).selected(pair) is pair[1]
    with pytest.raises(ValueError, match="select must return a tensor with the batch first, got tuple"):
        make(select=lambda output: output).selected(pair)
    with pytest.raises(TypeError, match="Quantizer: select must be a callable on the module's output or None, got 1"):
        make(select=1)
    assert repr(make(select=abs)) == repr(make())[:-1] + ", select=abs)"


def test_bins_given_as_the_pool_are_refused():
    with pytest.raises(TypeError, match="pool must be a callable"):
        Quantizer(FixedBins([0.0]))


def test_the_pool_of_the_thesis():
    x = randn(3, 1, 28, 28)
    assert torch.equal(Quantizer(nn.MaxPool2d(4)).pooled(x), nn.functional.max_pool2d(x, 4).flatten(1))


@pytest.mark.parametrize("pool", [nn.ReLU(inplace=True), lambda a: a.clamp_(0, 1)], ids=["relu", "clamp_"])
def test_a_pool_that_works_in_place_leaves_the_activation_alone(pool):
    x = randn(6, 4)
    before = x.clone()
    Quantizer(pool).pooled(x)
    assert torch.equal(x, before)


# --- CellQuantizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (10,), (128,), (129,), (6, 20), (500, 768), (16, 28, 28)], ids=str)
def test_cells_are_fitted_to_the_sketch_of_the_whole_layer(shape):
    x = randn(6, *shape)
    rows = CellQuantizer().rows(x)
    assert rows.shape == (6, min(128, math.prod(shape)))
    assert torch.equal(rows, sketch(x.reshape(6, -1)))


def test_cells_are_fitted_to_the_sketch_of_what_a_pool_leaves():
    x = randn(6, 3, 20, 20)
    pool = nn.AdaptiveAvgPool2d(2)
    assert torch.equal(CellQuantizer(pool=pool).rows(x), pool(x).flatten(1))
    assert torch.equal(CellQuantizer(pool=lambda a: a[:, 0]).rows(x), sketch(x[:, 0]))


@pytest.mark.parametrize("max_cells", [1, 0, -4, 2.0, True, "16", None])
def test_a_number_of_cells_that_is_none_is_refused(max_cells):
    sentence = f"CellQuantizer: max_cells must be an integer of at least 2, got {max_cells!r}: "
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)):
        CellQuantizer(max_cells)


@pytest.mark.parametrize("pool", [3, "max", FixedBins([0.0])])
def test_the_pool_of_cells_must_be_callable(pool):
    with pytest.raises(TypeError, match=r"CellQuantizer: pool must be a callable on \(B, …\) or None, got"):
        CellQuantizer(pool=pool)


def test_cells_know_no_bins():
    with pytest.raises(TypeError, match="bins"):
        CellQuantizer(bins=QuantileBins(4))


# -- what was fitted, at work

DISCRETIZED = {
    "uniform": lambda: Quantizer(None, UniformBins(7)),
    "uniform quantiles": lambda: Quantizer(nn.Flatten(), UniformBins(7, quantiles=(0.05, 0.95))),
    "uniform layer": lambda: Quantizer(None, UniformBins(7, per="layer")),
    "quantile": lambda: Quantizer(lambda a: a.flatten(1)[:, :5], QuantileBins(4)),
    "own": lambda: Quantizer(None, OwnBins([-0.5, 0.25])),
    "refit": lambda: Quantizer(None, UniformBins(7, refit=True)),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(33,), (6, 20), (3, 7, 7)], ids=str)
@pytest.mark.parametrize("name", DISCRETIZED)
def test_ids_of_the_first_fit_are_those_of_every_later_pass(name, shape, dtype):
    x = randn(50, *shape).to(dtype)
    discretizer = FittedQuantizer(DISCRETIZED[name]())
    held = ids_in_batches(discretizer, x, 32)
    discretizer.fit(held)
    first = discretizer.discretize_held(held).ids
    for batch_size in (50, 11, 1):
        assert torch.equal(ids_in_batches(discretizer, x, batch_size), first), batch_size


@pytest.mark.parametrize("name", DISCRETIZED)
@pytest.mark.parametrize("batch_size", [1, 13])
def test_the_first_fit_does_not_depend_on_the_batches(name, batch_size):
    x = randn(150, 5, 9, 9)
    whole, ids = fitted(DISCRETIZED[name](), x)
    discretizer = FittedQuantizer(DISCRETIZED[name]())
    held = ids_in_batches(discretizer, x, batch_size)
    discretizer.fit(held)
    assert torch.equal(discretizer.edges, whole.edges)
    assert torch.equal(discretizer.discretize_held(held).ids, ids)


@pytest.mark.parametrize("shape", [(5, 9, 9), (16, 8, 8), (3, 4, 6, 6)], ids=str)
@pytest.mark.parametrize("name", DISCRETIZED)
def test_the_memory_format_changes_no_id(name, shape):
    x = randn(100, *shape)
    last = x.to(memory_format=torch.channels_last if len(shape) == 3 else torch.channels_last_3d)
    assert last.stride() != x.stride()
    discretizer, ids = fitted(DISCRETIZED[name](), x)
    assert torch.equal(reduced(discretizer, last), ids)
    assert torch.equal(fitted(DISCRETIZED[name](), last)[1], ids)


def test_one_number_a_sample_is_held_and_fitted_and_then_put_into_bins():
    discretizer, ids = fitted(Quantizer(None, UniformBins(7)), randn(500))
    assert len(ids) == 500
    assert len(ids.unique()) == 7
    assert torch.equal(reduced(discretizer, randn(500)), ids)


@pytest.mark.parametrize("pool", [None, nn.Identity(), nn.Flatten(), lambda a: a[:, :2]])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_held_shares_no_memory_with_the_activation(dtype, shape, pool):
    x = randn(6, *shape).to(dtype)
    held = reduced(FittedQuantizer(Quantizer(pool)), x)
    before = held.clone()
    x.zero_()
    assert torch.equal(held, before)


def test_ids_share_no_memory_with_the_activation():
    x = torch.tensor([0, 1, 0])
    ids = reduced(FittedQuantizer(Quantizer(None, FixedBins([0.5]))), x)
    before = ids.clone()
    x.fill_(1)
    assert torch.equal(ids, before)


def test_the_first_fit_is_frozen_and_refit_is_not():
    for refit in (False, True):
        discretizer = FittedQuantizer(Quantizer(None, UniformBins(4, refit=refit)))
        for scale, edge in ((1.0, 0.25), (100.0, 25.0 if refit else 0.25)):
            discretizer.begin()
            value = reduced(discretizer, scale * torch.tensor([[0.0], [0.5], [1.0]]))
            assert value.is_floating_point() == (scale == 1.0 or refit)
            if value.is_floating_point():
                discretizer.fit(value)
            assert discretizer.edges[0, 0].item() == edge


@pytest.mark.parametrize("bins", [FixedBins([0.0]), UniformBins(4, low=0, high=1)])
def test_known_edges_are_never_forgotten(bins):
    discretizer = FittedQuantizer(Quantizer(None, bins))
    reduced(discretizer, randn(3, 2))
    discretizer.begin()
    assert discretizer.edges is not None


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("shape", [(10,), (5, 9, 9)])
@pytest.mark.parametrize("name", [*(name for name in DISCRETIZED if name != "refit"), "fixed"])
def test_frozen_edges_go_through_a_checkpoint(name, shape):
    make = {**DISCRETIZED, "fixed": lambda: Quantizer(None, FixedBins([-0.1, 0.1]))}[name]
    x, later = randn(200, *shape), 3 * randn(200, *shape, seed=1)
    discretizer = FittedQuantizer(make())
    first = reduced(discretizer, x)
    if first.is_floating_point():
        discretizer.fit(first)
    state = saved(discretizer.state_dict())
    resumed = FittedQuantizer(make())
    resumed.load_state_dict(state)
    assert state.keys() == {"edges", "asked"}
    assert torch.equal(reduced(resumed, later), reduced(discretizer, later))


def test_nothing_is_saved_before_the_first_fit():
    discretizer = FittedQuantizer(Quantizer())
    assert saved(discretizer.state_dict()) == {}
    discretizer.load_state_dict({})
    assert reduced(discretizer, randn(4, 3)).is_floating_point()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edges": torch.tensor([1.0, 0.0])}, "is unusable: edges must ascend"),
        ({"edges": torch.tensor([0.0, math.nan])}, "is unusable: edges must be finite"),
        ({"edges": torch.zeros(0)}, "is unusable: edges must have shape"),
        ({"edges": [0.0, 1.0]}, "has edges that are a list, not a tensor"),
    ],
)
def test_edges_that_are_none_are_not_taken_up(changes, sentence):
    before, _ = fitted(Quantizer(None, UniformBins(4)), randn(1000, 10))
    resumed = FittedQuantizer(Quantizer(None, UniformBins(4)))
    with pytest.raises(ValueError, match=sentence):
        resumed.load_state_dict({**before.state_dict(), **changes})
    assert resumed.edges is None


@pytest.mark.parametrize(
    ("state", "sentence"), [([], "is a list, not a mapping"), ({"edges": 1}, r"lacks \['asked'\]")]
)
def test_a_state_of_another_form_is_refused(state, sentence):
    with pytest.raises(ValueError, match=sentence):
        FittedQuantizer(Quantizer()).load_state_dict(state)


def test_edges_of_a_checkpoint_for_another_number_of_coordinates_are_fitted_anew():
    before, _ = fitted(Quantizer(None, UniformBins(4)), randn(100, 10))
    resumed = FittedQuantizer(Quantizer(None, UniformBins(4)))
    resumed.load_state_dict(saved(before.state_dict()))
    with pytest.warns(UserWarning, match="edges are for 10 coordinates, and a sample has 7 .* fitted anew"):
        assert reduced(resumed, randn(100, 7)).is_floating_point()


def test_a_saved_state_is_a_snapshot():
    discretizer, _ = fitted(Quantizer(None, UniformBins(4)), randn(50, 2))
    state = discretizer.state_dict()
    before = discretizer.edges.clone()
    state["edges"].zero_()
    assert torch.equal(discretizer.edges, before)


@pytest.mark.parametrize("old", [FixedBins([0.0]), UniformBins(4)], ids=["fixed", "uniform"])
def test_edges_given_by_name_win_over_those_of_a_checkpoint(old):
    before = FittedQuantizer(Quantizer(None, old))
    first = reduced(before, randn(50, 2))
    if first.is_floating_point():
        before.fit(first)
    resumed = FittedQuantizer(Quantizer(None, FixedBins([0.5])))
    resumed.load_state_dict(saved(before.state_dict()))
    expected = reduced(FittedQuantizer(Quantizer(None, FixedBins([0.5]))), randn(50, 2))
    assert torch.equal(reduced(resumed, randn(50, 2)), expected)


@pytest.mark.parametrize("asked", [UniformBins(7), UniformBins(4, per="layer"), QuantileBins(4)], ids=repr)
def test_edges_fitted_for_other_bins_are_not_taken_up(asked):
    before, _ = fitted(Quantizer(None, UniformBins(4)), randn(50, 2))
    resumed = FittedQuantizer(Quantizer(None, asked))
    with pytest.warns(UserWarning, match="fitted anew"):
        resumed.load_state_dict(saved(before.state_dict()))
    assert reduced(resumed, randn(50, 2)).is_floating_point()  # held, to be fitted


@pytest.mark.parametrize("name", DISCRETIZED)
def test_values_that_are_not_finite_are_marked_after_the_fit(name):
    discretizer, ids = fitted(DISCRETIZED[name](), randn(60, 8))
    x = randn(60, 8)
    x[3, 2], x[4, 1], x[59, 0] = math.nan, math.inf, -math.inf
    found = reduced(discretizer, x)
    assert (found == NOT_FINITE).nonzero().flatten().tolist() == [3, 4, 59]
    kept = found != NOT_FINITE
    assert torch.equal(found[kept], ids[kept])


def test_rows_of_another_width_are_refused_in_words():
    discretizer = FittedQuantizer(Quantizer(None, UniformBins(4)))
    discretizer.fit(reduced(discretizer, randn(9, 3)))
    with pytest.raises(ValueError, match=r"a sample has 5 coordinates here and had 3 before"):
        reduced(discretizer, randn(9, 5))


def test_rows_of_another_width_are_refused_in_words_where_all_share_the_edges():
    discretizer = FittedQuantizer(Quantizer(None, FixedBins([0.0])))
    reduced(discretizer, randn(9, 3))
    with pytest.raises(ValueError, match="coordinates"):
        reduced(discretizer, randn(9, 5))
