"""Checkpoints as files: their order, their moments, and the traces of wrappers."""

import pytest
import torch
from torch import nn

from lightning_ib.cli.checkpoints import (
    callback_state,
    checkpoint_files,
    digest,
    hyperparameters,
    in_order,
    load,
    load_weights,
    moment_of,
)
from lightning_ib.cli.errors import UsageError


def saved(folder, *names, held=None, **options):
    for k, name in enumerate(names):
        torch.save({"weight": torch.full((2, 2), float(k))} if held is None else held, folder / name, **options)
    return [folder / name for name in names]


def order(files, by="epoch"):
    said = []
    ordered, _ = in_order(files, by=by, trust=False, say=said.append)
    return [(one.path.name, *one.moment) for one in ordered], said


@pytest.mark.parametrize(
    ("names", "epochs"),
    [
        (["epoch=10.pt", "epoch=9.pt"], [9, 10]),
        (["net_003.pth", "net-02.pth"], [2, 3]),
        (["7.pt", "8.pt"], [7, 8]),
        (["epoch_4-loss=0.31.pt"], [4]),
        (["early.pt", "late.pt"], [1, 2]),
        (["resnet18.pt"], [1]),
    ],
)
def test_the_epoch_is_in_the_name_or_the_place(tmp_path, names, epochs):
    found, said = order(checkpoint_files([str(one) for one in saved(tmp_path, *names)]))
    assert [epoch for _, epoch, _ in found] == epochs
    assert all(epoch == step for _, epoch, step in found)
    assert said == []


def test_epochs_from_0_on_are_counted_from_1(tmp_path):
    found, said = order(saved(tmp_path, "epoch=0.pt", "epoch=2.pt"))
    assert found == [("epoch=0.pt", 1, 1), ("epoch=2.pt", 3, 3)]
    (line,) = said
    assert line.startswith(f"The files count epochs from 0: {tmp_path / 'epoch=0.pt'} is taken for epoch 1")
    files = saved(tmp_path, "a.pt", held={"model": {"weight": torch.ones(1)}, "epoch": 0})
    assert order(files)[0] == [("a.pt", 1, 1)]
    before_training = {"state_dict": {}, "loops": {"fit_loop": {"epoch_progress": {"current": {"started": 0}}}}}
    assert order(saved(tmp_path, "a.ckpt", held=before_training)) == ([("a.ckpt", 0, 0)], [])


def test_a_file_without_an_epoch_among_others_is_a_twin_or_an_error(tmp_path):
    files = saved(tmp_path, "epoch=3.pt", "epoch=4.pt")
    saved(tmp_path, "best.pt", held=torch.load(files[1]))
    found, said = order([*files, tmp_path / "best.pt"])
    assert [name for name, *_ in found] == ["epoch=3.pt", "epoch=4.pt"]
    assert said == [f"{tmp_path / 'best.pt'} is left out: it holds the same weights as {files[1]}."]
    saved(tmp_path, "best.pt", held={"weight": torch.ones(2, 2) * 9})
    with pytest.raises(UsageError, match="best.pt has no epoch in its name, and others have: rename it"):
        order([*files, tmp_path / "best.pt"])


def test_a_folder_is_read_in_natural_order(tmp_path):
    saved(tmp_path, "e10.ckpt", "e9.pt")
    (tmp_path / "notes.txt").touch()
    names = [file.name for file in checkpoint_files([str(tmp_path), str(tmp_path / "e9.pt")])]
    assert names == ["e9.pt", "e10.ckpt"]


def test_the_moment_of_a_loop_that_was_left_at_its_end(tmp_path):
    loops = {"fit_loop": {"epoch_progress": {"current": {"started": 3, "completed": 3}}}}
    held = {"state_dict": {}, "epoch": 3, "global_step": 18, "loops": loops}
    assert moment_of(held, tmp_path, 1, "epoch").moment == (3, 18)
    assert moment_of({"state_dict": {}, "epoch": 2, "global_step": 18}, tmp_path, 1, "epoch").moment == (3, 18)
    assert moment_of({"model_state_dict": {}, "epoch": 2}, tmp_path, 1, "epoch").moment == (2, 2)


def test_the_state_of_the_callback_is_found_by_its_prefix():
    states = {f"InformationPlaneCallback{ {'prefix': name}!r}": {"version": name} for name in ("a", "b")}
    held = {"callbacks": {"ModelCheckpoint": {}, **states}}
    assert callback_state(held, "b") == ({"version": "b"}, "b")
    assert callback_state(held, None) == ({"version": "a"}, "a")
    assert callback_state({"callbacks": None}, None) == ({}, "")


def test_whole_modules_and_files_of_old_releases_are_read(tmp_path):
    model = nn.Linear(2, 2, bias=False)
    saved(tmp_path, "old.pt", _use_new_zipfile_serialization=False)
    load_weights(model, load(tmp_path / "old.pt"), tmp_path, "Net")
    assert torch.equal(model.weight, torch.zeros(2, 2))
    saved(tmp_path, "whole.pt", held=nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"holds torch.nn.modules.linear.Linear beside tensors .* add --trust"):
        load(tmp_path / "whole.pt")
    assert list(load(tmp_path / "whole.pt", trust=True)) == ["weight", "bias"]
    saved(tmp_path, "list.pt", held=[1])
    with pytest.raises(UsageError, match="holds a list: expected a checkpoint of Lightning or a state dict"):
        load(tmp_path / "list.pt")


@pytest.mark.parametrize("trace", ["module.", "_orig_mod."])
def test_traces_of_wrappers_are_taken_off(tmp_path, trace):
    model = nn.Linear(2, 2)
    state = {f"{trace}{key}": torch.ones_like(value) for key, value in model.state_dict().items()}
    load_weights(model, state, tmp_path, "Net")
    assert model.bias.tolist() == [1, 1]


def test_a_model_that_is_not_strict_takes_what_fits(tmp_path):
    model = nn.Linear(2, 2)
    model.strict_loading = False
    load_weights(model, {"weight": torch.ones(2, 2), "other": torch.ones(1)}, tmp_path, "Net")
    assert model.weight.sum() == 4


def test_the_digest_is_of_the_weights():
    state = {"a": torch.ones(2, 3), "b": torch.tensor(1.0, dtype=torch.bfloat16), "extra": {"n": 1}, "c": torch.ones(0)}
    turned = {key: state[key] for key in reversed(state)} | {"a": torch.ones(3, 2).T}
    assert digest(state) == digest(turned)
    changes = ({"a": torch.ones(3, 2)}, {"a": torch.ones(2, 3).double()}, {"b": torch.tensor(2.0)}, {"extra": {"n": 2}})
    assert len({digest(state), *(digest(state | change) for change in changes)}) == 5
    assert digest({"a": torch.eye(3).to_sparse()}) == digest({"a": torch.eye(3)})


def test_hyperparameters_in_words():
    held = {"hyper_parameters": {"names": {"b", "a"}, "by": object}, "datamodule_hyper_parameters": {"seed": 3}}
    assert hyperparameters(held) == {
        "hyperparameter names": "['a', 'b']",
        "hyperparameter by": "<class 'object'>",
        "hyperparameter seed of the data": "3",
    }
    assert hyperparameters({}) == {}
