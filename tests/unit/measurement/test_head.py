"""The head: which layer it is, what it is measured on, and what its accuracy proves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_ib import FixedBins, InformationPlane, Quantizer, measure
from lightning_ib.functional import entropy, mutual_information, sketch
from lightning_ib.functional.discrete.fano import fano_error, fano_information
from lightning_ib.measurement.head import n_classes_of
from lightning_ib.records.reliability import VerdictWarning
from tests.helpers.samples import generator


class Scores(nn.Module):
    """A last layer with weights, which puts out given scores: of the input itself, or of a module of one's own."""

    def __init__(self, last=None):
        super().__init__()
        self.body, self.last = nn.Linear(4, 16), nn.Identity() if last is None else last

    def forward(self, x):
        self.body(x[:, :4])
        return self.last(x)


def labeled_scores(n, n_classes, right=0.9, seed=0):
    """Logits that are right for a share of the samples, and the labels."""
    y = torch.arange(n) % n_classes
    said = torch.where(torch.rand(n, generator=generator(seed)) < right, y, (y + 1) % n_classes)
    noise = torch.rand(n, n_classes, generator=generator(1))
    return 4 * nn.functional.one_hot(said, n_classes) + noise, y, said


def plane_of(model, x, y, layers=("body", "last"), batch=50, **options):
    plane = InformationPlane(list(layers) if isinstance(layers, tuple) else layers, unit="nats", **options)
    with plane.attach(model):
        for some, labels in zip(x.split(batch), y.split(batch)):
            model(some)
            plane.update(some, labels)
    return plane, {point.layer: point for point in plane.compute()}


# --- Which layer is the head -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 10, 50])
def test_the_last_layer_with_a_coordinate_for_each_class_is_the_head(n_classes):
    x, y, said = labeled_scores(500, n_classes)
    x = nn.functional.pad(x, (0, max(0, 4 - n_classes)))
    model = Scores(nn.Linear(x.shape[1], n_classes))
    model.last.weight.data, model.last.bias.data = torch.eye(n_classes, x.shape[1]), torch.zeros(n_classes)
    plane, points = plane_of(model, x, y)
    assert plane.head[:4] == ("last", n_classes, n_classes, "softmax")
    assert points["last"].accuracy == plane.head.accuracy == float((said == y).double().mean())
    assert math.isnan(points["body"].accuracy)
    assert points["body"].i_ty_fano == points["last"].i_ty_fano
    assert "measured on its softmax" in plane.discretized["last"]
    # By default the layers are the same.
    assert plane_of(model, x, y, None)[0].head == plane.head


def test_the_head_is_measured_on_its_softmax():
    x, y, _ = labeled_scores(500, 10)
    drawn = plane_of(Scores(), x, y)[0].labeled_rows()["last"]
    order = torch.argsort(x.softmax(1)[:, 0])
    torch.testing.assert_close(drawn.t[drawn.t[:, 0].argsort()], x.softmax(1)[order])
    alone = measure(Scores(nn.Softmax(1)), [(x, y)], ["last"], unit="nats")[0]
    assert plane_of(Scores(), x, y)[1]["last"].i_ty == pytest.approx(alone.i_ty, abs=1e-9)


@pytest.mark.parametrize("module", [nn.Softmax(1), nn.Softmax(dim=-1)])
def test_a_module_that_gives_probabilities_is_measured_as_it_is(module):
    x, y, said = labeled_scores(500, 10)
    plane, _ = plane_of(Scores(module), x, y)
    assert plane.head[:5] == ("last", 10, 10, "probabilities", float((said == y).double().mean()))
    rows = plane.labeled_rows()["last"].t
    torch.testing.assert_close(rows.sum(1), torch.ones(500))
    torch.testing.assert_close(rows.sort(0).values, x.softmax(1).sort(0).values)


def test_the_softmax_of_log_probabilities_are_the_probabilities():
    x, y, said = labeled_scores(500, 10)
    plane, points = plane_of(Scores(nn.LogSoftmax(1)), x, y)
    assert plane.head[:5] == ("last", 10, 10, "softmax", float((said == y).double().mean()))
    torch.testing.assert_close(plane.labeled_rows()["last"].t.sort(0).values, x.softmax(1).sort(0).values)


@pytest.mark.parametrize("module", [None, nn.Sigmoid()])
def test_a_single_logit_stands_for_two_classes(module):
    x, y, said = labeled_scores(400, 2, 0.8)
    logit = (x[:, 1:] - x[:, :1]).repeat(1, 4)
    last = nn.Sequential(nn.Identity()) if module is None else module

    class Net(Scores):
        def forward(self, x):
            self.body(x)
            return self.last(x[:, :1])

    plane, points = plane_of(Net(last), logit, y)
    right = float((said == y).double().mean())
    assert plane.head[:5] == ("last", 1, 2, "sigmoid" if module is None else "probabilities", right)
    assert points["last"].accuracy == right
    assert points["last"].i_ty_fano == fano_information(right, h_y=math.log(2), n_classes=2, unit="nats")
    rows = plane.labeled_rows()["last"].t
    assert rows.shape == (400, 1)
    assert rows.min() >= 0
    assert rows.max() <= 1


