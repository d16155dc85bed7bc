"""What the callback logs, draws and writes of its estimators."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from lightning_ib import InformationPlaneCallback
from lightning_ib.estimators.kernels import KDE
from lightning_ib.records import History, tags
from tests.helpers.callback_estimators import CHEAP, GIVEN, LAYERS, NO_UNIT, STEPS
from tests.helpers.callbacks import EarlyStopping, ModelCheckpoint
from tests.helpers.loggers import pixels, read_metrics_csv
from tests.helpers.records import exact, of
from tests.helpers.tiny import N_TRAIN, TinyModule, fit, pl, val_loader

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_pictures")]

BELOW = ("I_XT_lower", "I_TY_lower", "noise_variance")  # the first page


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


@pytest.mark.usefixtures("pictures", "blank_pictures_here")
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


@pytest.mark.usefixtures("pictures", "blank_pictures_here")
def test_a_fast_dev_run_estimates_one_batch_and_writes_nothing(tmp_path):
    callback = InformationPlaneCallback(estimators=["knn"], log_projector=True, tsne=True)
    fit(tmp_path, callback, fast_dev_run=True)
    assert {e.n_samples for e in callback.history.estimates()} == {16}
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.usefixtures("pictures", "blank_pictures_here")
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
