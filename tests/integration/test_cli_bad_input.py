"""``lightning-ib replay`` on wrong input: exit code 2, one sentence, and nothing is written."""

import pytest
import torch

from lightning_ib.cli import main
from tests.helpers.replayed import HERE
from tests.helpers.tiny import TinyModule

NET, DATA = f"{HERE}.TinyModule", f"{HERE}.val_loader"


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "in" / "epoch=3.pt"
    path.parent.mkdir()
    torch.save(TinyModule().state_dict(), path)
    return path


def refused(capsys, *arguments, code=2):
    """The sentence of a refusal."""
    assert main(["replay", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    last = err.strip().splitlines()[-1]
    assert last.startswith("lightning-ib")
    return last


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        (NET.replace("Tiny", "Tyni"), DATA, "has no TyniModule: did you mean TinyModule?"),
        ("nowhere.Net", DATA, "--model nowhere.Net: there is no module nowhere in"),
        (f"{HERE}s.Net", DATA, "module tests.helpers has no replayeds: did you mean replayed?"),
        ("Net", DATA, "--model Net is no dotted name: give module.Class"),
        (
            f"{HERE}.Needs",
            DATA,
            f"--model {HERE}.Needs needs width and depth, and the checkpoint holds no value for them",
        ),
        (f"{HERE}.val_loader", DATA, "gives a DataLoader: expected a torch.nn.Module"),
        (f"{HERE}.broken", DATA, "making it raised OSError: the disk is full"),
        (NET, f"{HERE}.broken", "making it raised OSError: the disk is full"),
        (NET, f"{HERE}.N_VAL", "--data tests.helpers.replayed.N_VAL: the data must be an iterable of batches, got"),
        (NET, f"{HERE}.empty", "the data to measure on is empty: it gave no batch"),
    ],
)
def test_names(checkpoint, capsys, model, data, sentence):
    assert sentence in refused(capsys, checkpoint, "--model", model, "--data", data)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden.weight": torch.zeros(9, 6)}, "its 'hidden.weight' has shape (9, 6), and the model's has (8, 6)"),
        ({"other.weight": torch.zeros(1)}, "its 'other.weight' is unexpected, the model has no such weight"),
        ({"out.bias": None}, "it lacks 'out.bias', which the model has"),
    ],
)
def test_a_checkpoint_of_another_model(checkpoint, capsys, change, sentence):
    state = TinyModule().state_dict() | change
    torch.save({key: value for key, value in state.items() if value is not None}, checkpoint)
    found = refused(capsys, checkpoint, "--model", NET, "--data", DATA)
    assert f"{checkpoint} is a checkpoint of another model than {NET}: {sentence}" in found
    assert not (checkpoint.parent / "replay").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04cut"], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_checkpoint(checkpoint, capsys, content):
    checkpoint.write_bytes(content)
    found = refused(capsys, checkpoint, "--model", NET, "--data", DATA)
    sentence = "cannot be read as a checkpoint, it may be cut or of another kind: copy it again, or leave it out."
    assert found.endswith(f"{checkpoint} ({len(content)} bytes) {sentence}")


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        ({}, " holds no weights: expected a checkpoint of Lightning or a state dict of a model."),
        ({"epoch": 3, "model": {"lr": 0.1}}, " holds no weights: expected a checkpoint"),
        (
            {"net": {"weight": torch.ones(1)}, "optimizer": {}},
            ": weights are looked for under state_dict, model_state_dict, model; it has net, optimizer.",
        ),
    ],
)
def test_a_file_without_weights(checkpoint, capsys, held, sentence):
    torch.save(held, checkpoint)
    assert f"{checkpoint}{sentence}" in refused(capsys, checkpoint, "--model", NET, "--data", DATA)


def test_a_checkpoint_that_lacks_a_hyperparameter(checkpoint, capsys):
    model = f"{HERE}.NeedsTwo"
    held = {"state_dict": {}, "epoch": 0, "global_step": 6, "pytorch-lightning_version": "2.4.0"}
    torch.save(held | {"hyper_parameters": {"width": 3}}, checkpoint)
    found = refused(capsys, checkpoint, "--model", model, "--data", DATA)
    assert f"--model {model} needs depth, and the checkpoint holds no value for it: give a function without" in found


def test_a_config_without_a_model(checkpoint, capsys, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "hparams.yaml").write_text("width: 8\n")
    found = refused(capsys, checkpoint, "--config", tmp_path / "hparams.yaml")
    assert "hparams.yaml has no `model:` section; it looks like hparams.yaml" in found


