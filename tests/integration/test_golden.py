"""What users see first, of three small runs: tags, CSV, checkpoint state and printed lines, as kept in ``golden/``.

A change that alters them on purpose writes the files anew, and has an entry in the changelog:

    OMP_NUM_THREADS=1 python -m tests.integration.test_golden
"""

import csv
import logging
import math
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer, UniformBins
from tests.helpers.tiny import TinyModule, fit, make_data, pl

GOLDEN = Path(__file__).parent / "golden"
NUMBER = re.compile(r"(?<![\w.\[])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.\]])")


class Autoencoder(TinyModule):
    """Trained on bare tensors, without a target and without a validation loop."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 6)

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch), batch)

    validation_step = None


def default(folder):
    """Every argument left at its default."""
    callback = InformationPlaneCallback()
    fit(folder, callback, max_epochs=2)
    return callback


def bins(folder):
    """Bins for each layer, a pass of its own over the training data, estimators, a correction, nats."""
    callback = InformationPlaneCallback(
        {"hidden": Quantizer(bins=FixedBins([-1.0, 0.0, 1.0])), "act": Quantizer(bins=UniformBins(3)), "out": None},
        data="train",
        unit="nats",
        beta=2.0,
        correction="miller_madow",
        estimators=["probe", "kde", "knn"],
        prefix="plane",
    )
    fit(folder, callback, max_epochs=2)
    return callback


def no_target(folder):
    """Bare tensors, measured at optimizer steps."""
    callback = InformationPlaneCallback(every_n_train_steps=3, estimators=())
    rows = DataLoader(make_data(96).tensors[0], 16)
    fit(folder, callback, model=Autoencoder(), train=rows, val=None, max_epochs=1)
    return callback


RUNS = {run.__name__: run for run in (default, bins, no_target)}


def seen(run, folder):
    """What a run shows, as text."""
    lines = []

    class Kept(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith(("ib", "plane")):
                lines.extend(record.getMessage().replace(str(folder), "<folder>").splitlines())

    log, kept = logging.getLogger(f"{pl.__name__}.utilities.rank_zero"), Kept()
    level, _ = log.level, log.addHandler(kept)
    log.setLevel(logging.INFO)
    try:
        callback = RUNS[run](folder)
    finally:
        log.removeHandler(kept)
        log.setLevel(level)
    (logged,) = folder.glob("lightning_logs/version_0")
    sections = {"printed": lines, "tags": list(tags_in(logged)), "files": sorted(p.name for p in logged.iterdir())}
    sections["files"] = [re.sub(r"tfevents.*", "tfevents", name) for name in sections["files"]]
    for file in sorted(logged.glob("*.csv")):
        with file.open() as rows:
            sections[file.name] = [" ".join(shown(value) for value in row) for row in csv.reader(rows)]
    sections["checkpoint"] = list(flat(callback.state_dict()))
    return "\n".join(f"# {name}\n" + "".join(f"{line}\n" for line in of) for name, of in sections.items())


def shown(value):
    try:
        return f"{float(value):.6g}" if "." in value or "e" in value else value or "-"
    except ValueError:
        return value or "-"


def tags_in(folder):
    """Each tag, its steps and its first value."""
    read = EventAccumulator(str(folder), {"images": 0, "scalars": 0})
    read.Reload()
    found = {tag: read.Scalars(tag) for tag in read.Tags()["scalars"]} | {
        tag: read.Images(tag) for tag in read.Tags()["images"]
    }
    for tag, events in sorted(found.items()):
        steps = ",".join(str(event.step) for event in events)
        yield f"{tag} at {steps}" + (f": {events[0].value:.6g}" if hasattr(events[0], "value") else "")


def flat(state, path="state"):
    """A nested state, a line for each leaf."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from flat(value, f"{path}[{key!r}]")
    elif isinstance(state, (list, tuple)):
        yield f"{path}: {type(state).__name__} of {len(state)}"
        for k in sorted({0, len(state) - 1}) if state else ():  # the others are like them
            yield from flat(state[k], f"{path}[{k}]")
    elif isinstance(state, torch.Tensor):
        yield f"{path}: {state.dtype} {tuple(state.shape)} sum {float(state.double().sum()):.6g}"
    else:
        yield f"{path}: {f'{state:.6g}' if isinstance(state, float) else repr(state)}"


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.filterwarnings("ignore:a batch is a Tensor, and its target is not known")
def test_a_run_shows_what_it_did(run, tmp_path):
    now, then = seen(run, tmp_path).splitlines(), (GOLDEN / f"{run}.txt").read_text().splitlines()
    assert [NUMBER.sub("#", line) for line in now] == [NUMBER.sub("#", line) for line in then]
    for line, kept in zip(now, then, strict=True):
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (line, kept)]
        atol = 1.0 if "%" in line else 1e-4
        assert all(math.isclose(a, b, rel_tol=2e-3, abs_tol=atol) for a, b in zip(*numbers, strict=True)), line


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:] or RUNS:
        with tempfile.TemporaryDirectory() as new:
            torch.manual_seed(0)
            (GOLDEN / f"{name}.txt").write_text(seen(name, Path(new)))