def test_a_single_logit_of_one_class_is_no_head():
    x = torch.randn(50, 4, generator=generator())
    with pytest.warns(UserWarning, match="same target"):
        plane, _ = plane_of(Scores(nn.Linear(4, 1)), x, torch.zeros(50).long())
    assert plane.head is None


def test_of_more_classes_than_a_sketch_has_coordinates_all_logits_predict():
    x, y, said = labeled_scores(1000, 200, 0.7)
    plane, points = plane_of(Scores(), x, y, max_samples=1000)
    assert plane.head[:5] == ("last", 200, 200, "softmax", float((said == y).double().mean()))
    rows = plane.labeled_rows()["last"].t
    assert rows.shape == (1000, 128)
    torch.testing.assert_close(rows.sort(0).values, sketch(x.softmax(1)).sort(0).values)
    assert points["last"].accuracy == plane.head.accuracy


def test_accuracy_and_probabilities_are_of_the_sampled_rows():
    x, y, said = labeled_scores(3000, 10, 0.7)
    plane, points = plane_of(Scores(), x, y, max_samples=500)
    assert points["last"].n_samples == 500
    assert plane.head.accuracy * 500 == pytest.approx(round(plane.head.accuracy * 500))
    assert plane.head.accuracy == pytest.approx(float((said == y).double().mean()), abs=0.08)


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_the_batch_size_does_not_show(batch):
    x, y, _ = labeled_scores(500, 10)
    plane, points = plane_of(Scores(), x, y, batch=batch)
    whole, expected = plane_of(Scores(), x, y, batch=100)
    assert plane.head == whole.head
    assert points["last"].n_codes == expected["last"].n_codes
    assert points["last"].i_ty == pytest.approx(expected["last"].i_ty, abs=1e-6)


def no_head(model, x, y, layers=("body", "last"), **options):
    plane, points = plane_of(model, x, y, layers, **options)
    assert plane.head is None
    assert all(math.isnan(v) for p in points.values() for v in (p.accuracy, p.i_ty_fano, p.fano_shortfall))
    return points


def test_a_layer_of_another_width_is_no_head():
    x, y, _ = labeled_scores(500, 10)
    no_head(Scores(nn.Linear(10, 16)), x, y)
    no_head(Scores(nn.Linear(10, 9)), x, y)
    no_head(Scores(nn.Linear(10, 1)), x, y)
    no_head(Scores(nn.Unflatten(1, (1, 10))), x, y)


@pytest.mark.filterwarnings("ignore:the target is -")
@pytest.mark.parametrize("y", [torch.arange(500) % 10 - 1, torch.arange(500) % 10 + 1, (torch.arange(500) % 10) * 7])
def test_labels_that_do_not_number_the_coordinates_make_no_head(y):
    no_head(Scores(), labeled_scores(500, 10)[0], y)


def test_a_layer_before_one_with_weights_that_nobody_watches_is_no_head():
    x, y, _ = labeled_scores(500, 10)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(10, 10), nn.Linear(10, 10)

        def forward(self, x):
            return self.out(self.hidden(x))

    no_head(Net(), x, y, ("hidden",))
    assert plane_of(Net(), x, y, ("hidden", "out"))[0].head.layer == "out"
    assert plane_of(Net(), x, y, ("hidden",), head="hidden")[0].head.layer == "hidden"


def test_the_layer_that_runs_last_is_the_head_wherever_it_is_defined_and_however_often_it_runs():
    x, y, _ = labeled_scores(500, 10)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(10, 10), nn.Linear(10, 10)

        def forward(self, x):
            return self.head(self.body(x) + self.head(x))

    assert plane_of(Net(), x, y, None)[0].head.layer == "head"
    assert plane_of(Net(), x, y, ("body", "head"))[0].head.layer == "head"


def test_without_a_target_or_with_a_real_one_there_is_no_head():
    x, _, _ = labeled_scores(100, 10)
    plane = InformationPlane(["last"])
    model = Scores()
    with plane.attach(model):
        model(x)
        plane.update(x, None)
    assert math.isnan(plane.compute()[0].accuracy)
    assert plane.head is None
    plane = InformationPlane(["last"], target=Quantizer(None, FixedBins([0.5])))
    with plane.attach(model):
        model(x)
        plane.update(x, x[:, 0])
    assert math.isnan(plane.compute()[0].accuracy)
    assert plane.head is None


