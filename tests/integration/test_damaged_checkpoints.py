"""A run that is resumed from a checkpoint that is damaged, or of another version."""

import json
import math
import warnings

import pytest
import torch

from lightning_ib import FixedBins, InformationPlaneCallback, InformationPoint, Quantizer, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.records import History
from tests.helpers.records import VERSION_1, exact, in_version_1, of_version_1
from tests.helpers.resume import IN_BINS, LOADERS, N_BATCHES, epochs, go_on, same
from tests.helpers.tiny import fit

pytestmark = pytest.mark.usefixtures("few_pictures")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A checkpoint of one epoch, with the callback's state as a test makes it."""
    folder = tmp_path_factory.mktemp("damaged")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        go_on(folder, InformationPlaneCallback(IN_BINS), max_epochs=1)

    def make(path, damage):
        checkpoint = torch.load(folder / "checkpoints" / "epoch=0.ckpt", weights_only=True)
        (key,) = (key for key in checkpoint["callbacks"] if key.startswith("InformationPlaneCallback"))
        state = checkpoint["callbacks"][key]
        checkpoint["callbacks"][key] = damage(state) or state
        torch.save(checkpoint, path)
        return path, state

    return make


def each_point(**changes):
    return of_version_1(lambda state: [point.update(changes) for point in state["history"]] and None)


def first_point(**changes):
    return of_version_1(lambda state: state["history"][0].update(changes))


def no_point_has(key):
    return of_version_1(lambda state: [point.pop(key) for point in state["history"]] and None)


def columns(**changes):
    """A state as it is saved now, with columns changed by functions from the old one."""
    return lambda state: state["history"].update({name: of(state["history"][name]) for name, of in changes.items()})


def frozen(**changes):
    return lambda state: state["frozen"]["layers"]["out"].update(changes)


