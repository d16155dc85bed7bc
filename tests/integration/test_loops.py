"""When it measures: schedules by epochs and steps, the Trainer's other loops, and training steps of one's own."""

import inspect
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer, UniformBins, measure
from lightning_ib.records import History
from tests.helpers.records import exact
from tests.helpers.resume import EpochOrder, ResumableLoader, SeedEveryBatch, resumes_exactly
from tests.helpers.tiny import (
    BATCH,
    N_TRAIN,
    N_VAL,
    TinyModule,
    fit,
    has_hooks,
    make_data,
    pl,
    train_loader,
    trainer,
    val_loader,
)

pytestmark = pytest.mark.usefixtures("few_pictures", "few_probes")


FIXED = {"out": Quantizer(nn.Softmax(dim=1), FixedBins([0.3, 0.6]))}
FITTED = {"hidden": None, "out": Quantizer(nn.Softmax(dim=1), UniformBins(3))}
STEPS_AN_EPOCH = 6
# Older releases, 2.4 among them, restore callbacks for fits only; since 2.6 validate takes weights_only.
EVALUATES_WITH_STATE = pytest.mark.skipif(
    "weights_only" not in inspect.signature(pl.Trainer.validate).parameters,
    reason="this Lightning restores no callback for an evaluation",
)
RESUMED = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


def epochs(callback):
    return [point.epoch for point in callback.history if point.layer == "out"]


def steps(callback):
    return [point.step for point in callback.history if point.layer == "out"]


def same_figures(points, others):
    found, expected = ([one._replace(epoch=0, step=0) for one in of] for of in (points, others))
    assert exact(found) == exact(expected)


# -- a list of epochs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, "train"])
@pytest.mark.parametrize("listed", [[1, 2, 4], range(1, 5, 3), (4, 2, 1, 0)])
def test_epochs_that_are_listed_are_measured_and_no_others(tmp_path, data, listed):
    callback = InformationPlaneCallback(FIXED, data=data, epochs=listed)
    fit(tmp_path, callback, max_epochs=5)
    assert epochs(callback) == sorted({0, *listed})


def test_an_epoch_on_the_list_without_validation_is_made_up_for(tmp_path):
    callback = InformationPlaneCallback(FIXED, epochs=[1, 4])
    fit(tmp_path, callback, max_epochs=6, check_val_every_n_epoch=2)
    assert epochs(callback) == [0, 2, 4]


@RESUMED
def test_a_list_of_epochs_is_resumed(tmp_path):
    checkpoint = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "saved", save_last=True)
    fit(
        tmp_path, InformationPlaneCallback(FIXED, epochs=[1, 3, 5]), checkpoint, max_epochs=3, enable_checkpointing=True
    )
    callback = InformationPlaneCallback(FIXED, epochs=[1, 3, 5])
    fit(tmp_path, callback, max_epochs=6, ckpt_path=tmp_path / "saved" / "last.ckpt")
    assert epochs(callback) == [0, 1, 3, 5]


# -- every n-th step ---------------------------------------------------------------------------------------------------


def test_every_nth_step_is_measured_on_the_validation_data(tmp_path):
    callback = InformationPlaneCallback(FIXED, every_n_train_steps=4)
    fit(tmp_path, callback, max_epochs=2)
    assert steps(callback) == [0, 4, 8, 12]
    assert epochs(callback) == [0, 0, 1, 2]
    assert {point.n_samples for point in callback.history} == {N_VAL}
    (path,) = tmp_path.rglob("information_plane.csv")
    assert exact(History.read_csv(path)) == exact(callback.history)


def test_without_validation_steps_are_measured_on_the_training_data(tmp_path):
    callback = InformationPlaneCallback(FIXED, every_n_train_steps=5)
    fit(tmp_path, callback, val=None, max_epochs=2)
    assert steps(callback) == [0, 5, 10]
    assert {point.n_samples for point in callback.history} == {N_TRAIN}


