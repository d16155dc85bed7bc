"""The bounds beside the points of a plane: their values, and the sentences where there is none."""

import functools
import math
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import FixedBins, InformationPlane, Quantizer, measure
from lightning_ib.bottleneck import distance_to_bound, gaussian_ib, ib_curve, input_compression_bound
from lightning_ib.records import History
from tests.helpers.nets import known_net

pytestmark = pytest.mark.slow

BITS = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1).float()
"""All patterns of four bits."""


def p_one(gamma=1.5):
    """p(y = 1 | x) of every pattern, by the number of its ones."""
    return torch.sigmoid(gamma * (BITS.sum(1).double() - 2))


def joint():
    return torch.stack([1 - p_one(), p_one()], 1) / 16


@functools.cache
def curve_of_joint(kind="ib", unit="bits"):
    return ib_curve(joint(), kind=kind, unit=unit)


def repeated(counts=40):
    """Each pattern ``counts`` times, in a shuffled order, with labels as often as p(y|x) says."""
    ones = (counts * p_one()).round().long()
    x = BITS.repeat_interleave(counts, 0)
    y = torch.cat([(torch.arange(counts) < n).long() for n in ones])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order], y[order]


NET = known_net(
    whole=lambda x: x,
    parity=lambda x: (x.sum(1, keepdim=True) % 2).expand(-1, 2),
    ones=lambda x: x.sum(1, keepdim=True),
)
LAYERS = ["whole", "parity", "ones"]
CLUSTERS = {
    "whole": torch.eye(16, dtype=torch.float64),
    "parity": nn.functional.one_hot(BITS.sum(1).long() % 2).double(),
    "ones": nn.functional.one_hot(BITS.sum(1).long()).double(),
}


def planed(bound, x, y, batch=64, **options):
    """The points by layer, the plane, and the warnings."""
    plane = InformationPlane(options.pop("layers", LAYERS), bound=bound, head=False, **options)
    with warnings.catch_warnings(record=True) as caught, plane.attach(NET), torch.no_grad():
        warnings.simplefilter("always")
        for some_x, some_y in zip(x.split(batch), y.split(batch)):
            NET(some_x)
            plane.update(some_x, some_y)
        found = plane.compute(epoch=2, step=9)
    told = [str(one.message) for one in caught if "bound" in str(one.message)]
    return {point.layer: point for point in found}, plane, told


def counted_joint(x, y):
    numbers = (x.long() << torch.arange(4)).sum(1)
    counts = torch.zeros(16, 2, dtype=torch.float64)
    counts.index_put_((numbers, y), torch.ones(len(y), dtype=torch.float64), accumulate=True)
    return counts / counts.sum()


# -- the curve ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_gap_of_counted_data_is_that_of_the_clusters_it_consists_of(unit):
    x, y = repeated()
    points, plane, told = planed("data", x, y, unit=unit)
    assert not told
    p_xy = counted_joint(x, y)
    for layer, clusters in CLUSTERS.items():
        exact = distance_to_bound(clusters, p_xy, unit=unit)
        point = points[layer]
        assert point.i_xt == pytest.approx(exact.i_xt, abs=1e-9)
        assert point.i_ty == pytest.approx(exact.i_ty, abs=1e-9)
        # The curve of a run is proved at 64 β, the exact one where it is asked.
        assert exact.bound - 1e-9 <= point.i_ty_bound <= exact.bound + 1e-3
        assert point.i_ty_gap == pytest.approx(point.i_ty_bound - point.i_ty, abs=1e-9)
    assert points["whole"].i_ty_gap == 0.0
    assert points["ones"].i_ty_gap == pytest.approx(0.0, abs=2e-4)  # the sufficient statistic
    assert points["parity"].i_ty_gap > 0.05
    assert plane.bounds.how.startswith("16 different inputs among 640 samples, I(X;Y) = ")


