"""Several targets in a run: tags, files, pictures, monitors, resume, and training as it is without them."""

import math

import pytest
import torch

from lightning_ib import History, InformationPlaneCallback
from lightning_ib.plot import plot_information_plane
from lightning_ib.records import measurement_from_json, measurement_to_json, parse_tag
from lightning_ib.report.loggers import scalars
from tests.helpers.callbacks import equal
from tests.helpers.records import exact
from tests.helpers.tiny import TinyModule, fit, pl, val_loader

pytestmark = pytest.mark.slow

TARGETS = {"class": 1, "coarse": lambda batch: batch[1] // 2, "first": lambda batch: batch[0][:, 0]}
NAMES = list(TARGETS)


def callback_of(**options):
    return InformationPlaneCallback(["hidden", "out"], **{"targets": TARGETS, "bound": "labels"} | options)


@pytest.mark.usefixtures("pictures", "blank_pictures_here")
@pytest.mark.filterwarnings("ignore:.*layer 'hidden' is")
def test_a_run_logs_writes_and_draws_each_target(tmp_path):
    callback = callback_of(estimators=["probe", "kde"], beta=2.0)
    stopping = pl.callbacks.EarlyStopping("ib/I_TY@coarse/out", mode="max", patience=9)
    with pytest.warns(UserWarning, match="probe of the target 'first' could not be estimated"):
        _, run = fit(tmp_path, callback, stopping, max_epochs=2)
    history = callback.history
    assert history.targets == NAMES
    assert [(p.epoch, p.layer, p.target) for p in history] == [
        (epoch, layer, "class") for epoch in range(3) for layer in ("hidden", "out")
    ]
    last = history.last()
    for name in NAMES:
        (_, out) = last.points(name)
        assert out.target == name
        assert run.callback_metrics[f"ib/I_TY@{name}/out"] == pytest.approx(out.i_ty)
        assert run.callback_metrics[f"ib_diagnostics/bits/I_TY_gap@{name}/out"] == pytest.approx(out.i_ty_gap)
        assert run.callback_metrics[f"ib_diagnostics/bits/IB@{name}/out"] == pytest.approx(out.i_xt - 2 * out.i_ty)
    assert "ib/I_TY/out" not in run.callback_metrics
    assert run.callback_metrics["ib/probe/accuracy@coarse/out"] > 0.5
    assert {one.target for one in last.estimates("coarse")} == {"", "coarse"}
    logged = list(scalars(last, "ib", 2.0))
    assert all(parse_tag(name) is not None for name in logged)
    assert {parse_tag(name).target for name in logged} == {"", *NAMES}
    folder = callback.figure_path.parent
    assert callback.figure_path.name == "information_plane_class.png"
    for name in NAMES:
        assert {f"information_plane_{name}.png", f"information_plane_{name}.svg", f"estimators_{name}.png"} <= {
            file.name for file in folder.iterdir()
        }
    assert History.read_csv(folder / "information_plane.csv") == history
    read = measurement_from_json(measurement_to_json(last))
    assert exact(read.points("coarse")) == exact(last.points("coarse"))
    figure = plot_information_plane(history.points("coarse"), history.estimates("coarse"))
    assert figure.axes[0].get_title(loc="left") == "Information plane, target coarse, epochs 0–2"


@pytest.mark.usefixtures("few_pictures")
def test_training_is_bit_identical_and_a_resume_goes_on(tmp_path):
    found = []
    for callbacks in ([callback_of()], []):
        model, _ = fit(tmp_path, *callbacks, max_epochs=2)
        found.append((model.state_dict(), model.losses, torch.get_rng_state()))
    for with_it, without in zip(*found):
        assert equal(with_it, without)
    whole, first, second = (callback_of(estimators=["soft"]) for _ in range(3))
    fit(tmp_path / "a", whole, max_epochs=3)
    _, run = fit(tmp_path / "b", first, max_epochs=2)
    run.save_checkpoint(tmp_path / "last.ckpt")
    fit(tmp_path / "c", second, max_epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert [p.epoch for p in second.history.points("coarse")] == [p.epoch for p in whole.history.points("coarse")]
    assert second.history.until(2, 12) == first.history


@pytest.mark.usefixtures("few_pictures")
def test_a_key_that_batches_lack_stops_the_run_and_a_bad_target_does_not(tmp_path):
    with pytest.raises(ValueError, match="the target 'b' is to be found at 7, and a batch is a list of 2"):
        fit(tmp_path, callback_of(targets={"a": 1, "b": 7}), max_epochs=1)
    callback = callback_of(targets={"short": lambda batch: batch[1][:3], "class": 1}, estimators=())
    with pytest.warns(UserWarning, match="the target 'short' has 3 rows where the layers put out 16"):
        model, _ = fit(tmp_path, callback, max_epochs=1)
    assert len(model.losses) == 6
    assert all(math.isnan(point.i_ty) for point in callback.history)
    assert all(math.isfinite(point.i_ty) for point in callback.history.points("class"))


@pytest.mark.usefixtures("few_pictures")
@pytest.mark.parametrize("sound", [0, 1], ids=["at the start", "later"])
def test_a_function_that_raises_costs_its_own_target(tmp_path, sound):
    def coarse(batch):
        coarse.n += 1
        if coarse.n > sound * len(val_loader()) + 1:
            raise KeyError("nope")
        return batch[1] // 2

    coarse.n = 0
    callback = callback_of(targets={"coarse": coarse, "class": 1}, estimators=())
    with pytest.warns(UserWarning, match="the target 'coarse', a function of the batch, raised KeyError: 'nope'"):
        model, _ = fit(tmp_path, callback, max_epochs=1)
    assert len(model.losses) == 6
    finite = [math.isfinite(point.i_ty) for point in callback.history.points("coarse") if point.layer == "out"]
    assert finite == [sound == 1, False]
    assert all(math.isfinite(point.i_ty) for point in callback.history.points("class"))


@pytest.mark.usefixtures("few_pictures")
def test_a_pass_that_fails_has_nan_for_each_target(tmp_path):
    def unpack(batch):
        unpack.n += 1
        if unpack.n > len(val_loader()):
            raise RuntimeError("no label today.")
        return batch

    unpack.n = 0
    callback = callback_of(targets={"class": 1, "coarse": lambda batch: batch[1] // 2}, unpack=unpack)
    with pytest.warns(UserWarning, match="the measurement after epoch 1 failed, its points are NaN: .*no label today"):
        fit(tmp_path, callback, model=TinyModule(), max_epochs=1)
    last = callback.history.last()
    assert last.targets == ["class", "coarse"]
    for name in last.targets:
        assert all(math.isnan(point.i_ty) for point in last.points(name))
        assert [one.quantity for one in last.estimates(name)] == ["I_TY", "accuracy"] * 2


@pytest.mark.usefixtures("few_pictures")
def test_a_prefix_that_is_a_target_elsewhere_is_refused(tmp_path):
    others = [InformationPlaneCallback(prefix="Coarse"), callback_of()]
    message = "the callbacks with the prefixes 'Coarse' and 'ib' would both write information_plane_coarse.png"
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, *others, max_epochs=1)
    fit(tmp_path, InformationPlaneCallback(prefix="fine"), callback_of(), max_epochs=1, limit_val_batches=1)
