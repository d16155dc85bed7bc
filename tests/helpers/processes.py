"""What several real processes train and measure; a script of tests/integration/test_processes.py."""

import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, WeightedRandomSampler

from lightning_ib import CellQuantizer, GradientSNRCallback, InformationPlaneCallback, Quantizer, UniformBins
from lightning_ib.estimators.kernels import KDE
from lightning_ib.objectives import GaussianBottleneck
from lightning_ib.records import History, InformationPoint
from lightning_ib.report.reporter import Reporter
from tests.helpers.tiny import TinyModule, make_data, pl, trainer

N_TRAIN, N_VAL, N_OWN, EPOCHS = 61, 83, 47, 2
INPUT = {"input": Quantizer(bins=UniformBins(3, quantiles=(0.02, 0.98))), "unit": "nats"}
# Bins that all samples are counted in, and whose edges freeze, beside a head in cells.
BINS = {"layers": {"hidden": Quantizer(bins=UniformBins(4)), "out": None}, **INPUT}
ALL_IN_BINS = {"layers": dict.fromkeys(["hidden", "out"], Quantizer(bins=UniformBins(4))), "estimators": (), **INPUT}
DEFAULT = {"estimators": ["probe", "soft"], "bound": ["labels", "finite_sample"]}
ESTIMATES = {
    "estimators": [KDE(frozen=True), "knn", "probe", "soft", "quantized8"],
    "correction": "miller_madow",
    **BINS,
}
# Strategies whose processes end with every fit, and are started again by the next.
ANEW = ("ddp_spawn", "ddp_fork")
# Scenarios that draw pictures, which takes most of the time of a small run.
DRAWN = ("val", "estimates")
TOKENS = {"layers": {"hidden": Quantizer(bins=UniformBins(4)), "out": None}, "ignore_index": -100, "tokens": True}
SAMPLED = {"estimators": [KDE(frozen=True), "soft", "quantized8"], "max_samples": 8}


def coarse(batch):
    return batch[1] // 2


def first(batch):
    return batch[0][:, 0]


def lost_in_one(batch):
    """A target that process 1 cannot read."""
    return coarse(batch) if torch.distributed.get_rank() == 0 else "lost"


TARGETS = {"class": 1, "coarse": coarse, "first": first}


def loader(n, seed, **options):
    return DataLoader(make_data(n, seed), **({"batch_size": 8} | options))


def batches(n, seed):
    x, y = make_data(n, seed)[:]
    return list(zip(x.split(8), y.split(8)))


class Odd(IterableDataset):
    """Samples, each process its own share of them; the last process has none."""

    def __init__(self, n, seed):
        # Made here: in a Trainer of double precision random numbers are others.
        self.data = make_data(n, seed)

    def __iter__(self):
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        return (self.data[i] for i in range(rank, len(self.data), world - 1) if rank < world - 1)


class Recorded(pl.Callback):
    """Keeps what the reference needs: the weights at every measurement, and at the end the history of every process."""

    def __init__(self, folder, measured):
        self.folder, self.measured, self.weights, self.seen = folder, measured, [], []

    def on_train_start(self, trainer, pl_module):
        self.keep(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.keep(pl_module)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if isinstance(self.measured, GradientSNRCallback):
            self.seen.append({name: full(p.grad).clone() for name, p in pl_module.named_parameters()})

    def keep(self, pl_module):
        self.weights.append({name: full(value).clone() for name, value in pl_module.state_dict().items()})

    def on_fit_end(self, trainer, pl_module):
        history = [tuple(point) for point in self.measured.history] if self.measured else []
        hooked = any(module._forward_hooks for module in pl_module.modules())
        estimates = [tuple(estimate) for estimate in self.measured.history.estimates()] if self.measured else []
        found = {
            "history": history,
            "estimates": estimates,
            "weights": self.weights,
            "records": [tuple(one) for one in self.measured.history.records()] if self.measured else [],
            "losses": pl_module.losses,
            "hooked": hooked,
        }
        found["random"] = torch.random.get_rng_state()
        if isinstance(self.measured, GradientSNRCallback):
            found |= {"gradients": [tuple(one) for one in self.measured.history.records()], "seen": self.seen}
        elif self.measured:
            plane = self.measured.plane
            found |= {"edges": plane.frozen_state(), "discretized": plane.discretized, "head": plane.head}
        found["logged"] = {name: value.item() for name, value in trainer.callback_metrics.items()}
        torch.save(found, self.folder / f"{trainer.global_rank}.pt")


def full(value):
    return value.full_tensor() if hasattr(value, "full_tensor") else value.detach()


class NoneForTheLast(pl.LightningDataModule):
    """Validation batches for all processes but the last."""

    def __init__(self):
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def train_dataloader(self):
        return loader(N_TRAIN, 0)

    def val_dataloader(self):
        rank, world = self.trainer.global_rank, self.trainer.world_size
        share = torch.utils.data.Subset(make_data(N_VAL, 1), range(rank, N_VAL, world - 1) if rank < world - 1 else [])
        return DataLoader(share, batch_size=8)


class FailsInOne(Quantizer):
    """A quantizer that cannot go on in process 1, from the second measurement on."""

    seen = 0

    def pooled(self, activation):
        self.seen += len(activation)
        if torch.distributed.get_rank() == 1 and self.seen > N_VAL:
            raise RuntimeError("this process alone is in trouble.")
        return super().pooled(activation)


class BreaksInOne(UniformBins):
    """Bins that process 1 cannot fit at the second measurement."""

    fitted = 0

    def edges(self, z):
        self.fitted += 1
        if self.fitted == 2 and torch.distributed.get_rank() == 1:
            raise RuntimeError("no edges here.")
        return super().edges(z)


class FitsNot(CellQuantizer):
    """Cells that the first process, which fits them for all, cannot fit at the second measurement."""

    fitted = 0

    @property
    def max_cells(self):
        self.fitted += 1
        if self.fitted == 2 and torch.distributed.get_rank() == 0:
            raise RuntimeError("no cells here.")
        return 16

    @max_cells.setter
    def max_cells(self, _):
        pass


class Tokens(TinyModule):
    """A class for each of the tokens of a sequence; some have none."""

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]).flatten(0, 1), batch[1].flatten())
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self(batch[0])


