"""How figures move with resolution: the same as measuring setting by setting, and nothing disturbed by it."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import Bins, FixedBins, QuantileBins, Quantizer, UniformBins, measure
from lightning_ib.evaluation.resolution import ResolutionSweep, resolution_sweep, sample_order
from tests.helpers.sweeps import Exact, batches, exact_data, mean


def hooks_on(model):
    return [
        (name, kind)
        for name, module in model.named_modules()
        for kind, value in vars(module).items()
        if "hook" in kind and isinstance(value, dict) and value
    ]


# -- What the figures are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("real_target", [False, True])
def test_figures_are_those_of_measure(unit, real_target):
    x, y = exact_data()
    model, data = Exact(), batches(x, x[:, 2:3] if real_target else y)
    target = Quantizer(bins=QuantileBins(4)) if real_target else None
    sweep = resolution_sweep(
        model, data, ["same", "relu"], n_bins=(5, 2, 3), pools=[None, mean], n_samples=[300], target=target, unit=unit
    )
    assert [row[:4] for row in sweep.rows] == [
        (layer, pool, n, 300) for layer in ("same", "relu") for pool in ("none", "mean") for n in (2, 3, 5)
    ]
    for row in sweep.rows:
        quantizer = Quantizer({"none": None, "mean": mean}[row.pool], UniformBins(row.n_bins, quantiles=(0.01, 0.99)))
        (point,) = measure(model, data, {row.layer: quantizer}, target=target, unit=unit)
        for name in ("layer", "n_samples", "h_t", "i_ty", "h_y", "saturation", "n_codes", "unit"):
            assert getattr(row, name) == getattr(point, name), name


def test_figures_of_fewer_samples_are_those_of_measure_on_these_samples():
    x, y = exact_data()
    bins = {n: UniformBins(n, low=-2, high=2) for n in (2, 4)}
    sweep = resolution_sweep(Exact(), batches(x, y), ["same"], n_bins=[2, 4], n_samples=[300, 30, 90], bins=bins.get)
    assert [(row.n_bins, row.n_samples) for row in sweep.rows] == [(b, n) for b in (2, 4) for n in (30, 90, 300)]
    for row in sweep.rows:
        chosen = sample_order(300)[: row.n_samples]
        (point,) = measure(Exact(), [(x[chosen], y[chosen])], {"same": Quantizer(None, bins[row.n_bins])})
        assert (row.h_t, row.i_ty, row.h_y, row.n_codes) == (point.h_t, point.i_ty, point.h_y, point.n_codes)


def test_singletons_are_the_share_of_samples_whose_symbol_was_seen_once():
    x = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0]).unsqueeze(1)
    model = nn.Sequential(nn.Identity())
    sweep = resolution_sweep(
        model, [(x, torch.arange(5) % 2)], ["0"], n_bins=[4], n_samples=[5], bins=lambda n: FixedBins([0.5, 1.5, 2.5])
    )
    assert (sweep.rows[0].n_codes, sweep.rows[0].singleton_fraction) == (4, 0.6)


def test_edges_are_fitted_on_all_samples_for_every_size():
    x = torch.arange(64.0).unsqueeze(1)
    sweep = resolution_sweep(
        nn.Sequential(nn.Identity()), [(x, x[:, 0].long() % 2)], ["0"], n_bins=[4], bins=QuantileBins
    )
    for row in sweep.rows:
        quarter = x[sample_order(64)[: row.n_samples], 0].numpy() // 16
        counts = np.unique(quarter, return_counts=True)[1]
        share = counts / counts.sum()
        assert row.h_t == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9)


@pytest.mark.parametrize(("n", "sizes"), [(1600, [100, 200, 400, 800, 1600]), (10, [2, 5, 10]), (1, [1])])
def test_samples_double_up_to_all_of_them_by_default(n, sizes):
    x = torch.rand(n, 1)
    rows = resolution_sweep(nn.Sequential(nn.Identity()), [(x, None)], ["0"], n_bins=[2]).rows
    assert [row.n_samples for row in rows] == sizes
    assert math.isnan(rows[0].saturation) == (n == 1)


def test_subsets_are_nested_and_random_and_always_the_same():
    order = sample_order(1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, sample_order(1000))
    assert 400 < order[:250].double().mean() < 600


def test_fair_bits_have_the_entropy_that_is_known_for_so_many_samples():
    """The plug-in entropy of 8 and 16 fair bits at 10 000 samples, and their saturation."""
    bits = (torch.rand(10_000, 16, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    pools = {"8": lambda z: z[:, :8], "16": None}
    sweep = resolution_sweep(
        nn.Sequential(nn.Identity()), batches(bits, bits[:, 0].long(), 1000), ["0"], n_bins=[2], pools=pools
    )
    whole = {row.pool: row for row in sweep.rows if row.n_samples == 10_000}
    assert whole["8"].h_t == pytest.approx(7.98, abs=0.01)
    assert whole["16"].h_t == pytest.approx(13.14, abs=0.02)
    assert whole["8"].singleton_fraction == 0
    assert whole["16"].singleton_fraction > 0.8
    assert all(row.i_ty == pytest.approx(row.h_y, abs=1e-12) for row in sweep.rows)
    assert [line.count("*") for line in sweep.table().splitlines() if " 10000 " in line] == [0, 1]


def test_finer_nested_bins_tell_more_until_every_sample_has_its_own():
    x, y = exact_data(256)
    sweep = resolution_sweep(
        Exact(),
        batches(x, y),
        ["same"],
        n_bins=[2**k for k in range(1, 15)],
        n_samples=[64, 256],
        pools=[lambda z: z[:, 0]],
        bins=lambda n: UniformBins(n, low=-4, high=4),
    )
    for n in (64, 256):
        h_t, i_ty = zip(*((row.h_t, row.i_ty) for row in sweep.rows if row.n_samples == n))
        assert list(h_t) == sorted(h_t)
        assert h_t[0] <= 1
        assert all(b >= a - 1e-12 for a, b in zip(i_ty, i_ty[1:]))
        assert h_t[-1] == pytest.approx(math.log2(n), abs=0.05)
    assert all(row.h_t <= math.log2(row.n_bins) + 1e-12 for row in sweep.rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 4), st.integers(2, 9), st.integers(0, 99))
def test_figures_keep_within_their_bounds(n, d, n_bins, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, d, generator=generator), torch.randint(3, (n,), generator=generator)
    y[:2] = torch.tensor([0, 1])
    for row in resolution_sweep(nn.Sequential(nn.Identity()), batches(x, y, 7), ["0"], n_bins=[n_bins]).rows:
        assert 0 <= row.h_t <= math.log2(row.n_samples) + 1e-12
        assert row.h_t <= d * math.log2(n_bins) + 1e-12
        assert 1 <= row.n_codes <= row.n_samples
        assert 0 <= row.singleton_fraction <= 1
        if not math.isnan(row.i_ty):
            assert -1e-12 <= row.i_ty <= min(row.h_t, row.h_y) + 1e-12


def test_batches_change_not_one_bit_and_their_order_none_of_all_samples():
    x, y = exact_data()
    layers = ["same", "relu"]

    def rows(data):
        return resolution_sweep(Exact(), data, layers, pools=[None, mean]).rows

    expected = rows(batches(x, y))
    for size in (1, 7, 300):
        assert rows(batches(x, y, size)) == expected
    backwards = rows(batches(x, y)[::-1])
    assert [row for row in backwards if row.n_samples == 300] == [row for row in expected if row.n_samples == 300]


def test_pools_in_place_or_of_other_precision_leave_one_another_alone():
    x, y = exact_data()
    pools = {"none": None, "in place": lambda z: z.mul_(0), "double": lambda z: z.double(), "after": lambda z: z}
    rows = resolution_sweep(Exact(), batches(x, y), ["same"], pools=pools).rows
    by_pool = {pool: [row._replace(pool="") for row in rows if row.pool == pool] for pool in pools}
    assert by_pool["none"] == by_pool["double"] == by_pool["after"]
    assert {row.n_codes for row in by_pool["in place"]} == {1}


def test_layers_may_have_pools_of_their_own():
    x, y = exact_data()
    image = {"max": nn.MaxPool2d(2), "none": None}
    pools = {"**": [None], "image": image}
    rows = resolution_sweep(Exact(), batches(x, y), ["same", "image"], n_bins=[2], n_samples=[300], pools=pools).rows
    assert [row[:2] for row in rows] == [("same", "none"), ("image", "max"), ("image", "none")]
    apart = [("same", None), ("image", nn.MaxPool2d(2)), ("image", None)]
    settings = {"n_bins": [2], "n_samples": [300]}
    alone = [
        resolution_sweep(Exact(), batches(x, y), [layer], pools=[pool], **settings).rows[0] for layer, pool in apart
    ]
    assert [row[2:] for row in rows] == [row[2:] for row in alone]
    assert [row.n_codes for row in rows[:2]] == [16, 2]


def test_pools_without_a_label_are_called_what_they_are():
    x, y = exact_data()
    pools = [None, mean, nn.Softmax(dim=1), nn.AvgPool1d(kernel_size=2, stride=2)]
    rows = resolution_sweep(Exact(), batches(x, y), ["same"], n_bins=[2], n_samples=[9], pools=pools).rows
    assert [row.pool for row in rows] == ["none", "mean", "Softmax(dim=1)", "AvgPool1d(kernel_size=(2,), str…"]


class Sides(nn.Module):
    """A layer that is never called, beside one that is."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.used(x)


