"""What a GPU makes of a measurement: waits in the path of a batch, training bit for bit, and values beside the host's.

``python benchmarks/gpu.py --data-dir DATA`` prints three tables. A wait is an operation that makes the host stand still
until the GPU has done all its work, as PyTorch's own debug mode reports it; training is compared with deterministic
algorithms, in single precision and in mixed ones; values of a trained network are those of one measurement on the
GPU and one on the host. With ``--device cpu`` the last two run anywhere, and then show that nothing differs.

``LIGHTNING_IB_TEST_DEVICE=cuda python -m pytest -p tests.on_device tests/unit/functional`` runs the tests of the
functions there, and other tests with every Trainer on a GPU.
"""

from __future__ import annotations

import argparse
import collections
import copy
import math
import os
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from gradients import resnet18
from measurement import Network, images, v3
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ib import FixedBins, GradientSNRCallback, InformationPlaneCallback, Quantizer, measure
from lightning_ib.callbacks.session import Host, Moment, Session

NOW = Moment(0, 0)
ESTIMATORS = ["probe", "kde", "knn", "ksg", "mixed", "renyi", "soft", "copula", "projected", "quantized8"]
SETTINGS: dict[str, dict[str, Any]] = {
    "bins v3": {"layers": v3(), "input": Quantizer(nn.MaxPool2d(4), FixedBins([0.0, 0.5]))},
    "the default": {},
    "companions": {"companions": "all"},
    "estimators": {"estimators": ["knn", "kde", "soft", "probe", "ksg", "renyi"]},
    "a label that is ignored": {"ignore_index": 3},
    "two targets": {
        "targets": {"class": None, "odd": None},
        "unpack": lambda batch: (batch[0], {"class": batch[1], "odd": batch[1] % 2}),
    },
}


class Module(pl.LightningModule):
    """The MNIST network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Network()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The cross-entropy."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The forward pass."""
        self.net(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def run(session: Session, model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    """A pass, as the validation loop runs it."""
    session.begin()
    with torch.no_grad():
        for batch in batches:
            session.watch()
            model(batch[0])
            session.see(batch, NOW)


def waits(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], options: Mapping[str, Any]
) -> collections.Counter[str]:
    """The lines in the path of a batch that wait for the GPU → how often, once the edges are known."""
    found: collections.Counter[str] = collections.Counter()

    def note(message: Any, *_: Any) -> None:
        if "synchroniz" in str(message):
            own = [at for at in traceback.extract_stack() if "lightning_ib" in at.filename]
            found[f"{Path(own[-1].filename).name}: {own[-1].line}" if own else "PyTorch"] += 1

    session = InformationPlaneCallback(verbose=False, **options).session
    session.attach(model.eval(), Host())
    for _ in range(2):
        run(session, model, batches)
        session.conclude(batches, NOW)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        run(session, model, batches)
        torch.cuda.set_sync_debug_mode("default")
    session.detach()
    return found


def trained(x: Tensor, y: Tensor, device: torch.device, precision: str, callbacks: list[pl.Callback]) -> Module:
    """Two epochs of training."""
    pl.seed_everything(1, verbose=False)
    module, half = Module(), len(x) // 2
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            deterministic=True,
            precision=precision,  # type: ignore[arg-type]
            callbacks=callbacks,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        train, val = TensorDataset(x[:half], y[:half]), TensorDataset(x[half:], y[half:])
        trainer.fit(module, DataLoader(train, 100, shuffle=True), DataLoader(val, 100))
    return module


def show_waits(x: Tensor, y: Tensor, device: torch.device) -> None:
    """Print the waits of all settings."""
    batches = [(a.to(device), b.to(device)) for a, b in zip(x[:1000].split(100), y[:1000].split(100))]
    pictures = [(torch.randn(16, 3, 128, 128, device=device), torch.arange(16, device=device) % 10) for _ in range(4)]
    print("| setting | batches | waits |\n| --- | ---: | --- |")
    for name, options in SETTINGS.items():
        found = waits(Network().to(device), batches, options)
        print(f"| MNIST network, {name} | {len(batches)} | {dict(found) or 'none'} |", flush=True)
    found = waits(resnet18(10).to(device), pictures, {})
    print(f"| ResNet-18, the default | {len(pictures)} | {dict(found) or 'none'} |\n", flush=True)


def show_training(x: Tensor, y: Tensor, device: torch.device) -> Module:
    """Print whether training is the same with each callback, and return the network."""
    network = Module()
    print("| precision | callback | weights | measured |\n| --- | --- | --- | --- |")
    for precision in ("32-true", "bf16-mixed") + (("16-mixed",) if device.type == "cuda" else ()):
        bare = trained(x, y, device, precision, [])
        network = bare if precision == "32-true" else network
        plane = InformationPlaneCallback(companions="all", estimators=[*ESTIMATORS], verbose=False)
        for callback in (plane, GradientSNRCallback(verbose=False)):
            module = trained(x, y, device, precision, [callback])
            pairs = zip(bare.state_dict().values(), module.state_dict().values())
            same = "the same bits" if all(torch.equal(a, b) for a, b in pairs) else "**others**"
            values = [one.value for one in plane.history.records()] if callback is plane else []
            known = f"{sum(math.isfinite(one) for one in values)} of {len(values)} values are finite" if values else ""
            print(f"| {precision} | {type(callback).__name__} | {same} | {known} |", flush=True)
    print()
    return network


def show_values(network: nn.Module, x: Tensor, y: Tensor, device: torch.device) -> None:
    """Print the values that differ most between the device and the host."""
    loader = DataLoader(TensorDataset(x[:3000], y[:3000]), 250)
    settings: dict[str, dict[str, Any]] = {
        "the default and estimators": {"companions": "all", "estimators": ESTIMATORS},
        "bins v3": SETTINGS["bins v3"],
    }
    print(f"| setting | value | host | {device} | apart |\n| --- | --- | ---: | ---: | ---: |")
    for name, options in settings.items():
        found: list[dict[tuple[str, ...], float]] = []
        for where in (torch.device("cpu"), device):
            history = measure(copy.deepcopy(network), loader, device=where, **options)
            found.append(
                {
                    (point.layer, field): value
                    for point in history
                    for field, value in point._asdict().items()
                    if isinstance(value, float)
                }
            )
            found[-1] |= {(one.layer, one.source, one.quantity): one.value for one in history.estimates()}
        both = [(key, value, found[1].get(key, float("nan"))) for key, value in found[0].items() if value == value]
        ranked = sorted(both, key=lambda one: -abs(one[1] - one[2]) / max(1e-6, abs(one[1])))
        for key, host, other in ranked[:8]:
            print(f"| {name} | {' '.join(key)} | {host:.6g} | {other:.6g} | {abs(host - other):.1e} |")
        print(f"| {name} | {len(both)} values | | | |", flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="What a GPU makes of a measurement.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--samples", type=int, default=10_000)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = False  # or both sides round differently
    chip = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "the host"
    print(f"{chip}, torch {torch.__version__}\n")
    x, y = (part[: args.samples] for part in images(args.data_dir))
    if args.device.type == "cuda":  # elsewhere nothing is reported
        show_waits(x, y, args.device)
    network = show_training(x, y, args.device)
    torch.use_deterministic_algorithms(False)
    show_values(network.net, x, y, args.device)


if __name__ == "__main__":
    main()
