"""Companions of a measurement: which rows they see, what is flagged, and data that they cannot use."""

import math
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import CellQuantizer, InformationPlane, measure
from lightning_ib.capture.tokens import channel_means
from lightning_ib.estimators.geometry import LayerClasses, LayerDrift, LayerSpectrum, checked_companions
from lightning_ib.functional import class_geometry, spectrum
from lightning_ib.records.record import is_about_target
from tests.helpers.messages import exactly

pytestmark = pytest.mark.filterwarnings("ignore::lightning_ib.records.VerdictWarning")


class Named(nn.Module):
    """Modules one after the other, by name."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.names = list(modules)

    def forward(self, x):
        for name in self.names:
            x = getattr(self, name)(x)
        return x


def values(history, source, layer="a"):
    return {one.quantity: one.value for one in history.estimates() if (one.source, one.layer) == (source, layer)}


def verdicts(history, source, layer="a"):
    return {one.quantity: one.verdict for one in history.estimates() if (one.source, one.layer) == (source, layer)}


def data(n=200, d=6, n_classes=4, n_batches=5):
    return [(torch.randn(n // n_batches, d), torch.arange(n // n_batches) % n_classes) for _ in range(n_batches)]


def measured_and_said(*arguments, **options):
    """What was measured, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = measure(*arguments, **options)
    return found, [str(one.message) for one in caught]


def times(text, said):
    return sum(text in one for one in said)


def close(found, expected, names):
    for name in names:
        assert found[name] == pytest.approx(getattr(expected, name), rel=1e-5), name


SPECTRAL = ("effective_rank", "spectral_entropy", "participation_ratio", "anisotropy", "mean_cosine")
OF_CLASSES = ("within_variance", "between_variance", "nc1", "cdnv", "class_mean_cosine", "etf_distance")


def test_convolutions_are_averaged_over_places():
    model = Named(a=nn.Conv2d(2, 5, 3), flat=nn.Flatten(), b=nn.Linear(80, 3))
    batches = [(torch.randn(40, 2, 6, 6), torch.arange(40) % 3) for _ in range(5)]
    found = measure(model, batches, ["a", "b"], companions="all")
    x, y = (torch.cat(parts) for parts in zip(*batches))
    with torch.no_grad():
        rows = model.a(x).mean((2, 3))
        close(values(found, "spectrum"), spectrum(rows), SPECTRAL)
        close(values(found, "classes"), class_geometry(rows, y), OF_CLASSES)
        # of a head its outputs, before the softmax
        close(values(found, "classes", "b"), class_geometry(model(x), y), OF_CLASSES)
    assert {one.source for one in found.estimates()} == {"spectrum", "classes"}


def test_tokens_are_rows():
    model = Named(a=nn.Linear(4, 5))
    x, y = torch.randn(20, 7, 4), torch.randint(3, (20, 7))
    y[:, 0] = -100
    found = measure(model, [(x[:10], y[:10]), (x[10:], y[10:])], companions="all", tokens=True, ignore_index=-100)
    with torch.no_grad():
        rows, labels = model(x)[y != -100], y[y != -100]
    close(values(found, "spectrum"), spectrum(rows), SPECTRAL)
    close(values(found, "classes"), class_geometry(rows, labels), OF_CLASSES)


@pytest.mark.parametrize(
    ("shape", "first", "expected"),
    [((3, 4, 5, 6), None, (3, 4)), ((3, 4, 5), None, (3, 5)), ((3, 4, 5), True, (3, 4)), ((3,), None, (3, 1))],
)
def test_channel_means(shape, first, expected):
    x = torch.randn(shape)
    assert channel_means(x, first).shape == expected
    assert channel_means(x.half(), first).dtype == torch.float32
    assert channel_means(x.long(), first).dtype == torch.float64
    with pytest.raises(ValueError, match="got complex values"):
        channel_means(x.to(torch.complex64))


def test_an_empty_batch_adds_nothing():
    model, batches = Named(a=nn.Linear(6, 5)), data()
    found = measure(model, [batches[0], (torch.randn(0, 6), torch.arange(0)), *batches[1:]], ["a"], companions="all")
    assert values(found, "classes") == values(measure(model, batches, ["a"], companions="all"), "classes")
    assert channel_means(torch.randn(0)).shape == (0, 1)
    assert channel_means(torch.randn(0, 4, 3, 3)).shape == (0, 4)


