"""One measurement of a model: known figures, and nothing of the model, its data or its randomness disturbed."""

import copy
import json
import math
import os
import pickle
import random
import subprocess
import sys
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from lightning_ib import (
    Bins,
    CellQuantizer,
    FixedBins,
    InformationPlane,
    QuantileBins,
    Quantizer,
    UniformBins,
    measure,
)
from lightning_ib.evaluation.loaders import sequential_loader
from lightning_ib.evaluation.passes import preserve_state, to
from lightning_ib.functional import (
    bucketize,
    conditional_entropy,
    conditional_mutual_information,
    entropy,
    hash_table,
    mutual_information,
    row_ids,
)
from lightning_ib.records import History
from tests.helpers import ROOT
from tests.helpers.nets import Function, known_net
from tests.helpers.records import exact

WHOLE = Quantizer(None, FixedBins([k + 0.5 for k in range(-64, 64)]))
"""Tells any two small integers apart."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors here are tiny: where the cores are shared, threads would spend the time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batches(x, y, batch_size):
    return list(zip(x.split(batch_size), y.split(batch_size)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hooks_on(model):
    return [
        (name, kind)
        for name, module in model.named_modules()
        for kind, value in vars(module).items()
        if "hook" in kind and isinstance(value, dict)
        for _ in value
    ]


def counted(plane, model, data, **where):
    with plane.attach(model):
        for x, y in data:
            model(x)
            plane.update(x, y)
    return plane.compute(**where)


# --- Figures that are known ------------------------------------------------------------------------------------------

SIXTEEN = torch.arange(16).repeat(4)
"""64 samples: sixteen integers, four times each. Their class is what is left of them by four."""


@pytest.mark.parametrize(("unit", "one"), [("bits", 1.0), ("nats", math.log(2))])
def test_layers_that_are_known_functions_give_known_figures(unit, one):
    model = known_net(
        same=lambda x: x,
        parity=lambda x: x % 2,
        upper=lambda x: x // 8,
        constant=lambda x: 0 * x,
        pair=lambda x: x // 4,
    )
    layers = dict.fromkeys(["same", "parity", "upper", "constant", "pair"], WHOLE)
    points = measure(model, batches(SIXTEEN.unsqueeze(1), SIXTEEN % 4, 10), layers, unit=unit)
    #                       H(T)  I(T;Y)  H(Y|T)  I(X;T|Y)  symbols
    known = {
        "same": (4, 2, 0, 2, 16),
        "parity": (1, 1, 1, 0, 2),
        "upper": (1, 0, 2, 1, 2),
        "constant": (0, 0, 2, 0, 1),
        "pair": (2, 0, 2, 2, 4),
    }
    assert [point.layer for point in points] == list(known)
    for point in points:
        h_t, i_ty, h_y_given_t, i_xt_given_y, n_codes = known[point.layer]
        assert point == point._replace(n_samples=64, n_codes=n_codes, unit=unit, epoch=0, step=0)
        figures = (point.h_t, point.i_xt, point.i_ty, point.h_y_given_t, point.i_xt_given_y, point.h_x, point.h_y)
        expected = (h_t, h_t, i_ty, h_y_given_t, i_xt_given_y, 6, 2)
        assert figures == pytest.approx([value * one for value in expected], abs=1e-12)
        assert point.saturation == pytest.approx(h_t / 6, abs=1e-12)


def test_a_discretized_input_gives_known_figures():
    # X discretized to its lowest bit. T = the two lowest bits, of which X knows one; Y is the second.
    x = SIXTEEN.unsqueeze(1)
    model = known_net(two=lambda x: x % 4)
    (point,) = measure(
        model, batches(x, (SIXTEEN // 2) % 2, 7), {"two": WHOLE}, input=Quantizer(lambda x: x % 2, FixedBins([0.5]))
    )
    figures = (point.h_x, point.h_t, point.i_xt, point.i_ty, point.h_y, point.h_y_given_t, point.i_xt_given_y)
    assert figures == pytest.approx((1, 2, 1, 1, 1, 0, 1), abs=1e-12)


def test_a_discretized_input_may_know_less_than_the_layer_tells_of_the_target():
    x = SIXTEEN.unsqueeze(1)
    coarse = Quantizer(lambda x: 0 * x, FixedBins([0.5]))
    (point,) = measure(known_net(same=lambda x: x), batches(x, SIXTEEN % 4, 9), {"same": WHOLE}, input=coarse)
    assert (point.h_x, point.i_xt, point.i_ty, point.i_xt_given_y) == (0.0, 0.0, 2.0, 0.0)


def by_hand(x, y, t, n_samples, unit):
    return {
        "h_x": entropy(x, unit=unit),
        "h_t": entropy(t, unit=unit),
        "h_y": entropy(y, unit=unit),
        "i_xt": mutual_information(x, t, unit=unit),
        "i_ty": mutual_information(t, y, unit=unit),
        "h_y_given_t": conditional_entropy(y, given=t, unit=unit),
        "i_xt_given_y": conditional_mutual_information(x, t, given=y, unit=unit),
        "n_samples": n_samples,
        "n_codes": len(t.unique()),
    }


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("discretized", [False, True])
@pytest.mark.parametrize("real_target", [False, True])
def test_figures_are_those_of_the_functional_package(unit, discretized, real_target):
    n = 400
    x = torch.randn(n, 6, generator=generator())
    y = x[:, 0] + x[:, 1] if real_target else (x[:, 0] > 0).long() + 2 * (x[:, 3] > 0.5).long()
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()
    x = x.double()
    bins = {"0": UniformBins(3), "1": QuantileBins(2), "2": FixedBins([-0.3, 0.0, 0.3])}
    points = measure(
        model,
        batches(x, y, 64),
        {name: Quantizer(None, b) for name, b in bins.items()},
        input=Quantizer(lambda x: x[:, :3], QuantileBins(3)) if discretized else None,
        target=Quantizer(None, QuantileBins(5)) if real_target else None,
        unit=unit,
    )

    def ids(z, b):
        edges = b.edges(z)
        return row_ids(
            bucketize(z, edges=edges), table=hash_table(n_coordinates=z.shape[1], n_codes=edges.shape[-1] + 1)
        )

    with torch.no_grad():
        outputs = {"0": model[0](x), "1": model[:2](x), "2": model(x)}
    x_ids = ids(x[:, :3], QuantileBins(3)) if discretized else torch.arange(n)
    y_ids = ids(y.unsqueeze(1), QuantileBins(5)) if real_target else y
    for point in points:
        expected = by_hand(x_ids, y_ids, ids(outputs[point.layer], bins[point.layer]), n, unit)
        found = {name: getattr(point, name) for name in expected}
        assert found == pytest.approx(expected, abs=1e-12)
        assert point.unit == unit


def test_without_a_target_only_its_figures_are_missing():
    x = SIXTEEN.unsqueeze(1)
    (point,) = measure(known_net(same=lambda x: x), [(x, None)], {"same": WHOLE})
    assert (point.h_t, point.i_xt, point.h_x, point.n_samples, point.n_codes) == (4.0, 4.0, 6.0, 64, 16)
    assert point.saturation == 4 / 6
    assert all(math.isnan(v) for v in (point.i_ty, point.h_y, point.h_y_given_t, point.i_xt_given_y))


def test_without_a_target_a_discretized_input_still_counts():
    x = SIXTEEN.unsqueeze(1)
    low_bit = Quantizer(lambda x: x % 2, FixedBins([0.5]))
    (point,) = measure(known_net(same=lambda x: x), [(x, None)], {"same": WHOLE}, input=low_bit)
    assert (point.h_x, point.i_xt, point.h_t) == (1.0, 1.0, 4.0)
    assert math.isnan(point.i_ty)


def test_epoch_and_step_are_written_into_the_points():
    plane = InformationPlane({"same": WHOLE})
    model = known_net(same=lambda x: x)
    (point,) = counted(plane, model, [(SIXTEEN.unsqueeze(1), SIXTEEN)], epoch=3, step=77)
    assert (point.epoch, point.step) == (3, 77)


def test_epoch_and_step_of_a_second_compute_are_its_own():
    plane = InformationPlane({"same": WHOLE})
    counted(plane, known_net(same=lambda x: x), [(SIXTEEN.unsqueeze(1), SIXTEEN)])
    (point,) = plane.compute(epoch=3, step=77)
    assert (point.epoch, point.step) == (3, 77)


def test_one_sample_has_no_saturation():
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        (point,) = measure(known_net(same=lambda x: x), [(torch.ones(1, 1), torch.ones(1).long())], {"same": WHOLE})
    assert (point.h_t, point.h_x, point.n_samples) == (0.0, 0.0, 1)
    assert math.isnan(point.saturation)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 1, 1)])
def test_labels_of_any_integer_dtype_count(dtype, shape):
    y = (SIXTEEN % 2).to(dtype).reshape(shape)
    (point,) = measure(known_net(same=lambda x: x), batches(SIXTEEN.unsqueeze(1), y, 10), {"same": WHOLE})
    assert (point.i_ty, point.h_y) == (1.0, 1.0)


@pytest.mark.filterwarnings("ignore:the target is -")
def test_negative_labels_are_a_class_like_any_other():
    y = SIXTEEN % 2 - 100
    (point,) = measure(known_net(same=lambda x: x), batches(SIXTEEN.unsqueeze(1), y, 10), {"same": WHOLE})
    assert point.i_ty == 1.0


def test_later_changes_of_the_batch_do_not_reach_what_was_counted():
    x, y = SIXTEEN.clone().unsqueeze(1), SIXTEEN % 4
    x = x.double()
    for quantizer in (WHOLE, Quantizer(None, UniformBins(16))):
        plane, model = InformationPlane({"same": quantizer}, input=quantizer), known_net(same=lambda x: x)
        a, b = x.clone(), y.clone()
        with plane.attach(model):
            model(a)
            plane.update(a, b)
            a.zero_(), b.zero_()  # as a loader that reuses its buffers would
        (point,) = plane.compute()
        assert (point.h_t, point.h_y, point.i_ty, point.h_x) == (4.0, 2.0, 2.0, 4.0)


# --- Batches and order do not matter ---------------------------------------------------------------------------------

QUANTIZERS = {
    "cells": lambda: CellQuantizer(),
    "fixed": lambda: Quantizer(None, FixedBins([-0.5, 0.0, 0.5])),
    "uniform": lambda: Quantizer(None, UniformBins(3)),
    "quantile": lambda: Quantizer(lambda a: a[:, :3], QuantileBins(3)),
    "range": lambda: Quantizer(None, UniformBins(3, low=-2, high=2)),
}


class Exact(nn.Module):
    """Linear layers on eighths: the forward rounds nothing, whatever the batches, so figures can be bit-identical."""

    def __init__(self):
        super().__init__()
        for k in range(2):
            layer = nn.Linear(6, 6)
            layer.weight.data = torch.randint(-8, 9, (6, 6), generator=generator(k)) / 8
            layer.bias.data = torch.randint(-8, 9, (6,), generator=generator(k)) / 8
            self.add_module(f"layer{k}", layer)

    def forward(self, x):
        return self.layer1(self.layer0(x).relu())


def exact_data(n=300):
    x = torch.randint(-8, 9, (n, 6), generator=generator()) / 8
    return x, (x.sum(1) > 0).long() + (x[:, 0] > 0).long()


@pytest.mark.parametrize("discretized", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_batches_and_order_change_not_one_bit(name, discretized):
    x, y = exact_data()
    order = torch.randperm(len(x), generator=generator(5))

    def points(x, y, *sizes):
        data = list(
            zip(x.split(sizes[0] if len(sizes) == 1 else sizes), y.split(sizes[0] if len(sizes) == 1 else sizes))
        )
        layers = {"layer*": QUANTIZERS[name]()}
        return measure(Exact(), data, layers, input=Quantizer(None, QuantileBins(2)) if discretized else None)

    whole = points(x, y, 300)
    assert all(math.isfinite(figure) for point in whole for figure in point[3:10])
    for sizes in [(7,), (299,), (1, 1, 255, 43)]:
        assert points(x, y, *sizes) == whole, sizes
    assert points(x[order], y[order], 300) == whole
    assert points(x[order], y[order], 32) == whole


def test_batches_and_order_of_a_network_that_rounds_change_next_to_nothing():
    x = torch.randn(500, 1, 12, 12, generator=generator())
    y = (x.mean((1, 2, 3)) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10))
    order = torch.randperm(500, generator=generator(5))
    whole = measure(model, [(x, y)])
    for data in (batches(x, y, 33), batches(x[order], y[order], 100)):
        for point, other in zip(whole, measure(model, data)):
            assert other[:3] == point[:3]
            assert other[3:13] == pytest.approx(point[3:13], abs=1e-9)


# --- One measurement after another -----------------------------------------------------------------------------------


def two_measurements(quantizer, scale):
    model = known_net(same=lambda x: x)
    plane = InformationPlane({"same": quantizer})
    x = torch.arange(16.0).repeat(4).unsqueeze(1)
    first = counted(plane, model, batches(x, SIXTEEN % 2, 10))
    plane.reset()
    second = counted(plane, model, batches(scale * x, SIXTEEN % 2, 10))
    return first[0], second[0]


@pytest.mark.parametrize("bins", [UniformBins(16), QuantileBins(16), UniformBins(16, quantiles=(0, 1))])
def test_the_second_measurement_uses_the_first_ones_edges(bins):
    first, second = two_measurements(Quantizer(None, bins), 1000.0)
    assert first.h_t == 4.0
    assert second.n_codes == 2  # zero stays in the first bin; the rest lies above the last edge
    first, second = two_measurements(Quantizer(None, bins), 1.0)
    assert second == first


def test_with_refit_every_measurement_has_edges_of_its_own():
    first, second = two_measurements(Quantizer(None, UniformBins(16, refit=True)), 1000.0)
    assert first.h_t == second.h_t == 4.0


def test_cells_are_those_of_the_epoch_alone():
    x, y = torch.randn(300, 8, generator=generator()), SIXTEEN.repeat(5)[:300]
    other = torch.randn(300, 8, generator=generator(9)).sinh()
    model, plane = known_net(same=lambda x: x), InformationPlane(["same"])
    found = []
    for data in (other, x, 4 * x, other):
        plane.reset()
        found += counted(plane, model, [(data, y)])
    assert repr(found[1]) == repr(found[2]) == repr(measure(model, [(x, y)], ["same"])[0])
    assert repr(found[0]) == repr(found[3]) != repr(found[1])
    assert plane.frozen_state() == {"layers": {}}


def test_reset_drops_what_was_counted():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    counted(plane, model, [(SIXTEEN.unsqueeze(1), SIXTEEN)])
    plane.reset()
    (point,) = counted(plane, model, [(SIXTEEN[:16].unsqueeze(1), SIXTEEN[:16] % 2)])
    assert (point.n_samples, point.h_t, point.h_y) == (16, 4.0, 1.0)


def test_counting_goes_on_after_a_compute_without_reset():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    x, y = SIXTEEN.unsqueeze(1), SIXTEEN % 2
    with plane.attach(model):
        for half in (slice(0, 16), slice(16, 64)):
            model(x[half])
            plane.update(x[half], y[half])
            points = plane.compute()
    assert points == measure(model, [(x, y)], {"same": WHOLE})


@pytest.mark.parametrize("where", ["layer", "input", "target"])
def test_counting_goes_on_after_a_compute_that_fitted_edges(where):
    x = torch.arange(8.0).repeat(8).unsqueeze(1)[: 16 + 27]
    fitted = Quantizer(None, UniformBins(8))
    layer, input, target = (fitted if where == name else WHOLE for name in ("layer", "input", "target"))
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": layer}, input=input, target=target)
    with plane.attach(model):
        for some in (slice(0, 16), slice(16, None)):
            model(x[some])
            plane.update(x[some], x[some, 0])
            (point,) = plane.compute()
    # T, X and Y are one and the same.
    assert point.i_ty == point.i_xt == point.h_t == point.h_x == point.h_y


def test_a_plane_follows_its_model_to_another_attach():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    x, y = SIXTEEN.unsqueeze(1), SIXTEEN % 2
    for some in (slice(0, 20), slice(20, 64)):
        with plane.attach(model):
            model(x[some])
            plane.update(x[some], y[some])
        assert hooks_on(model) == []
    assert plane.compute() == measure(model, [(x, y)], {"same": WHOLE})


def test_attaching_again_takes_the_old_hooks_off():
    one, two, plane = known_net(same=lambda x: x), known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    plane.attach(one)
    plane.attach(one)
    assert len(hooks_on(one)) == 1
    plane.attach(two)
    assert (len(hooks_on(one)), len(hooks_on(two))) == (0, 1)
    plane.detach()
    plane.detach()
    assert hooks_on(two) == []


@pytest.mark.parametrize("quantizer", [CellQuantizer(), Quantizer(None, UniformBins(5))], ids=["cells", "uniform"])
def test_frozen_state_goes_through_a_checkpoint(quantizer, tmp_path):
    def plane():
        both = Quantizer(None, QuantileBins(3))
        return InformationPlane({"same": quantizer}, input=both, target=both)

    x = torch.randn(200, 6, generator=generator())
    model, first, resumed, fresh = known_net(same=lambda x: x), plane(), plane(), plane()
    counted(first, model, [(x, x[:, 0])])
    torch.save(first.frozen_state(), tmp_path / "state.pt")
    first.reset()
    resumed.attach(model)
    resumed.load_frozen_state(torch.load(tmp_path / "state.pt", weights_only=True))
    later = [(3 * x + 1, 2 * x[:, 0])]
    assert counted(resumed, model, later) == counted(first, model, later)
    assert counted(fresh, model, later) != first.compute()
    assert first.frozen_state()["layers"].keys() == ({"same"} if isinstance(quantizer, Quantizer) else set())


def test_frozen_state_of_other_layers_is_left_alone():
    plane = InformationPlane({"same": Quantizer(None, UniformBins(5))})
    plane.attach(known_net(same=lambda x: x))
    plane.load_frozen_state({"layers": {"gone": {"edges": torch.zeros(1), "shape": [1]}}})
    plane.load_frozen_state({})
    assert plane.fitted_quantizers["same"].edges is None


def test_a_resumed_measurement_refits_too():
    model = known_net(same=lambda x: x)
    planes = [InformationPlane({"same": Quantizer(None, UniformBins(16, refit=True))}) for _ in range(2)]
    x = torch.arange(16.0).unsqueeze(1)
    counted(planes[0], model, [(x, None)])
    planes[1].attach(model)
    planes[1].load_frozen_state(planes[0].frozen_state())
    assert counted(planes[1], model, [(1000 * x, None)])[0].h_t == 4.0


# --- Bad data --------------------------------------------------------------------------------------------------------

FIGURES = ("i_xt", "i_ty", "h_t", "h_x", "h_y", "h_y_given_t", "i_xt_given_y", "saturation")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_layer_that_is_not_finite_gives_nan_and_one_warning(name, bad):
    model = known_net(good=lambda x: x, bad=lambda x: torch.where(x == x[0, 0], broken[0], x))
    x, y = torch.randn(120, 6, generator=generator()), torch.arange(120) % 3
    plane = InformationPlane({"bad": QUANTIZERS[name](), "good": QUANTIZERS[name]()})
    broken = [bad]
    with pytest.warns(
        UserWarning, match=r"layer 'bad' gave NaN or infinite values in \d+ of 120 samples at epoch 57"
    ) as w:
        first = counted(plane, model, [(x, y)], epoch=57)
    plane.reset()
    second = counted(plane, model, batches(x, y, 50), epoch=58)  # a second warning would be an error
    assert len([warning for warning in w if warning.category is UserWarning]) == 1
    for epoch, points in ((57, first), (58, second)):
        assert [point.layer for point in points] == ["bad", "good"]
        assert all(math.isnan(getattr(points[0], figure)) for figure in FIGURES)
        assert not any(math.isnan(getattr(points[1], figure)) for figure in FIGURES)
        assert (points[0].epoch, points[0].n_samples, points[0].n_codes) == (epoch, 120, 0)
    # Finite again, it is measured again, and like a layer that never was otherwise.
    broken[0] = x[0, 0]
    plane.reset()
    bad_point, good_point = counted(plane, model, [(x, y)], epoch=59)
    assert bad_point == good_point._replace(layer="bad")


@pytest.mark.parametrize(
    "name",
    [
        "fixed",
        "range",
        *(pytest.param(name) for name in ("cells", "uniform", "quantile")),
    ],
)
def test_the_warning_counts_the_samples_that_are_not_finite(name):
    x = torch.randn(120, 6, generator=generator())
    x[7, 2] = math.nan
    with pytest.warns(UserWarning, match="in 1 of 120 samples"):
        measure(known_net(bad=lambda x: x), [(x, torch.arange(120) % 3)], {"bad": QUANTIZERS[name]()})


@pytest.mark.parametrize("where", ["input", "target"])
def test_an_input_or_target_that_is_not_finite_costs_only_its_own_figures(where):
    x = SIXTEEN.unsqueeze(1).double()
    x[5] = math.nan
    quantizer = Quantizer(None, QuantileBins(4))
    plane = InformationPlane({"same": WHOLE}, **{where: quantizer})
    with pytest.warns(UserWarning, match=rf"the {where} gave NaN or infinite values in \d+ of 64 samples at epoch 2"):
        (point,) = counted(
            plane,
            known_net(same=lambda x: x.nan_to_num(0)),
            [(x, x[:, 0] if where == "target" else SIXTEEN % 4)],
            epoch=2,
        )
    assert math.isfinite(point.h_t)
    missing = {"input": ["i_xt", "h_x", "i_xt_given_y"], "target": ["i_ty", "h_y", "h_y_given_t", "i_xt_given_y"]}[
        where
    ]
    assert [f for f in FIGURES if math.isnan(getattr(point, f))] == [f for f in FIGURES if f in missing]


def test_a_layer_that_is_not_finite_still_says_how_many_samples_there_were():
    with pytest.warns(UserWarning, match="NaN or infinite"):
        (point,) = measure(known_net(bad=lambda x: x / 0), [(SIXTEEN.unsqueeze(1), None)], {"bad": WHOLE})
    assert point.n_samples == 64


def test_one_class_says_nothing_and_says_so():
    plane, model = InformationPlane({"same": WHOLE}), known_net(same=lambda x: x)
    sentence = "all 64 samples have the same target at epoch 4: .* Measure on data with several classes"
    data = [(SIXTEEN.unsqueeze(1), torch.zeros(64).long())]
    with pytest.warns(UserWarning, match=sentence) as caught:
        counted(plane, model, data, epoch=4)
    assert len(caught) == 1
    plane.reset()
    (point,) = counted(plane, model, data, epoch=5)  # a second warning would be an error
    assert (point.h_t, point.i_xt, point.h_y) == (4.0, 4.0, 0.0)
    assert all(math.isnan(value) for value in (point.i_ty, point.h_y_given_t, point.i_xt_given_y))


def test_a_layer_whose_rows_are_not_the_samples_is_refused():
    model = known_net(same=lambda x: x, patches=lambda x: x.reshape(-1, 2))
    sentence = r"layer 'patches' put out 8 rows for 4 labels: its first dimension must be the batch"
    with pytest.raises(ValueError, match=sentence):
        measure(model, [(torch.rand(4, 4), torch.arange(4))], {"same": WHOLE, "patches": WHOLE})
    assert hooks_on(model) == []


def test_a_batch_that_is_refused_is_not_counted_in_part():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    x, y = SIXTEEN.unsqueeze(1), SIXTEEN % 2
    with plane.attach(model):
        model(x)
        plane.update(x, y)
        model(x)
        with pytest.raises(ValueError, match="put out 64 rows for 3 labels"):
            plane.update(x, y[:3])
    assert plane.compute()[0].n_samples == 64


def test_the_wrong_number_of_inputs_is_refused_by_its_name():
    plane, model = InformationPlane({"same": WHOLE}, input=WHOLE), known_net(same=lambda x: x)
    with plane.attach(model):
        model(torch.rand(4, 1))
        with pytest.raises(ValueError, match="the input put out 3 rows for 4 labels"):
            plane.update(torch.rand(3, 1), torch.arange(4))


def test_the_wrong_number_of_inputs_is_refused_by_its_name_without_a_target():
    plane, model = InformationPlane({"same": WHOLE}, input=WHOLE), known_net(same=lambda x: x)
    with plane.attach(model):
        model(torch.rand(4, 1))
        with pytest.raises(ValueError, match="layer 'same' put out 4 rows for 3 inputs"):
            plane.update(torch.rand(3, 1), None)


@pytest.mark.parametrize("data", [[], iter([]), DataLoader(TensorDataset(torch.empty(0, 1), torch.empty(0).long()))])
def test_empty_data_is_refused(data):
    with pytest.raises(ValueError, match="the data to measure on is empty: it gave no batch"):
        measure(known_net(same=lambda x: x), data, {"same": WHOLE})


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric InformationPlane was called before")
def test_computing_before_any_batch_is_refused():
    plane = InformationPlane({"same": WHOLE})
    with plane.attach(known_net(same=lambda x: x)), pytest.raises(ValueError, match="nothing was counted: no batch"):
        plane.compute()


def test_updating_without_a_model_is_refused():
    plane = InformationPlane({"same": WHOLE})
    with pytest.raises(RuntimeError, match=r"update needs a model: call it inside `with plane.attach\(model\):`"):
        plane.update(torch.rand(4, 1), torch.arange(4))


def test_edges_that_are_none_are_refused_by_the_name_of_their_bins():
    class Falling(Bins):
        def edges(self, z):
            return torch.tensor([1.0, 0.0])

    with pytest.raises(ValueError, match=r"Falling: edges must ascend, got \[1.0, 0.0\]. Sort them."):
        measure(
            known_net(same=lambda x: x), [(torch.rand(4, 1), torch.arange(4))], {"same": Quantizer(None, Falling())}
        )


def test_rows_of_several_widths_are_refused_by_the_name_of_the_layer():
    data = [(torch.rand(4, width), torch.arange(4)) for width in (5, 3)]
    with pytest.raises(ValueError, match="layer 'same'"):
        measure(known_net(same=lambda x: x), data, {"same": Quantizer(None, UniformBins(3))})


def test_sequences_of_several_lengths_are_discretized_by_default():
    """As if padded with zeros, where all of them have more coordinates than a sketch."""
    data = [(torch.rand(20, width, 4, generator=generator(width)), torch.arange(20) % 2) for width in (42, 39, 61)]
    with pytest.warns(UserWarning, match="168 coordinates in one batch and has 156 in another.*padded with zeros"):
        (point,) = measure(known_net(same=lambda x: x), data, ["same"])
    assert point.n_samples == 60
    padded = [(nn.functional.pad(x, (0, 0, 0, 61 - x.shape[1])), y) for x, y in data]
    assert exact(measure(known_net(same=lambda x: x), padded, ["same"])) == exact(History.of([point]))


def test_sequences_of_several_lengths_below_the_width_of_a_sketch_cost_their_layer_and_one_warning():
    data = [(torch.rand(20, width, 4, generator=generator(width)), torch.arange(20) % 2) for width in (5, 7)]
    model = known_net(same=lambda x: x, mean=lambda x: x.mean((1, 2)))
    sentence = r"layer 'same' was not measured at epoch 0: its samples have different shapes, \(20,\) and \(28,\)"
    with pytest.warns(UserWarning, match=sentence) as caught:
        same, mean = measure(model, data, ["same", "mean"])
    assert len(caught) == 1
    assert math.isnan(same.h_t)
    assert mean.h_t > 0
    assert mean.n_samples == same.n_samples == 40


# --- Layers that did not run -----------------------------------------------------------------------------------------


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.extra, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.use_extra = False

    def forward(self, x):
        x = self.trunk(x)
        return self.head(self.extra(x) if self.use_extra else x)


def branches_data(n=40):
    return [(torch.rand(n, 4, generator=generator()), torch.arange(n) % 2)]


def test_a_named_layer_that_never_ran_is_an_error():
    with pytest.raises(RuntimeError, match="layer 'extra' never ran in this forward, so there is nothing to measure"):
        measure(Branches(), branches_data(), ["trunk", "extra"])


def test_a_layer_picked_by_default_that_never_ran_is_left_out():
    model = Branches()
    with pytest.warns(UserWarning, match="layer 'extra' is left out: picked by default, it never ran") as caught:
        points = measure(model, branches_data() * 3)
    assert len(caught) == 1
    assert [point.layer for point in points] == ["trunk", "head"]
    assert hooks_on(model) == []


def test_a_layer_that_was_left_out_stays_out_for_the_measurement():
    model, plane = Branches(), InformationPlane()
    x, y = branches_data()[0]
    with plane.attach(model):
        model(x)
        with pytest.warns(UserWarning, match="left out"):
            plane.update(x, y)
        model.use_extra = True
        model(x)
        plane.update(x, y)
    assert [(point.layer, point.n_samples) for point in plane.compute()] == [("trunk", 80), ("head", 80)]


def test_no_layer_that_ran_is_an_error():
    plane = InformationPlane()
    with plane.attach(Branches()), pytest.raises(RuntimeError, match="layer 'trunk', 'extra', 'head' never ran"):
        plane.update(torch.rand(4, 4), torch.arange(4))


def test_a_named_layer_that_stops_running_is_an_error():
    model, plane = Branches(), InformationPlane(["trunk", "extra"])
    model.use_extra = True
    x, y = branches_data()[0]
    with plane.attach(model):
        model(x)
        plane.update(x, y)
        model.use_extra = False
        model(x)
        with pytest.raises(RuntimeError, match="layer 'extra' never ran in this forward"):
            plane.update(x, y)


def test_a_layer_picked_by_default_that_stops_running_is_left_out():
    model, plane = Branches(), InformationPlane(estimators=["probe", "soft"], max_samples=30)
    model.use_extra = True
    x, y = branches_data()[0]
    with plane.attach(model):
        for k in range(4):
            model.use_extra = k < 2
            model(x + k)
            with warnings.catch_warnings() if k != 2 else pytest.warns(UserWarning, match="layer 'extra' is left out"):
                plane.update(x + k, y)
    assert [(point.layer, point.n_samples) for point in plane.compute()] == [("trunk", 30), ("head", 30)]
    assert {one.layer for one in plane.estimate()} == {"trunk", "head"}


def test_a_head_that_stops_running_is_left_out_with_what_it_predicted():
    class Net(Branches):
        def forward(self, x):
            return self.head(self.trunk(x)) if self.use_extra else self.trunk(x)

    model, plane = Net(), InformationPlane(max_samples=30)
    model.use_extra = True
    x, y = branches_data()[0]
    with plane.attach(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(4):
            model.use_extra = k < 2
            model(x + k)
            plane.update(x + k, y)
        assert [(point.layer, point.n_samples) for point in plane.compute()] == [("trunk", 30)]
    assert plane.head is None


class Positions(nn.Module):
    """As many positions as a batch has samples."""

    def __init__(self, n=16):
        super().__init__()
        self.token, self.position, self.out = nn.Embedding(50, 8), nn.Embedding(n, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.out((self.token(x) + self.position(torch.arange(self.position.num_embeddings)))[:, 0])


def positions_data(n=80, size=16):
    x = torch.randint(0, 50, (n, 16), generator=generator())
    return [(x[k : k + size], x[k : k + size, 0] % 3) for k in range(0, n, size)]


@pytest.mark.parametrize("without_target", [False, True])
def test_a_layer_picked_by_default_that_follows_the_place_in_the_batch_is_left_out(without_target):
    data = [(x, None if without_target else y) for x, y in positions_data()]
    sentence = "layer 'position' is left out: picked by default, it put out the same rows in every batch"
    with pytest.warns(UserWarning, match=sentence) as caught:
        points = measure(Positions(), data)
    assert len(caught) == 1
    assert [point.layer for point in points] == ["token", "out"]


def test_a_named_layer_that_follows_the_place_in_the_batch_is_warned_of():
    with pytest.warns(UserWarning, match="layer 'position' put out the same rows .*, and its values say nothing"):
        assert [p.layer for p in measure(Positions(), positions_data(), ["token", "position"])] == ["token", "position"]


def test_rows_of_the_positions_that_do_not_fit_the_last_batch_leave_the_layer_out():
    with pytest.warns(UserWarning, match="layer 'position' is left out: .* it put out 16 rows for 8 labels"):
        assert [point.layer for point in measure(Positions(), positions_data(72))] == ["token", "out"]


def test_data_that_repeats_from_batch_to_batch_leaves_no_layer_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = measure(Branches(), branches_data() * 3, ["trunk", "head"])
    assert [point.layer for point in points] == ["trunk", "head"]


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (lambda x: torch.distributions.Categorical(logits=x), "its output holds no tensor, it is a Categorical"),
        (lambda x: x.mean(), "got a single number"),
        (lambda x: torch.fft.rfft(x), "got complex values"),
        (lambda x: None, "its output holds no tensor, it is a NoneType"),
    ],
)
def test_a_layer_whose_output_cannot_be_recorded_is_left_out_or_a_sentence_where_it_is_named(output, what):
    class Odd(Branches):
        def forward(self, x):
            self.extra(x)
            return super().forward(x)

    class Extra(nn.Linear):
        def forward(self, x):
            return output(super().forward(x))

    model = Odd()
    model.extra = Extra(4, 4)
    with pytest.warns(UserWarning, match=f"layer 'extra' is left out: picked by default, it .*{what}"):
        assert [point.layer for point in measure(model, branches_data())] == ["trunk", "head"]
    with pytest.raises(ValueError, match=f"layer 'extra' could not be recorded: {what}.* Or leave it out of layers="):
        measure(model, branches_data(), ["trunk", "extra"])
    assert hooks_on(model) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated")
def test_torchscript_that_nobody_named_is_left_out():
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="layer '1' is not among the layers picked by default: TorchScript"):
        assert [point.layer for point in measure(model, branches_data())] == ["0", "2"]
    assert hooks_on(model) == []


class Exportable(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
        self.rnn, self.head = nn.GRU(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.rnn(self.features(x).relu_()[:, None])[0][:, -1])


@pytest.mark.filterwarnings("ignore:The tensor attributes .* were assigned during export")
def test_a_module_out_of_torch_export_is_measured_as_it_is():
    model, (data,) = Exportable().eval(), branches_data()
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(model, (torch.rand(8, 4),), dynamic_shapes=shapes)
    layers = ["features.0", "features.2", "rnn", "head", "features"]
    plain = [(p.layer, pytest.approx(p.h_t)) for p in measure(model, [data], layers)]
    assert [(p.layer, p.h_t) for p in measure(torch.export.unflatten(program), [data], layers)] == plain

    graph = program.module()
    code, modules = graph.code, [name for name, _ in graph.named_modules()]
    assert [(p.layer, p.h_t) for p in measure(graph, [data], layers)] == plain
    with pytest.raises(Exception, match="Guard failed|mat1 and mat2"):
        measure(graph, [(torch.rand(8, 5), torch.zeros(8).long())], layers)
    assert graph.code == code
    assert [name for name, _ in graph.named_modules()] == modules, "the graph is what it was"

    both = nn.Sequential(nn.Dropout(0.9), graph, nn.Linear(2, 2))
    points = measure(both, [data], ["1.rnn", "2"])
    assert both.training
    assert [p.h_t for p in points] == pytest.approx(
        [p.h_t for p in measure(nn.Sequential(both[0], model, both[2]), [data], ["1.rnn", "2"])]
    ), "the dropout was in eval mode"


class Tagged(torch.Tensor):
    """As MONAI's MetaTensor: it goes through every operation, its results are its own, and it refuses one in place."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "").startswith("fill_diagonal"):
            raise TypeError("not in place")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_estimators_take_activations_and_labels_of_a_tensor_subclass():
    estimators = ["probe", "kde", "knn", "mixed", "copula", "renyi"]
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh())

    def found(convert):
        plane = InformationPlane(["0", "1"], estimators=estimators)
        with plane.attach(model), torch.no_grad():
            for x, y in branches_data(100):
                model(convert(x))
                plane.update(convert(x), convert(y))
        return exact(plane.compute()), exact(plane.estimate())

    assert found(lambda t: t.as_subclass(Tagged)) == found(lambda t: t)