def test_accumulated_batches_are_one_step(tmp_path):
    callback = InformationPlaneCallback(FIXED, every_n_train_steps=1)
    fit(tmp_path, callback, max_epochs=1, accumulate_grad_batches=3)
    assert steps(callback) == [0, 1, 2]


def test_figures_of_a_step_are_those_of_the_network_at_that_step(tmp_path):
    callback = InformationPlaneCallback(["out"], every_n_train_steps=3)
    model, _ = fit(tmp_path, callback, max_epochs=1)
    same_figures(callback.history[-1:], measure(model, val_loader(), ["out"]))


@pytest.mark.slow
def test_steps_are_logged_whatever_log_every_n_steps_says(pictures, tmp_path):
    callback = InformationPlaneCallback(FIXED, every_n_train_steps=3)
    fit(tmp_path, callback, max_epochs=2, log_every_n_steps=1000)
    events = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0"), size_guidance={"images": 0})
    events.Reload()
    # Lightning logs what belongs to the n-th step at n − 1, such as its loss.
    assert [event.step for event in events.Scalars("ib/H_T/out")] == [0, 2, 5, 8, 11]
    assert [event.step for event in events.Images("ib/information_plane")] == [0, 2, 5, 8, 11]


def test_steps_can_be_monitored(tmp_path):
    stop = pl.callbacks.EarlyStopping("ib/I_TY/out", stopping_threshold=-1.0, mode="max", check_on_train_epoch_end=True)
    _, run = fit(tmp_path, InformationPlaneCallback(FIXED, every_n_train_steps=4), stop)
    assert run.current_epoch == 1


def test_training_measured_by_steps_is_bit_identical(tmp_path):
    plain, _ = fit(tmp_path)
    random = torch.random.get_rng_state()
    watched, _ = fit(tmp_path, InformationPlaneCallback(every_n_train_steps=1))
    assert torch.equal(random, torch.random.get_rng_state())
    assert plain.losses == watched.losses
    for a, b in zip(plain.parameters(), watched.parameters()):
        assert torch.equal(a, b)


@RESUMED
def test_steps_are_resumed_and_none_is_there_twice(tmp_path):
    def options():
        return InformationPlaneCallback(FIXED, every_n_train_steps=4)

    checkpoint = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "saved", filename="at", every_n_epochs=1)
    fit(tmp_path, options(), checkpoint, max_epochs=2, enable_checkpointing=True)
    callback = options()
    fit(tmp_path, callback, max_epochs=3, ckpt_path=tmp_path / "saved" / "at.ckpt")
    assert steps(callback) == [0, 4, 8, 12, 16]


# -- steps that are listed ---------------------------------------------------------------------------------------------


def moments(callback):
    return list(dict.fromkeys((one.epoch, one.step) for one in callback.history.records()))


def test_steps_that_are_listed_are_measured_from_the_start_on(tmp_path):
    callback = InformationPlaneCallback(["out"], estimators=(), at_steps=[1, 3, 6, 8])
    model, _ = fit(tmp_path, callback, max_epochs=2, max_steps=8)
    assert moments(callback) == [(0, 0), (0, 1), (0, 3), (1, 6), (1, 8)]
    assert {point.n_samples for point in callback.history} == {N_VAL}
    same_figures(callback.history[-1:], measure(model, val_loader(), ["out"]))
    (path,) = tmp_path.rglob("information_plane.csv")
    assert exact(History.read_csv(path)) == exact(callback.history)


def test_ten_steps_a_decade(tmp_path):
    callback = InformationPlaneCallback(FIXED, estimators=(), at_steps="log")
    fit(tmp_path, callback, max_epochs=4)
    assert steps(callback) == [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
    assert epochs(callback) == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3]


def test_accumulated_batches_are_one_step_of_a_list(tmp_path):
    callback = InformationPlaneCallback(FIXED, estimators=(), at_steps=[0, 1, 3])
    fit(tmp_path, callback, max_epochs=2, accumulate_grad_batches=4)  # the two batches that remain are a step, too
    assert moments(callback) == [(0, 0), (0, 1), (1, 3)]