@pytest.mark.parametrize("companion", ["classes", "spectrum"])
def test_a_companion_that_fails_leaves_the_layer(companion):
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5, dtype=torch.complex64), nn.Linear(5, 4)

        def forward(self, x):
            return self.b(self.a(x.to(torch.complex64)).abs())

    layers = {"a": CellQuantizer(pool=torch.view_as_real), "b": None}
    found, said = measured_and_said(Complex(), data(), layers, companions=[companion])
    assert [(point.layer, math.isfinite(point.i_ty)) for point in found] == [("a", True), ("b", True)]
    assert (
        times(f"layer 'a': {companion} could not be estimated at epoch 0, its values are NaN: got complex", said) == 1
    )
    assert all(map(math.isnan, values(found, companion).values()))
    assert any(map(math.isfinite, values(found, companion, "b").values()))


@pytest.mark.parametrize(
    ("before", "shape", "places"), [(nn.Conv1d(4, 16, 3), (4, 52), -1), (nn.Linear(4, 16), (7, 7, 4), (1, 2))]
)
def test_an_activation_function_has_the_order_of_the_layer_before(before, shape, places):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stage, self.out = nn.Sequential(before, nn.GELU()), nn.Linear(16, 3)

        def forward(self, x):
            return self.out(self.stage(x).mean(places))

    model, x, y = Pooled(), torch.randn(60, *shape), torch.arange(60) % 3
    found = measure(model, [(x, y)], ["stage.1"], companions="all")
    with torch.no_grad():
        rows = model.stage(x).mean(places)
    assert rows.shape == (60, 16)
    close(values(found, "spectrum", "stage.1"), spectrum(rows), SPECTRAL)
    close(values(found, "classes", "stage.1"), class_geometry(rows, y), OF_CLASSES)


def test_all_samples_are_summed_and_some_are_sampled():
    model, batches = Named(a=nn.Linear(6, 5)), data(600)
    found = measure(model, batches, companions=["spectrum", "classes"], max_samples=50)
    assert {(one.source, one.n_samples) for one in found.estimates()} == {("spectrum", 50), ("classes", 600)}
    x, y = (torch.cat(parts) for parts in zip(*batches))
    with torch.no_grad():
        close(values(found, "classes"), class_geometry(model(x), y), OF_CLASSES)


def test_an_activation_that_is_changed_in_place_was_copied():
    class Doubled(nn.Module):
        def forward(self, x):
            return x.mul_(-3).relu_()

    model, batches = Named(a=nn.Linear(6, 5), b=Doubled()), data()
    found = measure(model, batches, ["a"], companions="all")
    x, y = (torch.cat(parts) for parts in zip(*batches))
    with torch.no_grad():
        close(values(found, "classes"), class_geometry(model.a(x), y), OF_CLASSES)
        close(values(found, "spectrum"), spectrum(model.a(x)), SPECTRAL)


def test_the_padding_of_a_sampler_is_left_out():
    model, (x, y) = Named(a=nn.Linear(6, 5)), (torch.randn(30, 6), torch.arange(30) % 3)
    plane = InformationPlane(["a"], companions=["classes"])
    with plane.attach(model):
        for some, labels in zip(x.split(10), y.split(10)):
            model(some)
            plane.update(some, labels)
        plane.trim(27)
        plane.compute()
        (within, *_) = plane.estimate()
    with torch.no_grad():
        assert within.value == pytest.approx(class_geometry(model(x[:27]), y[:27]).within_variance, rel=1e-5)
    assert within.n_samples == 27


def test_few_rows_are_flagged_and_warned_of_once():
    model = Named(a=nn.Linear(6, 50), b=nn.Linear(50, 60))
    found, said = measured_and_said(model, data(40), companions=["spectrum"])
    assert times("layer 'a': spectrum at epoch 0: its spectrum is capped by 40 rows of 50 coordinates", said) == 1
    assert times("capped", said) == 1
    flags = verdicts(found, "spectrum")
    assert flags["effective_rank"] == flags["spectral_entropy"] == "capped"
    assert flags["participation_ratio"] == flags["mean_cosine"] == "ok"


def test_constant_rows():
    model = Named(a=nn.Linear(6, 5), b=nn.ReLU())
    nn.init.zeros_(model.a.weight)
    found, said = measured_and_said(model, data(), ["a"], companions="all")
    assert times("layer 'a': spectrum at epoch 0: all 200 rows are the same up to rounding", said) == 1
    assert times("layer 'a': classes at epoch 0: its rows or class means are the same up to rounding", said) == 1
    assert math.isnan(values(found, "spectrum")["effective_rank"])
    assert verdicts(found, "spectrum")["effective_rank"] == ""
    assert values(found, "spectrum")["normalized_std"] == 0
    assert values(found, "classes")["within_variance"] == 0


