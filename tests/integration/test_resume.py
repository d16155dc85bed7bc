"""A run that is killed and resumed, each in a process of its own, beside the same run that nothing interrupted."""

import inspect
import math
import warnings

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ib import InformationPlaneCallback, QuantileBins, Quantizer, UniformBins
from lightning_ib.estimators.kernels import KDE
from lightning_ib.records import History
from tests.helpers.records import exact
from tests.helpers.resume import (
    AFTER_EPOCH,
    FROZEN,
    LOADERS,
    N_BATCHES,
    N_EPOCHS,
    ModelCheckpoint,
    SeedEveryBatch,
    epochs,
    go_on,
    in_checkpoint,
    resumes_exactly,
    same,
    start,
)
from tests.helpers.tiny import N_VAL, TinyModule, fit, pl, trainer, val_loader

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_pictures")]

# -- a process that ends by SIGKILL ------------------------------------------------------------------------------------


def logged(folder, version=0):
    """Tag → the steps and values of the scalars that TensorBoard shows."""
    events = EventAccumulator(str(folder / "logs" / f"version_{version}"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("ib")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def csv(folder, version=0):
    return exact(History.read_csv(folder / "logs" / f"version_{version}" / "information_plane.csv"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts, and its folder; one for each set of options."""
    runs = {}

    def get(**options):
        key = repr(options)
        if key not in runs:
            folder = tmp_path_factory.mktemp("whole")
            runs[key] = start(folder, **options), folder
        return runs[key]

    return get


# -- killed and resumed ------------------------------------------------------------------------------------------------

AFTER_VALIDATION = {"save_on_train_epoch_end": False}

EVERY_6 = {"every_n_train_steps": N_BATCHES, "save_top_k": -1}

KILLS = [
    # where the checkpoint is saved, and the blow: before or after checkpoints, at which hook, in which epoch
    (AFTER_VALIDATION, ("before", "on_train_batch_start", 2, 3)),
    (AFTER_VALIDATION, ("before", "on_validation_batch_end", 2)),
    (AFTER_VALIDATION, ("before", "on_validation_end", 2)),
    (AFTER_VALIDATION, ("after", "on_validation_end", 2)),
    (AFTER_VALIDATION, ("after", "on_validation_end", N_EPOCHS - 1)),
    (AFTER_EPOCH, ("before", "on_train_batch_start", 2, 3)),
    (AFTER_EPOCH, ("before", "on_train_epoch_end", 2)),
    (EVERY_6, ("before", "on_validation_start", 2)),
    (EVERY_6, ("before", "on_train_batch_start", 3, 2)),
]
IN_THE_PASS = [(where, ("in the pass", 3 * N_BATCHES + 2)) for where in (AFTER_VALIDATION, AFTER_EPOCH)]


@resumes_exactly
@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "checkpoint", "kill"),
    [(None, *kill) for kill in [*KILLS, (AFTER_EPOCH, ("after", "on_train_epoch_end", 2))]]
    + [("own", *kill) for kill in [*KILLS[1:5], *KILLS[6:], *IN_THE_PASS]]
    + [("train", *kill) for kill in [*KILLS[7:], *IN_THE_PASS]],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, whole, data, checkpoint, kill):
    expected, folder = whole(data=data)
    start(tmp_path, data=data, checkpoint=checkpoint, kill=kill)
    saved = in_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    resumed = start(tmp_path, data=data, checkpoint=checkpoint, resume=True)
    assert resumed["warnings"] == []
    assert same(resumed["weights"], expected["weights"])
    assert resumed["history"] == expected["history"]
    assert same(resumed["frozen"], expected["frozen"])
    assert csv(tmp_path) == csv(folder) == expected["history"]
    assert any("probe" in record for record in expected["history"]) == (data != "train")
    scalars = logged(tmp_path)
    assert {tag: dict(events) for tag, events in scalars.items()} == {t: dict(e) for t, e in logged(folder).items()}
    # An epoch that the checkpoint knows is logged once; one that came after it was logged, and is trained again, twice.
    once = {max(0, step - 1) for step in saved["history"]["step"]}
    steps = [step for step, _ in scalars["ib/I_XT/out"]]
    assert all(steps.count(step) == 1 for step in once)


@resumes_exactly
@pytest.mark.slow
def test_between_checkpoint_and_logger_a_kill_costs_the_loggers_scalars_and_nothing_else(tmp_path, whole):
    # Lightning writes what is logged at an epoch's end after the checkpoint of that epoch.
    expected, folder = whole(data="train")
    start(tmp_path, data="train", checkpoint=AFTER_EPOCH, kill=("after", "on_train_epoch_end", 2))
    resumed = start(tmp_path, data="train", checkpoint=AFTER_EPOCH, resume=True)
    assert resumed["history"] == csv(tmp_path) == expected["history"]
    lost = {tag: [event for event in events if event[0] != 3 * N_BATCHES - 1] for tag, events in logged(folder).items()}
    assert logged(tmp_path) == lost


@resumes_exactly
@pytest.mark.slow
@pytest.mark.parametrize("data", [None, "train"])
def test_a_run_resumed_into_a_new_folder_has_the_whole_history_there(tmp_path, whole, data):
    expected, folder = whole(data=data)
    start(tmp_path, data=data, checkpoint=AFTER_EPOCH, kill=("before", "on_train_batch_start", 2, 3))
    before = csv(tmp_path)
    resumed = start(tmp_path, data=data, checkpoint=AFTER_EPOCH, version=1, resume=True)
    assert resumed["history"] == csv(tmp_path, version=1) == expected["history"]
    assert csv(tmp_path) == before == expected["history"][: len(before)]
    first, second = logged(tmp_path), logged(tmp_path, version=1)
    assert {tag: first[tag] + second[tag] for tag in first} == logged(folder)


@resumes_exactly
@pytest.mark.slow
@pytest.mark.parametrize("data", [None, "train"])
def test_every_other_epoch_is_measured_after_a_kill_as_before(tmp_path, whole, data):
    options = {"data": data, "every_n_epochs": 2}
    expected, folder = whole(**options)
    assert sorted({epoch for epoch, _, _ in expected["epochs"]}) == [0, 2, 4]
    start(tmp_path, **options, checkpoint=AFTER_VALIDATION, kill=("after", "on_validation_end", 1))
    resumed = start(tmp_path, **options, checkpoint=AFTER_VALIDATION, resume=True)
    assert resumed["history"] == csv(tmp_path) == expected["history"]
    assert logged(tmp_path) == logged(folder)


@resumes_exactly
@pytest.mark.slow
def test_a_loader_that_resumes_gives_the_same_figures_from_the_middle_of_an_epoch(tmp_path, whole):
    expected, folder = whole(loader="resumable")
    checkpoint = {"every_n_train_steps": 4, "save_top_k": -1}
    start(tmp_path, loader="resumable", checkpoint=checkpoint, kill=("before", "on_train_batch_start", 2, 5))
    resumed = start(tmp_path, loader="resumable", checkpoint=checkpoint, resume=True)
    assert resumed["history"] == csv(tmp_path) == expected["history"]
    assert same(resumed["frozen"], expected["frozen"])
    assert logged(tmp_path) == logged(folder)


@pytest.mark.slow
@pytest.mark.parametrize("data", [None, "train"])
def test_from_the_middle_of_an_epoch_no_epoch_is_lost_or_there_twice(tmp_path, whole, data):
    # Lightning trains the rest of the epoch's batches, in a new order: from there on the figures are others.
    expected, _ = whole(data=data, loader="shuffled")
    options = {"data": data, "loader": "shuffled", "checkpoint": {"every_n_train_steps": 4, "save_top_k": -1}}
    start(tmp_path, **options, kill=("before", "on_train_batch_start", 2, 5))
    saved = exact(History.restored(in_checkpoint(tmp_path / "checkpoints" / "last.ckpt"))[0])
    resumed = start(tmp_path, **options, resume=True)
    assert resumed["warnings"] == []
    assert resumed["history"][: len(saved)] == saved == expected["history"][: len(saved)]
    assert resumed["epochs"] == expected["epochs"]
    assert same(resumed["frozen"]["layers"], expected["frozen"]["layers"])
    assert csv(tmp_path) == resumed["history"]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_from_a_validation_within_an_epoch_its_point_is_replaced_by_that_of_the_last(tmp_path):
    options = {"enable_checkpointing": True, "max_epochs": 2, "logger": False, "val_check_interval": 0.5}
    checkpoint = {"save_on_train_epoch_end": False, "save_top_k": -1, "filename": "{step}"}
    runs = [InformationPlaneCallback(), InformationPlaneCallback()]
    path = tmp_path / f"step={N_BATCHES // 2}.ckpt"
    fit(tmp_path, runs[0], ModelCheckpoint(tmp_path, **checkpoint), **options)
    saved, _ = History.restored(in_checkpoint(path))
    assert [point.step for point in saved] == [0, 0, N_BATCHES // 2, N_BATCHES // 2]
    fit(tmp_path, runs[1], ModelCheckpoint(tmp_path, **checkpoint), **options, ckpt_path=path)
    for run in runs:
        assert [(point.epoch, point.step) for point in run.history[::2]] == [(0, 0), (1, N_BATCHES), (2, 2 * N_BATCHES)]
        assert {point.n_samples for point in run.history} == {N_VAL}


# -- another set of callbacks than before ------------------------------------------------------------------------------


@resumes_exactly
def test_two_callbacks_are_resumed_each_by_its_prefix(tmp_path):
    def pair():
        own = InformationPlaneCallback(["out"], prefix="ib/own", data="train", unit="nats")
        return InformationPlaneCallback(**FROZEN), own

    before, after, names = pair(), pair(), ("information_plane.csv", "information_plane_ib_own.csv")
    go_on(tmp_path, *before)
    for name in names:
        (tmp_path / name).unlink()
    go_on(tmp_path, *after, ckpt_path=tmp_path / "checkpoints" / "epoch=0.ckpt")
    for one, other, name in zip(before, after, names):
        assert exact(one.history) == exact(other.history) == exact(History.read_csv(tmp_path / name))
        assert same(one.plane.frozen_state(), other.plane.frozen_state())


def test_a_callback_that_is_new_begins_where_the_run_is(tmp_path):
    go_on(tmp_path)
    callback = InformationPlaneCallback()
    go_on(tmp_path, callback, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert epochs(callback) == [2, 3]
    assert callback.history[0].step == 2 * N_BATCHES


@resumes_exactly
def test_a_callback_that_is_gone_is_not_missed(tmp_path):
    model, _ = go_on(tmp_path, InformationPlaneCallback())
    with pytest.warns(UserWarning, match="Please add the following callbacks.*InformationPlaneCallback"):
        resumed, _ = go_on(tmp_path, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert same(resumed.state_dict(), model.state_dict())


def test_layers_that_are_named_anew_join_those_that_stay(tmp_path):
    four = Quantizer(bins=UniformBins(4))
    before = InformationPlaneCallback({"hidden": None, "out": four})
    go_on(tmp_path, before)
    edges = before.plane.fitted_quantizers["out"].edges
    after = InformationPlaneCallback({"act": None, "out": four})
    go_on(tmp_path, after, ckpt_path=tmp_path / "checkpoints" / "epoch=1.ckpt")
    assert [epochs(after, layer) for layer in ("hidden", "act", "out")] == [[0, 1, 2], [3], [0, 1, 2, 3]]
    assert all(math.isfinite(point.i_xt) for point in after.history)
    assert torch.equal(after.plane.fitted_quantizers["out"].edges, edges)
    assert exact(History.read_csv(tmp_path / "information_plane.csv")) == exact(after.history)


def test_a_run_that_is_over_has_its_history_when_it_is_resumed(tmp_path):
    before, after = InformationPlaneCallback(**FROZEN), InformationPlaneCallback(**FROZEN)
    go_on(tmp_path, before)
    _, run = go_on(tmp_path, after, ckpt_path=tmp_path / "checkpoints" / "epoch=2.ckpt")
    assert exact(after.history) == exact(before.history)
    run.save_checkpoint(tmp_path / "again.ckpt")
    assert same(in_checkpoint(tmp_path / "again.ckpt"), before.state_dict())


@pytest.mark.skipif("weights_only" not in inspect.signature(pl.Trainer.fit).parameters, reason="came with 2.6")
def test_a_checkpoint_needs_no_more_than_weights_only(tmp_path):
    quantizer = Quantizer(bins=QuantileBins(3))
    target = Quantizer(bins=UniformBins(2))
    before, after = (
        InformationPlaneCallback(FROZEN["layers"], input=quantizer, target=target, estimators=[KDE(frozen=True)])
        for _ in range(2)
    )
    go_on(tmp_path, before)
    path = tmp_path / "checkpoints" / "epoch=1.ckpt"
    assert in_checkpoint(path)["version"] == 2
    run = trainer(tmp_path, SeedEveryBatch(), after, max_epochs=3, logger=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
        run.fit(TinyModule(), LOADERS["order"](), val_loader(), ckpt_path=path, weights_only=True)
    assert exact(after.history) == exact(before.history)
    assert same(after.plane.frozen_state(), before.plane.frozen_state())