def test_a_head_may_be_switched_off():
    x, y, _ = labeled_scores(500, 10)
    points = no_head(Scores(), x, y, head=False)
    assert repr(list(points.values())) != repr(list(plane_of(Scores(), x, y)[1].values()))
    assert measure(Scores(), [(x, y)], ["last"], head=False, unit="nats")[0].i_ty == pytest.approx(points["last"].i_ty)


def test_a_head_may_be_named():
    x, y, _ = labeled_scores(500, 10)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.auxiliary = nn.Linear(10, 10), nn.Linear(10, 10)

        def forward(self, x):
            return self.main(x), self.auxiliary(x)

    assert plane_of(Net(), x, y, ("main", "auxiliary"))[0].head.layer == "auxiliary"
    plane, points = plane_of(Net(), x, y, ("main", "auxiliary"), head="main")
    assert plane.head.layer == "main"
    assert math.isnan(points["auxiliary"].accuracy)
    assert not math.isnan(points["main"].accuracy)


def test_a_name_that_is_none_of_the_layers_is_refused():
    with pytest.raises(ValueError, match=r"head='lst' is none of the layers watched, \['last'\]: name it in"):
        InformationPlane(["last"], head="lst").attach(Scores())


def test_a_named_head_of_the_wrong_width_is_refused():
    x, y, _ = labeled_scores(500, 10)
    sentence = (
        r"head='last' has 16 coordinates, and the labels do not number its classes 0 … C − 1: name the layer that has "
        r"one for each class, or give head=False\."
    )
    with pytest.raises(ValueError, match=sentence):
        plane_of(Scores(nn.Linear(10, 16)), x, y, head="last")


@pytest.mark.parametrize("module", [nn.Unflatten(1, (2, 5)), nn.Flatten(0)])
def test_a_named_head_that_gives_no_number_for_each_class_is_refused(module):
    x, y, _ = labeled_scores(500, 10)
    with pytest.raises(ValueError, match="last"):
        plane_of(Scores(module), x, y, head="last")


@pytest.mark.parametrize(
    ("width", "classes_seen", "n", "found"),
    [
        (10, 10, 20, True),
        (10, 9, 20, True),
        (10, 9, 60, True),
        (10, 9, 70, False),
        (10, 9, 5000, False),
        (10, 5, 9, True),
        (10, 5, 20, False),
        (1000, 950, 100, True),
        (2, 1, 5, True),
        (2, 1, 50, False),
        (10, 11, 30, False),
    ],
)
def test_a_last_class_may_be_missing_from_a_small_sample_only(width, classes_seen, n, found):
    labels = torch.arange(n) % classes_seen
    labels[-1] = classes_seen - 1
    assert n_classes_of(width, labels) == (width if found else None)


def test_no_label_names_no_class():
    assert n_classes_of(10, torch.empty(0).long()) is None


def test_a_small_sample_without_the_last_class_has_a_head():
    x, y, said = labeled_scores(27, 10)
    plane, points = plane_of(Scores(), x[y < 9], y[y < 9])
    assert plane.head.n_classes == 10
    assert points["last"].accuracy == float((said == y)[y < 9].double().mean())


def test_an_output_that_is_not_finite_costs_the_head_alone():
    x, y, _ = labeled_scores(100, 10)
    bad = x.clone()
    bad[3, 2] = math.nan

    class Net(Scores):
        def forward(self, x):
            self.body(x[:, 4:8])
            return self.last(x)

    with pytest.warns(UserWarning, match="layer 'last' gave NaN or infinite values in 1 of 100 samples") as caught:
        _, points = plane_of(Net(), bad, y)
    assert len([w for w in caught if w.category is not VerdictWarning]) == 1
    assert math.isnan(points["last"].i_ty)
    assert points["body"].i_ty >= 0


# --- What the accuracy proves ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60), st.integers(6, 9))
def test_fanos_inequality_holds_for_what_was_counted(pairs, n_classes):
    """Of any predictions of any labels, H(Y), the accuracy and the information counted on the same samples."""
    predicted, y = torch.tensor(pairs).t()
    right = float((predicted == y).double().mean())
    least = fano_information(right, h_y=entropy(y), n_classes=n_classes)
    assert mutual_information(predicted, y) >= least - 1e-9
    assert mutual_information(predicted, y) >= fano_information(right, h_y=entropy(y), n_classes=6) - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 30), st.integers(0, 10))
def test_fanos_bound_is_reached_where_errors_fall_evenly_on_all_wrong_classes(n_classes, n_right, n_wrong):
    table = torch.full((n_classes, n_classes), n_wrong)
    table.fill_diagonal_(n_right)
    cells = torch.meshgrid(torch.arange(n_classes), torch.arange(n_classes), indexing="ij")
    y, said = (part.flatten().repeat_interleave(table.flatten()) for part in cells)
    right = n_right / (n_right + n_wrong * (n_classes - 1))
    if right >= 1 / n_classes:
        assert mutual_information(said, y) == pytest.approx(
            fano_information(right, h_y=math.log2(n_classes), n_classes=n_classes), abs=1e-9
        )