@pytest.mark.parametrize("places", [(), (3, 3)])
def test_the_rounding_of_half_precision_adds_no_direction(places):
    """Ten directions in forty channels: those of bfloat16 are as many, averaged over places or not."""

    class Rounded(nn.Module):
        def forward(self, x):
            return x.to(torch.bfloat16)

    x = torch.randn(200, 10) @ torch.randn(10, 40) + 3
    x = x.view(200, 40, *[1] * len(places)).expand(200, 40, *places) * (1 + 0.01 * torch.rand(places))
    y = torch.arange(200) % 4
    model = Named(a=nn.Identity(), b=Rounded())
    found = measure(model, [(x[:100], y[:100]), (x[100:], y[100:])], ["a", "b"], companions="all")
    for name in ("effective_rank", "spectral_entropy"):
        assert values(found, "spectrum", "b")[name] == pytest.approx(values(found, "spectrum")[name], rel=2e-3)
    assert math.isnan(values(found, "spectrum", "b")["alpha"])


def test_repeated_rows():
    x = torch.randn(5, 6).repeat(40, 1)
    found = measure(Named(a=nn.Linear(6, 30)), [(x, torch.arange(200) % 2)], companions=["spectrum"])
    assert 1 < values(found, "spectrum")["effective_rank"] <= 4


def test_one_class_and_a_class_with_one_sample():
    model, x = Named(a=nn.Linear(6, 5), b=nn.Linear(5, 5)), torch.randn(40, 6)
    options = {"companions": ["classes"], "head": False}
    found, said = measured_and_said(model, [(x, torch.zeros(40, dtype=torch.int64))], **options)
    assert times("all samples are of one class: what lies between classes is undefined, and NaN.", said) == 1
    assert values(found, "classes")["within_variance"] > 0
    assert math.isnan(values(found, "classes")["nc1"])
    y = torch.arange(40) % 3
    y[5] = 7
    found, said = measured_and_said(model, [(x, y)], **options)
    assert times("a class has a single sample, which counts with a variance of 0", said) == 1
    assert values(found, "classes")["smallest_class"] == 1
    assert verdicts(found, "classes")["nc1"] == "undersampled"


def test_targets_that_are_no_classes():
    model, x = Named(a=nn.Linear(6, 5)), torch.randn(200, 6)
    found = measure(model, [(x, torch.randn(200))], companions="all")
    assert {one.source for one in found.estimates()} == {"spectrum"}
    one_hot = nn.functional.one_hot(torch.arange(200) % 3).float()
    found = measure(model, [(x, one_hot)], companions="all")  # seen to be classes when the pass is over
    with torch.no_grad():
        close(values(found, "classes"), class_geometry(model(x), torch.arange(200) % 3), OF_CLASSES)


def test_labels_out_of_range_and_rows_without_values():
    model, batches = Named(a=nn.Linear(6, 5)), data()
    found, said = measured_and_said(model, batches, companions=[LayerClasses(max_classes=2)])
    assert times("100 of 200 labels are above 1: give companions=[LayerClasses(max_classes=…)]", said) == 1
    assert all(map(math.isnan, values(found, "classes").values()))
    two = Named(a=nn.Linear(6, 5), b=nn.Linear(5, 5))
    _, said = measured_and_said(two, [(x, y - 1) for x, y in batches], companions=["classes"])
    assert times("classes could not be estimated", said) == 1
    assert times("50 of 200 labels are negative, and classes are numbered from 0: give ignore_index", said) == 1
    batches[2][0][3] = math.nan
    found, said = measured_and_said(model, batches, companions="all")
    assert times("could not be estimated at epoch 0, its values are NaN", said) == 2
    assert all(map(math.isnan, (*values(found, "classes").values(), *values(found, "spectrum").values())))


def test_layers_that_are_too_wide():
    model = Named(a=nn.Linear(6, 8193), b=nn.Linear(8193, 5))
    found, said = measured_and_said(model, data(40), ["a", "b"], companions=["spectrum", "classes"])
    assert times("a row has more than 8192 coordinates, which companions leave aside", said) == 2
    assert all(map(math.isnan, values(found, "spectrum").values()))
    assert all(map(math.isnan, values(found, "classes").values()))
    assert values(found, "spectrum", "b")["effective_rank"] > 1


