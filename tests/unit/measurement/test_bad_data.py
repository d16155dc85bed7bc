"""Data that cannot be measured costs its own figures, and wrong data or arguments are refused in a sentence."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import Bins, CellQuantizer, FixedBins, InformationPlane, QuantileBins, Quantizer, UniformBins, measure
from lightning_ib.records import History
from tests.helpers.nets import known_net
from tests.helpers.planes import QUANTIZERS, SIXTEEN, WHOLE, Branches, batches, branches_data, counted, hooks_on
from tests.helpers.records import exact
from tests.helpers.samples import generator

pytestmark = pytest.mark.usefixtures("one_thread")


# -- Bad data ----------------------------------------------------------------------------------------------------------

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


# -- Arguments ---------------------------------------------------------------------------------------------------------


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