def sequences(n, seed):
    """Sequences of three tokens, every fifth of which has no label."""
    x, y = make_data(3 * n, seed)[:]
    y = torch.where(torch.arange(3 * n) % 5 == 0, -100, y)
    return torch.utils.data.TensorDataset(x.view(n, 3, 6), y.view(n, 3))


class LosesOne(TinyModule):
    """Process 0 never runs one of the layers in the validation loop, where process 1 is in trouble."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(6, 2)

    forward = pl.LightningModule.forward

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(TinyModule.forward(self, batch[0]), batch[1])
        loss = loss + 0 * self.spare(batch[0]).sum()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        TinyModule.forward(self, batch[0])
        if torch.distributed.get_rank() == 1:
            self.spare(batch[0])


class InTrouble(InformationPlaneCallback):
    """Process 1 cannot go on with what it sees."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if trainer.global_rank == 1:
            batch = (batch[0][:1], batch[1])
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)


class Scaled(TinyModule):
    """A forward that no pass of one's own can call."""

    def forward(self, x, scale):
        return scale * super().forward(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0], 1.0), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        self(batch[0], 1.0)


class Drawing(TinyModule):
    """A code that is drawn."""

    def __init__(self):
        super().__init__()
        self.act = GaussianBottleneck(8, 3, init_std=0.3)
        self.out = nn.Linear(3, 4)

    def forward(self, x):
        return self.out(self.act(self.hidden(x)).sample)


class DrawsNot(Drawing):
    """Process 1 fails where the code is drawn in eval mode."""

    def forward(self, x):
        code = self.act(self.hidden(x))
        if self.act.training and not self.training and torch.distributed.get_rank() == 1:
            raise RuntimeError("no draw here.")
        return self.out(code.sample)


class Sharded(TinyModule):
    """The module with its weights spread over the processes."""

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for layer in (self.hidden, self.out):
            fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)


class OtherHistory(pl.Callback):
    """Lets each process take up a history of its own."""

    def __init__(self, callback, state):
        self.callback, self.state = callback, state

    def on_fit_start(self, trainer, pl_module):
        points = self.state["history"][: 2 - 2 * trainer.global_rank]
        state = {**self.state, "history": History.of(points).state_dict()}
        self.callback.load_state_dict(state)