@pytest.mark.parametrize("unit", ["bits", "nats"])
@pytest.mark.parametrize("accuracy", [0, 0.1, 0.5, 0.937, 0.999, 1])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 1000])
def test_fanos_bound_is_that_of_the_formula(accuracy, n_classes, unit):
    log = math.log2 if unit == "bits" else math.log
    error, h_y = 1 - accuracy, log(n_classes)
    h_e = 0 if error in (0, 1) else -error * log(error) - accuracy * log(accuracy)
    expected = max(0, h_y - h_e - error * log(n_classes - 1))
    assert fano_information(accuracy, h_y=h_y, n_classes=n_classes, unit=unit) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("accuracy", "h_y", "expected"), [(0.982, 2.302, 2.171), (0.9934, 2.302, 2.247)])
def test_fanos_bound_has_the_values_that_are_known(accuracy, h_y, expected):
    assert fano_information(accuracy, h_y=h_y, n_classes=10, unit="nats") == pytest.approx(expected, abs=2e-3)


def test_one_class_proves_nothing():
    assert fano_information(1, h_y=0, n_classes=1) == 0


@pytest.mark.parametrize("accuracy", [-0.1, 1.1, math.nan])
def test_an_accuracy_that_is_no_share_is_refused(accuracy):
    with pytest.raises(ValueError, match="accuracy must be a finite number from 0 to 1, got"):
        fano_information(accuracy, h_y=1, n_classes=2)


def test_no_class_and_no_unit_are_refused():
    with pytest.raises(ValueError, match="n_classes must be an integer of at least 1, got 0"):
        fano_information(0.5, h_y=1, n_classes=0)
    with pytest.raises(ValueError, match="unit must be 'bits' or 'nats', got 'bans'"):
        fano_information(0.5, h_y=1, n_classes=2, unit="bans")


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_points_hold_the_bound_and_what_is_missing_to_it(unit):
    x, y, said = labeled_scores(500, 10, 0.95)
    body, last = measure(Scores(), [(x, y)], ["body", "last"], unit=unit)
    bound = fano_information(float((said == y).double().mean()), h_y=entropy(y, unit=unit), n_classes=10, unit=unit)
    assert body.i_ty_fano == last.i_ty_fano == pytest.approx(bound, abs=1e-12)
    for point in (body, last):
        assert point.fano_shortfall == max(0, point.i_ty_fano - point.i_ty)


def test_a_head_whose_bins_mix_classes_is_too_coarse():
    x, y, said = labeled_scores(500, 10, 1.0)
    halves = Quantizer(lambda z: z[:, :5].sum(1), FixedBins([0.5]))  # the first five classes from the last
    with pytest.warns(VerdictWarning, match=r"layer 'last' is too_coarse at epoch 0: its I\(T;Y\) of 0\.69 nats lies"):
        plane, points = plane_of(Scores(nn.Softmax(1)), x, y, {"body": None, "last": halves})
    point = points["last"]
    assert (plane.head.layer, point.source, point.verdict) == ("last", "binned", "too_coarse")
    assert point.accuracy == 1
    assert point.i_ty_fano == pytest.approx(math.log(10))
    assert point.fano_shortfall == pytest.approx(math.log(10) - math.log(2))
    # Ten symbols for ten classes are fine.
    argmax = Quantizer(lambda z: z.argmax(1), FixedBins([k + 0.5 for k in range(9)]))
    point = plane_of(Scores(nn.Softmax(1)), x, y, {"body": None, "last": argmax})[1]["last"]
    assert (point.verdict, point.fano_shortfall) == ("ok", pytest.approx(0, abs=1e-9))


def test_a_layer_before_the_head_is_not_judged_by_its_accuracy():
    x, y, _ = labeled_scores(500, 10, 1.0)
    point = plane_of(Scores(), x, y, {"body": Quantizer(lambda z: z[:, 0], FixedBins([0.0])), "last": None})[1]["body"]
    assert point.fano_shortfall > 1
    assert point.verdict in ("ok", "constant")


def test_the_error_of_the_bound_is_that_of_the_accuracy():
    draws = torch.binomial(torch.full((4000,), 500.0), torch.full((4000,), 0.9), generator=generator(3)) / 500
    bounds = [fano_information(float(a), h_y=math.log(10), n_classes=10, unit="nats") for a in draws]
    assert fano_error(0.9, n_samples=500, n_classes=10) == pytest.approx(torch.tensor(bounds).std().item(), rel=0.1)
    assert fano_error(1.0, n_samples=500, n_classes=10) == fano_error(0.0, n_samples=500, n_classes=10) == 0
