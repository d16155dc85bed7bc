"""The callback's estimators, corrections and pictures of rows: what is logged, kept, resumed and left alone."""

import importlib.util
import io
import math
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
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
from lightning_ib.records import History, tags
from lightning_ib.records.earlier import POINT
from tests.helpers.records import estimate, exact, of, of_version_1
from tests.helpers.tiny import BATCH, N_TRAIN, N_VAL, TinyModule, fit, make_data, pl, val_loader
from tests.integration.test_callback import equal, trained_state
from tests.integration.test_loggers import Sick, pixels, read_metrics_csv
from tests.integration.test_resume import PICTURES, go_on, in_checkpoint, resumes_exactly, same

EarlyStopping, ModelCheckpoint = pl.callbacks.EarlyStopping, pl.callbacks.ModelCheckpoint

CHEAP = ["kde", "knn", "probe", "quantized8"]
GIVEN = {
    "kde": ["I_XT", "I_TY", "I_XT_lower", "I_TY_lower", "noise_variance"],
    "knn": ["I_TY"],
    "probe": ["I_TY", "accuracy"],
    "quantized8": ["I_XT", "I_TY"],
}
LAYERS = ["hidden", "out"]
NO_UNIT = ("accuracy", "noise_variance")
BELOW = ("I_XT_lower", "I_TY_lower", "noise_variance")  # the first page
# Lightning logs the figures of an epoch at the epoch's last step, and counts steps from 0.
STEPS = [0, 5, 11, 17]


def told(caught, words):
    return [str(warning.message) for warning in caught if words in str(warning.message)]


