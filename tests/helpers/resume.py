"""A training in a process of its own, that is killed and resumed."""

import multiprocessing
import os
import signal
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Sampler

from lightning_ib import InformationPlaneCallback, Quantizer, UniformBins
from lightning_ib.report.reporter import Reporter
from tests.helpers.records import exact
from tests.helpers.tiny import BATCH, N_TRAIN, fit, make_data, pl, train_loader

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
    [
        "tests.helpers.tiny",
        "lightning_ib.callbacks.information_plane",
        "lightning_ib.plot.information_plane",
        "torch.utils.tensorboard",
    ]
)


# -- a training that Lightning resumes to the last bit -----------------------------------------------------------------


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
    # Pictures take most of the time of a small run, and are not what is compared here.
    Reporter._picture = lambda *_: False
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


AFTER_EPOCH = {"save_on_train_epoch_end": True}


def go_on(folder, *callbacks, ckpt_path=None, **options):
    loader = DataLoader(make_data(N_TRAIN), BATCH, sampler=EpochOrder())
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, filename="{epoch}", **AFTER_EPOCH)
    options = {"enable_checkpointing": True, "max_epochs": 3, "logger": False} | options
    return fit(folder, SeedEveryBatch(), *callbacks, checkpoint, train=loader, ckpt_path=ckpt_path, **options)


def epochs(callback, layer="out"):
    return [point.epoch for point in callback.history if point.layer == layer]
