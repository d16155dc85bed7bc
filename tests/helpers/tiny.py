"""A small LightningModule on small separable data, and a Trainer that leaves nothing outside its folder."""

import importlib
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# The namespace the suite runs in: pytorch_lightning, or lightning.pytorch.
pl = importlib.import_module(os.environ.get("LIGHTNING_IB_NAMESPACE", "pytorch_lightning"))

N_TRAIN, N_VAL, BATCH = 96, 80, 16


def make_data(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    centers = 2 * torch.eye(4, 6)
    return TensorDataset(centers[y] + torch.randn(n, 6, generator=generator), y)


def train_loader(**options):
    return DataLoader(make_data(N_TRAIN), **({"batch_size": BATCH, "shuffle": True} | options))


def val_loader(**options):
    return DataLoader(make_data(N_VAL, seed=1), **({"batch_size": BATCH} | options))


class TinyModule(pl.LightningModule):
    """Linear, tanh, dropout, linear. Dropout makes training depend on the random state."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(6, 8)
        self.act = nn.Tanh()
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(8, 4)
        self.losses = []

    def forward(self, x):
        return self.out(self.drop(self.act(self.hidden(x))))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss.item())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), add_dataloader_idx=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.02)


def trainer(tmp_path, *callbacks, **options):
    defaults = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": tmp_path,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), **(defaults | options))


def fit(tmp_path, *callbacks, model=None, train=None, val="default", ckpt_path=None, **options):
    """Train a seeded model, and return (model, trainer)."""
    pl.seed_everything(7, verbose=False)
    model = TinyModule() if model is None else model
    run = trainer(tmp_path, *callbacks, **options)
    loader = train_loader() if train is None else train
    run.fit(model, loader, val_loader() if val == "default" else val, ckpt_path=ckpt_path)
    return model, run


def has_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    return any(getattr(module, kind) for module in model.modules() for kind in kinds)
