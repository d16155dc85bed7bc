"""Several targets in one pass: each as if it were measured alone, from one set of symbols; bad ones are left out."""

import math
import re
import warnings

import pytest
import torch
from torch import nn

from lightning_ib import InformationPlane, QuantileBins, Quantizer, UniformBins, measure
from lightning_ib.capture.batches import unpacked
from lightning_ib.functional import entropy, mutual_information
from lightning_ib.measurement import discretized
from lightning_ib.records.record import is_about_target
from tests.helpers.nets import known_net
from tests.helpers.planes import WHOLE
from tests.helpers.samples import generator

pytestmark = pytest.mark.usefixtures("one_thread")

N = 120
NET = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 8)).eval()
X = torch.randn(N, 6, generator=generator(3))
FINE = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long() + 4 * (X[:, 2] > 0).long()
SOURCES = {
    "fine": lambda batch: batch["fine"],
    "coarse": lambda batch: batch["fine"] // 4,
    "real": lambda batch: batch["x"][:, 3],
}
LAYERS = {"0": None, "2": Quantizer(lambda z: z[:, :2], UniformBins(4))}
ESTIMATORS = ["probe", "kde", "soft", "quantized8"]


class Named(nn.Module):
    """Takes the input of a mapping by its name."""

    def __init__(self):
        super().__init__()
        self.net = NET

    def forward(self, x):
        return self.net(x)


def data(size=40):
    return [{"x": x, "fine": y} for x, y in zip(X.split(size), FINE.split(size))]


def measured(**options):
    layers = {f"net.{layer}": quantizer for layer, quantizer in LAYERS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"estimators": ESTIMATORS, "bound": "labels", "head": False} | options
        return measure(Named(), data(), layers, **options)


def plane_of(targets, layers=None, **options):
    return InformationPlane(layers or {"same": WHOLE}, targets=targets, **options)


def told(plane, y, x=None, batches=1):
    """The history of a plane over one layer of whole numbers, and what it warned of."""
    model = known_net(same=lambda x: x)
    x = torch.arange(16.0).repeat(4)[:, None] if x is None else x
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with plane.attach(model):
            for k in range(batches):
                model(x)
                plane.update(x, y(k) if callable(y) else y)
        found = plane.compute()
    return found, [str(one.message) for one in caught]


CLASSES = torch.arange(64) % 4


def test_each_target_has_the_values_of_a_measurement_of_it_alone():
    whole = measured(targets=SOURCES)
    assert whole.targets == list(SOURCES)
    for name, source in SOURCES.items():
        alone = measured(unpack=lambda batch, source=source: (batch["x"], source(batch)))
        key = {one[:5]: one for one in whole.records() if one.target == name}
        expected = [one for one in alone.records() if is_about_target(one.quantity)]
        assert len(expected) == len(key)
        for one in expected:
            assert repr(key[one[:5]]._replace(target="")) == repr(one)
        if name == "fine":  # what is about no target is recorded once, beside the primary one
            shared = [one for one in whole.records() if not one.target]
            assert [repr(one) for one in shared] == [
                repr(one) for one in alone.records() if not is_about_target(one.quantity)
            ]
        points = zip(whole.points(name), alone, strict=True)
        assert all(repr(a._replace(target="")) == repr(b) for a, b in points) or name == "real"


