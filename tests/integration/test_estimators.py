"""The callback's estimators and corrections: what is measured, kept, resumed and left alone."""

import io
import math
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

import lightning_ib.report.reporter
from lightning_ib import (
    FixedBins,
    InformationPlane,
    InformationPlaneCallback,
    InformationPoint,
    QuantileBins,
    Quantizer,
)
from lightning_ib.estimators.base import Estimator, Rows
from lightning_ib.estimators.kernels import KDE
from lightning_ib.estimators.registry import BY_NAME
from lightning_ib.evaluation.passes import preserve_state, run_pass
from lightning_ib.functional import mutual_information_bounds_kde
from lightning_ib.plot.embedding import plot_tsne
from lightning_ib.plot.estimates import plot_estimates
from lightning_ib.plot.information_plane import plot_information_plane
from lightning_ib.records import History
from lightning_ib.records.earlier import POINT
from tests.helpers.callback_estimators import CHEAP, LAYERS, NO_UNIT, told
from tests.helpers.callbacks import equal, trained_state
from tests.helpers.records import estimate, exact, of, of_version_1
from tests.helpers.resume import go_on, in_checkpoint, resumes_exactly, same
from tests.helpers.tiny import BATCH, N_TRAIN, N_VAL, TinyModule, fit, make_data, pl, val_loader

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures", "few_pictures")]


# -- what training is owed ---------------------------------------------------------------------------------------------


def assert_left_alone(tmp_path, data, layers=None, **options):
    callback = InformationPlaneCallback(layers, data=data, **options)
    with_it = trained_state(tmp_path, callback, val=True, generator=True)
    without = trained_state(tmp_path, val=True, generator=True)
    assert without["losses"]
    for part in without:
        assert equal(with_it[part], without[part]), part
    return callback


@pytest.mark.parametrize("data", [None, "train"])
def test_training_is_bit_identical_with_a_few_estimators_and_without(tmp_path, data):
    few = ["kde", "probe", "mixed"]
    callback = assert_left_alone(tmp_path, data, estimators=few, correction="miller_madow", log_projector=True)
    assert {e.source for e in callback.history.estimates()} == set(few)
    assert all(math.isfinite(e.value) for e in callback.history.estimates())


@pytest.mark.slow
def test_training_is_bit_identical_with_all_estimators_and_without(tmp_path):
    everything = {"estimators": list(BY_NAME), "log_projector": True, "tsne": True, "correction": "miller_madow"}
    callback = assert_left_alone(tmp_path, None, ["out"], max_samples=64, **everything)
    assert {e.source for e in callback.history.estimates()} == set(BY_NAME)
    assert {e.epoch for e in callback.history.estimates()} == {0, 1, 2, 3}
    assert all(math.isfinite(e.value) for e in callback.history.estimates())


def test_drawing_moves_no_random_state():
    estimates = [estimate(epoch, epoch, "out", "knn", "I_TY", 0.1 * epoch) for epoch in range(3)]
    rows = Rows(torch.rand(40, 4), torch.arange(40) % 3)

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before = states()
    for figure in (plot_estimates(estimates), plot_tsne({"out": rows})):
        figure.savefig(io.BytesIO(), format="png")
    assert states() == before


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_are_estimated_in_the_validation_loop_as_in_a_pass_of_its_own(tmp_path, precision):
    in_loop = InformationPlaneCallback(estimators=["kde", "probe"])
    by_itself = InformationPlaneCallback(estimators=["kde", "probe"], data="val", prefix="own")
    fit(tmp_path, in_loop, by_itself, precision=precision, max_epochs=1, logger=False)
    assert all(math.isfinite(e.value) for e in in_loop.history.estimates())
    assert exact(in_loop.history.estimates()) == exact(by_itself.history.estimates())


# -- the default -------------------------------------------------------------------------------------------------------