def test_layers_picked_by_default_that_never_ran_are_left_out():
    x, y = exact_data()
    with pytest.warns(UserWarning, match=r"layer 'idle' is left out: picked by default"):
        sweep = resolution_sweep(Sides(), batches(x, y), n_bins=[2])
    assert {row.layer for row in sweep.rows} == {"used"}
    with pytest.raises(RuntimeError, match=r"layer 'idle' never ran in this forward"):
        resolution_sweep(Sides(), batches(x, y), ["used", "idle"], n_bins=[2])


def test_without_a_target_only_its_figures_are_missing():
    x, _ = exact_data()
    rows = resolution_sweep(Exact(), [(x, None)], ["same"], n_bins=[2]).rows
    assert all(math.isnan(row.i_ty) and math.isnan(row.h_y) and row.h_t > 0 for row in rows)


def test_one_class_says_nothing_and_says_so():
    x, y = exact_data()
    with pytest.warns(UserWarning, match=r"all 300 samples have the same target: H\(Y\) is 0 .* several classes\."):
        rows = resolution_sweep(Exact(), batches(x, y * 0), ["same"], n_bins=[2]).rows
    assert all(math.isnan(row.i_ty) and row.h_y == 0 for row in rows)


def test_what_is_not_finite_costs_its_own_figures_and_one_warning():
    x, y = exact_data()
    pools = {"none": None, "log": lambda z: z.log()}
    with pytest.warns(UserWarning, match="layer 'same'") as caught:
        rows = resolution_sweep(Exact(), batches(x, y), ["same"], n_bins=[2, 3], pools=pools).rows
    missing = int((x <= 0).any(1).sum())
    assert [str(warning.message) for warning in caught] == [
        f"layer 'same' with the pool 'log' gave NaN or infinite values in {missing} of 300 samples: its values are NaN."
    ]
    for row in rows:
        assert math.isnan(row.h_t) == math.isnan(row.singleton_fraction) == (row.pool == "log")
        assert (row.n_codes == 0) == (row.pool == "log")
    with pytest.raises(ValueError, match=r"there is nothing to draw: no row has a finite H\(T\)\."):
        ResolutionSweep([row for row in rows if row.pool == "log"]).plot()


