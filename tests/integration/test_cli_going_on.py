"""``lightning-ib replay`` into a folder that holds a replay already."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ib import History
from lightning_ib.cli import main
from tests.helpers.records import exact
from tests.helpers.replayed import HERE
from tests.helpers.tiny import TinyModule

NAMES = ["--model", f"{HERE}.TinyModule", "--data", f"{HERE}.val_loader", "--estimators"]


@pytest.fixture
def files(tmp_path):
    """State dicts of two epochs."""
    paths = [tmp_path / "ck" / f"epoch={epoch}.pt" for epoch in (1, 2)]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        save(path, seed)
    return paths


@pytest.fixture
def out(tmp_path):
    return tmp_path / "rp"


def save(path, seed, **parts):
    torch.manual_seed(seed)
    state = TinyModule().state_dict()
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": state, **parts} if parts else state, path)
    return path


def replay(out, *arguments):
    return main(["replay", *map(str, arguments), *NAMES, "--output", str(out)])


def values(folder):
    return History.read_csv(folder / "information_plane.csv")


def steps(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return [one.step for one in found.Scalars("ib/I_XT/out")]


# -- other checkpoints -------------------------------------------------------------------------------------------------


def test_other_weights_of_a_known_epoch_are_refused(files, out, tmp_path, capsys):
    assert replay(out, *files) == 0
    before = exact(values(out))
    other = save(tmp_path / "other" / "epoch=1.pt", 7)
    assert replay(out, other) == 2
    sentence = f"{out} holds epoch 1 of other weights ({files[0]}) than {other} has: give another --output."
    assert sentence in capsys.readouterr().err
    save(files[1], 8)
    assert replay(out, *files) == 2
    assert f"{out} holds epoch 2 of other weights than {files[1]} has: give another" in capsys.readouterr().err
    assert exact(values(out)) == before


def test_other_hyperparameters_are_refused(out, tmp_path, capsys):
    one, other = (
        save(tmp_path / f"{n}.ckpt", 0, epoch=n, global_step=5 * n, hyper_parameters={"lr": n}) for n in (1, 2)
    )
    options = ["--model", f"{HERE}.plain", "--data", f"{HERE}.val_loader", "--layers", "hidden"]
    assert main(["replay", str(one), *options, "--output", str(out)]) == 0
    assert main(["replay", str(other), *options, "--output", str(out)]) == 2
    assert "holds a replay with hyperparameter lr 1 instead of 2: give another --output" in capsys.readouterr().err


def test_a_second_checkpoint_of_a_known_epoch_is_refused(out, tmp_path, capsys):
    first, second = (save(tmp_path / f"{step}.ckpt", step, epoch=1, global_step=step) for step in (15, 20))
    assert replay(out, first, second) == 2
    sentence = f"{first} and {second} are both of epoch 2: give one of them, or --by step"
    assert sentence in capsys.readouterr().err
    assert replay(out, first) == 0
    before = exact(values(out))
    assert replay(out, second) == 2
    assert f"{sentence} and another --output." in capsys.readouterr().err
    assert exact(values(out)) == before


def test_without_steps_values_are_logged_at_the_epoch(files, out, tmp_path):
    assert replay(out, *files) == 0
    assert steps(out) == [1, 2]
    assert replay(out, *files, save(tmp_path / "ck" / "epoch=3.pt", 3)) == 0
    assert steps(out) == [1, 2, 3]
