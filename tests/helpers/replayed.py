"""A run with checkpoints, and what the command line names to replay it."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import InformationPlaneCallback, Quantizer, UniformBins
from lightning_ib.estimators import LayerSpectrum
from tests.helpers.tiny import BATCH, N_TRAIN, N_VAL, TinyModule, make_data, pl, trainer, val_loader

HERE = "tests.helpers.replayed"


class Net(TinyModule):
    """With hyperparameters."""

    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.hidden, self.out = nn.Linear(6, width), nn.Linear(width, 4)


class Digits(pl.LightningDataModule):
    """With hyperparameters, and batches that change on their way to the device."""

    def __init__(self, seed=1, scale=1.0):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage):
        self.train, self.val = make_data(N_TRAIN), make_data(N_VAL, seed=self.hparams.seed)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * self.hparams.scale, batch[1]

    def train_dataloader(self):
        return DataLoader(self.train, BATCH)

    def val_dataloader(self):
        return DataLoader(self.val, BATCH)


class Turned(Net):
    """Its validation step changes x before it calls the model."""

    def validation_step(self, batch, i):
        self.log("val_loss", self(batch[0].flip(1)).mean())


class WithTrainer(Net):
    """Its validation step needs a Trainer, and counts its calls."""

    n = 0

    def validation_step(self, batch):
        self.n += 1
        self(batch[0])
        assert self.trainer.validating or self.trainer.sanity_checking


class ByStep(TinyModule):
    """Without a forward: its validation step runs the layers."""

    forward = pl.LightningModule.forward

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.out(self.act(self.hidden(batch[0]))).mean())

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.out(self.act(self.hidden(batch[0]))), batch[1])


class Late(Net):
    """With a layer that Lightning has made late, and a part of the checkpoint of its own."""

    def configure_model(self):
        if not hasattr(self, "extra"):
            self.extra = nn.Linear(4, 4)

    def forward(self, x):
        return self.extra(super().forward(x))

    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = float(self.out.bias.detach().sum())
        checkpoint["state_dict"]["renamed"] = checkpoint["state_dict"].pop("out.bias")

    def on_load_checkpoint(self, checkpoint):
        checkpoint["state_dict"]["out.bias"] = checkpoint["state_dict"].pop("renamed")
        assert checkpoint["mine"] == float(checkpoint["state_dict"]["out.bias"].sum())


class Needs(nn.Module):
    """Made with arguments alone."""

    def __init__(self, width, depth):
        super().__init__()


class NeedsTwo(TinyModule):
    """With hyperparameters that have no defaults."""

    def __init__(self, width, depth):
        super().__init__()
        self.save_hyperparameters()


def plain():
    """The layers of the tiny module in a module of torch."""
    model = nn.Module()
    model.hidden, model.act, model.drop, model.out = nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4)
    model.__class__ = Plain
    return model


class Plain(nn.Module):
    def forward(self, x):
        return self.out(self.drop(self.act(self.hidden(x))))


def in_bins():
    """A callback with edges and centers that are frozen in the run."""
    return InformationPlaneCallback(
        {"hidden": Quantizer(bins=UniformBins(4)), "out": None}, estimators=("probe", "soft")
    )


def with_few_rows():
    return InformationPlaneCallback(["hidden"], companions=[LayerSpectrum(max_samples=50)])


def on_training_data():
    return InformationPlaneCallback(["hidden"], data="train")


def batches():
    return iter([(torch.zeros(4, 6), torch.arange(4))])


def empty():
    return []


def broken():
    raise OSError("the disk is full")


__all__ = ["TinyModule", "val_loader"]


def run(folder, callback, model=None, data=None, *, epochs=3, checkpoint=None, **options):
    """Train with a checkpoint after every epoch; returns the folder of them.

    ``model`` makes it, once random states are seeded.
    """
    checkpoints = folder / "checkpoints"
    options_of_saving = {"filename": "{epoch}-{step}" if checkpoint else "{epoch}"} | (checkpoint or {})
    saved = pl.callbacks.ModelCheckpoint(checkpoints, save_top_k=-1, save_last=True, **options_of_saving)
    pl.seed_everything(7, verbose=False)
    model = Net() if model is None else model()
    options = {"enable_checkpointing": True, "logger": False, "max_epochs": epochs} | options
    callbacks = [saved] if callback is None else [callback, saved]
    trainer(folder, *callbacks, **options).fit(model, datamodule=Digits() if data is None else data)
    return checkpoints