def test_by_default_a_linear_probe_stands_beside_every_layer(tmp_path):
    callback = InformationPlaneCallback()
    _, run = fit(tmp_path, callback, max_epochs=1)
    assert [(e.epoch, e.layer, e.source, e.quantity) for e in callback.history.estimates()] == [
        (epoch, layer, "probe", figure) for epoch in (0, 1) for layer in LAYERS for figure in ("I_TY", "accuracy")
    ]
    assert {e.verdict for e in callback.history.estimates()} == {"ok"}
    events = EventAccumulator(run.log_dir, size_guidance={"scalars": 0}).Reload()
    assert sorted(tag for tag in events.Tags()["scalars"] if tag.startswith("ib/probe/")) == sorted(
        f"ib/probe/{figure}/{layer}" for layer in LAYERS for figure in ("I_TY", "accuracy")
    )
    assert exact(History.read_csv(Path(run.log_dir) / "information_plane.csv")) == exact(callback.history)


@pytest.mark.usefixtures("pictures")
def test_the_probe_is_drawn_in_the_plane_and_has_no_picture_of_its_own(tmp_path, monkeypatch):
    drawn = []

    def plot(history, estimates, run, **options):
        drawn.append((len(history), [e.source for e in estimates]))
        return plot_information_plane(history, estimates, run, **options)

    monkeypatch.setattr(lightning_ib.report.reporter, "plot_information_plane", plot)
    fit(tmp_path, InformationPlaneCallback(), max_epochs=1, logger=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "information_plane.csv", "information_plane.png", "information_plane.svg"
    }  # fmt: skip
    assert drawn == [(2, ["probe"] * 4), *[(4, ["probe"] * 8)] * 2], "the last time as an SVG"


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("estimators", [(), []])
def test_no_estimators_no_tags_and_no_file(tmp_path, estimators):
    callback = InformationPlaneCallback(estimators=estimators)
    _, run = fit(tmp_path, callback, max_epochs=1, logger=False)
    assert callback.history.estimates() == []
    assert {path.name for path in tmp_path.iterdir()} == {f"information_plane.{kind}" for kind in ("csv", "png", "svg")}
    assert not [name for name in run.callback_metrics if "probe" in name]


def test_a_width_is_logged_and_has_no_unit(tmp_path):
    callback = InformationPlaneCallback(["hidden"], estimators=["kde", "renyi"])
    _, run = fit(tmp_path, callback, max_epochs=1, logger=False)
    for name, figure in (("kde", "noise_variance"), ("renyi", "kernel_width")):
        before, after = of(callback.history.estimates(), source=name, quantity=figure)
        assert 0 < before != after > 0, "it follows the layer"
        assert run.callback_metrics[f"ib_diagnostics/{name}/{figure}/hidden"] == pytest.approx(after, rel=1e-6)
        assert {(e.unit, e.verdict) for e in callback.history.estimates() if e.quantity == figure} == {("", "")}


# -- doubts ------------------------------------------------------------------------------------------------------------


class Louder(TinyModule):
    """Its hidden layer is a hundred times as large from the first optimizer step on."""

    def forward(self, x):
        scale = 100.0 if self.trainer.global_step else 1.0
        return self.out(self.drop(self.act(self.hidden(x * scale) / scale)))