def scenarios(folder):
    """Name → (callback or None, module, training data, validation data, further options)."""
    tr, va, own = loader(N_TRAIN, 0, shuffle=True), loader(N_VAL, 1), loader(N_OWN, 2, shuffle=True)
    weighted = WeightedRandomSampler(torch.arange(1, N_OWN + 1), N_OWN, generator=torch.Generator().manual_seed(3))
    sampled = DataLoader(make_data(N_OWN, 2), batch_size=8, sampler=weighted)
    batched = DataLoader(make_data(N_OWN, 2), batch_sampler=BatchSampler(SequentialSampler(range(N_OWN)), 7, False))
    ib = InformationPlaneCallback
    alone = {"use_distributed_sampler": False}
    return {
        "alone": (None, TinyModule, tr, va, {}),
        "alone-train": (None, TinyModule, tr, None, {}),
        "val": (ib(**BINS), TinyModule, tr, va, {}),
        "default": (ib(**DEFAULT), TinyModule, tr, va, {}),
        "default-sampled": (ib(**DEFAULT, max_samples=40), TinyModule, tr, va, {}),
        "default-own": (ib(**DEFAULT, data=own, max_samples=40), TinyModule, tr, va, {}),
        "default-none": (ib(**DEFAULT), TinyModule, NoneForTheLast(), None, alone),
        "geometry": (ib(estimators=(), companions="all"), TinyModule, tr, va, {}),
        "train": (ib(data="train", **BINS), TinyModule, tr, None, {}),
        "own": (ib(data=own, **BINS), TinyModule, tr, va, {}),
        "sampled": (ib(data=sampled), TinyModule, tr, None, {}),
        "batched": (ib(data=batched), TinyModule, tr, None, {}),
        "list": (ib(data=batches(N_OWN, 2), **BINS), TinyModule, tr, None, {}),
        "steps": (ib(every_n_train_steps=2), TinyModule, tr, va, {}),
        "few": (ib({"out": None}, data=batches(5, 2)), TinyModule, tr, None, {}),
        "fewer": (ib({"out": None}), TinyModule, tr, loader(2, 4), {}),
        "iterable": (ib(**BINS), TinyModule, tr, DataLoader(Odd(N_VAL, 1), batch_size=8), {}),
        "none": (ib(**BINS), TinyModule, NoneForTheLast(), None, alone),
        # Of labels, ksg gives less than it may: all processes go on with what it gave.
        "fails": (
            ib({"out": FailsInOne(nn.Tanh(), UniformBins(4))}, estimators=["ksg", "soft"]),
            TinyModule,
            tr,
            va,
            {},
        ),
        "breaks": (ib({"out": Quantizer(bins=BreaksInOne(4, refit=True))}), TinyModule, tr, va, {}),
        "fits-not": (ib({"hidden": None, "out": FitsNot()}, **DEFAULT), TinyModule, tr, va, {}),
        "fits-not-own": (ib({"hidden": None, "out": FitsNot()}, **DEFAULT, data=own), TinyModule, tr, va, {}),
        "targets": (ib(**BINS, targets=TARGETS, estimators=["soft"], companions="all"), TinyModule, tr, va, {}),
        "targets-lost": (ib(**BINS, targets=TARGETS | {"coarse": lost_in_one}, estimators=()), TinyModule, tr, va, {}),
        "tokens": (
            ib(**TOKENS),
            Tokens,
            DataLoader(sequences(N_TRAIN, 0), 8, shuffle=True),
            DataLoader(sequences(N_VAL, 1), 8),
            {},
        ),
        "loses-one": (InTrouble(input=INPUT["input"], estimators=()), LosesOne, tr, va, {}),
        "scaled": (ib(**BINS), Scaled, NoneForTheLast(), None, alone),
        # This strategy knows no double precision; bins forgive the last bits.
        "sharded": (ib(**ALL_IN_BINS), Sharded, tr, va, {"precision": "32-true"}),
        "sharded-own": (ib(data=own, **ALL_IN_BINS), Sharded, tr, va, {"precision": "32-true"}),
        "drawn": (ib(estimators=()), Drawing, tr, va, {}),
        "drawn-not": (ib(estimators=()), DrawsNot, tr, va, {}),
        "gradients": (GradientSNRCallback(), TinyModule, tr, None, {}),
        "sharded-gradients": (GradientSNRCallback(), Sharded, tr, None, {"precision": "32-true"}),
        "histories": (ib(**BINS), TinyModule, tr, va, {}),
        "estimates": (ib(**ESTIMATES, log_projector=True), TinyModule, tr, va, {}),
        "estimates-sampled": (ib(**(ESTIMATES | SAMPLED)), TinyModule, tr, va, {}),
        "estimates-own": (ib(**ESTIMATES, data=own, max_samples=40), TinyModule, tr, va, {}),
    }


def run(folder, name, strategy, devices):
    """Train one scenario; nothing but files comes out of it."""
    callback, module, train, val, options = scenarios(folder)[name]
    extra = []
    if name == "histories":
        edges = torch.load(folder / "val" / "0.pt", weights_only=False)
        points = [InformationPoint(*point) for point in edges["history"]]
        extra = [OtherHistory(callback, {"history": points, "frozen": edges["edges"], "version": 2})]
    kind = strategy
    if kind == "model_parallel":
        strategy = pl.strategies.ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1)
    (folder / name).mkdir(parents=True, exist_ok=True)
    pl.seed_everything(7, verbose=False)
    callbacks = [*extra, *([callback] if callback else []), Recorded(folder / name, callback)]
    # In double precision: a forward pass differs in its last bits with the batches, and cells and estimators take
    # activations as they are.
    options = {"devices": devices, "strategy": strategy, "max_epochs": EPOCHS, "precision": "64-true"} | options
    fit = trainer(folder / name, *callbacks, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = module()
        fit.fit(model, train, val)
        if name == "val" and kind not in ANEW:
            fit.validate(model, val, verbose=False)
            torch.save([tuple(point) for point in callback.evaluated], folder / name / f"evaluated{fit.global_rank}.pt")
    if kind not in ANEW:
        told = [str(warning.message) for warning in caught if str(warning.message).startswith("ib: ")]
        torch.save(told, folder / name / f"warnings{fit.global_rank}.pt")


if __name__ == "__main__":
    target, *words = sys.argv[1:]
    for word in words:
        if ":" in word:  # the strategy of the scenarios that follow, and how many processes it has
            current, n = word.split(":")
        elif word in DRAWN:
            run(Path(target), word, current, int(n))
        else:
            with patch.object(Reporter, "_picture", lambda *_: False):
                run(Path(target), word, current, int(n))