def test_an_update_without_a_forward_is_an_error():
    model, plane = known_net(same=lambda x: x), InformationPlane({"same": WHOLE})
    with plane.attach(model):
        model(torch.rand(4, 1))
        plane.update(None, torch.arange(4))
        with pytest.raises(RuntimeError, match="never ran"):
            plane.update(None, torch.arange(4))


def test_a_layer_that_was_left_out_may_run_later():
    model, plane = Branches(), InformationPlane()
    with pytest.warns(UserWarning, match="left out"):
        counted(plane, model, branches_data())
    plane.reset()
    model.use_extra = True
    assert {"trunk", "head"} <= {point.layer for point in counted(plane, model, branches_data())}


# --- Arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({"layers": "fc"}, TypeError, r"layers must be a list of module names.*got 'fc'. Did you mean \['fc'\]\?"),
        ({"layers": 3}, TypeError, "layers must be a list of module names, a mapping from names to Quantizer, or None"),
        ({"layers": {"a", "b"}}, TypeError, "layers must be a list of module names"),
        ({"layers": []}, ValueError, "layers is empty: name at least one module, or give None"),
        ({"layers": {}}, ValueError, "layers is empty"),
        ({"layers": [nn.ReLU()]}, TypeError, r"layers must name modules by strings as in named_modules\(\)"),
        (
            {"layers": {"a": FixedBins([0.0])}},
            TypeError,
            "the layer 'a' needs a Quantizer, a CellQuantizer or None, got",
        ),
        ({"input": FixedBins([0.0])}, TypeError, "input must be a Quantizer or None, got FixedBins"),
        ({"input": CellQuantizer()}, TypeError, r"input must be a Quantizer or None, got CellQuantizer\(256\)"),
        ({"target": 3}, TypeError, "target must be a Quantizer or None, got 3"),
        ({"max_samples": 0}, ValueError, "max_samples must be an integer of at least"),
        ({"head": True}, TypeError, "head must be None, False or the name of a layer, got True"),
        ({"head": 3}, TypeError, "head must be None, False or the name of a layer, got 3"),
        ({"n_permutations": 1}, ValueError, "n_permutations must be an integer of at least 2, got 1: give 0 for none"),
        ({"unit": "bit"}, ValueError, "unit must be 'bits' or 'nats', got 'bit'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, kind, sentence):
    with pytest.raises(kind, match=sentence):
        InformationPlane(**arguments)
    model = known_net(same=lambda x: x)
    with pytest.raises(kind, match=sentence):
        measure(model, [(torch.rand(4, 1), torch.arange(4))], **arguments)
    assert hooks_on(model) == []


def test_an_unknown_layer_is_answered_with_the_nearest():
    model = Branches()
    for call in (
        lambda: measure(model, branches_data(), ["trunk", "haed"]),
        lambda: InformationPlane(["haed"]).attach(model),
    ):
        with pytest.raises(ValueError, match="Branches has no layer 'haed': did you mean 'head'"):
            call()
        assert hooks_on(model) == []


def test_patterns_give_their_quantizer_to_every_layer_they_name():
    plane = InformationPlane({"head": WHOLE, "*": None})
    with plane.attach(Branches()):
        assert plane.layers == ["head", "trunk", "extra"]
        assert list(plane.fitted_quantizers) == ["head"]
        assert plane.fitted_quantizers["head"].quantizer is plane.quantizers["head"] is WHOLE
        assert isinstance(plane.quantizers["trunk"], CellQuantizer)
        assert isinstance(plane.quantizers["extra"], CellQuantizer)


def test_one_quantizer_for_two_layers_fits_each():
    shared = Quantizer(None, UniformBins(16))
    model = known_net(small=lambda x: x, large=lambda x: 1000 * x)
    points = measure(model, [(SIXTEEN.unsqueeze(1), SIXTEEN)], {"small": shared, "large": shared})
    assert [point.h_t for point in points] == [4.0, 4.0]


def test_the_same_quantizer_can_be_used_for_one_measurement_after_another():
    quantizer = Quantizer(None, UniformBins(16))
    for scale in (1, 1000):
        (point,) = measure(known_net(t=lambda x: x), [(scale * SIXTEEN.unsqueeze(1), SIXTEEN)], {"t": quantizer})
        assert point.h_t == 4.0


# --- The hooks and the model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_come_off_however_the_block_ends(error):
    model, plane = Branches(), InformationPlane(["trunk"])

    def block():
        with plane.attach(model):
            model(torch.rand(2, 4))
            raise error

    with pytest.raises(error):
        block()
    assert hooks_on(model) == []


def test_a_failing_pool_raises_in_update_and_not_in_the_forward():
    model = Branches()
    plane = InformationPlane({"trunk": Quantizer(nn.MaxPool3d(4), FixedBins([0.0]))})
    with plane.attach(model):
        model(torch.rand(2, 4))
        with pytest.raises(ValueError, match="layer 'trunk' could not be recorded: "):
            plane.update(None, torch.arange(2))


@pytest.mark.parametrize("name", QUANTIZERS)
def test_watching_changes_neither_outputs_nor_gradients_nor_randomness(name):
    def step(watched):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 2))
        x = torch.randn(8, 6, generator=generator())
        plane = InformationPlane({"*": QUANTIZERS[name]()})
        recorder = plane.attach(model) if watched else None
        for _ in range(2):
            out = model(x)
            if watched:
                plane.update(x, torch.arange(8))
        out.square().sum().backward()
        if watched:
            plane.compute()
            recorder.remove()
        return [out, torch.get_rng_state(), *(p.grad for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(step(True), step(False)))


def test_a_pool_that_works_in_place_changes_no_output():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(8, 4, generator=generator())
    expected = model(x)
    with InformationPlane({"0": Quantizer(nn.ReLU(inplace=True), FixedBins([0.5]))}).attach(model):
        assert torch.equal(model(x), expected)


def test_a_watched_model_can_be_pickled():
    model, plane = nn.Sequential(nn.Linear(4, 2)), InformationPlane(["0"])
    with plane.attach(model):
        pickle.dumps(model)


def test_a_copy_of_a_watched_model_works_and_is_not_counted():
    # Averaged weights are kept in such a copy.
    model, plane = nn.Sequential(nn.Linear(4, 2)), InformationPlane({"0": WHOLE})
    x = torch.rand(8, 4)
    with plane.attach(model):
        duplicate = copy.deepcopy(model)
        model(x)
        duplicate(x + 1)
        plane.update(x, torch.arange(8) % 2)
        duplicate(x)
    assert plane.compute() == measure(model, [(x, torch.arange(8) % 2)], {"0": WHOLE})


def test_a_compiled_model_can_be_measured_by_default():
    model = nn.Sequential(nn.Linear(4, 2))
    data = branches_data()
    assert measure(torch.compile(model, backend="eager"), data) == measure(model, data)


def test_a_compiled_model_can_be_measured_by_name():
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    data = branches_data()
    assert measure(torch.compile(model, backend="eager"), data, ["0", "1"]) == measure(model, data, ["0", "1"])


def test_a_layer_of_one_number_a_sample_can_be_measured_twice():
    model, plane = known_net(score=lambda x: x[:, 0]), InformationPlane(["score"])
    data = [(torch.randn(100, 2, generator=generator()), torch.arange(100) % 2)]
    first = counted(plane, model, data)
    plane.reset()
    assert counted(plane, model, data) == first


# --- Nothing waits for the device ------------------------------------------------------------------------------------


class NoSync(TorchDispatchMode):
    """Refuses every operation that would make the host wait for a device, or move data between devices."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "nonzero_static",
        "is_nonzero",
        "item",
        "masked_select",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "equal",
        "allclose",
    )

    def __init__(self):
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.seen += 1
        assert name not in self.WAITING, f"{func} waits for the device"
        if name == "_to_copy" and kwargs.get("device") is not None:
            assert torch.device(kwargs["device"]).type == args[0].device.type, f"{func} moves data to another device"
        if name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} waits for the device to count what its mask selects"
        if name == "copy_":
            assert args[0].device == args[1].device, f"{func} moves data to another device"
        return func(*args, **kwargs)


@contextmanager
def nothing_waits():
    def refused(name):
        def method(self, *args, **kwargs):
            raise AssertionError(f"Tensor.{name} waits for the device")

        return method

    with pytest.MonkeyPatch.context() as patch, NoSync() as mode:
        # The ways to a value that no operation is dispatched for on the CPU.
        for name in ("tolist", "numpy", "cpu", "item", "__bool__", "__int__", "__float__", "__index__", "__array__"):
            patch.setattr(torch.Tensor, name, refused(name))
        yield mode


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: bool(x.any()),
        lambda x: x[x > 0.5],
        lambda x: x.unique(),
        lambda x: x.to("meta"),
        lambda x: torch.equal(x, x),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: 1 if x.sum() > 0 else 0,
    ],
)
def test_waiting_is_noticed(waits):
    x = torch.rand(4)
    with nothing_waits(), pytest.raises(AssertionError, match="waits|moves"):
        waits(x)


def binned(name):
    """A quantizer for an input or a target, which are never cut into cells."""
    return Quantizer(None, QuantileBins(3)) if name == "cells" else QUANTIZERS[name]()


@pytest.mark.parametrize("discretized", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_nothing_waits_in_the_batch_path_with_frozen_edges(name, discretized, monkeypatch):
    monkeypatch.setattr("lightning_ib.measurement.variables._AT_ONCE", 1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.Softmax(1))
    quantizer = QUANTIZERS[name]
    plane = InformationPlane(
        {"0": Quantizer(nn.MaxPool2d(2), quantizer().bins) if name != "cells" else quantizer(), "3": quantizer()},
        input=binned(name) if discretized else None,
        target=Quantizer(None, QuantileBins(3)) if discretized else None,
    )
    x, y = torch.randn(16, 1, 8, 8), torch.randn(16) if discretized else torch.arange(16) % 3
    counted(plane, model, [(x, y)])
    plane.reset()
    with plane.attach(model), nothing_waits() as mode:
        for _ in range(3):
            model(x)
            plane.update(x, y)
    assert mode.seen > 50
    assert plane.compute()[0].n_samples == 48


@pytest.mark.parametrize("name", ["cells", "uniform", "quantile"])
def test_nothing_waits_while_values_are_held_for_the_fit(name):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    plane = InformationPlane({"*": QUANTIZERS[name]()})
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    with plane.attach(model), nothing_waits():
        for _ in range(3):
            model(x)
            plane.update(x, y)


@pytest.mark.parametrize("n_classes", [1, 2, 5, 200])
@pytest.mark.parametrize("estimators", [[], ["soft"], ["probe", "kde"]], ids=["none", "soft", "probe and kde"])
def test_nothing_waits_in_the_batch_path_of_cells_heads_and_estimators(estimators, n_classes, monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, n_classes))
    plane = InformationPlane(estimators=estimators)
    x, y = torch.randn(48, 1, 8, 8), torch.arange(48) % min(max(2, n_classes), 8)
    counted(plane, model, [(x, y)])
    assert (plane.head is None) == (n_classes == 200)
    plane.estimate()
    plane.reset()
    with plane.attach(model), nothing_waits() as mode:
        for _ in range(3):
            model(x)
            plane.update(x, y)
    assert mode.seen > 50
    assert {point.n_samples for point in plane.compute()} == {144}
    assert {one.n_samples for one in plane.estimate()} == ({144} if estimators else set())


@pytest.mark.parametrize("name", ["fixed", "uniform", "range"])
def test_the_batch_path_runs_on_a_device_without_values(name, monkeypatch):
    monkeypatch.setattr("lightning_ib.measurement.variables._AT_ONCE", 1)
    # Tensors on "meta" have no values at all: whatever looks at one fails.
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    plane = InformationPlane({"*": QUANTIZERS[name]()}, input=QUANTIZERS[name]())
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    counted(plane, model, [(x, y)])
    plane.reset()
    meta = model.to("meta")
    with plane.attach(meta):
        for _ in range(2):
            meta(x.to("meta"))
            plane.update(x.to("meta"), y.to("meta"))
    assert (plane.n_updates, plane.n_seen) == (2, 32)


@pytest.mark.parametrize("estimators", [[], ["soft"]], ids=["none", "soft"])
def test_the_batch_path_of_cells_runs_on_a_device_without_values(estimators):
    model = nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 3))
    plane = InformationPlane(estimators=estimators)
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    counted(plane, model, [(x, y)])
    plane.estimate()
    plane.reset()
    meta = model.to("meta")
    with plane.attach(meta):
        for _ in range(2):
            meta(x.to("meta"))
            plane.update(x.to("meta"), y.to("meta"))
    drawn = plane.drawn()
    assert {rows.device.type for rows in (*drawn.layers.values(), *drawn.others.values())} == {"meta"}
    assert {name: tuple(rows.shape) for name, rows in drawn.layers.items()} == {"0": (32, 128), "2": (32, 3)}


# --- measure leaves no trace -----------------------------------------------------------------------------------------


class Stirring(torch.utils.data.Dataset):
    """Draws from every random generator there is, as augmentation does."""

    def __len__(self):
        return 40

    def __getitem__(self, k):
        noise = torch.rand(4) + np.random.rand() + random.random()
        return noise, k % 2


class Touchy(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 2)
        self.fails_at = None
        self.calls = SimpleNamespace(n=0)  # out of sight of what is put back

    def forward(self, x):
        self.calls.n += 1
        if self.calls.n == self.fails_at:
            raise ArithmeticError("in the middle")
        torch.rand(1)
        return self.head(self.drop(self.norm(self.frozen(x))))


def loaders(g):
    data = Stirring()
    return {
        "shuffling": DataLoader(data, batch_size=8, shuffle=True),
        "own generator": DataLoader(data, batch_size=8, shuffle=True, generator=g),
        "sampler": DataLoader(data, batch_size=8, sampler=RandomSampler(data, generator=g)),
        "subset": DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(24), generator=g)),
        "weighted": DataLoader(data, batch_size=8, sampler=WeightedRandomSampler([1.0] * 40, 24, generator=g)),
        "batch sampler": DataLoader(
            data, batch_sampler=torch.utils.data.BatchSampler(RandomSampler(data, generator=g), 8, drop_last=False)
        ),
        "no batch sampler": DataLoader(
            list(DataLoader(data, batch_size=8)), batch_size=None, sampler=RandomSampler(range(5), generator=g)
        ),
        "list": [next(iter(DataLoader(data, batch_size=8))) for _ in range(3)],
        "iterator": (next(iter(DataLoader(data, batch_size=8))) for _ in range(3)),
    }


LOADERS = list(loaders(torch.Generator()))


@pytest.mark.parametrize("fails_at", [None, 2])
@pytest.mark.parametrize("loader", LOADERS)
def test_measuring_puts_everything_back(loader, fails_at):
    g = generator(7)
    dataloader = loaders(g)[loader]
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    model = Touchy().train()
    model.norm.eval()
    model.drop.train()
    model.head.training = False
    model(torch.rand(8, 4)).sum().backward()
    model.calls.n, model.fails_at = 0, fails_at
    gradients = {name: p.grad for name, p in model.named_parameters()}

    def state():
        return {
            "modes": [module.training for module in model.modules()],
            "weights": {name: value.clone() for name, value in model.state_dict().items()},
            "identity": {name: (id(p), p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()},
            "gradients": {n: None if g is None else (id(g), g.clone()) for n, g in gradients.items()},
            "is the gradient": all(p.grad is gradients[name] for name, p in model.named_parameters()),
            "torch": torch.get_rng_state(),
            "numpy": [np.array(part) for part in np.random.get_state()[1:]],
            "python": random.getstate(),
            "loader": g.get_state(),
            "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            "hooks": hooks_on(model),
        }

    before = state()
    if fails_at is None:
        points = measure(model, dataloader, ["frozen", "head"])
        assert [point.layer for point in points] == ["frozen", "head"]
        assert model.calls.n > 1
    else:
        with pytest.raises(ArithmeticError, match="in the middle"):
            measure(model, dataloader, ["frozen", "head"])
    assert_same(state(), before)


def assert_same(found, expected, where="state"):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for k, (a, b) in enumerate(zip(found, expected)):
            assert_same(a, b, f"{where}[{k}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, np.ndarray):
        assert np.array_equal(found, expected), where
    else:
        assert found == expected, where


def test_the_generator_of_a_wrapped_loader_is_put_back():
    tqdm = pytest.importorskip("tqdm").tqdm
    g = generator(7)
    before = g.get_state()
    loader = loaders(g)["own generator"]
    measure(Touchy(), tqdm(loader, disable=True), ["head"])
    assert torch.equal(g.get_state(), before)


def test_measuring_runs_in_eval_mode_without_gradient():
    seen = []
    model = nn.Sequential(
        Function(lambda x: seen.append((torch.is_grad_enabled(), model.training)) or x), nn.Linear(4, 2)
    )
    measure(model.train(), branches_data(), ["1"])
    assert seen == [(False, False)]


def test_measuring_twice_gives_the_same_points_whatever_the_augmentation():
    model = Touchy()
    loader = DataLoader(Stirring(), batch_size=8, shuffle=True)
    first = measure(model, loader)
    torch.rand(5), random.random(), np.random.rand()
    assert measure(model, loader) == first


def test_estimators_that_are_asked_for_by_name_are_measured_too():
    model, data = Branches(), branches_data(200)
    found = measure(model, data, ["head"], estimators=["probe", "kde"], unit="nats")
    assert {(one.source, one.quantity) for one in found.estimates()} == {
        *(("probe", quantity) for quantity in ("I_TY", "accuracy")),
        *(("kde", quantity) for quantity in ("I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance")),
    }
    assert {(one.epoch, one.step, one.layer, one.n_samples) for one in found.estimates()} == {(0, 0, "head", 200)}
    assert all(math.isfinite(one.value) for one in found.estimates())
    plane = InformationPlane(["head"], estimators=["probe", "kde"], unit="nats")
    counted(plane, model, data)
    assert exact(plane.estimate()) == exact(found.estimates())
    assert exact(plane.compute()) == exact(History.of(found))
    assert exact(measure(model, data, ["head"], unit="nats")) == exact(History.of(found)), (
        "none is asked for by default"
    )


def test_an_estimator_in_a_measurement_moves_no_random_state_and_leaves_the_mode():
    model = Touchy().train()
    before = torch.get_rng_state()
    found = measure(model, branches_data(), estimators=["infonce"])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert {one.source for one in found.estimates()} == {"infonce"}


def test_points_do_not_depend_on_the_mode_the_model_was_in():
    model = Touchy()
    assert measure(model.train(), branches_data()) == measure(model.eval(), branches_data())


def test_modules_that_share_a_mode_flag_of_their_own_get_it_back():
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
    model.train(False)
    model[1].training = True
    with preserve_state(model):
        assert [m.training for m in model.modules()] == [False, False, False]
    assert [m.training for m in model.modules()] == [False, False, True]


def test_batches_in_mappings_and_models_with_keywords():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, *, values, mask):
            return {"logits": self.inner(values * mask)}

    x, y = branches_data()[0]
    rows = [{"values": x, "mask": torch.ones(40, 1), "labels": y}]
    points = measure(Keywords(), rows, ["inner"], unpack=lambda b: ({k: b[k] for k in ("values", "mask")}, b["labels"]))
    assert points[0].n_samples == 40


def test_no_device_means_where_the_model_is_and_the_cpu_is_named_in_any_way():
    model, data = Branches(), branches_data()
    assert measure(model, data, ["head"], device="cpu") == measure(model, data, ["head"])
    assert measure(model, data, ["head"], device=torch.device("cpu")) == measure(model, data, ["head"])


class Detour(nn.Module):
    """Notes where it was sent."""

    def __init__(self):
        super().__init__()
        self.weight, self.sent = nn.Parameter(torch.ones(1)), []

    def to(self, device):
        self.sent.append(torch.device(device).type)
        return self

    def forward(self, x):
        raise ArithmeticError("in the middle")


def test_the_model_comes_home_from_another_device():
    model = Detour()
    with pytest.raises(ValueError, match="no leaf module|no layer"):
        measure(model, branches_data(), ["weight"], device="meta")
    assert model.sent[-1] == "cpu"
    assert model.sent[0] == "meta"


def test_a_model_on_several_devices_is_left_where_it_is():
    model = Branches()
    model.register_buffer("elsewhere", torch.empty(3, device="meta"))
    points = measure(model, branches_data(), ["head"])
    assert points[0].n_samples == 40
    assert model.elsewhere.device.type == "meta"


def test_batches_are_moved_however_they_are_nested():
    batch = {
        "x": [torch.ones(1), (torch.ones(1), "text")],
        "y": None,
        "named": torch.return_types.max((torch.ones(1),) * 2),
    }
    moved = to(batch, torch.device("meta"))
    assert moved["x"][0].device.type == moved["x"][1][0].device.type == "meta"
    assert moved["x"][1][1] == "text"
    assert moved["y"] is None


def test_packed_sequences_are_moved():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    assert to(packed, torch.device("meta")).data.device.type == "meta"


# --- A loader that shows every sample once ---------------------------------------------------------------------------


def test_a_shuffling_loader_is_read_in_order_without_moving_its_generator():
    g = generator()
    before = g.get_state()
    data = TensorDataset(torch.arange(10))
    loader = DataLoader(
        data,
        batch_size=4,
        shuffle=True,
        drop_last=True,
        generator=g,
        collate_fn=lambda b: torch.stack([x for (x,) in b]),
    )
    random_state = torch.get_rng_state()
    assert [batch.tolist() for batch in sequential_loader(loader)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(g.get_state(), before)
    assert torch.equal(torch.get_rng_state(), random_state)


class Stateful(torch.utils.data.Sampler):
    """A sampler with a random state of its own, which every pass moves."""

    def __init__(self, n):
        self.n, self.generator = n, np.random.default_rng(0)

    def __iter__(self):
        return iter(self.generator.permutation(self.n).tolist())

    def __len__(self):
        return self.n


def test_loaders_that_choose_their_samples_go_on_choosing_and_are_not_moved():
    data, model = TensorDataset(torch.arange(10)), nn.Linear(1, 1)
    for loader, sizes in (
        (DataLoader(data, sampler=SubsetRandomSampler(range(5)), batch_size=2), [2, 2, 1]),
        (DataLoader(data, sampler=RandomSampler(data, replacement=True), batch_size=5), [5, 5]),
        (DataLoader(data, sampler=RandomSampler(data, num_samples=3), batch_size=2), [2, 1]),
        (DataLoader(data, sampler=Stateful(10), batch_size=5), [5, 5]),
        (DataLoader(data, batch_sampler=[[0, 1], [2]]), [2, 1]),
        (DataLoader(data, batch_size=None), [1] * 10),
    ):
        own = sequential_loader(loader)
        assert own is not loader
        before = torch.get_rng_state()
        state = copy.deepcopy(getattr(loader.sampler, "generator", None))
        with preserve_state(model, loader):
            assert [batch[0].numel() for batch in own] == sizes
        assert torch.equal(torch.get_rng_state(), before)
        if isinstance(loader.sampler, Stateful):
            assert loader.sampler.generator.bit_generator.state == state.bit_generator.state
    for data in ([1, 2], DataLoader(Streaming())):
        assert sequential_loader(data) is data


class Streaming(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(3))


# --- Memory ----------------------------------------------------------------------------------------------------------

MEMORY = r"""
import re, torch
from pathlib import Path
from torch import nn
from lightning_ib import FixedBins, InformationPlane, Quantizer

torch.set_num_threads(1)

def peak():
    # Not getrusage: what that calls the peak outlives exec, and may be the peak of the process that ran pytest.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).eval()
edges = FixedBins([-0.2, 0.0, 0.2])

def run(n_batches):
    plane = InformationPlane({name: Quantizer(None, edges) for name in ("0", "2", "4")})
    g = torch.Generator().manual_seed(0)
    with plane.attach(model), torch.no_grad():
        for _ in range(n_batches):
            x = torch.randn(1000, 8, generator=g)
            model(x)
            plane.update(x, (x[:, 0] > 0).long())
    counting = peak()
    points = plane.compute()
    assert points[0].n_samples == 1000 * n_batches, points
    assert points[0].n_codes > 1000
    return counting

run(5)
before = peak()
counting = run(1000)
print(counting - before, peak() - before)
"""


@pytest.fixture(scope="module")
def megabytes():
    """Above the model, for a million samples of three layers: while counting, and with the figures computed."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return tuple(map(float, done.stdout.split()))


@pytest.mark.slow
def test_a_million_samples_of_three_layers_are_kept_in_little_memory(megabytes):
    # 8 bytes × 1e6 × (three layers and the labels) = 32 MB; lists are merged by copying.
    assert megabytes[0] < 70


@pytest.mark.slow
def test_the_figures_of_a_million_samples_take_under_a_hundred_megabytes(megabytes):
    assert megabytes[1] < 100


# --- Several processes -----------------------------------------------------------------------------------------------

LAYERS = {"layer0": Quantizer(None, FixedBins([0.0, 1.0])), "layer1": None}
SHARES = [slice(0, 40), slice(40, 300)]

RANK = """
import json, sys, warnings
from datetime import timedelta
import torch, torch.distributed as dist
from lightning_ib import InformationPlane, QuantileBins, Quantizer
from tests.unit.measurement.test_information_plane import LAYERS, QUANTIZERS, SHARES, Exact, exact_data

torch.set_num_threads(1)
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=30))
x, y = exact_data()
mine = SHARES[rank]
found = {}
for name, make in QUANTIZERS.items():
    try:
        model = Exact()
        plane = InformationPlane({"layer*": make()}, input=Quantizer(None, QuantileBins(2)))
        found[name] = []
        for _ in range(2):  # fitted, then frozen
            plane.reset()
            with plane.attach(model):
                for some, labels in zip(x[mine].split(64), y[mine].split(64)):
                    model(some)
                    plane.update(some, labels)
            found[name].append(plane.compute())
    except Exception as error:
        found[name] = repr(error)


def given(plane, batches):
    model = Exact()
    with plane.attach(model):
        for some, labels in batches:
            model(some)
            plane.update(some, labels)
    return plane


own = list(zip(x[mine].split(64), y[mine].split(64)))
plane = given(InformationPlane(LAYERS, estimators=["kde"]), own)
found["alone"] = [plane.compute(across_processes=False), plane.estimate(across_processes=False)]
found["together"] = [plane.compute(), plane.estimate()]
found["alone again"] = [plane.compute(across_processes=False), plane.estimate(across_processes=False)]
plane = given(InformationPlane(LAYERS, input=Quantizer(None, QuantileBins(2))), own if rank else [])
found["one has none"] = [plane.compute(), plane.compute()]
plane = given(InformationPlane(LAYERS), [(some, labels.double() / 3 if rank else labels) for some, labels in own])
try:
    plane.compute()
except ValueError as error:
    found["other forms"] = str(error)
print(json.dumps(found, default=list), flush=True)  # a history as its points
dist.barrier()  # who leaves first tears down what the other still waits on
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    store = tmp_path_factory.mktemp("ranks") / "store"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for rank in range(2)
    ]
    try:
        return [(*rank.communicate(timeout=120), rank.returncode) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_two_processes_give_the_figures_of_one(two_ranks, name):
    x, y = exact_data()
    plane = InformationPlane({"layer*": QUANTIZERS[name]()}, input=Quantizer(None, QuantileBins(2)))
    expected = counted(plane, Exact(), [(x, y)])
    for out, err, status in two_ranks:
        assert status == 0, err
        measured = json.loads(out)[name]
        assert [[repr(tuple(point)) for point in points] for points in measured] == [
            [repr(tuple(point)) for point in expected]
        ] * 2


def numbers(records):
    """Their fields, the numbers rounded as the order of the rows may change their last bits."""
    return [
        tuple(pytest.approx(value, abs=1e-9, nan_ok=True) if isinstance(value, float) else value for value in record)
        for record in records
    ]


def found_by(two_ranks, name):
    for out, err, status in two_ranks:
        assert status == 0, err
        found = json.loads(out)[name]
        yield [[tuple(record) for record in records] for records in found] if isinstance(found, list) else found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alone", "together", "alone again"])
def test_two_processes_count_together_or_each_alone(two_ranks, name):
    x, y = exact_data()
    for share, (points, estimates) in zip(SHARES, found_by(two_ranks, name)):
        rows = slice(None) if name == "together" else share
        plane = InformationPlane(LAYERS, estimators=["kde"])
        assert points == numbers(counted(plane, Exact(), [(x[rows], y[rows])]))
        if name == "alone":  # what an estimator sets from a layer's scale is set by its first measurement
            assert estimates == numbers(plane.estimate())
        assert {estimate[8] for estimate in estimates} == {len(x[rows])}


@pytest.mark.slow
def test_a_process_without_a_batch_has_the_figures_of_the_other(two_ranks):
    x, y = exact_data()
    plane = InformationPlane(LAYERS, input=Quantizer(None, QuantileBins(2)))
    expected = numbers(counted(plane, Exact(), [(x[SHARES[1]], y[SHARES[1]])]))
    for first, again in found_by(two_ranks, "one has none"):
        assert first == expected
        assert again == expected


@pytest.mark.slow
def test_targets_of_other_forms_are_refused_in_both_processes(two_ranks):
    one, other = found_by(two_ranks, "other forms")
    assert one == other
    assert one.startswith("the target has another form in one process than in another")


class TwiceAndNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.norm, self.head = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.norm(self.shared(self.shared(x).relu())))


def test_of_an_exported_module_the_last_call_counts_and_names_outside_are_not_its_own():
    teacher, (data,) = TwiceAndNormed().eval(), branches_data()
    program = torch.export.export(teacher, (data[0],))

    class Student(nn.Module):
        def __init__(self, teacher):
            super().__init__()
            self.teacher, self.shared, self.head = teacher, nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.shared(x)) + self.teacher(x)

    torch.manual_seed(1)
    plain = Student(teacher)
    exported = copy.deepcopy(plain)
    exported.teacher = program.module()
    points, points_of = (measure(model, [data]) for model in (exported, plain))
    assert [point.layer for point in points] == ["teacher.shared", "teacher.head", "shared", "head"]
    assert [(p.layer, pytest.approx(p.h_t)) for p in points_of] == [(p.layer, p.h_t) for p in points]


# --- A plane is a plain object ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda plane: pickle.loads(pickle.dumps(plane))])
@pytest.mark.parametrize("layers", [None, {"0": WHOLE, "head": None}], ids=["cells", "bins and cells"])
@pytest.mark.parametrize("attached", [False, True])
def test_a_copy_holds_what_was_counted_and_goes_on_by_itself(copied, layers, attached):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("0", nn.Linear(6, 5))
    model.add_module("head", nn.Linear(5, 3))
    data = [(torch.randn(20, 6), torch.arange(20) % 3) for _ in range(3)]
    plane = InformationPlane(layers)
    with plane.attach(model) as recorder:
        for x, y in data[:2]:
            model(x)
            plane.update(x, y)
        if not attached:
            recorder.remove()
        other = copied(plane)
    assert not hooks_on(model)
    assert (other.n_seen, other.n_updates) == (40, 2)
    with pytest.raises(RuntimeError, match="update needs a model"):
        other.update(*data[2])
    points = plane.compute()
    assert other.compute() == points
    assert counted(other, model, data[2:]) == measure(model, data, layers)
    assert plane.compute() == points, "what the copy saw does not reach it"


def test_computing_twice_gives_the_same_points():
    model, data = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), [(torch.randn(30, 6), torch.arange(30) % 3)] * 2
    plane = InformationPlane({"0": Quantizer(None, UniformBins(4)), "1": None}, input=Quantizer(None, UniformBins(2)))
    points = counted(plane, model, data)
    assert plane.compute() == plane.compute() == points
    assert [point.epoch for point in plane.compute(epoch=7)] == [7, 7]


def test_what_is_kept_of_a_batch_needs_no_gradient():
    model = nn.Sequential(nn.Linear(6, 5))
    plane = InformationPlane(["0"], input=Quantizer(lambda x: x.mean(1), UniformBins(2)), keep_rows=True)
    x = torch.randn(8, 6, requires_grad=True)
    with plane.attach(model):
        model(x)
        plane.update(x, torch.arange(8) % 2)
    drawn = plane.drawn()
    assert not any(rows.requires_grad for rows in (*drawn.layers.values(), *drawn.others.values()))


def test_updates_are_counted_from_the_start_of_the_measurement():
    model, plane = nn.Sequential(nn.Linear(6, 5)), InformationPlane(["0"])
    x, y = torch.randn(8, 6), torch.arange(8) % 2
    assert plane.n_updates == 0
    counted(plane, model, [(x, y)] * 3)
    assert (plane.n_updates, plane.n_seen, plane.n_shown) == (3, 24, 24)
    plane.reset()
    assert (plane.n_updates, plane.n_seen, plane.n_shown) == (0, 0, 0)
    with pytest.raises(ValueError, match="nothing was counted: no batch was seen"):
        plane.compute()