@resumes_exactly
@pytest.mark.usefixtures("pictures")
def test_the_verdict_of_an_estimate_is_in_history_file_checkpoint_and_picture(tmp_path, monkeypatch):
    drawn = []

    def plot(estimates):
        drawn.append(plot_estimates(estimates))
        return drawn[-1]

    monkeypatch.setattr(lightning_ib.report.reporter, "plot_estimates", plot)

    def callback():
        return InformationPlaneCallback(["hidden"], estimators=[KDE(frozen=True)])

    whole, resumed = callback(), callback()
    go_on(tmp_path, whole, model=Louder(), max_epochs=2)
    informations = [e for e in whole.history.estimates() if e.quantity.startswith("I_")]
    assert len(informations) == 3 * 4
    assert all((e.verdict == "outgrown") == (e.epoch > 0) for e in informations)
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(whole.history)
    path = tmp_path / "checkpoints" / "epoch=0.ckpt"
    assert exact(History.restored(in_checkpoint(path))[0]) == exact(whole.history.until(1, N_TRAIN // BATCH))
    go_on(tmp_path, resumed, model=Louder(), max_epochs=2, ckpt_path=path)
    assert exact(resumed.history.estimates()) == exact(whole.history.estimates())
    for figure in (drawn[2], drawn[-1]):
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels[0] == "hidden"
        assert labels[1].startswith("flagged: outgrown")


# -- what is measured --------------------------------------------------------------------------------------------------


class Seen(Estimator):
    """Keeps the rows it is shown."""

    name = "seen"
    needs_input = True

    def __init__(self):
        super().__init__()
        self.shown = []

    def estimate(self, rows, calibration, unit):
        self.shown.append(Rows(*(None if part is None else part.clone() for part in rows)))
        return {"I_TY": 0.0}


@pytest.mark.parametrize("data", [None, "train", "loader"])
def test_the_same_samples_are_shown_at_every_measurement_whatever_the_loader_shuffles(tmp_path, data):
    own = DataLoader(make_data(N_VAL, seed=1), 9, shuffle=True) if data == "loader" else data
    seen = Seen()
    fit(tmp_path, InformationPlaneCallback(["out"], data=own, estimators=[seen], max_samples=30), logger=False)
    assert len(seen.shown) == 4
    x, y = make_data(N_TRAIN)[:] if data == "train" else make_data(N_VAL, seed=1)[:]
    for rows in seen.shown:
        assert len(rows.t) == 30
        assert torch.equal(rows.x, seen.shown[0].x)
        assert torch.equal(rows.y, seen.shown[0].y)
        samples = (rows.x[:, None] == x).all(2).nonzero()
        assert samples[:, 0].tolist() == list(range(30)), "each row is one sample of the data"
        assert torch.equal(y[samples[:, 1]], rows.y)
    assert not torch.equal(seen.shown[0].t, seen.shown[-1].t)


def test_the_batch_size_chooses_no_other_samples(tmp_path):
    shown = []
    for batch in (7, 80):
        seen = Seen()
        callback = InformationPlaneCallback(["out"], data="val", estimators=[seen, "kde"], max_samples=20)
        fit(tmp_path, callback, val=val_loader(batch_size=batch), max_epochs=1, logger=False)
        shown.append((seen.shown[-1].x, of(callback.history.estimates(), source="kde")))
    assert torch.equal(shown[0][0], shown[1][0])
    assert shown[0][1] == pytest.approx(shown[1][1], abs=1e-6)  # forward passes differ in their last bits


def test_estimates_are_those_of_the_rows_of_the_layer(tmp_path):
    """Against the function itself, on what the trained network puts out; max_samples spares none."""
    callback = InformationPlaneCallback(["hidden"], estimators=[KDE(noise_variance=0.1)], unit="nats")
    model, _ = fit(tmp_path, callback, logger=False)
    x, y = make_data(N_VAL, seed=1)[:]
    with torch.no_grad():
        t = model.eval().hidden(x)
    expected = mutual_information_bounds_kde(t, y, noise_variance=0.1, unit="nats")
    last = {e.quantity: e.value for e in callback.history.estimates() if e.epoch == 3}
    assert last["I_TY"] == pytest.approx(expected.upper, abs=1e-6)
    assert last["I_TY_lower"] == pytest.approx(expected.lower, abs=1e-6)


def test_nats_are_bits_times_the_logarithm_of_two_and_shares_are_shares(tmp_path):
    bits, nats = (InformationPlaneCallback(["out"], estimators=CHEAP, unit=unit) for unit in ("bits", "nats"))
    for callback in (bits, nats):
        fit(tmp_path, callback, max_epochs=1, logger=False)
    for one, other in zip(bits.history.estimates(), nats.history.estimates()):
        share = one.quantity in NO_UNIT
        assert other.value == pytest.approx(one.value * (1.0 if share else math.log(2)), abs=1e-9)
        assert other.verdict == one.verdict
        assert other.unit == ("" if share else "nats")


def test_every_n_steps_are_estimated_too(tmp_path):
    callback = InformationPlaneCallback(["out"], estimators=["knn"], every_n_train_steps=3)
    _, run = fit(tmp_path, callback, max_epochs=2)
    assert [e.step for e in callback.history.estimates()] == [p.step for p in callback.history] == [0, 3, 6, 9, 12]
    events = EventAccumulator(run.log_dir, size_guidance={"scalars": 0}).Reload().Scalars("ib/knn/I_TY/out")
    assert [event.value for event in events] == pytest.approx([e.value for e in callback.history.estimates()], rel=1e-6)


def test_several_validation_runs_in_an_epoch_leave_one_estimate(tmp_path):
    callback = InformationPlaneCallback(["out"], estimators=["knn"])
    fit(tmp_path, callback, val_check_interval=0.5, max_epochs=2, logger=False)
    assert [(e.epoch, e.step) for e in callback.history.estimates()] == [(0, 0), (1, 6), (2, 12)]


def test_a_pool_of_an_estimator_sees_the_rows(tmp_path):
    shapes = []

    def pool(t):
        shapes.append(tuple(t.shape))
        return t[:, :1]

    callback = InformationPlaneCallback(["hidden"], estimators=[KDE(pool=pool)], max_samples=33)
    fit(tmp_path, callback, max_epochs=1, logger=False)
    assert shapes == [(33, 8)] * 2


# -- correction and shuffles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "correction", ["miller_madow", "grassberger", "chao_shen", "james_stein", "jackknife", "chao_wang_jost", "nsb"]
)
def test_a_correction_reaches_every_point_and_its_scalars(tmp_path, correction):
    asked = {"hidden": Quantizer(bins=FixedBins([0.0])), "out": Quantizer(bins=FixedBins([-0.3, 0.3]))}
    options = {"correction": correction, "n_permutations": 3, "input": Quantizer(bins=FixedBins([0.0]))}
    callback = InformationPlaneCallback(asked, **options)
    model, run = fit(tmp_path, callback, max_epochs=1, logger=False)
    assert {point.correction for point in callback.history} == {correction}
    plane = InformationPlane(asked, **options, keep_rows=True)
    with plane.attach(model), preserve_state(model):
        run_pass(plane, val_loader(batch_size=9), lambda parts: model(parts.x))
        expected = plane.compute(epoch=1, step=6)
    assert exact(callback.history[-2:]) == exact(expected)
    assert {point.correction for point in plane.compute()} == {correction}
    for point in expected:
        assert run.callback_metrics[f"ib/I_TY/{point.layer}"] == pytest.approx(point.i_ty, rel=1e-6)
        shuffled = run.callback_metrics[f"ib_diagnostics/bits/I_TY_permuted/{point.layer}"]
        assert shuffled == pytest.approx(point.i_ty_permuted, rel=1e-6, abs=1e-6)


def test_what_a_correction_pushes_past_a_bound_is_kept_and_flagged(tmp_path):
    callback = InformationPlaneCallback({"out": Quantizer(bins=QuantileBins(20))}, correction="chao_shen")
    fit(tmp_path, callback, max_epochs=1, logger=False)
    for point in callback.history:
        assert point.h_t > math.log2(N_VAL)
        assert "h_t > log N" in point.out_of_bounds
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(callback.history)


def test_the_permutation_baseline_is_logged_without_any_shuffle(tmp_path):
    callback = InformationPlaneCallback(["out"])
    _, run = fit(tmp_path, callback, max_epochs=1, logger=False)
    assert all(0 < p.i_ty_permuted < p.i_ty and math.isnan(p.i_ty_permuted_sd) for p in callback.history)
    assert run.callback_metrics["ib_diagnostics/bits/I_TY_permuted/out"] == pytest.approx(
        callback.history[-1].i_ty_permuted, rel=1e-6
    )


def test_every_measurement_shuffles_alike(tmp_path):
    class Still(TinyModule):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    callback = InformationPlaneCallback(["out"], n_permutations=4)
    fit(tmp_path, callback, model=Still(), logger=False)
    assert len({(p.i_ty_permuted, p.i_ty_permuted_sd) for p in callback.history}) == 1


# -- resume ------------------------------------------------------------------------------------------------------------


@resumes_exactly
@pytest.mark.parametrize("data", [None, "train"])
def test_a_resumed_run_has_the_estimates_of_an_uninterrupted_one(tmp_path, data):
    def callback():
        return InformationPlaneCallback(data=data, estimators=CHEAP, correction="grassberger", max_samples=50)

    whole, resumed = callback(), callback()
    go_on(tmp_path, whole)
    path = tmp_path / "checkpoints" / "epoch=0.ckpt"
    assert exact(History.restored(in_checkpoint(path))[0]) == exact(whole.history.until(1, N_TRAIN // BATCH))
    (tmp_path / "information_plane.csv").unlink()
    go_on(tmp_path, resumed, ckpt_path=path)
    assert exact(resumed.history) == exact(whole.history) == exact(History.read_csv(tmp_path / "information_plane.csv"))
    assert same(resumed.plane.frozen_state(), whole.plane.frozen_state())
    assert set(resumed.plane.estimation.calibration["out"]["quantized8"]) == {"low", "high"}


@resumes_exactly
def test_a_run_that_broke_off_while_it_was_trained_goes_on_with_its_estimates(tmp_path):
    class Interrupted(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (2, 2):
                raise RuntimeError("power cut")

    def callback():
        return InformationPlaneCallback(estimators=["kde", "quantized8"])

    whole, broken, resumed = callback(), callback(), callback()
    go_on(tmp_path / "whole", whole)
    with pytest.raises(RuntimeError, match="power cut"):
        go_on(tmp_path / "broken", broken, Interrupted())
    assert exact(broken.history) == exact(whole.history.until(2, 2 * N_TRAIN // BATCH))
    go_on(tmp_path / "broken", resumed, ckpt_path=tmp_path / "broken" / "checkpoints" / "epoch=1.ckpt")
    assert exact(resumed.history) == exact(whole.history)
    assert exact(History.read_csv(tmp_path / "broken" / "information_plane.csv")) == exact(whole.history)


NEW_FIELDS = [name for name in POINT if name not in InformationPoint._fields[:14]]


@pytest.mark.usefixtures("pictures")
def test_a_checkpoint_of_a_version_without_estimators_is_taken_up(tmp_path):
    go_on(tmp_path, InformationPlaneCallback())
    path = tmp_path / "checkpoints" / "epoch=1.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    (state,) = (s for key, s in checkpoint["callbacks"].items() if key.startswith("InformationPlaneCallback"))
    of_version_1()(state)
    del state["estimates"]
    for point in state["history"]:
        for name in NEW_FIELDS:
            del point[name]
    torch.save(checkpoint, path)

    callback = InformationPlaneCallback(estimators=["kde"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        go_on(tmp_path, callback, ckpt_path=path)
    assert len(told(caught, "ib: ")) == 1
    assert len(told(caught, "points of its history lack ['i_xt_se', ")) == 1
    assert [p.epoch for p in callback.history if p.layer == "out"] == [0, 1, 2, 3]
    for point in callback.history:
        old = point.epoch < 3
        assert math.isfinite(point.i_ty)
        assert (
            math.isnan(point.i_ty_se) == math.isnan(point.i_ty_permuted) == math.isnan(point.singleton_fraction) == old
        )
        assert (point.verdict == "") == old
    assert {e.epoch for e in callback.history.estimates()} == {3}
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(callback.history)
    assert (tmp_path / "information_plane.png").is_file()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (of_version_1(lambda state: state | {"estimates": 3}), "its estimates are of type int, and a list is expected"),
        (
            lambda state: state["history"]["source"].__setitem__(-1, 3) or state,
            "a record of its history has source=3, of type int, and str is expected",
        ),
        (
            lambda state: state | {"frozen": state["frozen"] | {"estimators": [1]}},
            "what its estimators were set to is no mapping from layers to estimators",
        ),
    ],
)
def test_damaged_estimates_cost_one_warning_and_the_rest_is_kept(tmp_path, damage, sentence):
    go_on(tmp_path, InformationPlaneCallback(["out"], estimators=["kde"]), max_epochs=1)
    path = tmp_path / "checkpoints" / "epoch=0.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("InformationPlaneCallback"))
    checkpoint["callbacks"][key] = damage(checkpoint["callbacks"][key])
    torch.save(checkpoint, path)
    callback = InformationPlaneCallback(["out"], estimators=["kde"])
    with pytest.warns(UserWarning, match=f"in the checkpoint is damaged .*{sentence}") as caught:
        go_on(tmp_path, callback, max_epochs=2, ckpt_path=path)
    assert len(told(caught, "ib: ")) == 1
    assert [p.epoch for p in callback.history] == [0, 1, 2]
    assert all(math.isfinite(value) for value in of(callback.history.estimates(), epoch=2))