@pytest.mark.parametrize("option", ["--layers", "--estimators"])
def test_names_that_swallow_the_checkpoint(checkpoint, capsys, option):
    found = refused(capsys, "--model", NET, "--data", DATA, option, "hidden", checkpoint)
    assert "CHECKPOINT: --layers and --estimators take all names that follow; put it before, or -- between" in found
    assert main(["replay", "--model", NET, "--data", DATA, "--layers", "hidden", "--", str(checkpoint)]) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_missing(checkpoint, capsys):
    found = refused(capsys, checkpoint, "--model", NET, "--data", DATA, "--device", "cuda")
    assert "--device cuda: " in found
    assert found.endswith(": give --device cpu.")


def test_the_folder_of_a_run_has_its_checkpoints_below(checkpoint, capsys):
    run = checkpoint.parent / "version_0"
    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True)
    checkpoint.rename(checkpoints / checkpoint.name)
    found = refused(capsys, run.parent, "--model", NET, "--data", DATA)
    assert found.endswith(f"Did you mean {checkpoints}?")
    assert main(["replay", str(run), "--model", NET, "--data", DATA]) == 0
    assert (checkpoints / "replay" / "information_plane.csv").is_file()


def test_help_names_every_estimator(capsys):
    from lightning_ib.estimators.registry import BY_NAME

    assert main(["replay", "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert {"estimators.png", *BY_NAME} <= set(words)


def test_a_checkpoint_cut_in_the_middle(checkpoint, capsys):
    checkpoint.write_bytes(checkpoint.read_bytes()[:1500])
    assert "cannot be read as a checkpoint" in refused(capsys, checkpoint, "--model", NET, "--data", DATA)


def test_objects_need_trust(checkpoint, capsys):
    torch.save({"state_dict": TinyModule().state_dict(), "epoch": 0, "global_step": 6, "mine": checkpoint}, checkpoint)
    found = refused(capsys, checkpoint, "--model", NET, "--data", DATA)
    assert "beside tensors and plain values, and reading it may run code: if you trust the file, add --trust" in found
    assert main(["replay", str(checkpoint), "--model", NET, "--data", DATA, "--trust"]) == 0


def test_two_checkpoints_of_one_epoch(checkpoint, capsys):
    other = checkpoint.with_name("best_3.pt")
    torch.save({**TinyModule().state_dict(), "out.bias": torch.ones(4)}, other)
    found = refused(capsys, checkpoint.parent, "--model", NET, "--data", DATA)
    assert f"{other} and {checkpoint} are both of epoch 3: give one of them." in found


def test_a_folder_of_something_else(checkpoint, capsys):
    (checkpoint.parent / "replay").mkdir()
    (checkpoint.parent / "replay" / "notes.txt").write_text("mine")
    found = refused(capsys, checkpoint, "--model", NET, "--data", DATA)
    assert "holds files that are not those of a replay: give a new or an empty folder" in found


def test_a_replay_with_other_options(checkpoint, capsys):
    arguments = [checkpoint, "--model", NET, "--data", DATA]
    assert main(["replay", *map(str, arguments)]) == 0
    capsys.readouterr()
    found = refused(capsys, *arguments, "--unit", "nats")
    assert "holds a replay with unit 'bits' instead of 'nats': give another --output, or the same options" in found


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--layers", "hiden"], "did you mean"),
        (["--estimators", "kdee"], "--estimators: there is no estimator 'kdee': did you mean 'kde'?"),
        (["--max-samples", "0"], "--max-samples: expected a whole number from 1 on, got '0'"),
        (["--limit-batches", "x"], "--limit-batches: expected a whole number from 1 on, got 'x'"),
        (["--device", "tpu7"], "--device must be cpu, cuda, cuda:1 or the like, got 'tpu7'"),
        (["--prefix", "/"], "--prefix must be a name such as ib, got '/'"),
        (["--config", "missing.yaml"], "--config missing.yaml cannot be read: No such file or directory"),
        (["--callback", f"{HERE}.empty"], "gives a list: expected an InformationPlaneCallback"),
        (["--callback", NET], f"--callback {NET} is no InformationPlaneCallback: give the run's, or a function"),
        (["--output", ""], "--output: expected a path, got an empty one"),
        (["--unit", "bytes"], "invalid choice: 'bytes'"),
    ],
)
def test_options(checkpoint, capsys, options, sentence):
    assert sentence in refused(capsys, checkpoint, "--model", NET, "--data", DATA, *options)


def test_files_that_are_missing(tmp_path, capsys):
    assert f"there is no checkpoint {tmp_path / 'a.ckpt'}" in refused(capsys, tmp_path / "a.ckpt", "--model", NET)
    assert f"the folder {tmp_path} holds no checkpoint: expected files *.ckpt" in refused(
        capsys, tmp_path, "--model", NET
    )


def test_what_is_needed(checkpoint, capsys):
    assert "which model? Give --model module.Class" in refused(capsys, checkpoint)
    assert "no data is given: add --data module.Class" in refused(capsys, checkpoint, "--model", NET)


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    assert "replay" in capsys.readouterr().out
    assert main([]) == 2