def test_layers_in_bins_and_in_cells_share_the_bound_of_the_data():
    x, y = repeated()
    halves = Quantizer(bins=FixedBins([0.5, 1.5, 2.5, 3.5]))
    points, _, told = planed("data", x, y, layers={"whole": halves, "ones": halves, "parity": None}, max_samples=640)
    in_cells, _, _ = planed("data", x, y)
    assert not told
    for layer in LAYERS:
        assert points[layer].i_ty_bound == pytest.approx(in_cells[layer].i_ty_bound, abs=1e-12)


@pytest.mark.parametrize("given", ["joint", "bits", "nats", "deterministic"])
def test_a_distribution_and_its_curves_in_any_unit_give_one_bound(given):
    x, y = repeated()
    kind = "deterministic" if given == "deterministic" else "ib"
    bound = joint() if given == "joint" else curve_of_joint(kind, "nats" if given == "nats" else "bits")
    points, plane, _ = planed(bound, x, y)
    expected = curve_of_joint(kind)
    for point in points.values():
        assert point.i_ty_bound == pytest.approx(float(expected.bound(point.i_xt)), abs=1e-9)
    line = plane.bounds.line
    assert line.unit == "bits"
    assert line.i_xt == sorted(line.i_xt)
    assert line.i_xt[0] == line.i_ty[0] == 0
    assert line.at(points["ones"].i_xt) == pytest.approx(points["ones"].i_ty_bound, abs=2e-3)


def test_a_gaussian_curve_is_a_bound():
    one = torch.eye(1, dtype=torch.float64)
    curve = gaussian_ib(one, 0.8 * one, one, unit="nats")
    points, _, _ = planed(curve, *repeated())
    for point in points.values():
        expected = -0.5 * math.log(1 - 0.64 * (1 - math.exp(-2 * point.i_xt * math.log(2)))) / math.log(2)
        assert point.i_ty_bound == pytest.approx(expected, abs=1e-9)


def test_hard_labels_bound_by_the_information_itself_and_by_the_entropy_of_labels():
    x = BITS.repeat(8, 1)
    y = (x.sum(1) > 1).long()
    points, plane, told = planed("labels", x, y)
    assert not told
    for point in points.values():
        assert point.i_ty_bound == pytest.approx(min(point.i_xt, point.h_y), abs=1e-12)
        assert point.i_ty_gap >= 0
    assert points["ones"].i_ty_gap == 0.0
    line = plane.bounds.line
    assert line.i_xt[1] == line.i_ty[1] == points["ones"].h_y


def test_repeated_inputs_with_one_label_each_are_hard_labels():
    x = BITS.repeat(8, 1)
    y = (x.sum(1) > 1).long()
    of_data, _, _ = planed("data", x, y)
    of_labels, _, _ = planed("labels", x, y)
    for layer in LAYERS:
        assert of_data[layer].i_ty_bound == pytest.approx(of_labels[layer].i_ty_bound, abs=1e-6)


def test_measure_takes_a_bound_and_records_travel_through_files(tmp_path):
    x, y = repeated()
    found = measure(NET, list(zip(x.split(64), y.split(64))), LAYERS, bound=["data", "input_compression"], head=False)
    found.to_csv(tmp_path / "h.csv")
    assert History.read_csv(tmp_path / "h.csv") == found
    assert History.restored({"history": found.state_dict()})[0] == found
    records = {(one.layer, one.quantity): one for one in found.records()}
    gap = records["parity", "I_TY_gap"]
    assert (gap.unit, gap.source, gap.n_samples) == ("bits", "cells", 640)
    assert gap.standard_error >= records["parity", "I_TY"].standard_error
    assert records["parity", "error_heuristic"].unit == ""
    assert [point.i_ty_gap for point in found.points()][1] == gap.value


# -- where there is none -----------------------------------------------------------------------------------------------


def test_inputs_that_come_once_give_no_bound_and_the_sentence_says_why():
    x = torch.rand(100, 4, generator=torch.Generator().manual_seed(0))
    points, plane, told = planed("data", x, (x.sum(1) > 2).long())
    assert all(math.isnan(point.i_ty_bound) and math.isfinite(point.i_ty) for point in points.values())
    assert plane.bounds.line is None
    assert len(told) == 1
    assert "each of the 100 inputs came once, so that p(y|x) is unknown. Give bound=p_xy" in told[0]