def test_soft_entropies_of_whole_passes_are_those_of_a_measurement_alone():
    ys = {"fine": FINE, "coarse": FINE // 4, "real": X[:, 3]}

    def second(of, **options):
        plane = InformationPlane(["0"], estimators=["soft"], max_samples=50, head=False, **options)
        for _ in range(2):
            plane.reset()
            with plane.attach(NET), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for k in range(0, N, 40):
                    NET(X[k : k + 40])
                    plane.update(X[k : k + 40], of(slice(k, k + 40)))
                plane.compute()
                found = plane.estimate()
        return found

    whole = second(lambda at: {name: y[at] for name, y in ys.items()}, targets=dict.fromkeys(ys))
    assert {one.target for one in whole} == {"", "fine", "coarse"}
    for name in ("fine", "coarse"):
        alone = second(lambda at, name=name: ys[name][at])
        of_y = [one for one in alone if is_about_target(one.quantity)]
        assert {one.n_samples for one in of_y} == {N}
        assert [repr(one._replace(target="")) for one in whole if one.target == name] == list(map(repr, of_y))


def test_the_layers_are_made_symbols_once(monkeypatch):
    cut, cells = [], discretized.cells
    monkeypatch.setattr(discretized, "cells", lambda rows, **options: cut.append(len(rows)) or cells(rows, **options))
    measured(targets=SOURCES, estimators=())
    assert len(cut) == 1  # the other layer is in bins


def test_the_values_are_those_of_the_functional_package():
    plane = plane_of({"class": None, "coarse": None, "odd": None})
    ys = {"class": CLASSES, "coarse": CLASSES // 2, "odd": CLASSES % 2}
    found, messages = told(plane, ys)
    assert messages == []
    for name, y in ys.items():
        (point,) = found.points(name)
        t = torch.arange(16).repeat(4)
        assert point.i_ty == pytest.approx(mutual_information(t, y, unit="bits"), abs=1e-12)
        assert point.h_y == pytest.approx(entropy(y, unit="bits"), abs=1e-12)
        assert point.h_t == 4.0


def test_the_head_is_recognized_by_the_primary_and_proves_a_bound_for_others_whose_labels_it_numbers():
    noisy = torch.where(torch.arange(N) % 5 == 0, (FINE + 1) % 8, FINE)
    ys = {"fine": FINE, "noisy": noisy, "two": FINE // 4}
    plane = InformationPlane(["0", "2"], targets=dict.fromkeys(ys), max_samples=N)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with plane.attach(NET):
            output = NET(X)
            plane.update(X, ys)
        found = plane.compute()
    assert plane.head.layer == "2"
    for name in ("fine", "noisy"):
        point = found.points(name)[-1]
        assert point.accuracy == pytest.approx(float((output.argmax(1) == ys[name]).double().mean()))
    assert math.isnan(found.points("two")[-1].accuracy)
    assert math.isnan(found.points("two")[-1].i_ty_fano)


def test_tokens_and_ignored_labels_leave_one_set_of_rows():
    ids = torch.randint(0, 4, (8, 6), generator=generator(1))
    labels = torch.where(ids > 2, -100, ids)
    other = ids.clone()
    other[:, 0] = -100
    x = torch.randn(8, 6, 3, generator=generator(2))
    model = known_net(same=lambda x: x)

    def of(y, **options):
        plane = InformationPlane(["same"], tokens=True, ignore_index=-100, **options)
        with plane.attach(model):
            model(x)
            plane.update(x, y)
        return plane.compute()

    counts = (labels != -100) & (other != -100)
    found = of({"label": labels, "token": other}, targets={"label": None, "token": None})
    (alone,) = of(torch.where(counts, ids, -100))
    assert alone.n_samples == int(counts.sum())
    assert [repr(found.points(name)[0]._replace(target="")) for name in found.targets] == [repr(alone)] * 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.arange(63) % 4, "the target 'bad' has 63 rows where the layers put out 64"),
        ("cat", "the target 'bad' is a str, not a tensor. .* Give targets={'bad': lambda batch: y, …}"),
        (torch.randint(9, (64, 3), generator=generator()), "the target 'bad' holds several integers a sample"),
        (torch.full((64,), math.nan), "the target 'bad' gave NaN or infinite values in 128 of 128 samples"),
        (torch.zeros(64, dtype=torch.int64), "all 128 samples have the same target 'bad'"),
        (lambda k: CLASSES if k else None, "the target 'bad' came with some batches and not with others"),
        (lambda k: CLASSES if k else CLASSES.double() + 0.5, "the target 'bad' has rows .* before"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_a_bad_target_is_left_out_with_one_warning_and_the_others_go_on(bad, message, first):
    names = ("bad", "class") if first else ("class", "bad")

    def y(k):
        return {"class": CLASSES, "bad": bad(k) if callable(bad) else bad}

    found, messages = told(plane_of(dict.fromkeys(names)), y, batches=2)
    assert len([one for one in messages if "'bad'" in one]) == 1
    assert re.search(message, messages[0]), messages
    assert found.targets == list(names)
    (point,), (lost,) = found.points("class"), found.points("bad")
    assert point.i_ty == pytest.approx(2.0)
    assert math.isnan(lost.i_ty)
    assert lost.h_t == point.h_t == 4.0


def test_targets_of_lengths_that_no_layer_has_are_all_left_out():
    """The layers that were named stay: they agree with one another."""
    found, messages = told(
        plane_of({"class": None, "long": Quantizer(bins=UniformBins(2))}),
        {"class": torch.arange(32), "long": torch.randn(33)},
    )
    for name, n in (("class", 32), ("long", 33)):
        said = [one for one in messages if f"the target {name!r} has {n} rows where the layers put out 64" in one]
        assert len(said) == 1
        (point,) = found.points(name)
        assert math.isnan(point.i_ty)
        assert point.h_t == 4.0


def test_rows_that_a_lost_target_ignored_before_are_told_of():
    ignored = torch.where(torch.arange(64) < 20, -100, CLASSES)
    targets = {"class": None, "bad": None}
    found, messages = told(
        plane_of(targets, ignore_index=-100),
        lambda k: {"class": CLASSES, "bad": ignored[1:] if k else ignored},
        batches=2,
    )
    assert found.points("class")[0].n_samples == 64 - 20 + 64
    (said,) = (one for one in messages if "stay left out of the other targets" in one)
    assert said.startswith("the target 'bad' is left out from here on, and the rows that it ignored in earlier batches")
    _, messages = told(plane_of(targets, ignore_index=-100), {"class": ignored, "bad": CLASSES[1:]}, batches=2)
    assert not any("stay left out" in one for one in messages)


def test_a_quantizer_selects_and_bins_its_target_and_its_edges_freeze():
    quantizer = Quantizer(bins=QuantileBins(4), select=lambda y: y["depth"])
    plane = plane_of({"class": lambda batch: batch[1], "depth": quantizer})
    y = {"class": CLASSES, "depth": {"depth": torch.arange(64.0)}}
    found, messages = told(plane, y)
    assert messages == []
    assert found.points("depth")[0].h_y == pytest.approx(2.0)
    again = plane_of({"class": None, "depth": quantizer})
    again.attach(known_net(same=lambda x: x))
    again.load_frozen_state(plane.frozen_state())
    state = again.frozen_state()["targets"]
    assert list(state) == ["depth"]
    assert torch.equal(state["depth"]["edges"], plane.frozen_state()["targets"]["depth"]["edges"])


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ({}, ValueError, "targets is empty"),
        (["class"], TypeError, r"targets must be a mapping .* got \['class'\]"),
        ({"": None}, ValueError, "a target cannot be named ''"),
        ({"a/b": None}, ValueError, "a target cannot be named 'a/b'"),
        ({"a@b": None}, ValueError, "a target cannot be named 'a@b'"),
        ({"I_TY": None}, ValueError, "'I_TY', which is another value's name"),
        ({3: None}, TypeError, "targets must be named by strings such as 'coarse', got 3"),
        ({"a": 0.5}, TypeError, "the target 'a' must be a key of the batch, .* got 0.5"),
        ({"a": True}, TypeError, "the target 'a' must be a key"),
        ({"a b": 1, "a_b": 2}, ValueError, "'a b' and 'a_b' would write the same files"),
    ],
)
def test_wrong_targets_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        InformationPlane(targets=targets)


def test_a_single_target_and_several_are_refused_together():
    with pytest.raises(ValueError, match="give one of the two"):
        InformationPlane(target=Quantizer(), targets={"class": None})


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (CLASSES, r"there are the targets \['class', 'coarse'\], and y is a Tensor: give a mapping"),
        ({"class": CLASSES}, "y lacks the target 'coarse'"),
        ({"class": CLASSES, "coarse": None, "corse": None}, "y has 'corse', which is no target: did you mean 'coarse'"),
    ],
)
def test_an_update_takes_all_targets_by_name(y, message):
    plane = plane_of({"class": None, "coarse": None})
    model = known_net(same=lambda x: x)
    with plane.attach(model):
        model(torch.zeros(64, 1))
        with pytest.raises(ValueError, match=message):
            plane.update(torch.zeros(64, 1), y)


