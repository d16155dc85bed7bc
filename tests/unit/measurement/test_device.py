"""Nothing in the path of a batch waits for the device."""

import pytest
import torch
from torch import nn

from lightning_ib import History, InformationPlane, QuantileBins, Quantizer
from tests.helpers.no_sync import nothing_waits
from tests.helpers.planes import QUANTIZERS, counted

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert plane.n_seen == 48


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


@pytest.mark.parametrize("tokens", [False, True])
def test_a_default_device_of_the_user_moves_nothing(tokens):
    # The device "meta" has no values: whatever is made there fails.
    model, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), torch.randn(64, 4, 6)
    x, y = (x, torch.arange(256).reshape(64, 4) % 3) if tokens else (x[:, 0], torch.arange(64) % 3)
    found = []
    for device in (None, "meta"):
        plane = InformationPlane(estimators=["probe", "soft", "kde"], companions="all", tokens=tokens, max_samples=40)
        with plane.attach(model):
            torch.set_default_device(device)
            try:
                for part, labels in zip(x.split(16), y.split(16)):
                    model(part)
                    plane.update(part, labels)
                found.append(str(plane.compute() + History(plane.estimate())))
            finally:
                torch.set_default_device(None)
    assert found[0] == found[1]