# -- What is refused ---------------------------------------------------------------------------------------------------


class Unread:
    """Data that must not be read."""

    def __iter__(self):
        raise AssertionError("the pass began")


class NoBins(Bins):
    def edges(self, z):
        return torch.tensor([1.0, 0.0])


REFUSED = [
    ({"layers": "same"}, TypeError, r"layers must be a list of module names.* Did you mean \['same'\]\?"),
    (
        {"layers": {"same": None}},
        TypeError,
        r"layers must be a list of module names or None, got a mapping: give pools",
    ),
    ({"layers": []}, ValueError, r"layers is empty: name at least one module"),
    ({"layers": ["sane"]}, ValueError, r"Exact has no layer 'sane': did you mean 'same'\?"),
    ({"n_bins": 10}, TypeError, r"n_bins must be a list of integers, got 10\. Did you mean \[10\]\?"),
    ({"n_bins": "10"}, TypeError, r"n_bins must be a list of integers, got '10'\.$"),
    ({"n_bins": []}, ValueError, r"n_bins is empty: give at least one integer\."),
    ({"n_bins": [3, 1]}, ValueError, "each of n_bins must be an integer of at least 2, got 1"),
    ({"n_bins": [True]}, TypeError, "each of n_bins must be an integer of at least 2, got True"),
    ({"n_bins": [2.0]}, TypeError, "each of n_bins must be an integer of at least 2, got 2.0"),
    ({"n_samples": 100}, TypeError, r"n_samples must be a list of integers, got 100\. Did you mean \[100\]\?"),
    ({"n_samples": [0]}, ValueError, "each of n_samples must be an integer of at least 2, got 0"),
    ({"bins": UniformBins(3)}, TypeError, r"bins must be a callable .* such as QuantileBins, got UniformBins"),
    ({"bins": range}, TypeError, r"bins\(2\) must return Bins such as QuantileBins\(2\), got range\(0, 2\)\."),
    ({"pools": None}, TypeError, r"pools must be a list of pools .* got None\. Did you mean \[none\]\?"),
    ({"pools": mean}, TypeError, r"pools must be a list of pools or a mapping .* Did you mean \[mean\]\?"),
    ({"pools": []}, ValueError, r"pools is empty: give at least one pool, or None for every coordinate\."),
    ({"pools": {}}, ValueError, r"pools is empty"),
    ({"pools": [3]}, TypeError, r"pools must hold callables on \(B, …\) or None, got 3\."),
    ({"pools": {1: None}}, TypeError, r"pools must have strings for labels, got 1\."),
    ({"pools": [mean, mean]}, ValueError, r"pools has two pools that are called 'mean': give a mapping from labels"),
    ({"pools": {"same": [3]}}, TypeError, r"pools\['same'\] must hold callables on \(B, …\) or None, got 3\."),
    ({"pools": {"same": [None], "relu": mean}}, TypeError, r"pools\['relu'\] must be a list of pools"),
    ({"pools": {0: [None]}}, TypeError, r"pools must name layers by strings as in named_modules\(\), got 0\."),
    ({"pools": {"sane": [None]}}, ValueError, r"Exact has no layer 'sane': did you mean 'same'\?"),
    (
        {"pools": {"image": [None]}},
        ValueError,
        r"pools names 'image', which is none of the layers \['same', 'relu'\]\.",
    ),
    (
        {"pools": {"same": [None]}},
        ValueError,
        r"pools has none for the layer 'relu': give it a list, \[None\] for every",
    ),
    ({"target": 3}, TypeError, r"target must be a Quantizer or None, got 3\."),
    ({"unit": "bans"}, ValueError, r"unit must be 'bits' or 'nats', got 'bans'\."),
]