@pytest.fixture
def pictures():
    """Asked for by tests that look at them."""


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Drawing takes most of the time of a small run."""
    if "pictures" not in request.fixturenames:
        for name in (*PICTURES, "plot_estimates"):
            monkeypatch.setattr(lightning_ib.report.reporter, name, lambda *_: None)


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
@pytest.mark.parametrize("data", [None, "train"])
def test_training_is_bit_identical_with_all_estimators_and_without(tmp_path, data):
    everything = {"estimators": list(BY_NAME), "log_projector": True, "tsne": True, "correction": "miller_madow"}
    callback = assert_left_alone(tmp_path, data, ["out"], max_samples=64, **everything)
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


# -- what is logged ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A run with TensorBoard, the callback, and what TensorBoard shows of it."""
    folder = tmp_path_factory.mktemp("logged")
    callback = InformationPlaneCallback(estimators=CHEAP, log_projector=True, tsne=True, max_samples=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest's own filters are not at work yet
        _, run = fit(folder, callback, max_epochs=2)
    events = EventAccumulator(run.log_dir, size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()
    return callback, Path(run.log_dir), events


def test_there_is_an_estimate_for_each_measurement_layer_estimator_and_figure(logged):
    callback, _, _ = logged
    assert [(e.epoch, e.step, e.layer, e.source, e.quantity) for e in callback.history.estimates()] == [
        (epoch, epoch * N_TRAIN // 16, layer, estimator, figure)
        for epoch in range(3)
        for layer in LAYERS
        for estimator in CHEAP
        for figure in GIVEN[estimator]
    ]
    assert {e.n_samples for e in callback.history.estimates()} == {40}
    assert {e.unit for e in callback.history.estimates() if e.quantity not in NO_UNIT} == {"bits"}
    assert {e.unit for e in callback.history.estimates() if e.quantity in NO_UNIT} == {""}
    assert all((e.verdict == "") == (e.quantity == "noise_variance") for e in callback.history.estimates())
    assert all(math.isfinite(e.value) for e in callback.history.estimates())


def test_scalars_are_the_estimates_at_the_right_steps(logged):
    callback, _, events = logged
    first_page = [f"{name}/{figure}" for name, figures in GIVEN.items() for figure in figures if figure not in BELOW]
    first_page += ["I_XT", "I_TY", "H_T"]
    below = {"saturation", "singleton_fraction", "kde/noise_variance", "bits/I_TY_permuted"}
    below |= {f"bits/{name}_{end}" for name in ("I_XT", "I_TY", "H_T") for end in ("lower", "upper")}
    below |= {f"bits/{name}" for name in first_page if not name.endswith("accuracy")}
    below |= {"bits/kde/I_XT_lower", "bits/kde/I_TY_lower"}
    names = [f"ib/{name}/{layer}" for layer in LAYERS for name in first_page]
    names += [f"ib_diagnostics/{name}/{layer}" for layer in LAYERS for name in below]
    names += ["ib_diagnostics/bits/I_TY_fano/out", "ib_diagnostics/accuracy/out"]
    written = [tag for tag in events.Tags()["scalars"] if tag.startswith("ib")]
    assert sorted(written) == sorted(names)
    for tag in names:
        assert [event.step for event in events.Scalars(tag)] == STEPS[:3], tag
    for layer in LAYERS:
        for name, figures in GIVEN.items():
            for figure in figures:
                unit = "bits" if figure.endswith("_lower") else ""
                tag = tags.format_tag("ib", figure, layer, source=name, unit=unit)
                values = [event.value for event in events.Scalars(tag)]
                expected = of(callback.history.estimates(), layer=layer, source=name, quantity=figure)
                assert values == pytest.approx(expected, rel=1e-6)  # TensorBoard keeps 32 bits


def test_custom_scalars_have_bands_and_a_chart_for_each_figure_of_each_estimator(logged):
    callback, _, events = logged
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    figures, bands, others = layout.category
    assert bands.title == "Information plane (ib): ± 2 standard errors"
    of_out = [p for p in callback.history if p.layer == "out"]
    (band,) = next(chart for chart in bands.chart if chart.title == "I(X;T) [bits]: out").margin.series
    for tag, sign in ((band.value, 0), (band.lower, -2), (band.upper, 2)):
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx([p.i_xt + sign * p.i_xt_se for p in of_out])
    assert others.title == "Information plane (ib): other estimators"
    assert {chart.title: list(chart.multiline.tag) for chart in others.chart} == {
        f"{name}: {figure}{'' if figure in NO_UNIT else ' [bits]'}": [
            "^" + tags.format_tag("ib", figure, ".+", source=name, unit="" if figure in NO_UNIT else "bits")
        ]
        for name, of_it in GIVEN.items()
        for figure in of_it
    }
    assert len(figures.chart) == 6


def test_files_and_images_show_the_estimates(logged):
    callback, folder, events = logged
    assert exact(History.read_csv(folder / "information_plane.csv")) == exact(callback.history)
    assert exact(History.read_csv(folder / "information_plane.csv")) == exact(callback.history)
    for name in ("information_plane", "estimators", "tsne"):
        images = events.Images(f"ib/{name}")
        assert [image.step for image in images] == STEPS[:3]
        # Drawing a figure again moves it by less than a pixel; that of another epoch is farther away.
        earlier, last = (pixels(image.encoded_image_string).astype(float) for image in images[-2:])
        saved = pixels(folder / f"{name}.png")
        assert np.abs(last - saved).mean() < 0.2
        assert earlier.shape != saved.shape or np.abs(last - saved).mean() < 0.7 * np.abs(earlier - saved).mean()
        assert last.std() > 1, "a blank picture"


def test_the_projector_is_given_the_same_labeled_rows_at_every_measurement(logged):
    callback, folder, _ = logged
    config = (folder / "projector_config.pbtxt").read_text()
    for layer in LAYERS:
        found = [next((folder / f"{step:05}").glob(f"ib*{layer}")) for step in STEPS[:3]]
        shown = [(path / "metadata.tsv").read_text().split() for path in found]
        assert shown[0] == shown[1] == shown[2]
        assert set(shown[0]) == {"0", "1", "2", "3"}
        rows = [np.loadtxt(path / "tensors.tsv") for path in found]
        assert {table.shape for table in rows} == {(40, {"hidden": 8, "out": 4}[layer])}
        assert np.abs(rows[0] - rows[-1]).max() > 0.01, "training moves them"
        assert config.count(f'tensor_name: "ib/{layer}:') == 3


@pytest.mark.usefixtures("pictures")
def test_another_logger_gets_the_scalars_and_what_it_cannot_show_is_no_fault(tmp_path):
    callback = InformationPlaneCallback(estimators=["knn", "probe"], log_projector=True)
    _, run = fit(tmp_path, callback, logger=pl.loggers.CSVLogger(tmp_path), max_epochs=2)
    rows = [(step, row) for step, row in read_metrics_csv(run.log_dir) if "ib/knn/I_TY/out" in row]
    assert [step for step, _ in rows] == STEPS[:3]
    for name, figure in (("knn", "I_TY"), ("probe", "I_TY"), ("probe", "accuracy")):
        values = [float(row[f"ib/{name}/{figure}/out"]) for _, row in rows]
        assert values == pytest.approx(
            of(callback.history.estimates(), layer="out", source=name, quantity=figure), rel=1e-6
        )
    assert exact(History.read_csv(Path(run.log_dir) / "information_plane.csv")) == exact(callback.history)
    assert (Path(run.log_dir) / "estimators.png").is_file()


@pytest.mark.parametrize("data", [None, "train"])
def test_early_stopping_and_checkpoints_can_monitor_an_estimate(tmp_path, data):
    callback = InformationPlaneCallback(["out"], data=data, estimators=["probe"])
    stopping = EarlyStopping("ib/probe/accuracy/out", mode="max", stopping_threshold=0.0)
    checkpoint = ModelCheckpoint(tmp_path, monitor="ib/probe/accuracy/out", mode="max")
    _, run = fit(tmp_path, callback, stopping, checkpoint, enable_checkpointing=True, logger=False)
    assert run.current_epoch == 1, "any accuracy is above the threshold"
    (accuracy,) = of(callback.history.estimates(), epoch=1, quantity="accuracy")
    assert checkpoint.best_model_score == pytest.approx(accuracy, rel=1e-6)


def test_an_estimate_can_be_monitored_in_epochs_that_are_not_measured(tmp_path):
    callback = InformationPlaneCallback(["out"], estimators=["knn"], every_n_epochs=2)
    stopping = EarlyStopping("ib/knn/I_TY/out", mode="max", patience=9)
    _, run = fit(tmp_path, callback, stopping, logger=False)
    assert (run.current_epoch, [e.epoch for e in callback.history.estimates()]) == (3, [0, 2])


def test_a_monitor_before_the_callback_is_refused_where_it_would_see_nothing(tmp_path):
    stopping = EarlyStopping("ib/probe/accuracy/out", mode="max")
    with pytest.raises(ValueError, match="EarlyStopping monitors 'ib/probe/accuracy/out' but comes before"):
        fit(tmp_path, stopping, InformationPlaneCallback(data="train", estimators=["probe"]))


@pytest.mark.parametrize("evaluate", ["validate", "test"])
def test_an_evaluation_alone_keeps_its_estimates_apart(tmp_path, evaluate):
    class Tested(TinyModule):
        test_step = TinyModule.validation_step

    callback = InformationPlaneCallback(estimators=["kde", "quantized8"])
    model, run = fit(tmp_path, callback, model=Tested(), max_epochs=1, logger=False)
    before, settled = list(callback.history.estimates()), callback.state_dict()["frozen"]["estimators"]
    assert callback.evaluated.estimates() == []
    found = getattr(run, evaluate)(model, val_loader(), verbose=False)[0]
    assert callback.history.estimates() == before
    # The same weights on the same rows, by what was set at the first measurement.
    assert [e._replace(epoch=1) for e in callback.evaluated.estimates()] == before[len(before) // 2 :]
    assert callback.state_dict()["frozen"]["estimators"] == settled
    (value,) = of(callback.evaluated.estimates(), layer="out", quantity="I_TY", source="kde")
    assert found["ib/kde/I_TY/out"] == pytest.approx(value)


def test_an_evaluation_of_a_network_that_was_never_fitted_has_estimates(tmp_path):
    callback = InformationPlaneCallback(estimators=["kde"])
    run = pl.Trainer(accelerator="cpu", callbacks=[callback], logger=False, enable_progress_bar=False)
    run.validate(TinyModule(), val_loader(), verbose=False)
    assert len(callback.evaluated.estimates()) == 10
    assert callback.history == History()


@pytest.mark.usefixtures("pictures")
def test_a_fast_dev_run_estimates_one_batch_and_writes_nothing(tmp_path):
    callback = InformationPlaneCallback(estimators=["knn"], log_projector=True, tsne=True)
    fit(tmp_path, callback, fast_dev_run=True)
    assert {e.n_samples for e in callback.history.estimates()} == {16}
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.usefixtures("pictures")
def test_a_second_callback_has_its_own_names_and_files(tmp_path):
    one = InformationPlaneCallback(["out"], estimators=["knn"])
    other = InformationPlaneCallback(["out"], estimators=["knn", "quantized8"], prefix="own/two", data="train")
    _, run = fit(tmp_path, one, other, max_epochs=1, logger=False)
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(one.history)
    assert exact(History.read_csv(tmp_path / "information_plane_own_two.csv")) == exact(other.history)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"information_plane{of}.{end}" for of in ("", "_own_two") for end in ("csv", "png", "svg")),
        *("estimators.png", "estimators_own_two.png"),
    }
    for callback, prefix in ((one, "ib"), (other, "own/two")):
        (value,) = of(callback.history.estimates(), epoch=1, source="knn")
        assert run.callback_metrics[f"{prefix}/knn/I_TY/out"] == pytest.approx(value)


def test_what_is_set_from_a_layer_is_told_once(tmp_path, caplog):
    callback = InformationPlaneCallback(["out"], estimators=[KDE(frozen=True), "knn"])
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, logger=False)
    variance = callback.plane.estimation.calibration["out"]["kde"]["noise_variance"]
    messages = [record.message for record in caplog.records if record.message.startswith("ib: out: k")]
    assert messages == [f"ib: out: kde: noise_variance = {variance:.4g}, from the layer as it is now. Frozen."]


def test_a_progress_bar_goes_over_layers_and_estimators(tmp_path, capsys):
    bar, callback = pl.callbacks.TQDMProgressBar(), InformationPlaneCallback(estimators=["knn"])
    fit(tmp_path, bar, callback, enable_progress_bar=True, max_epochs=1, logger=False)
    assert "Estimators" in "".join(capsys.readouterr())


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

    def plot(history, estimates, run):
        drawn.append((len(history), [e.source for e in estimates]))
        return plot_information_plane(history, estimates, run)

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
        self.shown.append(Rows(*(part.clone() for part in rows)))
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


@pytest.mark.parametrize("correction", ["miller_madow", "grassberger", "chao_shen", "james_stein", "jackknife"])
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


# -- what fails --------------------------------------------------------------------------------------------------------


class FailsAt(Estimator):
    """Cannot go on at some of its calls."""

    name = "moody"

    def __init__(self, *calls, error=ValueError):
        super().__init__()
        self.calls, self.error, self.n = calls, error, 0

    def estimate(self, rows, calibration, unit):
        self.n += 1
        if self.n - 1 in self.calls:
            raise self.error("no figure today")
        return {"I_TY": float(self.n)}


@pytest.mark.parametrize("data", [None, "train"])
@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError])
def test_an_estimator_that_raises_once_costs_that_figure_and_one_warning(tmp_path, data, error):
    callback = InformationPlaneCallback(["out"], data=data, estimators=[FailsAt(2, error=error), "knn"])
    with pytest.warns(UserWarning, match="moody") as caught:
        model, run = fit(tmp_path, callback, max_epochs=4)
    assert told(caught, "moody") == [
        "layer 'out': moody could not be estimated at epoch 2, its values are NaN: no figure today."
    ]
    assert of(callback.history.estimates(), source="moody") == pytest.approx([1, 2, math.nan, 4, 5], nan_ok=True)
    assert all(math.isfinite(value) for value in of(callback.history.estimates(), source="knn"))
    assert all(math.isfinite(point.i_ty) for point in callback.history)
    assert run.current_epoch == 4
    events = EventAccumulator(run.log_dir, size_guidance={"scalars": 0}).Reload().Scalars("ib/moody/I_TY/out")
    assert [event.value for event in events] == pytest.approx([1, 2, math.nan, 4, 5], nan_ok=True)
    assert exact(History.read_csv(Path(run.log_dir) / "information_plane.csv").estimates()) == exact(
        callback.history.estimates()
    )