def without(*keys):
    def damage(state):
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return damage


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    ("damage", "sentence", "kept", "refitted"),
    [
        (lambda state: ["a", "list"], "it is of type list, and a mapping is expected", [], True),
        (lambda state: {"other": 1}, "its history is missing, .*; the frozen edges are no mapping", [], True),
        (without("history"), "its history is missing, and a mapping of columns is expected", [], False),
        (lambda state: state | {"history": "none"}, "its history is of type str, and a mapping", [], False),
        (lambda state: state | {"history": {}}, "the columns of its history differ in length or kind", [], False),
        (columns(value=lambda of: of[:-1]), "the columns of its history differ in length or kind", [], False),
        (columns(unit=str), "the columns of its history differ in length or kind", [], False),
        (without("history", "layer"), r"records of its history lack \['layer'\]", [], False),
        (without("history", "source"), r"records of its history lack \['source'\]", [], False),
        (without("history", "verdict"), r"records of its history lack \['verdict'\]", [0, 1], False),
        (
            lambda state: state["history"].update(color=["red"] * len(state["history"]["epoch"])),
            r"records of its history have \['color'\], which is unknown here",
            [0, 1],
            False,
        ),
        (
            columns(epoch=lambda of: [*of[:-1], "0"]),
            "a record of its history has epoch='0', of type str, and int is expected",
            [0, 1],
            False,
        ),
        (
            columns(value=lambda of: [None] * len(of)),
            "a record of its history has value=None, of type NoneType, and float is expected",
            [],
            False,
        ),
        (
            of_version_1(lambda state: state["history"].append(3)),
            "a point of its history is of type int, and a mapping is expected",
            [0, 1],
            False,
        ),
        (
            of_version_1(lambda state: state.update(estimates=3)),
            "its estimates are of type int, and a list is expected",
            [0, 1],
            False,
        ),
        (no_point_has("h_t"), r"points of its history lack \['h_t'\]", [0, 1], False),
        (no_point_has("layer"), r"points of its history lack \['layer'\]", [], False),
        (each_point(color="red"), r"points of its history have \['color'\], which is unknown here", [0, 1], False),
        (
            first_point(epoch="0"),
            "a point of its history has epoch='0', of type str, and int is expected",
            [0, 1],
            False,
        ),
        (
            each_point(i_ty=None),
            "a point of its history has i_ty=None, of type NoneType, and float is expected",
            [],
            False,
        ),
        (without("frozen"), "the frozen edges are no mapping with the edges of the 'layers'", [0, 1], True),
        (lambda state: state | {"frozen": {"layers": [1]}}, "the frozen edges are no mapping", [0, 1], True),
        (without("frozen", "layers", "out", "asked"), r"layer 'out' lacks \['asked'\]", [0, 1], True),
        (frozen(edges=[0.0, 1.0]), "layer 'out' has edges that are a list, not a tensor", [0, 1], True),
        (frozen(edges=torch.zeros(9, 2, 1)), r"layer 'out' is unusable: edges must have shape", [0, 1], True),
        (frozen(edges=torch.full((1,), math.nan)), "layer 'out' is unusable: edges must be finite", [0, 1], True),
        (lambda state: state | {"version": 3}, "it has version 3, whose edges mean nothing to version 2", [0, 1], True),
    ],
)
def test_what_is_damaged_is_told_once_and_the_rest_is_kept(tmp_path, damaged, damage, sentence, kept, refitted):
    path, state = damaged(tmp_path / "damaged.ckpt", damage)
    callback = InformationPlaneCallback(IN_BINS)
    expected = f"^ib: the state of .* in the checkpoint is damaged .*{sentence}.* Training goes on"
    with pytest.warns(UserWarning, match=expected) as caught:
        fit(tmp_path, callback, max_epochs=2, logger=False, ckpt_path=path, train=LOADERS["order"]())
    assert len([warning for warning in caught if str(warning.message).startswith("ib:")]) == 1
    # Where nothing is left of the history, it begins anew with a point before the rest of the training.
    assert epochs(callback) == (kept or [1]) + [2]
    assert all(math.isfinite(point.i_xt) for point in callback.history)
    edges = {layer: discretizer.edges for layer, discretizer in callback.plane.fitted_quantizers.items()}
    if not refitted:
        assert same(edges, {layer: saved["edges"] for layer, saved in state["frozen"]["layers"].items()})
    elif sentence.startswith("layer"):
        assert torch.equal(edges["hidden"], state["frozen"]["layers"]["hidden"]["edges"])
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(callback.history)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("damage", [of_version_1(), of_version_1(without("version"))], ids=["version 1", "before"])
def test_a_state_of_an_earlier_version_is_taken_up_in_silence(tmp_path, damaged, damage):
    path, state = damaged(tmp_path / "old.ckpt", damage)
    callback = InformationPlaneCallback(IN_BINS)
    fit(tmp_path, callback, max_epochs=2, logger=False, ckpt_path=path)
    assert epochs(callback) == [0, 1, 2]
    assert same(
        in_version_1(callback.history.until(1, N_BATCHES)), {key: state[key] for key in ("history", "estimates")}
    )
    assert torch.equal(callback.plane.fitted_quantizers["out"].edges, state["frozen"]["layers"]["out"]["edges"])
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(callback.history)
    assert same(callback.state_dict()["history"], callback.history.state_dict())


def saved_by_version_1():
    """The state of a run of two epochs, as version 1 left it in a checkpoint."""

    def tensors(found):
        return torch.tensor(found["tensor"]) if "tensor" in found else found

    return json.loads((VERSION_1 / "state.json").read_text(), object_hook=tensors)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_run_of_version_1_goes_on_with_its_history_and_its_edges(tmp_path):
    def callback():
        layers = {
            "hidden": Quantizer(bins=FixedBins([-1.0, 0.0, 1.0])),
            "act": Quantizer(bins=UniformBins(3)),
            "out": None,
        }
        options = {"unit": "nats", "correction": "miller_madow", "estimators": ["probe", "kde", "knn"]}
        return InformationPlaneCallback(layers, **options)

    go_on(tmp_path, callback(), max_epochs=2)
    path = tmp_path / "checkpoints" / "epoch=1.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("InformationPlaneCallback"))
    checkpoint["callbacks"][key] = saved_by_version_1()
    torch.save(checkpoint, path)
    (tmp_path / "information_plane.csv").unlink()
    resumed = callback()
    go_on(tmp_path, resumed, ckpt_path=path)
    old, faults = History.restored(saved_by_version_1())
    assert faults == []
    assert exact(resumed.history.until(2, 2 * N_BATCHES)) == exact(old)
    assert [(p.epoch, p.layer, p.source) for p in resumed.history] == [
        (epoch, layer, "cells" if layer == "out" else "binned")
        for epoch in (2, 3)
        for layer in ("hidden", "act", "out")
    ]
    assert len(resumed.history.estimates()) == 2 * len(old.estimates())
    assert all(math.isfinite(one.value) for one in resumed.history.estimates())
    edges = {layer: fitted.edges for layer, fitted in resumed.plane.fitted_quantizers.items()}
    assert same(edges, {name: of["edges"] for name, of in saved_by_version_1()["frozen"]["layers"].items()})
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(resumed.history)