@pytest.mark.parametrize(("arguments", "kind", "sentence"), REFUSED)
def test_wrong_arguments_are_refused_before_the_pass(arguments, kind, sentence):
    model = Exact()
    with pytest.raises(kind, match=sentence):
        resolution_sweep(model, Unread(), **({"layers": ["same", "relu"]} | arguments))
    assert not hooks_on(model)


def test_numpy_integers_are_taken():
    x, y = exact_data()
    sizes = np.geomspace(10, 300, 3).astype(int)
    rows = resolution_sweep(Exact(), batches(x, y), ["same"], n_bins=np.array([2, 2]), n_samples=sizes).rows
    assert [row[2:4] for row in rows] == [(2, 10), (2, 54), (2, 300)]
    assert {type(value) for row in rows for value in row[2:4]} == {int}


@pytest.mark.parametrize(
    ("data", "arguments", "kind", "sentence"),
    [
        ([], {}, ValueError, r"the data to measure on is empty: it gave no batch\."),
        ([(torch.empty(0, 4), torch.empty(0).long())], {}, ValueError, r"nothing was counted: .* Is the data empty\?"),
        (
            [exact_data()],
            {"n_samples": [9, 301]},
            ValueError,
            r"n_samples asks for 301 samples, and the data has 300: ask",
        ),
        ([exact_data()], {"unpack": lambda batch: 1}, ValueError, r"unpack must return a pair .*, got an int"),
        (
            [exact_data(), (torch.rand(4, 4), None)],
            {},
            ValueError,
            r"some batches came with a target and some without: give one for each, or for none\.",
        ),
        (
            [exact_data()],
            {"pools": {"cube": nn.MaxPool3d(2)}},
            ValueError,
            r"layer 'same' could not be recorded: the pool 'cube' does not fit its output of shape \(300, 4\): "
            r".* tensor .*\. Give the layers pools of their own: pools=\{layer: \[pool, …\], …\}\.",
        ),
        (
            [exact_data()],
            {"pools": {"sum": torch.sum}},
            ValueError,
            r"layer 'same' could not be recorded: the pool 'sum' does not fit its output of shape \(300, 4\): the pool "
            r"sum must return a tensor with the batch first, \(300, …\), got \(\)\. Give",
        ),
        (
            [exact_data()],
            {"bins": lambda n: NoBins()},
            ValueError,
            r"layer 'same' cannot be put into bins: NoBins: edges must ascend",
        ),
    ],
)
def test_wrong_data_is_refused(data, arguments, kind, sentence):
    model = Exact()
    with pytest.raises(kind, match=sentence):
        resolution_sweep(model, data, ["same"], **arguments)
    assert not hooks_on(model)