@pytest.mark.usefixtures("pictures")
def test_an_estimator_that_always_raises_is_told_once_a_layer(tmp_path):
    with pytest.warns(UserWarning, match="moody") as caught:
        fit(tmp_path, InformationPlaneCallback(estimators=[FailsAt(*range(99))]), logger=False)
    assert [message.split(":")[0] for message in told(caught, "moody")] == ["layer 'hidden'", "layer 'out'"]
    assert not (tmp_path / "estimators.png").exists(), "there is nothing to draw"
    assert len(History.read_csv(tmp_path / "information_plane.csv").estimates()) == 8


def test_a_layer_that_turns_nan_costs_its_own_estimates_until_it_is_finite_again(tmp_path):
    callback = InformationPlaneCallback(estimators=CHEAP, log_projector=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, run = fit(tmp_path, callback, model=Sick())
    assert len(told(caught, "layer 'out' gave NaN")) == 1
    assert len(told(caught, "could not be estimated at epoch 2, its values are NaN: ")) == len(CHEAP)
    for e in callback.history.estimates():
        assert math.isnan(e.value) == (e.layer == "out" and e.epoch == 2), e
    assert {e.quantity for e in callback.history.estimates() if e.epoch == 2 and e.source == "kde"} == set(GIVEN["kde"])
    assert (Path(run.log_dir) / "00011").is_dir(), "the projector shows the others"


@pytest.mark.parametrize("data", [None, "train"])
def test_a_measurement_that_fails_as_a_whole_leaves_nan_under_the_same_names(tmp_path, data):
    epoch = None

    def unpack(batch):
        if epoch.trainer.current_epoch == 1 and epoch.trainer.global_step == 12:
            raise OSError("the disk is gone")
        return batch

    callback = InformationPlaneCallback(["out"], data=data, estimators=["probe", "knn"], unpack=unpack)
    monitors = [EarlyStopping(f"ib/{name}/out", check_finite=False, patience=9) for name in ("probe/accuracy", "I_TY")]
    model = epoch = TinyModule()
    with pytest.warns(UserWarning, match="the measurement after epoch 2 failed.*the disk is gone") as caught:
        _, run = fit(tmp_path, callback, *monitors, model=model, max_epochs=3)
    assert len(told(caught, "Training goes on")) == 1
    assert run.current_epoch == 3
    assert [(e.epoch, e.source, e.quantity) for e in callback.history.estimates()] == [
        (epoch, name, figure) for epoch in range(4) for name in ("probe", "knn") for figure in GIVEN[name]
    ]
    for e in callback.history.estimates():
        assert math.isnan(e.value) == (e.epoch == 2) == (e.n_samples == 0), e
        assert e.step == e.epoch * 6
    events = EventAccumulator(run.log_dir, size_guidance={"scalars": 0}).Reload()
    for figure in ("I_TY", "accuracy"):
        written = events.Scalars(f"ib/probe/{figure}/out")
        assert [event.step for event in written] == STEPS
        assert [math.isnan(event.value) for event in written] == [False, False, True, False]


@pytest.mark.parametrize("target", [None, Quantizer(bins=QuantileBins(4))])
def test_estimators_that_need_labels_say_so_where_there_are_none(tmp_path, target):
    unpack = (lambda batch: (batch[0], None)) if target is None else (lambda batch: (batch[0], batch[0][:, 0]))
    came = "there is no target" if target is None else "the target is real-valued"
    callback = InformationPlaneCallback(["out"], target=target, unpack=unpack, estimators=CHEAP)
    with pytest.warns(UserWarning, match="could not be estimated") as caught:
        fit(tmp_path, callback, max_epochs=1, logger=False)
    assert [message.split(": ", 2)[1:] for message in told(caught, "could not")] == [
        ["knn could not be estimated at epoch 0, its values are NaN", f"{came}, and KNN needs class labels."],
        ["probe could not be estimated at epoch 0, its values are NaN", f"{came}, and Probe needs class labels."],
    ]
    assert all(math.isfinite(value) for value in of(callback.history.estimates(), quantity="I_XT"))


def test_a_layer_that_starts_as_a_constant_has_its_scale_set_once_it_varies(tmp_path):
    class ZeroHead(TinyModule):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    callback = InformationPlaneCallback(["out"], estimators=[KDE(frozen=True), "knn"])
    with pytest.warns(UserWarning, match="at epoch 0, its values are NaN: t is "):
        fit(tmp_path, callback, model=ZeroHead(), logger=False)
    assert [math.isnan(value) for value in of(callback.history.estimates(), quantity="I_TY", source="kde")] == [
        True
    ] + 3 * [False]


# -- wrong arguments ---------------------------------------------------------------------------------------------------

CORRECTIONS = "correction must be None, 'miller_madow', 'grassberger', 'chao_shen', 'james_stein' or 'jackknife'"


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ({"correction": "miler_madow"}, ValueError, f"{CORRECTIONS}, got 'miler_madow': did you mean 'miller_madow'?"),
        ({"correction": 3}, TypeError, f"{CORRECTIONS}, got 3."),
        (
            {"n_permutations": 1},
            ValueError,
            "n_permutations must be an integer of at least 2, got 1: give 0 for none, or",
        ),
        (
            {"n_permutations": -2},
            ValueError,
            "n_permutations must be an integer of at least 2, got -2: give 0 for none",
        ),
        ({"n_permutations": True}, TypeError, "n_permutations must be an integer of at least 2, got True"),
        ({"n_permutations": 2.0}, TypeError, "n_permutations must be an integer of at least 2, got 2.0"),
        ({"max_samples": 1}, ValueError, "max_samples must be an integer of at least 2, got 1: give at least 2."),
        ({"max_samples": 99.5}, TypeError, "max_samples must be an integer of at least 2, got 99.5: give a whole"),
        ({"max_samples": None}, TypeError, "max_samples must be an integer of at least 2, got None: give a whole"),
        ({"estimators": "kde"}, TypeError, "estimators must be a list, got 'kde'. Did you mean ['kde']?"),
        ({"estimators": ["kdee"]}, ValueError, "there is no estimator 'kdee': did you mean 'kde'?"),
        ({"estimators": [3]}, TypeError, "an estimator must be a name such as 'kde' or an Estimator such as KDE()"),
        ({"estimators": [KDE]}, TypeError, "an estimator must be a name such as 'kde' or an Estimator such as KDE()"),
        (
            {"estimators": ["kde", KDE()]},
            ValueError,
            "two estimators would log as 'kde': give one of them another .name.",
        ),
    ],
)
def test_wrong_arguments_are_refused_at_construction(wrong, kind, sentence):
    with pytest.raises(kind) as raised:
        InformationPlaneCallback(**wrong)
    assert str(raised.value).startswith(sentence)