class Sample:
    def __init__(self):
        self.x, self.fine, self.labels = 1, 2, 3


@pytest.mark.parametrize(
    ("batch", "source", "found"),
    [
        ({"x": 1, "labels": 2, "fine": 3}, "fine", 3),
        ({"x": 1, "labels": 2, "fine": 3}, None, 2),
        ((1, 2, 3), 2, 3),
        ((1, 2, 3), -1, 3),
        (Sample(), "fine", 2),
        ([1, 2], lambda batch: batch[1] * 10, 20),
    ],
)
def test_a_target_is_taken_out_of_the_batch(batch, source, found):
    assert unpacked(batch, targets={"a": source}).targets == {"a": found}


@pytest.mark.parametrize(
    ("batch", "source", "message"),
    [
        ({"x": 1, "coarse": 3}, "corse", "'corse', and a batch is a mapping .*: did you mean 'coarse'"),
        ((1, 2), 2, "at 2, and a batch is a tuple of 2"),
        ((1, 2), "fine", "at 'fine', and a batch is a tuple of 2"),
        (Sample(), "fin", "did you mean 'fine'"),
    ],
)
def test_a_key_that_the_batch_lacks_is_named_with_the_nearest(batch, source, message):
    with pytest.raises(ValueError, match=f"the target 'a' is to be found .*{message}"):
        unpacked(batch, targets={"a": source})


def test_a_batch_without_a_known_label_gives_no_doubt_where_all_targets_are_named():
    assert unpacked((1, 2, 3)).doubt
    assert not unpacked((1, 2, 3), targets={"a": 1}).doubt
    assert unpacked((1, 2, 3), targets={"a": None}).doubt