def test_drift_over_measurements_and_their_state():
    model, batches = Named(a=nn.Linear(6, 5)), data()
    planes = [InformationPlane(["a"], companions=["drift"])]

    def measured(epoch, plane):
        plane.reset()
        with plane.attach(model):
            for x, y in batches:
                model(x)
                plane.update(x, y)
            plane.compute(epoch=epoch)
            return plane.estimate(epoch=epoch)[0]

    assert measured(0, planes[0]).value == pytest.approx(1)
    nn.init.normal_(model.a.weight)
    moved = measured(1, planes[0])
    assert moved.value < 0.9
    planes.append(InformationPlane(["a"], companions=["drift"]))
    with planes[1].attach(model):
        planes[1].load_frozen_state(planes[0].frozen_state())
    assert measured(2, planes[1]).value == moved.value
    to_last = planes[1].cka_to_last()
    assert [one.epoch for one in to_last] == [0, 1, 2]
    assert to_last[1].value == pytest.approx(1)
    assert abs(to_last[0].value - moved.value) < 5 * to_last[0].standard_error
    assert [one.epoch for one in planes[1].cka_to_last({(0, 0), (1, 0)})] == [0, 1]
    with pytest.raises(ValueError, match="the first rows of its layers, for their drift, are no mapping"):
        planes[1].load_frozen_state({"drift": {"rows": 3}})
    batches[0] = (batches[0][0] + 1, batches[0][1])
    with pytest.warns(UserWarning, match="the samples at epoch 3 are others than at the first measurement"):
        assert math.isnan(measured(3, planes[1]).value)


def test_names():
    assert [one.name for one in checked_companions("all")] == ["spectrum", "classes", "drift"]
    assert [type(one) for one in checked_companions(["drift", LayerSpectrum(50)])] == [LayerDrift, LayerSpectrum]
    with pytest.raises(
        ValueError,
        match=exactly("a companion must be 'spectrum', 'classes' or 'drift', got 'spectra': did you mean 'spectrum'?"),
    ):
        checked_companions(["spectra"])
    with pytest.raises(TypeError, match="companions must be a list or 'all', got 'spectrum'"):
        checked_companions("spectrum")
    with pytest.raises(TypeError, match="a companion must be a name such as 'spectrum'"):
        checked_companions([3])
    with pytest.raises(ValueError, match="two estimators or companions would log as 'drift'"):
        checked_companions(["drift", "drift"])
    with pytest.raises(ValueError, match="drift compares measurements, and this makes one"):
        measure(nn.Linear(2, 2), [], companions=["drift"])


def test_none_by_default():
    assert measure(Named(a=nn.Linear(6, 5)), data()).estimates() == []


def test_of_two_targets_each_has_its_classes_and_the_rest_comes_once():
    model, batches = Named(a=nn.Linear(6, 5), b=nn.Linear(5, 4)), data(120, n_batches=3)
    sources = {"class": lambda batch: batch[1], "coarse": lambda batch: batch[1] // 2}
    options = {"estimators": ["soft"], "max_samples": 50, "head": False}

    def measured(targets=None, y=None):
        """The records of two passes: the drift is to the first, and of soft entropy the second sums up all rows."""
        plane, found = InformationPlane(["a", "b"], targets=targets, companions="all", **options), []
        for epoch in range(2):
            plane.reset()
            with plane.attach(model), torch.no_grad():
                for batch in batches:
                    model(batch[0])
                    plane.update(batch[0], y(batch) if targets is None else {k: of(batch) for k, of in targets.items()})
                plane.trim(117)
                plane.compute(epoch=epoch)
                found += plane.estimate(epoch=epoch)
        return found

    both = measured(sources)
    assert {(one.source, one.target) for one in both} == {
        *((source, target) for source in ("classes", "soft") for target in sources),
        *((source, "") for source in ("spectrum", "drift", "soft")),
    }
    assert {one.n_samples for one in both if one.source == "classes"} == {117}
    for k, (name, y) in enumerate(sources.items()):
        alone = [one for one in measured(y=y) if k == 0 or is_about_target(one.quantity)]
        own = [one for one in both if one.target == name or (k == 0 and not one.target)]
        assert [repr(one._replace(target="")) for one in own] == [repr(one) for one in alone]


def test_a_remark_on_classes_names_its_target():
    model, batches = Named(a=nn.Linear(6, 5), b=nn.Linear(5, 5)), data()
    targets = {"class": None, "one": lambda batch: torch.zeros_like(batch[1])}
    _, said = measured_and_said(model, batches, companions="all", targets=targets, head=False)
    assert times("layer 'a': classes of the target 'one' at epoch 0: all samples are of one class", said) == 1
    assert times("classes of", said) == 1