# -- What is left as it was --------------------------------------------------------------------------------------------


class Touchy(nn.Module):
    """All that a pass could leave a trace in; it can fail in the middle."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)
        self.norm.eval()
        self.calls, self.fails_at = SimpleNamespace(n=0), fails_at

    def forward(self, x):
        self.calls.n += 1
        torch.rand(2), random.random(), np.random.rand()
        if self.calls.n == self.fails_at:
            raise ArithmeticError("in the middle")
        return self.head(self.drop(self.norm(x)))


def state_of(model, generator):
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": tuple(map(str, np.random.get_state()[1:])),
        "python": random.getstate(),
        "loader": generator.get_state(),
        "gradient": torch.is_grad_enabled(),
        "hooks": hooks_on(model),
    }


@pytest.mark.parametrize("fails_at", [None, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sweep_puts_everything_back(fails_at, wrapped):
    model, generator = Touchy(fails_at), torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(*exact_data()), batch_size=50, shuffle=True, generator=generator)
    if wrapped:
        loader = pytest.importorskip("tqdm").tqdm(loader, disable=True)
    before = state_of(model, generator)
    if fails_at is None:
        sweep = resolution_sweep(model, loader, ["norm", "head"], n_bins=[2], pools=[None, lambda z: z + torch.rand(1)])
        assert len(sweep.rows) == 2 * 2 * 5
        assert model.calls.n == 6
    else:
        with pytest.raises(ArithmeticError, match="in the middle"):
            resolution_sweep(model, loader, ["norm", "head"], n_bins=[2])
    after = state_of(model, generator)
    weights = [(before.pop("weights"), after.pop("weights"))]
    assert all(torch.equal(old[name], new[name]) for old, new in weights for name in old)
    for key in ("torch", "loader"):
        assert torch.equal(before.pop(key), after.pop(key)), key
    assert before == after
    assert not after["hooks"]


def test_sweeping_twice_gives_the_same_rows():
    loader = DataLoader(TensorDataset(*exact_data()), batch_size=50, shuffle=True)
    first = resolution_sweep(Touchy(), loader, ["norm"]).rows
    torch.rand(5)
    assert resolution_sweep(Touchy().eval(), loader, ["norm"]).rows == first


def test_the_model_comes_home_from_another_device():
    sent = []

    class Detour(Exact):
        def to(self, device):
            sent.append(torch.device(device).type)
            return self

    with pytest.raises(ValueError, match="no layer"):
        resolution_sweep(Detour(), Unread(), ["nowhere"], device="meta")
    assert sent == ["meta", "cpu"]


def test_a_batch_is_unpacked_and_a_mapping_is_given_as_keywords():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, *, values):
            return self.inner(values)

    x, y = exact_data()
    data = [{"values": a, "labels": b} for a, b in batches(x, y)]
    sweep = resolution_sweep(
        Keywords(), data, ["inner"], unpack=lambda batch: ({"values": batch["values"]}, batch["labels"])
    )
    same = resolution_sweep(Exact(), batches(x, y), ["same"])
    assert [row[1:] for row in sweep.rows] == [row[1:] for row in same.rows]


class Deep(nn.Module):
    """More layers than are picked, the first of which never runs."""

    def __init__(self):
        super().__init__()
        self.idle, self.layers = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(14))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.filterwarnings("ignore:layer 'idle' is left out")
def test_the_layers_that_are_picked_in_the_first_batch_are_pooled():
    torch.manual_seed(0)
    x, y = exact_data(40)
    sweep = resolution_sweep(Deep(), [(x, y)], n_bins=[2], pools={"mean": mean}, n_samples=[40])
    assert len(sweep.rows) == 12
    assert sweep.rows[-1].layer == "layers.13"
    assert {(row.pool, row.n_codes) for row in sweep.rows} == {("mean", 2)}