def test_few_repeated_inputs_give_a_bound_with_a_caution():
    x = torch.cat([torch.rand(90, 4, generator=torch.Generator().manual_seed(0)), BITS[:1].expand(10, -1)])
    points, _, told = planed("data", x, torch.arange(100) % 2)
    assert math.isfinite(points["whole"].i_ty_bound)
    assert len(told) == 1
    assert "takes 90 of 100 labels for certain" in told[0]


def test_data_without_a_target_or_with_one_class_gives_no_bound():
    x, y = repeated()
    points, _, told = planed("data", x, torch.zeros_like(y))
    assert math.isnan(points["whole"].i_ty_bound)
    assert any("needs labels of several classes" in one for one in told)


@pytest.mark.parametrize("given", ["data", "joint"])
def test_independent_labels_bound_every_layer_at_nothing(given):
    x, y = BITS.repeat(8, 1), torch.arange(8).repeat_interleave(16) % 2
    bound = "data" if given == "data" else torch.full((16, 2), 1 / 32, dtype=torch.float64)
    points, _, told = planed(bound, x, y)
    assert not told
    assert all(point.i_ty_bound == 0 and abs(point.i_ty_gap) < 1e-9 for point in points.values())


def test_too_many_distributions_are_refused_with_a_remedy():
    n = 300
    x = torch.arange(n).float()[:, None].expand(-1, 4).repeat_interleave(40, 0)
    y = torch.randint(10, (len(x),), generator=torch.Generator().manual_seed(0))
    points, _, told = planed("data", x, y, batch=10_000, max_samples=len(x), layers=["whole"])
    assert math.isnan(points["whole"].i_ty_bound)
    assert "have 300 different p(y|x) of 10 labels, more than a curve is solved for during a run" in told[0]


def test_a_layer_above_the_bound_is_told_once_with_the_reason():
    """Labels drawn once for each pattern: counted, they are known, and the bound is of p(y|x)."""
    x = BITS.repeat(20, 1)
    y = (p_one() > 0.5).long().repeat(20)
    bound = torch.stack([1 - 0.3 * p_one() - 0.35, 0.3 * p_one() + 0.35], 1) / 16
    points, _, told = planed(bound, x, y)
    assert points["ones"].i_ty_gap < -0.5
    above = [one for one in told if "'ones'" in one]
    assert len(above) == 1
    assert "is above the bound" in above[0]
    assert "each input came with one drawn label" in above[0]


