"""Estimators that fail, in layers that fail: a figure and a warning, and never the run."""

import importlib.util
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_ib import InformationPlaneCallback, QuantileBins, Quantizer
from lightning_ib.estimators.base import Estimator
from lightning_ib.estimators.kernels import KDE
from lightning_ib.estimators.registry import BY_NAME
from lightning_ib.plot.estimates import plot_estimates
from lightning_ib.records import History
from tests.helpers.callback_estimators import CHEAP, GIVEN, STEPS, told
from tests.helpers.callbacks import EarlyStopping
from tests.helpers.loggers import Sick
from tests.helpers.records import estimate, exact, of
from tests.helpers.resume import go_on, in_checkpoint
from tests.helpers.tiny import TinyModule, fit, pl

pytestmark = pytest.mark.usefixtures("blank_pictures", "few_pictures")


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

CORRECTIONS = (
    "correction must be None, 'miller_madow', 'grassberger', 'chao_shen', 'james_stein', 'jackknife', "
    "'chao_wang_jost' or 'nsb'"
)


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


@pytest.mark.slow
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
import torch, warnings
warnings.simplefilter("ignore")
from lightning_ib.plot.embedding import plot_tsne
from lightning_ib.estimators import Rows

plot_tsne({"out": Rows(torch.zeros(40, 4))})
"""


@pytest.mark.slow
def test_a_constant_layer_does_not_end_the_process(programs):
    assert programs.run(CONSTANT).returncode == 0


def test_measurements_within_an_epoch_are_drawn_in_their_order():
    values = [0.3, 0.1, 0.2]
    figure = plot_estimates([estimate(0, k, "out", "knn", "I_TY", v) for k, v in enumerate(values)])
    assert figure.axes[0].lines[0].get_ydata().tolist() == values
