"""The callback's companions: what is recorded, logged, resumed and left alone."""

import math

import pytest
import torch

from lightning_ib import InformationPlaneCallback
from lightning_ib.functional import class_geometry, linear_cka, spectrum
from lightning_ib.records import History, parse_tag
from tests.helpers.callbacks import equal, trained_state
from tests.helpers.records import exact
from tests.helpers.resume import go_on, in_checkpoint, resumes_exactly, same
from tests.helpers.tiny import N_VAL, fit, make_data, pl

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures", "few_pictures")]

COMPANIONS = {"spectrum", "classes", "drift"}


def activations(model):
    """The outputs of both layers on the validation data."""
    x, y = make_data(N_VAL, seed=1)[:]
    with torch.no_grad():
        hidden = model.hidden(x)
        return {"hidden": hidden, "out": model.out(model.act(hidden))}, y


def of(history, **wanted):
    return [one for one in history.estimates() if all(getattr(one, name) == value for name, value in wanted.items())]


def value(history, **wanted):
    (found,) = of(history, **wanted)
    return found.value


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fit with all companions, its model before and after, and what was logged."""

    class Kept(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            self.before = activations(pl_module)[0]

    callback, kept = InformationPlaneCallback(companions="all", estimators=(), verbose=True), Kept()
    folder = tmp_path_factory.mktemp("geometry")
    model, trainer = fit(folder, callback, kept, logger=False)
    return callback, kept.before, activations(model), trainer.callback_metrics, folder


def test_the_values_are_those_of_the_functions_on_all_rows(run):
    callback, before, (after, y), _, _ = run
    for layer, rows in after.items():
        shape, classes = spectrum(rows), class_geometry(rows, y)
        for name in ("effective_rank", "participation_ratio", "spectral_entropy", "mean_cosine", "normalized_std"):
            found = value(callback.history, epoch=3, layer=layer, source="spectrum", quantity=name)
            assert found == pytest.approx(getattr(shape, name), rel=1e-4), name
        for name in ("within_variance", "between_variance", "nc1", "cdnv", "etf_distance", "smallest_class"):
            found = value(callback.history, epoch=3, layer=layer, source="classes", quantity=name)
            assert found == pytest.approx(getattr(classes, name), rel=1e-4), name
        found = value(callback.history, epoch=3, layer=layer, source="drift", quantity="cka_to_first")
        assert found == pytest.approx(linear_cka(before[layer], rows), rel=1e-4)
    assert {one.source for one in callback.history.estimates()} == COMPANIONS
    assert {one.n_samples for one in callback.history.estimates()} == {N_VAL}
    assert {one.unit for one in of(callback.history, quantity="spectral_entropy")} == {"bits"}
    assert {one.unit for one in callback.history.estimates() if one.quantity != "spectral_entropy"} == {""}
    assert not of(callback.history, quantity="alpha"), "layers of eight coordinates have no power law"


def test_drift_begins_at_the_first_and_ends_at_the_last_measurement(run):
    callback, before, (after, _), _, folder = run
    for layer in ("hidden", "out"):
        assert value(callback.history, epoch=0, layer=layer, quantity="cka_to_first") == pytest.approx(1)
        assert value(callback.history, epoch=3, layer=layer, quantity="cka_to_last") == pytest.approx(1)
        (first,) = of(callback.history, epoch=0, layer=layer, quantity="cka_to_last")
        assert abs(first.value - linear_cka(before[layer], after[layer])) < 5 * first.standard_error
    assert [one.epoch for one in of(callback.history, layer="out", quantity="cka_to_last")] == [0, 1, 2, 3]
    assert exact(History.read_csv(folder / "information_plane.csv")) == exact(callback.history)
    assert (folder / "geometry.png").is_file()
    assert not (folder / "estimators.png").exists()


def test_values_are_logged_as_those_of_estimators(run):
    callback, _, _, logged, _ = run
    for name, wanted in {
        "ib/spectrum/effective_rank/out": ("spectrum", "effective_rank"),
        "ib_diagnostics/bits/spectrum/spectral_entropy/out": ("spectrum", "spectral_entropy"),
        "ib/classes/nc1/out": ("classes", "nc1"),
        "ib_diagnostics/classes/n_classes/out": ("classes", "n_classes"),
        "ib/drift/cka_to_first/out": ("drift", "cka_to_first"),
    }.items():
        source, quantity = wanted
        found = value(callback.history, epoch=3, layer="out", source=source, quantity=quantity)
        assert float(logged[name]) == pytest.approx(found, rel=1e-6), name
    assert "ib/drift/cka_to_last/out" not in logged


@pytest.mark.usefixtures("pictures")
def test_each_of_two_targets_has_its_classes(tmp_path):
    targets = {"class": 1, "coarse": lambda batch: batch[1] // 2}
    callback = InformationPlaneCallback(companions="all", estimators=(), targets=targets)
    model, trainer = fit(tmp_path, callback, logger=False, max_epochs=1)
    rows, y = activations(model)
    for name, labels in {"class": y, "coarse": y // 2}.items():
        found = float(trainer.callback_metrics[f"ib/classes/nc1@{name}/out"])
        assert found == pytest.approx(class_geometry(rows["out"], labels).nc1, rel=1e-4)
    logged = {parse_tag(name) for name in trainer.callback_metrics if name.startswith("ib")}
    assert {(one.source, one.target) for one in logged if one.source} == {
        *(("classes", name) for name in targets),
        *(("spectrum", ""), ("drift", "")),
    }
    assert [one.epoch for one in of(callback.history, layer="out", quantity="cka_to_last")] == [0, 1]
    assert {file.name for file in tmp_path.glob("geometry*")} == {"geometry_class.png", "geometry_coarse.png"}
    lines = callback.reporter.summary(callback.history, []).splitlines()
    assert sum(line.split()[:2] == ["classes", "within_variance"] for line in lines) == 1


class Pictures(pl.loggers.CSVLogger):
    """Keeps the names and the steps of the images it gets."""

    def log_image(self, key, images, step=None):
        self.__dict__.setdefault("got", []).append((key, step))


@pytest.mark.usefixtures("pictures")
def test_the_end_of_a_fit_draws_the_geometry_anew_and_nothing_else(tmp_path):
    logger = Pictures(tmp_path)
    fit(tmp_path, InformationPlaneCallback(companions=["drift"], estimators=()), logger=logger, max_epochs=1)
    plane, geometry = (
        [step for key, step in logger.got if key == f"ib/{name}"] for name in ("information_plane", "geometry")
    )
    assert len(plane) == 2
    assert geometry == [*plane, plane[-1]]


def test_the_summary_says_how_all_changed_and_what_has_settled(run):
    callback, *_ = run
    lines = callback.reporter.summary(callback.history, []).splitlines()
    assert "change since epoch 0, and from the highest value" in lines
    blocks = [line.split()[0] for line in lines if line[:8].strip() in COMPANIONS]
    assert list(dict.fromkeys(blocks)) == ["spectrum", "classes", "drift"]
    assert any(line.startswith("settled since epoch (CKA to the last at least 0.95): hidden ") for line in lines)
    assert max(map(len, lines[:-1])) <= 110


@pytest.mark.filterwarnings("ignore:the samples at epoch")
@pytest.mark.parametrize("data", [None, "train"])
def test_training_is_bit_identical_with_companions_and_without(tmp_path, data):
    callback = InformationPlaneCallback(data=data, companions="all", estimators=())
    with_it = trained_state(tmp_path, callback, val=True, generator=True)
    without = trained_state(tmp_path, val=True, generator=True)
    for part in without:
        assert equal(with_it[part], without[part]), part
    assert {one.source for one in callback.history.estimates()} == COMPANIONS


@resumes_exactly
def test_a_resumed_run_compares_with_the_first_measurement(tmp_path):
    options = {"companions": "all", "estimators": ()}
    whole, first, second = (InformationPlaneCallback(**options) for _ in range(3))
    go_on(tmp_path / "whole", whole)
    go_on(tmp_path / "part", first, max_epochs=2)
    path = tmp_path / "part" / "checkpoints" / "epoch=1.ckpt"
    drift = in_checkpoint(path)["frozen"]["drift"]
    assert {layer: rows.dtype for layer, rows in drift["rows"].items()} == dict.fromkeys(
        ["hidden", "out"], torch.float32
    )
    assert [one["epoch"] for one in drift["sketches"]] == [0, 1, 2]
    go_on(tmp_path / "part", second, ckpt_path=path)
    assert exact(second.history) == exact(whole.history)
    assert same(second.plane.frozen_state(), whole.plane.frozen_state())


def test_samples_that_change_make_drift_nan_with_one_warning(tmp_path):
    batches = [make_data(16, seed=k)[:] for k in range(3)]

    class Changing:
        times = 0

        def __iter__(self):
            Changing.times += 1
            return iter([(x + Changing.times, y) for x, y in batches])

    callback = InformationPlaneCallback(companions=["drift"], estimators=(), data=Changing())
    with pytest.warns(UserWarning, match="the samples at epoch 1 are others than at the first measurement") as caught:
        fit(tmp_path, callback, logger=False)
    assert len([one for one in caught if "are others" in str(one.message)]) == 1
    values = [one.value for one in of(callback.history, quantity="cka_to_first", layer="out")]
    assert values[0] == pytest.approx(1)
    assert all(map(math.isnan, values[1:]))
    assert all(math.isnan(one.value) for one in of(callback.history, quantity="cka_to_last"))
    assert "settled" not in callback.reporter.summary(callback.history, [])