def test_training_measured_at_steps_is_bit_identical(tmp_path):
    plain, _ = fit(tmp_path)
    random = torch.random.get_rng_state()
    watched, _ = fit(tmp_path, InformationPlaneCallback(estimators=(), at_steps="log"))
    assert torch.equal(random, torch.random.get_rng_state())
    assert plain.losses == watched.losses


def resumable(folder, at_steps, *others, ckpt_path=None):
    """The callback of a run whose loader goes on where a checkpoint left it."""
    callback = InformationPlaneCallback(["out"], estimators=(), at_steps=at_steps)
    loader = ResumableLoader(make_data(N_TRAIN), BATCH, sampler=EpochOrder())
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": True, "ckpt_path": ckpt_path}
    fit(folder, SeedEveryBatch(), callback, *others, train=loader, **options)
    return callback


@RESUMED
@resumes_exactly
def test_a_run_that_is_resumed_amid_its_steps_has_each_of_them_once(tmp_path):
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path / "saved", "{step}", every_n_train_steps=1, save_top_k=-1)
    whole = resumable(tmp_path, "log", checkpoint)
    assert moments(whole) == [*((0, step) for step in range(6)), (1, 6), (1, 8), (1, 10)]
    for step in (4, 7):  # a step that is measured, and one that is not
        resumed = resumable(tmp_path, "log", ckpt_path=tmp_path / "saved" / f"step={step}.ckpt")
        assert exact(resumed.history) == exact(whole.history)


@RESUMED
@resumes_exactly
def test_a_step_whose_measurement_was_cut_off_is_measured_where_the_run_goes_on(tmp_path):
    class Cut(pl.Callback):
        def on_before_zero_grad(self, trainer, *_):
            if trainer.global_step == 3:  # the batch of the next step, before it
                trainer.save_checkpoint(tmp_path / "cut.ckpt")

    whole = resumable(tmp_path, [3, 7], Cut())
    state = torch.load(tmp_path / "cut.ckpt", weights_only=False)
    (own,) = (one for one in state["callbacks"].values() if "history" in one)
    own["history"] = History(record for record in whole.history.records() if record.step < 3).state_dict()
    torch.save(state, tmp_path / "cut.ckpt")
    found = resumable(tmp_path, [3, 7], ckpt_path=tmp_path / "cut.ckpt")
    assert steps(found) == steps(whole) == [0, 3, 7]
    same_figures(found.history[1:2], whole.history[1:2])


def test_steps_that_training_ended_before_are_said_once(tmp_path, caplog):
    callback = InformationPlaneCallback(FIXED, estimators=(), at_steps=[0, 5, 100, 1000])
    with caplog.at_level("INFO"):
        fit(tmp_path, callback, max_epochs=1)
    said = [record.getMessage() for record in caplog.records if "at_steps" in record.getMessage()]
    assert said == ["ib: training ended at step 6, before 2 of at_steps: 100, 1000."]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every_n_train_steps": 0}, "every_n_train_steps must be an integer of at least 1, got 0: give at least 1."),
        (
            {"every_n_train_steps": 2.5},
            "every_n_train_steps must be an integer of at least 1, got 2.5: give a whole number such as 1.",
        ),
        ({"epochs": []}, r"epochs must be a list of whole numbers such as \[1, 2, 4, 8\], got \[\]."),
        ({"epochs": 3}, r"epochs must be a list of whole numbers such as \[1, 2, 4, 8\], got 3."),
        ({"epochs": [1, -2]}, "epochs must be an integer of at least 0, got -2: give at least 0."),
        ({"epochs": [1], "every_n_epochs": 2}, "give one schedule, got every_n_epochs and epochs."),
        ({"epochs": [1], "every_n_train_steps": 2}, "give one schedule, got epochs and every_n_train_steps."),
        ({"epochs": [1], "at_steps": "log"}, "give one schedule, got epochs and at_steps."),
        ({"at_steps": [10, 1]}, r"at_steps must ascend, such as \[0, 1, 10, 100\], got 1 after 10: sort the list."),
    ],
)
def test_a_schedule_that_is_none_is_refused_at_once(options, sentence):
    kind = TypeError if options in ({"every_n_train_steps": 2.5}, {"epochs": 3}) else ValueError
    with pytest.raises(kind, match=f"^{sentence}$"):
        InformationPlaneCallback(**options)


