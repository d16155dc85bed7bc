"""``lightning-ib replay`` into a folder that holds a replay already."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ib import History
from lightning_ib.cli import main
from tests.helpers.records import exact
from tests.helpers.replayed import HERE
from tests.helpers.tiny import TinyModule

pytestmark = pytest.mark.slow

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


def test_epochs_from_0_on_are_counted_as_before(out, tmp_path, capsys):
    for epoch in (0, 1, 2):
        assert replay(out, save(tmp_path / "ck" / f"epoch={epoch}.pt", epoch)) == 0
    assert f"{tmp_path / 'ck' / 'epoch=2.pt'} is taken for epoch 3" in capsys.readouterr().err
    assert replay(out, tmp_path / "ck") == 0
    assert "3 of 3 checkpoints are measured already" in capsys.readouterr().err
    assert steps(out) == [1, 2, 3]


# -- files that are missing, cut or foreign ----------------------------------------------------------------------------


def test_event_files_and_pictures_that_are_missing_are_written_again(files, out, capsys):
    assert replay(out, *files) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.suffix in (".csv", ".png")}
    foreign = out / "events.out.tfevents.0.elsewhere"
    foreign.write_bytes(b"")
    for file in (*out.glob("events*"), *out.glob("*.png"), *out.glob("*.svg")):
        if file != foreign:
            file.unlink()
    assert replay(out, *files) == 0
    assert "2 of 2 checkpoints are measured already" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in before} == before
    assert (out / "information_plane.svg").is_file()
    assert steps(out) == [1, 2]
    names = sorted(file.name for file in out.iterdir())
    assert replay(out, *files) == 0
    assert sorted(file.name for file in out.iterdir()) == names
    assert foreign.is_file()


@pytest.mark.parametrize("n_cut", [9, None], ids=["in a row", "at its end"])
def test_a_csv_that_is_cut_is_measured_again(files, out, capsys, n_cut):
    assert replay(out, *files) == 0
    csv = out / "information_plane.csv"
    before, text = exact(values(out)), csv.read_bytes()
    csv.write_bytes(text[: -(n_cut or len(text.splitlines(True)[-1]))])
    assert replay(out, *files) == 0
    assert f"{csv} lacks values of epoch 2: measured again." in capsys.readouterr().err
    assert exact(values(out)) == before


def test_a_damaged_folder_is_to_be_moved_away(files, out, capsys):
    assert replay(out, *files) == 0
    csv = out / "information_plane.csv"
    csv.write_bytes(csv.read_bytes().replace(b"I_XT,", b"I_XT,x", 1))
    assert replay(out, *files) == 2
    assert f"Move the folder {out} away, or give another --output." in capsys.readouterr().err
    (out / "replay.pt").write_bytes(b"no")
    assert replay(out, *files) == 2
    assert "is damaged: give another --output, or move the folder away." in capsys.readouterr().err


# -- faults ------------------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_is_found_first(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lightning_ib.cli.replay.made_model", None)
    (tmp_path / "file").touch()
    assert replay(tmp_path / "file" / "out", *files) == 2
    sentence = f"--output {tmp_path / 'file' / 'out'} cannot be written: Not a directory."
    assert sentence in capsys.readouterr().err


def test_a_checkpoint_of_another_shape_is_found_first(files, out, capsys):
    torch.save({**TinyModule().state_dict(), "out.bias": torch.zeros(9)}, files[1])
    assert replay(out, *files) == 2
    assert f"{files[1]} is a checkpoint of another model than" in capsys.readouterr().err
    assert not out.exists()


def test_a_failure_half_way_keeps_what_was_measured(files, out, capsys, monkeypatch):
    from lightning_ib.cli import replay as module

    load, n = module.load_weights, iter(range(9))

    def failing(*arguments):
        if next(n) == 2:
            raise OSError("the disk is gone")
        load(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "load_weights", failing)
        assert replay(out, *files) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "What was measured is kept, and the same command goes on."
    assert {point.epoch for point in values(out)} == {1}
    assert replay(out, *files) == 0