def test_inputs_are_told_apart_by_all_their_values():
    """Also where a sketch of them is the same: it adds up coordinates that are 512 apart."""
    n = 700
    x = torch.eye(n).repeat(2, 1)
    y = (torch.arange(n) < n // 2).long().repeat(2)
    points, plane, told = planed("data", x, y, layers=["whole"], max_samples=2 * n)
    assert plane.bounds.how.startswith("700 different inputs among 1400 samples, I(X;Y) = 1.000")
    assert points["whole"].i_ty_gap >= 0
    assert not told


def test_a_solver_that_fails_costs_the_bound_alone(monkeypatch):
    from lightning_ib.measurement import bounds

    def fails(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(bounds, "ib_curve", fails)
    points, _, told = planed("data", *repeated())
    assert math.isfinite(points["ones"].i_ty)
    assert math.isnan(points["ones"].i_ty_bound)
    assert told == ["there is no bound from the data: out of luck."]


def test_the_curve_of_the_first_measurement_holds_for_the_run(monkeypatch):
    from lightning_ib.measurement import bounds

    solved, solve = [], bounds.ib_curve
    monkeypatch.setattr(bounds, "ib_curve", lambda *args, **kwargs: solved.append(1) or solve(*args, **kwargs))
    x, y = repeated()
    plane = InformationPlane(LAYERS, bound="data", head=False)
    with plane.attach(NET), torch.no_grad():
        for order in (torch.arange(len(x)), torch.arange(len(x)).flip(0)[: len(x) // 2]):
            NET(x[order])
            plane.update(x[order], y[order])
            plane.compute()
            plane.reset()
    assert len(solved) == 1


def test_layers_in_bins_beyond_the_sampled_ones_are_told_of():
    x, y = repeated()
    bins = Quantizer(bins=FixedBins([0.5, 1.5, 2.5, 3.5]))
    _, _, told = planed("data", x, y, layers={"ones": bins}, max_samples=320)
    assert any("counted on 320 of the 640 samples that layers in bins are" in one for one in told)


def test_a_correction_leaves_the_bound_of_labels_at_their_number():
    x = BITS.repeat(8, 1)
    y = (x.sum(1) > 1).long()
    y[0] = 2
    points, _, _ = planed("labels", x, y, correction="chao_shen", layers=["whole"])
    assert points["whole"].i_ty_bound <= math.log2(3)


# -- finite samples ----------------------------------------------------------------------------------------------------


def test_deviations_are_those_of_the_counted_encoder():
    from lightning_ib.bottleneck import finite_sample_bound

    x, y = repeated()
    points, _, told = planed(["data", "finite_sample"], x, y)
    assert not told
    for layer, clusters in CLUSTERS.items():
        expected = finite_sample_bound(clusters, counted_joint(x, y), len(x))
        assert points[layer].i_xt_finite_sample == pytest.approx(expected.i_xt, rel=1e-9)
        assert points[layer].i_ty_finite_sample == pytest.approx(expected.i_ty, rel=1e-9)


def test_layers_in_bins_have_no_deviations_and_are_told_of():
    x, y = repeated()
    bins = Quantizer(bins=FixedBins([0.5, 1.5, 2.5, 3.5]))
    points, _, told = planed("finite_sample", x, y, layers={"ones": bins, "parity": None})
    assert math.isnan(points["ones"].i_xt_finite_sample)
    assert math.isfinite(points["parity"].i_xt_finite_sample)
    assert len(told) == 1


def test_input_compression_needs_neither_target_nor_repeated_inputs():
    x, y = repeated()
    points, plane, _ = planed("input_compression", x, y)
    for point in points.values():
        expected = float(input_compression_bound(point.i_xt, len(x)))
        assert point.error_heuristic == pytest.approx(expected, rel=1e-12)
        assert math.isnan(point.i_ty_bound)
    assert plane.bounds.quantities == ["error_heuristic"]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "options", "error", "sentence"),
    [
        (
            "label",
            {},
            ValueError,
            "bound must be 'labels', 'data', 'finite_sample' or 'input_compression', got 'label'",
        ),
        (3, {}, TypeError, "bound must be a tensor p"),
        (["labels", "data"], {}, ValueError, "bound must hold one curve, got several"),
        (["labels", joint()], {}, ValueError, "bound must hold one curve, got several"),
        (2 * joint(), {}, ValueError, "p_xy must sum to 1"),
        (ib_curve(joint(), [1.0, 2.0], kind="dual"), {}, ValueError, "got one of the dual"),
        ("data", {"tokens": True}, ValueError, "depends on the tokens around"),
        ("finite_sample", {"tokens": True}, ValueError, "depends on the tokens around"),
        ("data", {"input": Quantizer(bins=FixedBins([0.0]))}, ValueError, "leave input out"),
        (joint().tolist(), {}, TypeError, "got a list: give torch.as_tensor"),
        (joint().numpy(), {}, TypeError, "got a ndarray: give torch.as_tensor"),
        ("labels", {"input": Quantizer(bins=FixedBins([0.0]))}, ValueError, "leave input out"),
    ],
)
def test_what_cannot_be_a_bound_is_refused_in_one_sentence(bound, options, error, sentence):
    with pytest.raises(error, match=sentence):
        InformationPlane(LAYERS, bound=bound, **options)