def of_an_automatic_choice(state):
    """As checkpoints were before there were cells: edges on a grid that was chosen, and points with fewer fields."""
    asked = "AutoQuantizer(samples_per_symbol=10)"
    chosen = {"edges": torch.tensor([0.5]), "shape": [8], "chosen": [[8], [2], 2], "asked": asked}
    state["frozen"]["layers"] = {"hidden": chosen, "out": chosen | {"shape": [4], "chosen": [[4], [4], 2]}}
    of_version_1()(state)
    for point in state["history"]:
        for field in ("source", "explained", "accuracy", "i_ty_fano", "fano_shortfall"):
            del point[field]
    del state["estimates"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_edges_of_an_automatic_choice_in_an_old_checkpoint_are_let_go(tmp_path, damaged):
    path, state = damaged(tmp_path / "old.ckpt", of_an_automatic_choice)
    callback = InformationPlaneCallback()
    missing = "points of its history lack .*'explained'.* The rest is kept, .* Training goes on"
    with pytest.warns(UserWarning, match=missing) as caught:
        fit(tmp_path, callback, max_epochs=2, logger=False, ckpt_path=path)
    assert len([warning for warning in caught if str(warning.message).startswith("ib:")]) == 1
    assert not any("edges were fitted" in str(warning.message) for warning in caught)
    assert epochs(callback) == [0, 1, 2]
    assert [point.h_t for point in callback.history[:4]] == [point["h_t"] for point in state["history"]]
    assert [point.source for point in callback.history[-2:]] == ["cells", "cells"]
    assert callback.plane.frozen_state()["layers"] == {}
    discretize = InformationPlaneCallback({"hidden": Quantizer(bins=UniformBins(3)), "out": None})
    anew = r"edges were fitted for AutoQuantizer.*, and Quantizer.* is asked for now: its edges are fitted anew"
    with pytest.warns(UserWarning, match=anew), pytest.warns(UserWarning, match=missing):
        fit(tmp_path, discretize, max_epochs=2, logger=False, ckpt_path=path)
    assert discretize.plane.fitted_quantizers["hidden"].edges.shape == (8, 2)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_another_unit_stops_before_training_however_damaged_the_rest(tmp_path, damaged):
    path, _ = damaged(tmp_path / "damaged.ckpt", without("frozen"))
    with (
        pytest.raises(ValueError, match="the history so far is in bits, and the callback has unit='nats'"),
        pytest.warns(UserWarning, match="the frozen edges are no mapping"),
    ):
        fit(tmp_path, InformationPlaneCallback(unit="nats"), max_epochs=2, logger=False, ckpt_path=path)


def test_a_point_of_another_version_keeps_the_figures_it_has():
    point = InformationPoint.missing("out", n_samples=8, unit="bits", epoch=3)._replace(i_xt=2, i_ty=1.0)
    saved = in_version_1(History.of([point]))["history"][0] | {"color": "red"}
    del saved["h_t"], saved["n_samples"]
    (restored,), faults = History.restored({"history": [saved]})
    assert (restored.epoch, restored.layer, restored.i_xt, restored.i_ty) == (3, "out", 2, 1.0)
    assert math.isnan(restored.h_t)
    assert restored.n_samples == 0
    assert len(faults) == 2


def test_edges_for_another_number_of_coordinates_are_fitted_anew():
    quantizer = Quantizer(bins=UniformBins(4))
    before, after = FittedQuantizer(quantizer), FittedQuantizer(quantizer)
    before.fit(before.values(torch.rand(9, 3)))
    after.load_state_dict(before.state_dict())
    with pytest.warns(UserWarning, match="edges are for 3 coordinates, and a sample has 5 .* fitted anew"):
        held = after.values(torch.rand(9, 5))
    after.fit(held)
    assert after.edges.shape == (5, 3)