# -- trainer.validate and trainer.test alone ---------------------------------------------------------------------------


class Evaluated(TinyModule):
    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))


@pytest.mark.parametrize("layers", [FIXED, ["out"]])
@pytest.mark.parametrize("loop", ["validate", "test"])
def test_an_evaluation_alone_measures_its_own_data(tmp_path, loop, layers):
    model, callback = Evaluated(), InformationPlaneCallback(layers, estimators=())
    run = trainer(tmp_path, callback)
    (logged,) = getattr(run, loop)(model, DataLoader(make_data(50, seed=5), batch_size=16), verbose=False)
    (point,) = callback.evaluated
    assert point.n_samples == 50
    assert logged["ib/H_T/out"] == pytest.approx(point.h_t, rel=1e-6)
    assert logged["ib/I_TY/out"] == pytest.approx(point.i_ty, rel=1e-6)
    same_figures([point], measure(model, DataLoader(make_data(50, seed=5), batch_size=16), layers))
    assert callback.history == History()
    assert not has_hooks(model)


@pytest.mark.parametrize("loop", ["validate", "test"])
@pytest.mark.usefixtures("probes")
def test_an_evaluation_alone_by_default_has_cells_head_and_probe_and_writes_nothing(tmp_path, caplog, loop):
    model, callback = Evaluated(), InformationPlaneCallback()
    with caplog.at_level("INFO"):
        (logged,) = getattr(trainer(tmp_path, callback, logger=False), loop)(model, val_loader(), verbose=False)
    assert [(point.layer, point.source, point.n_samples) for point in callback.evaluated] == [
        ("hidden", "cells", N_VAL),
        ("out", "cells", N_VAL),
    ]
    assert logged["ib_diagnostics/accuracy/out"] == pytest.approx(callback.evaluated[1].accuracy, rel=1e-6)
    assert [(one.layer, one.quantity) for one in callback.evaluated.estimates()] == [
        (layer, figure) for layer in ("hidden", "out") for figure in ("I_TY", "accuracy")
    ]
    for one in callback.evaluated.estimates():
        assert logged[f"ib/probe/{one.quantity}/{one.layer}"] == pytest.approx(one.value, rel=1e-6)
    assert sum("of the variance" in record.message for record in caplog.records) == 2
    assert callback.history == History()
    assert list(tmp_path.rglob("*.csv")) == []
    assert not has_hooks(model)


@pytest.mark.parametrize("loop", ["validate", "test"])
def test_an_evaluation_after_training_has_its_edges_and_leaves_its_history(tmp_path, loop):
    callback = InformationPlaneCallback(FITTED)
    model, run = fit(tmp_path, callback, model=Evaluated())
    before = History(callback.history.records())
    edges = callback.plane.fitted_quantizers["out"].edges
    getattr(run, loop)(model, val_loader(), verbose=False)
    same_figures(callback.evaluated, before[-2:])
    same_figures(callback.evaluated.estimates(), before.estimates()[-4:])
    assert torch.equal(callback.plane.fitted_quantizers["out"].edges, edges)
    assert exact(callback.history) == exact(before)