def test_an_estimator_of_no_known_name_is_told_all_there_are():
    with pytest.raises(ValueError, match="there is no estimator 'zzz'") as raised:
        InformationPlaneCallback(estimators=["zzz"])
    assert all(repr(name) in str(raised.value) for name in BY_NAME)


def test_tsne_without_scikit_learn_is_refused_at_construction(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "sklearn" else found(name, *of))
    sentence = "tsne=True needs scikit-learn: pip install scikit-learn, or leave it out."
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        InformationPlaneCallback(tsne=True)
    InformationPlaneCallback(log_projector=True)


# -- known faults ------------------------------------------------------------------------------------------------------


class Without(TinyModule):
    """Its forward is called by name: there is no point before training."""

    forward = pl.LightningModule.forward

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(TinyModule.forward(self, batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        TinyModule.forward(self, batch[0])


@pytest.mark.filterwarnings("ignore:layer 'out'")
def test_a_range_is_not_set_from_a_constant_layer(tmp_path):
    class ZeroHead(TinyModule):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    callback = InformationPlaneCallback(["out"], estimators=["quantized8"])
    fit(tmp_path, callback, model=ZeroHead(), max_epochs=1, logger=False)
    assert all(math.isfinite(value) for value in of(callback.history.estimates(), epoch=1))


@pytest.mark.filterwarnings("ignore:layer 'out'")
def test_a_range_is_not_set_from_a_layer_that_is_nan(tmp_path):
    class NaNFirst(TinyModule):
        def forward(self, x):
            return super().forward(x if self.trainer.global_step else x * math.nan)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(super().forward(batch[0]), batch[1])

    callback = InformationPlaneCallback(["out"], estimators=["quantized8"])
    fit(tmp_path, callback, model=NaNFirst(), max_epochs=1, logger=False)
    assert all(math.isfinite(value) for value in of(callback.history.estimates(), epoch=1))


def test_rows_of_several_lengths_cost_the_estimates_and_nothing_else(tmp_path):
    class Sequences(TinyModule):
        def __init__(self):
            super().__init__()
            self.token = nn.Linear(6, 8)

        def forward(self, x):
            length = 2 + int(x[0, 0] > 1)
            return self.out(self.token(x.unsqueeze(1).expand(-1, length, -1)).mean(1))

    layers = {"token": Quantizer(lambda a: a.mean(1)), "out": None}
    fit(tmp_path, InformationPlaneCallback(layers, estimators=()), model=Sequences(), max_epochs=1, logger=False)
    callback = InformationPlaneCallback(layers, estimators=["knn"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, callback, model=Sequences(), max_epochs=1, logger=False)
    assert all(math.isfinite(point.i_ty) for point in callback.history)


def test_after_a_pass_of_its_own_that_failed_rows_are_shown_again(tmp_path):
    def unpack(batch):
        if model.trainer.global_step == 6:
            raise OSError("the disk is gone")
        return batch

    model, callback = TinyModule(), InformationPlaneCallback(["out"], data="train", log_projector=True, unpack=unpack)
    with pytest.warns(UserWarning, match="the disk is gone"):
        _, run = fit(tmp_path, callback, model=model)
    assert [step for step in STEPS if (Path(run.log_dir) / f"{step:05}").is_dir()] == [0, 11, 17]


def test_a_first_measurement_that_fails_has_its_names(tmp_path):
    asked = iter(range(99))

    def unpack(batch):
        if next(asked) == 0:
            raise OSError("the disk is gone")
        return batch

    callback = InformationPlaneCallback(["out"], estimators=["probe"], unpack=unpack)
    stopping = EarlyStopping("ib/probe/accuracy/out", check_finite=False, patience=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, callback, stopping, model=Without(), max_epochs=2, logger=False)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_an_estimator_that_is_new_in_a_resumed_run_can_be_monitored_before_it_is_measured(tmp_path):
    go_on(tmp_path, InformationPlaneCallback(["out"], every_n_epochs=2))
    path = tmp_path / "checkpoints" / "epoch=1.ckpt"
    callback = InformationPlaneCallback(["out"], estimators=["knn"], every_n_epochs=2)
    go_on(tmp_path, callback, EarlyStopping("ib/knn/I_TY/out", check_finite=False, patience=9), ckpt_path=path)


def test_labels_in_a_column_are_labels(tmp_path):
    callback = InformationPlaneCallback(["out"], estimators=["knn", "probe"], unpack=lambda b: (b[0], b[1][:, None]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, callback, max_epochs=1, logger=False)
    assert all(math.isfinite(point.i_ty) for point in callback.history)
    assert all(math.isfinite(e.value) for e in callback.history.estimates())


def test_estimators_that_can_be_read_once_are_not_lost(tmp_path):
    callback = InformationPlaneCallback(["out"], estimators=(name for name in ["knn"]))
    fit(tmp_path, callback, max_epochs=1, logger=False)
    assert len(callback.history.estimates()) == 2


def test_estimators_that_are_no_list_are_told_so():
    with pytest.raises(TypeError, match="estimators must be a list, got 5"):
        InformationPlaneCallback(estimators=5)
    assert InformationPlaneCallback(estimators=None).history.estimates() == []


def test_an_estimator_without_a_name_is_told_so():
    class Nameless(Estimator):
        def estimate(self, rows, calibration, unit):
            return {"I_TY": 0.0}

    with pytest.raises(TypeError, match="Nameless needs a name"):
        InformationPlaneCallback(estimators=[Nameless()])


@pytest.mark.parametrize("kind", [np.float64, torch.tensor])
def test_the_number_of_another_library_that_an_estimator_gives_is_kept_as_a_float(tmp_path, kind):
    class Mean(Estimator):
        name = "mean"

        def estimate(self, rows, calibration, unit):
            return {"I_TY": kind(float(rows.t.mean()))}

    callback = InformationPlaneCallback(["out"], estimators=[Mean()])
    go_on(tmp_path, callback, max_epochs=1)
    assert {type(e.value) for e in callback.history.estimates()} == {float}
    in_checkpoint(tmp_path / "checkpoints" / "epoch=0.ckpt")


@pytest.mark.filterwarnings("ignore:layer 'out'")
def test_an_estimator_that_raises_is_nan_under_the_names_it_gave_before(tmp_path):
    class Other(FailsAt):
        def estimate(self, rows, calibration, unit):
            return {"H_T": super().estimate(rows, calibration, unit)["I_TY"]}

    callback = InformationPlaneCallback(["out"], estimators=[Other(2)])
    fit(tmp_path, callback, logger=False)
    assert {e.quantity for e in callback.history.estimates()} == {"H_T"}


@pytest.mark.usefixtures("pictures")
def test_a_layer_of_one_coordinate_does_not_cost_the_picture_of_the_others(tmp_path):
    class Narrow(TinyModule):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 1)

        def forward(self, x):
            return super().forward(x) + self.one(x)

    callback = InformationPlaneCallback(["one", "out"], tsne=True, max_samples=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(tmp_path, callback, model=Narrow(), max_epochs=1, logger=False)
    assert (tmp_path / "tsne.png").is_file()


CONSTANT = """
import torch
from lightning_ib.plot.embedding import plot_tsne
from lightning_ib.estimators import Rows

plot_tsne({"out": Rows(torch.zeros(40, 4))})
"""


@pytest.mark.slow
def test_a_constant_layer_does_not_end_the_process():
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", CONSTANT], capture_output=True).returncode == 0


def test_measurements_within_an_epoch_are_drawn_in_their_order():
    values = [0.3, 0.1, 0.2]
    figure = plot_estimates([estimate(0, k, "out", "knn", "I_TY", v) for k, v in enumerate(values)])
    assert figure.axes[0].lines[0].get_ydata().tolist() == values
