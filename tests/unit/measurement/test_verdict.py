"""The verdict of a measured layer, of the target and of the head, and the warning of it."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import (
    CellQuantizer,
    FixedBins,
    InformationPlane,
    InformationPlaneCallback,
    QuantileBins,
    Quantizer,
    UniformBins,
    measure,
)
from lightning_ib.functional import cell_limit
from lightning_ib.records import History
from lightning_ib.records.reliability import VerdictWarning, probe_exceeds_counts, verdict
from tests.helpers.tiny import fit
from tests.helpers.verdicts import Layer, first_coordinates, measured, numbers

# NaN where there are bins, no head and no shuffles: a NaN equals nothing.
UNDEFINED = ("i_ty_permuted_sd", "explained_variance", "accuracy", "i_ty_fano", "fano_shortfall")


# -- the verdict of a point --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("z", "quantizer", "expected"),
    [
        (lambda: torch.rand(1000, 1), Quantizer(bins=UniformBins(10)), "ok"),
        (lambda: torch.rand(1000, 5), Quantizer(bins=UniformBins(30)), "saturated"),
        (lambda: torch.rand(1000, 1) * 3, Quantizer(bins=UniformBins(10, low=0, high=1)), "clipped"),
        (lambda: torch.rand(1000, 3), Quantizer(bins=UniformBins(8)), "undersampled"),
        (lambda: torch.zeros(1000, 3), Quantizer(bins=UniformBins(4)), "constant"),
        (lambda: torch.zeros(1000, 3), None, "constant"),
        (lambda: torch.randn(1000, 3), None, "ok"),
        (lambda: torch.rand(1000, 3), Quantizer(bins=FixedBins([5.0, 6.0])), "constant"),
    ],
)
def test_a_point_has_its_verdict_and_a_warning_where_it_is_not_ok(z, quantizer, expected):
    point, told = measured(z(), quantizer)
    assert point.verdict == expected
    assert (
        verdict(
            saturation=point.saturation,
            singleton_fraction=point.singleton_fraction,
            n_codes=point.n_codes,
            n_samples=point.n_samples,
            clipped_fraction=point.clipped_fraction,
            nominal_tail_mass=0.0,
        )
        == expected
    )
    assert told.startswith(f"layer 'layer' is {expected} at epoch 0: ") if expected != "ok" else told == ""


def test_singletons_are_the_share_of_samples_whose_symbol_was_seen_once():
    z = torch.cat([torch.zeros(5), torch.ones(3), torch.tensor([2.0, 3.0, 4.0])])[:, None]
    point, _ = measured(z, Quantizer(bins=FixedBins([0.5, 1.5, 2.5, 3.5])))
    assert (point.singleton_fraction, point.n_codes, point.n_samples) == (3 / 11, 5, 11)


def test_a_layer_that_could_not_be_measured_has_no_verdict():
    with pytest.warns(UserWarning, match="gave NaN"):
        point = measure(Layer(), [(torch.full((9, 2), math.nan), torch.arange(9) % 3)], ["layer"])[0]
    assert (point.verdict, math.isnan(point.clipped_fraction)) == ("", True)


# -- what lies outside -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [3, 4, 30])
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_relu_values_in_bins_for_tanh_are_counted_outside(n_bins, scale):
    """Bins of equal width from −1 to 1: outside is what lies beyond 1, in NumPy's count."""
    z = (64 * scale * torch.randn(3000, 4).relu()).round() / 64  # some at 1 itself, and none just above
    point, _ = measured(z, Quantizer(bins=UniformBins(n_bins, low=-1, high=1)))
    beyond = z.numpy() > 1
    assert point.clipped_fraction == beyond.mean()
    assert (point.verdict == "clipped") == (point.saturation <= 0.9 and beyond.mean() > 0.1)


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=6, unique=True),
    st.lists(st.floats(-6, 6), min_size=2, max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_outside_is_beyond_the_outermost_edge_by_more_than_the_width_of_the_bin_next_to_it(edges, z):
    edges = np.sort(np.round(edges, 2))
    z = torch.tensor(z, dtype=torch.float64)[:, None]
    low, high = edges[0] - (edges[1] - edges[0]), edges[-1] + (edges[-1] - edges[-2])
    beyond = ((z < low) | (z > high)).double().mean()
    slack = 0.002 * max(edges[1] - edges[0], edges[-1] - edges[-2]) + 1e-12
    near = ((z - low).abs() < slack) | ((z - high).abs() < slack)
    point, _ = measured(z, Quantizer(bins=FixedBins(edges)))
    if not near.any():
        assert point.clipped_fraction == pytest.approx(float(beyond), abs=1e-12)


def test_each_coordinate_has_its_own_edges_to_be_outside_of():
    z = torch.stack([torch.linspace(0, 10, 101), torch.linspace(-50, 50, 101)], dim=1)
    quantizer = Quantizer(bins=FixedBins([[2.0, 4.0, 6.0], [-10.0, 0.0, 10.0]]))
    point, _ = measured(z, quantizer)
    inside = ((z[:, 0] >= 0) & (z[:, 0] <= 8.002)).sum() + (z[:, 1].abs() <= 20.01).sum()
    assert point.clipped_fraction == pytest.approx(1 - float(inside) / 202, abs=1e-12)


@pytest.mark.parametrize("bins", [FixedBins([0.0]), UniformBins(2), UniformBins(2, low=-1, high=1), QuantileBins(2)])
def test_one_edge_has_no_width_to_be_outside_of(bins):
    point, _ = measured(torch.randn(200, 2), Quantizer(bins=bins))
    assert math.isnan(point.clipped_fraction)
    assert point.verdict == "ok"


HEAVY = {
    "normal": torch.randn,
    "cauchy": lambda *shape: torch.randn(*shape) / torch.randn(*shape),
    "relu": lambda *shape: torch.randn(*shape).relu(),
    "mostly zero": lambda *shape: torch.randn(*shape).sub(2).relu(),
    "exponential": lambda *shape: torch.rand(*shape).log().neg().pow(3),
    "constant": torch.ones,
    "integers": lambda *shape: torch.randint(0, 4, shape).float(),
}


@pytest.mark.parametrize("values", HEAVY)
@pytest.mark.parametrize(
    "bins",
    [QuantileBins(3), QuantileBins(10), UniformBins(8, quantiles=(0.01, 0.99)), UniformBins(4, quantiles=(0.2, 0.8))],
)
def test_bins_are_not_called_clipping_by_the_values_they_were_fitted_on(values, bins):
    point, _ = measured(HEAVY[values](4000, 1), Quantizer(bins=bins))
    assert point.clipped_fraction <= bins.nominal_tail_mass + 0.001
    assert point.verdict != "clipped"


@pytest.mark.parametrize("bins", [UniformBins(10), UniformBins(10, per="layer"), UniformBins(3, refit=True)])
def test_bins_from_the_least_to_the_greatest_leave_nothing_outside(bins):
    assert measured(torch.randn(2000, 3) * torch.tensor([1e-3, 1, 1e3]), Quantizer(bins=bins))[0].clipped_fraction == 0


def test_bins_are_called_clipping_by_values_that_left_them_behind():
    z = torch.randn(2000, 1)
    assert measured(z, Quantizer(bins=QuantileBins(5)), again=10 * z)[0].verdict == "clipped"
    assert measured(z, Quantizer(bins=QuantileBins(5, refit=True)), again=10 * z)[0].verdict == "ok"


@pytest.mark.parametrize("batch", [1, 64, 1000])
def test_the_batches_make_no_difference(batch):
    z = torch.randn(500, 3)
    quantizer = Quantizer(bins=UniformBins(5, low=-1, high=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerdictWarning)
        loader = DataLoader(TensorDataset(z, torch.arange(500) % 3), batch)
        (point,) = measure(Layer(), loader, {"layer": quantizer})
    other = measured(z, quantizer)[0]
    assert point._replace(**dict.fromkeys(UNDEFINED, 0.0)) == other._replace(**dict.fromkeys(UNDEFINED, 0.0))


# -- once a layer, and in the history ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fit_warns_once_a_layer_and_keeps_every_verdict(tmp_path):
    layers = {
        "hidden": Quantizer(bins=UniformBins(30)),
        "drop": Quantizer(first_coordinates(1), UniformBins(3, low=-1, high=1)),
        "out": Quantizer(first_coordinates(1), UniformBins(4, low=-0.01, high=0.01)),
    }
    callback = InformationPlaneCallback(layers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, callback, max_epochs=3)
    told = sorted(str(one.message).split(":")[0] for one in caught if one.category is VerdictWarning)
    assert told == ["layer 'hidden' is saturated at epoch 0", "layer 'out' is clipped at epoch 0"]
    (path,) = tmp_path.rglob("information_plane.csv")
    verdicts = {layer: [p.verdict for p in History.read_csv(path) if p.layer == layer] for layer in layers}
    assert verdicts == {layer: [p.verdict for p in callback.history if p.layer == layer] for layer in layers}
    assert verdicts["hidden"] == ["saturated"] * 4
    assert verdicts["out"] == ["clipped"] * 4
    assert verdicts["drop"] == ["ok"] * 4


def test_the_warning_can_be_silenced_by_its_kind():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", VerdictWarning)
        measure(Layer(), [(torch.randn(50, 5), torch.arange(50) % 3)], {"layer": Quantizer(bins=UniformBins(30))})


# -- the target --------------------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """Layers side by side, each a function of the input; the last one to run may be a head."""

    def __init__(self, **functions):
        super().__init__()
        self.functions = functions
        for name in functions:
            self.add_module(name, nn.Identity())

    def forward(self, x):
        for name, layer in self.named_children():
            layer(self.functions[name](x))


def measured_together(model, x, y, layers=None, *, again=False, **options):
    """Points by layer, and what was warned of."""
    plane = InformationPlane([name for name, _ in model.named_children()] if layers is None else layers, **options)
    with warnings.catch_warnings(record=True) as caught, plane.attach(model):
        warnings.simplefilter("always")
        for _ in range(1 + again):
            plane.reset()
            model(x)
            plane.update(x, y)
            points = plane.compute()
    return {point.layer: point for point in points}, [str(one.message) for one in caught]


TWO = {"first": lambda x: x.tanh(), "second": lambda x: x.relu()}


def discretized(told):
    """The target discretized as is advised."""
    (n_bins,) = numbers(r"target=Quantizer\(bins=QuantileBins\((\d+)\)\)", told)
    return Quantizer(lambda y: y.reshape(len(y), -1)[:, 0], QuantileBins(int(n_bins)))


@pytest.mark.parametrize(
    ("y", "target"),
    [
        (lambda n: torch.randperm(n), None),  # real values as integers, each its own
        (lambda n: torch.randn(n, 8), Quantizer(bins=QuantileBins(10))),
        (lambda n: (torch.rand(n, 8, 8) > 0.5).long(), Quantizer()),
    ],
)
def test_a_target_with_a_value_for_every_sample_is_told_once_and_what_to_do(y, target):
    x, y = torch.randn(600, 4), y(600)
    found, told = measured_together(Layers(**TWO), x, y, again=True, target=target)
    assert {point.verdict for point in found.values()} == {"target_saturated"}
    assert told == [
        f"the target is saturated at epoch 0: H(Y) is {math.log2(600):.2f} bits of log N = {math.log2(600):.2f}, so "
        "most samples have a target of their own, and I(T;Y) says nothing of any layer. Give class labels, or for real "
        "values target=Quantizer(bins=QuantileBins(10)), with a pool to one coordinate where they have several; "
        "where each token or pixel has a label, tokens=True."
    ]
    assert found["first"].i_ty == pytest.approx(found["first"].i_ty_permuted, abs=1e-9), "nothing is left of it"
    found, told = measured_together(Layers(**TWO), x, y, target=discretized(told[0]))
    assert {point.verdict for point in found.values()} == {"ok"}
    assert told == []


def test_a_target_of_which_many_values_were_seen_once():
    x, y = torch.randn(1000, 4), torch.cat([torch.arange(880) % 3, torch.arange(3, 123)])
    found, told = measured_together(Layers(**TWO), x, y)
    assert {point.verdict for point in found.values()} == {"target_undersampled"}
    (message,) = told
    assert message.startswith("the target is undersampled at epoch 0: more than 10% of the samples have a target of th")
    y = torch.cat([torch.arange(910) % 3, torch.arange(3, 93)])
    assert {point.verdict for point in measured_together(Layers(**TWO), x, y)[0].values()} == {"ok"}


def test_a_layer_in_doubt_has_its_own_verdict_beside_that_of_the_target():
    model = Layers(dead=lambda x: 0 * x, alive=torch.tanh)
    found, told = measured_together(model, torch.randn(400, 4), torch.randperm(400))
    assert (found["dead"].verdict, found["alive"].verdict) == ("constant", "target_saturated")
    assert [message.split(" at epoch")[0] for message in told] == [
        "layer 'dead' is constant",
        "the target is saturated",
    ]


@pytest.mark.parametrize("correction", ["miller_madow", "grassberger", "chao_shen", "jackknife"])
def test_a_correction_leaves_the_verdict_on_the_target_as_counted(correction):
    """Three samples a value: H(Y) is 0.81 of log N, and corrected far more."""
    x, y = torch.randn(300, 4), torch.arange(300) % 100
    plain, corrected = (
        measured_together(Layers(**TWO), x, y, correction=how, head=False)[0] for how in (None, correction)
    )
    assert corrected["first"].h_y > plain["first"].h_y
    assert {point.verdict for point in (*plain.values(), *corrected.values())} == {"ok"}


# -- the head ----------------------------------------------------------------------------------------------------------


def classes(n_classes, n=2000):
    """Logits that are right always, and their labels."""
    y = torch.arange(n) % n_classes
    return 9 * torch.eye(n_classes)[y] + torch.randn(n, n_classes), y


def test_a_head_that_is_seen_whole_is_ok():
    z, y = classes(6)
    found, told = measured_together(Layers(hidden=torch.tanh, out=lambda x: x), z, y)
    assert (found["out"].accuracy, found["out"].verdict, told) == (1.0, "ok", [])


def test_a_head_in_too_few_cells_is_told_more_until_there_are_enough():
    """Only the head: its own accuracy says what it holds. The layer before it may have lost it in another way."""
    z, y = classes(6)
    max_cells, verdicts = 4, []
    while max_cells:
        layers = {name: CellQuantizer(max_cells) for name in ("hidden", "out")}
        found, told = measured_together(Layers(hidden=lambda x: x, out=lambda x: x), z, y, layers)
        verdicts.append(found["out"].verdict)
        assert found["hidden"].verdict == "ok"
        if max_cells == 4:
            assert found["hidden"].fano_shortfall > 0.3
            assert told[0].startswith(
                f"layer 'out' is too_coarse at epoch 0: its I(T;Y) of {found['out'].i_ty:.2f} bits lies below the 2.58 "
                "that its accuracy of 1.000 proves (Fano): its symbols mix what it tells apart. Try CellQuantizer(8)."
            )
        (max_cells,) = map(int, numbers(r"CellQuantizer\((\d+)\)", told[0])) if told else (0,)
    assert verdicts[:1] == ["too_coarse"], "four cells for six classes"
    assert set(verdicts[1:-1]) <= {"too_coarse"}
    assert (verdicts[-1], len(verdicts) <= 5) == ("ok", True)


def test_a_head_of_more_classes_than_its_samples_allow_cells_is_told_more_samples():
    z, y = classes(60, n=300)
    found, told = measured_together(Layers(out=lambda x: x), z, y)
    assert found["out"].verdict == "too_coarse"
    assert told[0].endswith("Try more samples than 300 (max_samples=, and enough data), which allows more cells.")
    z, y = classes(60, n=3000)
    assert measured_together(Layers(out=lambda x: x), z, y)[0]["out"].verdict == "ok"


@pytest.mark.parametrize(("n_classes", "n"), [(6, 100), (10, 160), (10, 300), (20, 400), (50, 1000)])
def test_a_head_of_few_samples_has_a_cell_for_each_class(n_classes, n):
    z, y = classes(n_classes, n=n)
    found, told = measured_together(Layers(hidden=lambda x: x, out=lambda x: x), z, y)
    assert (found["out"].verdict, told) == ("ok", [])
    assert found["out"].i_ty > found["out"].i_ty_fano - 0.05
    assert found["hidden"].n_codes <= cell_limit(n), "layers before it have no more cells than ever"


def test_a_head_of_many_classes_keeps_them_apart():
    z, y = classes(40, n=4000)
    found, _ = measured_together(Layers(out=lambda x: x), z, y)
    assert found["out"].verdict == "ok"
    assert found["out"].i_ty > found["out"].h_y - 0.05


def test_a_head_in_too_few_bins_is_told_cells():
    z, y = classes(4)
    few = {"out": Quantizer(lambda a: a[:, :1], UniformBins(3))}
    found, told = measured_together(Layers(out=lambda x: x), z, y, few, keep_rows=True)
    assert found["out"].verdict == "too_coarse"
    assert told[0].endswith("Try more bins, or CellQuantizer().")
    assert measured_together(Layers(out=lambda x: x), z, y, {"out": CellQuantizer()})[0]["out"].verdict == "ok"


# -- beside a probe ----------------------------------------------------------------------------------------------------


def test_layers_of_which_the_probe_reads_far_more_are_named():
    """Classes in small coordinates beside others of ten times the spread; the last layer throws these away."""
    z, y = classes(4)
    x = torch.cat([z, 90 * torch.randn(len(z), 40)], 1)
    model = Layers(first=lambda x: x, second=torch.nn.Identity(), head=lambda x: x[:, :4])
    plane = InformationPlane(["first", "second", "head"], estimators=["probe"])
    with plane.attach(model):
        model(x)
        plane.update(x, y)
    measured = plane.compute() + History(plane.estimate())
    read = {one.layer: one.value for one in measured.estimates() if one.quantity == "I_TY"}
    counted = {point.layer: point.i_ty for point in measured}
    assert probe_exceeds_counts(measured) == (
        "a linear probe reads far more of the 2.00 bits of the target than is counted at "
        f"'first' ({read['first']:.2f}, its cells {counted['first']:.2f}), "
        f"'second' ({read['second']:.2f}, its cells {counted['second']:.2f}): their symbols are too few for it, "
        "or it lies in directions of small variance. Go by the probe there."
    )
    assert read["first"] > 1.8
    assert counted["first"] < 0.1
    many = [measured[0]._replace(layer=f"block{k}") for k in range(5)]
    probed = [one._replace(layer=f"block{k}") for one in measured.estimates() if one.layer == "first" for k in range(5)]
    assert ", 2 more: their symbols" in probe_exceeds_counts(History.of(many, probed))
    assert probe_exceeds_counts(History.of(measured[-1:], measured.estimates())) is None
    assert probe_exceeds_counts(History.of(measured)) is None
    assert probe_exceeds_counts(History()) is None