@RESUMED
@EVALUATES_WITH_STATE
def test_an_evaluation_of_a_checkpoint_has_its_edges(tmp_path):
    before = InformationPlaneCallback(FITTED)
    _, run = fit(tmp_path, before, model=Evaluated())
    run.save_checkpoint(tmp_path / "last.ckpt")
    callback = InformationPlaneCallback(FITTED)
    trainer(tmp_path, callback).test(Evaluated(), val_loader(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    same_figures(callback.evaluated, before.history[-2:])
    assert callback.history == History()


def test_training_goes_on_after_an_evaluation_in_between(tmp_path):
    callback = InformationPlaneCallback(["out"])
    run, model = trainer(tmp_path, callback), Evaluated()
    run.validate(model, val_loader(), verbose=False)
    run.fit(model, train_loader(), val_loader())
    assert epochs(callback) == [0, 1, 2, 3]
    assert all(math.isfinite(point.h_t) for point in callback.history)


def test_an_evaluation_that_cannot_be_measured_is_evaluated_all_the_same(tmp_path):
    callback = InformationPlaneCallback(FIXED, unpack=lambda batch: batch[0])
    with pytest.warns(UserWarning, match="unpack must return a pair"):
        (logged,) = trainer(tmp_path, callback).test(Evaluated(), val_loader(), verbose=False)
    assert math.isfinite(logged["test_loss"])
    assert math.isnan(logged["ib/H_T/out"])


# -- loops of other kinds ----------------------------------------------------------------------------------------------


class TwoOptimizers(TinyModule):
    """Manual optimization, as in a GAN: two optimizers that take turns within a step."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.critic = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        for optimizer, sign in ((critic, 1.0), (generator, -1.0)):
            optimizer.zero_grad()
            loss = sign * self.critic(self(batch[0])).mean()
            self.manual_backward(loss)
            optimizer.step()
        self.losses.append(loss.item())

    def configure_optimizers(self):
        made = [*self.hidden.parameters(), *self.out.parameters()]
        return torch.optim.SGD(made, 0.01), torch.optim.SGD(self.critic.parameters(), 0.01)


@pytest.mark.parametrize("data", [None, "train"])
def test_manual_optimization_with_two_optimizers(tmp_path, data):
    callback = InformationPlaneCallback(FIXED, data=data)
    fit(tmp_path, callback, model=TwoOptimizers(), max_epochs=2)
    assert epochs(callback) == [0, 1, 2]
    assert steps(callback) == [0, 2 * STEPS_AN_EPOCH, 4 * STEPS_AN_EPOCH]
    (path,) = tmp_path.rglob("events*")
    events = EventAccumulator(str(path.parent))
    events.Reload()
    # TensorBoard's axis is Lightning's: batches, not steps of either optimizer.
    assert [event.step for event in events.Scalars("ib/H_T/out")] == [0, STEPS_AN_EPOCH - 1, 2 * STEPS_AN_EPOCH - 1]


def test_steps_of_two_optimizers_are_counted_as_lightning_does(tmp_path):
    callback = InformationPlaneCallback(FIXED, every_n_train_steps=4)
    fit(tmp_path, callback, model=TwoOptimizers(), max_epochs=1)
    assert steps(callback) == [0, 4, 8, 12]


class MadeLate(TinyModule):
    """Layers that do not exist before Lightning asks for them."""

    def __init__(self):
        super().__init__()
        del self.hidden, self.out

    def configure_model(self):
        if not hasattr(self, "out"):
            self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 4)


def test_layers_made_in_configure_model_are_found(tmp_path):
    callback = InformationPlaneCallback(["hidden", "out"])
    fit(tmp_path, callback, model=MadeLate(), max_epochs=1)
    assert epochs(callback) == [0, 1]
    assert {point.layer for point in callback.history} == {"hidden", "out"}


class Stream(IterableDataset):
    def __init__(self, n, seed):
        self.n, self.seed = n, seed

    def __iter__(self):
        return iter(make_data(self.n, self.seed))


def test_data_without_a_length_is_measured_in_validation(tmp_path):
    callback = InformationPlaneCallback(FIXED)
    val = DataLoader(Stream(30, 1), batch_size=8)
    fit(tmp_path, callback, train=DataLoader(Stream(40, 0), batch_size=8), val=val, max_epochs=2)
    assert epochs(callback) == [0, 1, 2]
    assert {point.n_samples for point in callback.history} == {30}


def test_validation_loaders_with_targets_of_different_kinds(tmp_path):
    """The first is measured, whatever the second holds."""

    class Both(TinyModule):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self(batch[0])

    x, _ = make_data(40, 3)[:]
    real = DataLoader(torch.utils.data.TensorDataset(x, torch.rand(40)), batch_size=16)
    callback = InformationPlaneCallback(FIXED)
    fit(tmp_path, callback, model=Both(), val=[val_loader(), real], max_epochs=1)
    assert {point.n_samples for point in callback.history} == {N_VAL}
    assert {point.h_y for point in callback.history} == {2.0}
    fit(tmp_path, callback, model=Both(), val=[real, val_loader()], max_epochs=1)
    assert {point.n_samples for point in callback.history} == {40}
    assert callback.history[-1].h_y == pytest.approx(2), "four bins of ten samples each"


@pytest.mark.parametrize("name", ["module.out", "_forward_module.out", "trainer.model.out"])
def test_names_that_exist_on_a_wrapper_only_get_the_nearest_right_one(tmp_path, name):
    with pytest.raises(ValueError, match=rf"TinyModule has no layer '{name}': did you mean 'out'"):
        fit(tmp_path, InformationPlaneCallback([name]))


# -- what could be disturbed -------------------------------------------------------------------------------------------


class Hasty(DataLoader):
    """A subclass, which only it knows how to build."""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"data": "train"}, {"data": "train", "every_n_train_steps": 2}])
@pytest.mark.parametrize("kind", [DataLoader, Hasty])
def test_workers_that_persist_go_on_where_training_was(tmp_path, kind, options):
    def loader():
        data = Stream(40, 0) if kind is DataLoader else make_data(40)
        return kind(data, batch_size=8, num_workers=1, persistent_workers=True, multiprocessing_context="fork")

    plain, _ = fit(tmp_path, train=loader(), val=None, max_epochs=2, limit_train_batches=5)
    callback = InformationPlaneCallback(FIXED, **options)
    watched, _ = fit(tmp_path, callback, train=loader(), val=None, max_epochs=2, limit_train_batches=5)
    assert len(watched.losses) == 10
    assert plain.losses == watched.losses


@EVALUATES_WITH_STATE
def test_edges_of_another_checkpoint_serve_its_evaluation_only(tmp_path):
    other = InformationPlaneCallback({"out": Quantizer(bins=UniformBins(4))})
    _, run = fit(
        tmp_path, other, model=Evaluated(), train=DataLoader(make_data(32, 8), 8), val=DataLoader(make_data(32, 9))
    )
    run.save_checkpoint(tmp_path / "other.ckpt")
    callback = InformationPlaneCallback({"out": Quantizer(bins=UniformBins(4))})
    model, run = fit(tmp_path, callback, model=Evaluated(), max_epochs=1)
    edges = callback.plane.fitted_quantizers["out"].edges
    run.validate(model, val_loader(), ckpt_path=tmp_path / "other.ckpt", verbose=False)
    assert not torch.equal(callback.plane.fitted_quantizers["out"].edges, edges)
    assert torch.equal(callback.state_dict()["frozen"]["layers"]["out"]["edges"], edges)
    run.fit_loop.max_epochs = 2
    run.fit(model, train_loader(), val_loader())
    assert torch.equal(callback.plane.fitted_quantizers["out"].edges, edges)


@pytest.mark.parametrize("data", [None, "train"])
def test_what_the_forward_logs_is_logged_by_the_users_loops_only(tmp_path, data):
    class Logging(TinyModule):
        def forward(self, x):
            self.log("norm", x.norm(), on_step=True, on_epoch=True)
            return super().forward(x)

    def logged(*callbacks):
        _, run = fit(tmp_path, *callbacks, model=Logging(), max_epochs=2)
        return {name: value for name, value in run.callback_metrics.items() if "norm" in name}

    assert logged() == logged(InformationPlaneCallback(FIXED, data=data)) != {}


def test_validation_data_is_asked_for_when_lightning_does(tmp_path):
    """It may draw random numbers; so there is no point before training, unless data="val" asks for it."""

    class Draws(TinyModule):
        def val_dataloader(self):
            return DataLoader(torch.utils.data.random_split(make_data(N_VAL, 1), [40, N_VAL - 40])[0], 16)

    options = {"max_epochs": 4, "num_sanity_val_steps": 0, "check_val_every_n_epoch": 2, "val": None}
    callback, losses = InformationPlaneCallback(FIXED), []
    for callbacks in ([], [callback]):
        torch.manual_seed(0)
        model, _ = fit(tmp_path, *callbacks, model=Draws(), **options)
        losses.append(model.losses)
    assert losses[0] == losses[1]
    assert epochs(callback) == [2, 4]
    assert {point.n_samples for point in callback.history} == {40}
    asked = InformationPlaneCallback(FIXED, data="val")
    fit(tmp_path, asked, max_epochs=4, num_sanity_val_steps=0, check_val_every_n_epoch=2)
    assert epochs(asked) == [0, 1, 2, 3, 4]


@RESUMED
def test_a_resumed_run_has_no_epoch_that_the_whole_run_has_not(tmp_path):
    saved = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "saved", save_top_k=-1, save_on_train_epoch_end=True)
    options = {"max_epochs": 4, "check_val_every_n_epoch": 2}
    fit(tmp_path, InformationPlaneCallback(FIXED), saved, enable_checkpointing=True, **options)
    callback = InformationPlaneCallback(FIXED)
    (first,) = (tmp_path / "saved").glob("epoch=0-*.ckpt")
    fit(tmp_path, callback, ckpt_path=first, **options)
    assert epochs(callback) == [0, 2, 4]


def test_a_bar_of_ones_own_is_left_alone(tmp_path):
    class Bar(pl.callbacks.ProgressBar):
        progress = 0.0

    callback = InformationPlaneCallback(FIXED, data="train")
    fit(tmp_path, Bar(), callback, max_epochs=1, enable_progress_bar=True)
    assert epochs(callback) == [0, 1]


def test_a_picture_that_cannot_be_drawn_costs_one_warning(pictures, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("no fonts")

    monkeypatch.setattr("lightning_ib.report.reporter.plot_information_plane", fails)
    callback = InformationPlaneCallback(FIXED)
    with pytest.warns(
        UserWarning, match="the figure information_plane could not be drawn: OSError: no fonts"
    ) as caught:
        fit(tmp_path, callback)
    assert len([w for w in caught if "could not be drawn" in str(w.message)]) == 1
    assert epochs(callback) == [0, 1, 2, 3]


def test_a_loader_that_is_its_own_iterator_and_begins_anew_is_no_iterator_that_is_used_up(tmp_path):
    class Fast:
        def __iter__(self):
            self.batches = iter(val_loader())
            return self

        def __next__(self):
            return next(self.batches)

        def __len__(self):
            return len(val_loader())

    callback = InformationPlaneCallback(FIXED, data=Fast())
    fit(tmp_path, callback, max_epochs=1)
    assert {point.n_samples for point in callback.history} == {N_VAL}


def test_an_encoder_of_ones_own_is_believed_in_its_order_of_axes(tmp_path):
    class Encoder(nn.Linear):
        batch_first = False  # about something of its own: it puts out (B, …)

    class Own(TinyModule):
        def __init__(self):
            super().__init__()
            self.hidden = Encoder(6, 8)

        def forward(self, x):
            return super().forward(x.unsqueeze(1).expand(-1, len(x), -1)).mean(1)

    model = Own()
    fit(tmp_path, callback := InformationPlaneCallback({"hidden": Quantizer(bins=FixedBins([0.0]))}), model=model)
    assert callback.history[-1].i_ty > 0.5
