"""A run that is killed and resumed, each in a process of its own, beside the same run that nothing interrupted."""

import inspect
import json
import math
import multiprocessing
import os
import signal
import warnings

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, Sampler

import lightning_ib.report.reporter
from lightning_ib import FixedBins, InformationPlaneCallback, InformationPoint, QuantileBins, Quantizer, UniformBins
from lightning_ib.binning.fitted import FittedQuantizer
from lightning_ib.estimators.kernels import KDE
from lightning_ib.records import History
from tests.helpers.records import VERSION_1, exact, in_version_1, of_version_1
from tests.helpers.tiny import BATCH, N_TRAIN, N_VAL, TinyModule, fit, make_data, pl, train_loader, trainer, val_loader

ModelCheckpoint = pl.callbacks.ModelCheckpoint

N_EPOCHS, N_BATCHES = 4, N_TRAIN // BATCH

# Bins that are fitted once, beside the head in cells, which takes nothing from a checkpoint; soft entropies do.
FROZEN = {"layers": {"hidden": Quantizer(bins=UniformBins(4)), "out": None}, "estimators": ("probe", "soft")}

IN_BINS = dict.fromkeys(["hidden", "out"], Quantizer(bins=UniformBins(3)))

# Older ones repeat a part of the validation, or a batch, after some checkpoints.
resumes_exactly = pytest.mark.skipif(
    tuple(map(int, pl.__version__.split(".")[:2])) < (2, 6), reason="this Lightning does not resume to the last bit"
)

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["tests.helpers.tiny", "lightning_ib.callbacks.information_plane", "lightning_ib.plot.information_plane"]
)


# -- a training that Lightning resumes to the last bit ---------------------------------------------------------------


class EpochOrder(Sampler):
    """Another order in every epoch, which depends on nothing but the epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def __len__(self):
        return N_TRAIN


class ResumableLoader(DataLoader):
    """A loader that goes on at the batch where a checkpoint left it."""

    seen = 0

    def __iter__(self):
        skip, self.seen = self.seen % N_BATCHES, 0
        for k, batch in enumerate(super().__iter__()):
            if k >= skip:
                self.seen = k + 1
                yield batch

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


LOADERS = {
    "order": lambda: DataLoader(make_data(N_TRAIN), BATCH, sampler=EpochOrder()),
    "resumable": lambda: ResumableLoader(make_data(N_TRAIN), BATCH, sampler=EpochOrder()),
    "shuffled": train_loader,
}


class SeedEveryBatch(pl.Callback):
    """Dropout that depends on nothing but the step: Lightning does not restore random states."""

    def on_train_batch_start(self, trainer, *_):
        torch.manual_seed(trainer.global_step)


# They take most of the time of a small run, and are not what is compared here.
PICTURES = ("plot_information_plane", "log_figure", "save_figure")


# -- a process that ends by SIGKILL ------------------------------------------------------------------------------------


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Kill(pl.Callback):
    """SIGKILL at a hook of an epoch, or of one of its batches."""

    def __init__(self, hook, epoch, batch=None):
        self.epoch, self.batch = epoch, batch
        setattr(self, hook, self.kill)

    def kill(self, trainer, *args):
        if not trainer.sanity_checking and trainer.current_epoch == self.epoch and self.batch in (None, args[-1]):
            die()


class KillAfterCheckpoint(Kill, pl.callbacks.Checkpoint):
    """Lightning calls checkpoints last, in the order they were given."""


def train(folder, version, checkpoint, kill, loader, ckpt_path, options):
    """What the process does: train, resumed or not, to the end or not, and leave what there is to compare."""
    torch.set_num_threads(1)
    for name in PICTURES:
        setattr(lightning_ib.report.reporter, name, lambda *_: None)
    when, *where = kill or [None]
    batches = iter(range(10**6))

    def unpack(batch):
        if when == "in the pass" and next(batches) == where[0]:
            die()
        return batch

    if options.get("data") == "own":
        options = options | {"data": DataLoader(make_data(N_TRAIN), BATCH)}
    # A pass over the training data before the first epoch has them in another order than one after it.
    defaults = {"layers": IN_BINS, "estimators": ()} if options.get("data") == "train" else FROZEN
    callback = InformationPlaneCallback(unpack=unpack, **(defaults | options))
    callbacks = [SeedEveryBatch(), callback, ModelCheckpoint(folder / "checkpoints", save_last=True, **checkpoint)]
    if when in ("before", "after"):
        callbacks.append((Kill if when == "before" else KillAfterCheckpoint)(*where))
    logger = pl.loggers.TensorBoardLogger(folder, name="logs", version=version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = {"enable_checkpointing": True, "max_epochs": N_EPOCHS, "logger": logger, "ckpt_path": ckpt_path}
        model, _ = fit(folder, *callbacks, train=LOADERS[loader](), **run)
    result = {
        "history": exact(callback.history),
        "epochs": [(point.epoch, point.layer, point.n_samples) for point in callback.history],
        "frozen": callback.plane.frozen_state(),
        "weights": model.state_dict(),
        "warnings": [str(warning.message) for warning in caught if str(warning.message).startswith("ib")],
    }
    torch.save(result, folder / "result.pt")


def start(folder, *, version=0, checkpoint=None, kill=None, loader="order", resume=False, **options):
    """Train in a process of its own, and return what it left; nothing where it was killed."""
    folder.mkdir(exist_ok=True)
    ckpt_path = folder / "checkpoints" / "last.ckpt" if resume else None
    arguments = (folder, version, checkpoint or {}, kill, loader, ckpt_path, options)
    process = processes.Process(target=train, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == (-signal.SIGKILL if kill else 0)
    return None if kill else torch.load(folder / "result.pt", weights_only=True)


def logged(folder, version=0):
    """Tag → the steps and values of the scalars that TensorBoard shows."""
    events = EventAccumulator(str(folder / "logs" / f"version_{version}"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("ib")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def csv(folder, version=0):
    return exact(History.read_csv(folder / "logs" / f"version_{version}" / "information_plane.csv"))


def in_checkpoint(path):
    """The state of the one callback in a checkpoint that loads with ``weights_only``."""
    callbacks = torch.load(path, weights_only=True)["callbacks"]
    (state,) = (state for key, state in callbacks.items() if key.startswith("InformationPlaneCallback"))
    return state


def same(a, b):
    """Whether two nested states are equal, tensors to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


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
AFTER_EPOCH = {"save_on_train_epoch_end": True}
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


def go_on(folder, *callbacks, ckpt_path=None, **options):
    loader = DataLoader(make_data(N_TRAIN), BATCH, sampler=EpochOrder())
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, filename="{epoch}", **AFTER_EPOCH)
    options = {"enable_checkpointing": True, "max_epochs": 3, "logger": False} | options
    return fit(folder, SeedEveryBatch(), *callbacks, checkpoint, train=loader, ckpt_path=ckpt_path, **options)


def epochs(callback, layer="out"):
    return [point.epoch for point in callback.history if point.layer == layer]


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


# -- what a checkpoint holds is damaged, or of another version ---------------------------------------------------------


@pytest.fixture
def no_pictures(monkeypatch):
    for name in PICTURES:
        monkeypatch.setattr(lightning_ib.report.reporter, name, lambda *_: None)


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
@pytest.mark.usefixtures("no_pictures")
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
@pytest.mark.usefixtures("no_pictures")
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
