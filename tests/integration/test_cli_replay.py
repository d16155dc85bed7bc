"""``lightning-ib replay``: checkpoints have the values that the callback had."""

import json
import re
import shutil
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ib import InformationPlaneCallback
from lightning_ib.cli import main
from lightning_ib.records import History
from lightning_ib.records.measurement_json import measurement_from_json
from lightning_ib.records.tags import measurement_tag
from lightning_ib.report.reporter import Reporter
from tests.helpers.records import exact
from tests.helpers.replayed import HERE, ByStep, Digits, Late, Net, Turned, WithTrainer, in_bins, on_training_data, run
from tests.helpers.tiny import TinyModule, pl, train_loader, val_loader

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_pictures", "few_pictures")]

NAMES = ["--model", f"{HERE}.Net", "--data", f"{HERE}.Digits"]


def wide():
    return Net(width=12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with hyperparameters, a datamodule, the default callback and TensorBoard."""
    folder = tmp_path_factory.mktemp("run")
    callback = InformationPlaneCallback(verbose=False)
    logger = pl.loggers.TensorBoardLogger(folder, name="logs", version=0)
    checkpoints = run(folder, callback, wide, Digits(seed=3, scale=0.5), logger=logger)
    return checkpoints, callback.history, folder / "logs" / "version_0"


@pytest.fixture
def checkpoints(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "checkpoints")


def values(folder):
    return History.read_csv(folder / "information_plane.csv")


def after_training_began(history):
    """The values that checkpoints hold: there is none before training."""
    return History(record for record in history.records() if record.epoch > 0)


def replay(*arguments):
    return main(["replay", *map(str, arguments)])


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    found.Reload()
    return found


def scalars(found):
    tags = (tag for tag in found.Tags()["scalars"] if tag.startswith("ib"))
    return {(tag, one.step): one.value for tag in tags for one in found.Scalars(tag)}


def measurements(found):
    return [
        measurement_from_json(one.tensor_proto.string_val[0].decode()) for one in found.Tensors(measurement_tag("ib"))
    ]


# -- the values of the run ---------------------------------------------------------------------------------------------


def test_values_files_and_events_are_those_of_the_run(trained, checkpoints, pictures, capsys):
    _, history, logs = trained
    assert replay(checkpoints, *NAMES) == 0
    folder = checkpoints / "replay"
    assert exact(values(folder)) == exact(after_training_began(history))
    assert {file.name for file in folder.iterdir()} > {"information_plane.png", "information_plane.svg", "replay.pt"}
    ours, theirs = events(folder), events(logs)
    logged = {key: value for key, value in scalars(theirs).items() if key[1] > 0}
    assert scalars(ours) == pytest.approx(logged, nan_ok=True)
    assert [exact(one) for one in measurements(ours)] == [exact(one) for one in measurements(theirs)[1:]]
    assert [one.step for one in ours.Images("ib/information_plane")] == [5, 11, 17]
    out, err = capsys.readouterr()
    assert "All 99 values that the run recorded too are the same" in err
    assert "last.ckpt is left out: it holds the same weights as" in err
    assert "epochs 1 and 3, in bits" in out
    assert f"CSV: {folder / 'information_plane.csv'}" in out


def test_frozen_edges_and_centers_come_from_the_checkpoint(tmp_path):
    callback = in_bins()
    files = run(tmp_path, callback)
    assert replay(files, *NAMES, "--callback", f"{HERE}.in_bins") == 0

    def known(history):
        """Soft entropies are centered on the mean of the measurement before, which no checkpoint has of the first."""
        return History(one for one in history.records() if one.epoch > 1 or one.source != "soft")

    assert exact(known(values(files / "replay"))) == exact(known(after_training_began(callback.history)))


def test_without_its_callback_the_bins_of_a_run_are_missed(tmp_path, capsys):
    files = run(tmp_path, in_bins(), epochs=1)
    assert replay(files, *NAMES) == 0
    assert "the run counted hidden in bins, and its quantizers are in no checkpoint" in capsys.readouterr().err
    found = values(files / "replay")
    assert {(one.layer, one.source) for one in found.records()} >= {("hidden", "cells"), ("out", "soft")}


def test_layers_unit_and_estimators_are_those_of_the_run(tmp_path):
    callback = InformationPlaneCallback(["act"], unit="nats", estimators=["kde"], correction="miller_madow")
    files = run(tmp_path, callback, epochs=2)
    assert replay(files, *NAMES) == 0
    assert exact(values(files / "replay")) == exact(after_training_began(callback.history))


def test_a_module_without_forward_runs_its_validation_step(tmp_path):
    callback = InformationPlaneCallback()
    with pytest.warns(UserWarning, match="defines no forward"):
        files = run(tmp_path, callback, ByStep, epochs=2)
    assert replay(files, "--model", f"{HERE}.ByStep", "--data", f"{HERE}.Digits") == 0
    assert exact(values(files / "replay")) == exact(callback.history)


def test_the_layers_see_what_the_validation_step_shows_them(tmp_path):
    callback = InformationPlaneCallback(["hidden"])
    files = run(tmp_path, callback, Turned, epochs=2)
    assert replay(files, "--model", f"{HERE}.Turned", "--data", f"{HERE}.Digits") == 0
    assert exact(values(files / "replay")) == exact(after_training_began(callback.history))


def test_a_validation_step_that_needs_a_trainer_is_left_out(tmp_path, capsys):
    callback = InformationPlaneCallback()
    files = run(tmp_path, callback, WithTrainer, epochs=1)
    assert replay(files, "--model", f"{HERE}.WithTrainer", "--data", f"{HERE}.Digits") == 0
    assert exact(values(files / "replay")) == exact(after_training_began(callback.history))
    assert "WithTrainer is called as module(x): its validation_step does not run" in capsys.readouterr().err


def test_hooks_of_the_model_are_called(tmp_path):
    callback = InformationPlaneCallback()
    files = run(tmp_path, callback, Late, epochs=2)
    assert replay(files, "--model", f"{HERE}.Late", "--data", f"{HERE}.Digits") == 0
    assert exact(values(files / "replay")) == exact(after_training_began(callback.history))
    assert "extra" in {point.layer for point in callback.history}


def test_double_precision(tmp_path):
    callback = InformationPlaneCallback()
    files = run(tmp_path, callback, epochs=2, precision="64-true")
    assert replay(files, *NAMES) == 0
    assert exact(values(files / "replay")) == exact(after_training_began(callback.history))


def test_the_prefix_is_that_of_the_run(tmp_path):
    callback = InformationPlaneCallback(prefix="mine")
    files = run(tmp_path, callback, epochs=1)
    assert replay(files, *NAMES) == 0
    found = History.read_csv(files / "replay" / "information_plane_mine.csv")
    assert exact(found) == exact(after_training_began(callback.history))


def test_the_data_are_those_that_the_callback_names(tmp_path):
    callback = on_training_data()
    files = run(tmp_path, callback, epochs=1)
    assert replay(files, *NAMES, "--callback", f"{HERE}.on_training_data") == 0
    assert exact(values(files / "replay")) == exact(after_training_began(callback.history))


def test_steps_within_an_epoch(tmp_path, capsys):
    callback = InformationPlaneCallback(every_n_train_steps=2)
    every = {"every_n_train_steps": 2, "save_on_train_epoch_end": False}
    files = run(tmp_path, callback, epochs=1, checkpoint=every)
    assert replay(files, *NAMES) == 2
    assert "are both of epoch 1: give one of them, or --by step." in capsys.readouterr().err
    assert replay(files, *NAMES, "--by", "step") == 0
    found = values(files / "replay")
    assert [(point.epoch, point.step) for point in found if point.layer == "out"] == [(0, 2), (0, 4), (1, 6)]
    assert exact(found) == exact(History(record for record in callback.history.records() if record.step > 0))


def test_some_batches(trained, checkpoints):
    assert replay(checkpoints / "last.ckpt", *NAMES, "--limit-batches", "2") == 0
    assert {point.n_samples for point in values(checkpoints / "replay")} == {32}


def test_a_run_without_the_callback_has_the_same_values(trained, tmp_path):
    _, history, _ = trained
    files = run(tmp_path, None, wide, Digits(seed=3, scale=0.5))
    assert replay(files, *NAMES) == 0
    assert exact(values(files / "replay")) == exact(after_training_began(history))


# -- companions and several targets ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accompanied(tmp_path_factory):
    """A run with all companions and two targets."""
    targets = {"class": 1, "coarse": lambda batch: batch[1] // 2}
    callback = InformationPlaneCallback(companions="all", estimators=(), targets=targets, verbose=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Reporter, "draw", lambda *arguments, **options: None)
        return run(tmp_path_factory.mktemp("run"), callback, wide, Digits(seed=3, scale=0.5)), callback.history


def drift(history, quantity="cka_to_first"):
    return {
        (one.epoch, one.layer): (one.value, one.n_samples) for one in history.estimates() if one.quantity == quantity
    }


def test_companions_of_a_run_are_measured_again(accompanied, tmp_path, capsys):
    """Without its callback a run with targets has those of its checkpoints' batches: y alone, without a name."""
    files, history = accompanied
    assert replay(files, *NAMES, "--output", tmp_path / "out") == 0
    found = values(tmp_path / "out")
    assert "the run had the targets class, coarse, and no checkpoint says where they are in a batch" in (
        capsys.readouterr().err
    )
    assert found.targets == []
    before = History(record for record in history.about("class").records() if record.epoch > 0)
    unnamed = History(record._replace(target="") for record in before.records())
    assert exact(found) == exact(unnamed)
    assert {one.source for one in found.estimates()} == {"spectrum", "classes", "drift"}
    assert drift(found, "cka_to_last")[3, "out"] == (pytest.approx(1), 80)


def test_a_replay_on_fewer_samples_has_a_drift_of_its_own(accompanied, tmp_path):
    files, history = accompanied
    few = ["--companions", "drift", "--limit-batches", "2"]
    assert replay(files, *NAMES, *few, "--output", tmp_path / "out") == 0
    found = values(tmp_path / "out")
    for quantity, epoch in (("cka_to_first", 1), ("cka_to_last", 3)):
        of = drift(found, quantity)
        assert {n for _, n in of.values()} == {32}
        assert of[epoch, "hidden"][0] == pytest.approx(1)
        assert all(0 < value <= 1 + 1e-9 for value, _ in of.values())
    assert drift(found)[3, "hidden"] != drift(history)[3, "hidden"]


def test_a_replay_goes_on_with_the_same_companions_alone(trained, checkpoints, tmp_path, capsys):
    first, options = checkpoints / "epoch=0.ckpt", [*NAMES, "--output", tmp_path / "out"]
    assert replay(first, *options, "--callback", f"{HERE}.with_few_rows") == 0
    state = torch.load(tmp_path / "out" / "replay.pt", weights_only=True)
    assert state["described"]["companions"] == "['LayerSpectrum(max_samples=50)']"
    assert "targets" not in state["described"]
    assert replay(first, *options, "--callback", f"{HERE}.with_few_rows", "--companions", "spectrum") == 2
    assert "companions ['LayerSpectrum(max_samples=50)'] instead of ['spectrum']" in capsys.readouterr().err


def test_through_the_shell(programs, trained, checkpoints):
    _, history, _ = trained
    done = programs.module("lightning_ib", "replay", checkpoints, *NAMES)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert exact(values(checkpoints / "replay")) == exact(after_training_began(history))


def test_state_dicts_of_a_plain_module(trained, checkpoints, tmp_path):
    model = TinyModule()
    for epoch in (10, 9):
        torch.nn.init.normal_(model.hidden.weight, std=epoch)
        torch.save(model.state_dict(), tmp_path / f"net_{epoch}.pt")
    assert (
        replay(tmp_path, "--model", f"{HERE}.plain", "--data", f"{HERE}.val_loader", "--layers", "hidden", "act") == 0
    )
    found = values(tmp_path / "replay")
    assert [(point.epoch, point.step, point.layer) for point in found] == [
        (epoch, epoch, layer) for epoch in (9, 10) for layer in ("hidden", "act")
    ]


def test_options(checkpoints, tmp_path):
    options = ["--unit", "nats", "--layers", "hidden", "--layers", "out", "--estimators", "--max-samples", "40"]
    assert replay(checkpoints / "epoch=1.ckpt", *NAMES, *options, "--prefix", "mine", "--output", tmp_path / "out") == 0
    found = History.read_csv(tmp_path / "out" / "information_plane_mine.csv")
    assert {(point.epoch, point.unit, point.n_samples) for point in found} == {(2, "nats", 40)}
    assert found.estimates() == []


def test_the_page_of_a_replay_says_how_layers_were_discretized(checkpoints, tmp_path):
    assert replay(checkpoints, *NAMES) == 0
    page = tmp_path / "plane.html"
    assert main(["page", str(checkpoints / "replay"), "-o", str(page), "--layers", "hidden"]) == 0
    ((_, of_run),) = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])
    assert [list(one["discretized"]) for one in of_run] == [["hidden"]] * 3
    assert "12 coordinates" in of_run[0]["discretized"]["hidden"]


# -- going on ----------------------------------------------------------------------------------------------------------


def test_a_replay_goes_on(trained, checkpoints, pictures, capsys):
    _, history, _ = trained
    some = [checkpoints / "epoch=0.ckpt", checkpoints / "epoch=2.ckpt"]
    assert replay(*some, *NAMES) == 0
    assert replay(checkpoints, *NAMES) == 0
    assert "2 of 3 checkpoints are measured already" in capsys.readouterr().err
    folder = checkpoints / "replay"
    assert exact(values(folder)) == exact(after_training_began(history))
    found = events(folder)
    assert [one.step for one in found.Scalars("ib/I_TY/out")] == [5, 11, 17]
    assert [one.step for one in found.Images("ib/information_plane")] == [5, 11, 17]
    assert [sorted(exact(one)) for one in measurements(found)] == [
        sorted(exact(History(record for record in history.records() if record.epoch == epoch))) for epoch in (1, 2, 3)
    ]
    before = sorted(folder.glob("events*"))
    assert replay(checkpoints, *NAMES) == 0
    assert "3 of 3 checkpoints are measured already" in capsys.readouterr().err
    assert sorted(folder.glob("events*")) == before


def test_an_interruption_keeps_what_was_measured(trained, checkpoints, pictures, monkeypatch, capsys):
    from lightning_ib.cli import replay as module

    _, history, _ = trained
    load, n = module.load_weights, iter(range(10))

    def interrupted(*arguments):
        if next(n) == 3:
            raise KeyboardInterrupt
        load(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "load_weights", interrupted)
        assert replay(checkpoints, *NAMES) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert {point.epoch for point in values(checkpoints / "replay")} == {1, 2}
    assert (checkpoints / "replay" / "information_plane.svg").is_file()
    assert replay(checkpoints, *NAMES) == 0
    assert exact(values(checkpoints / "replay")) == exact(after_training_began(history))


def test_edges_of_a_replay_stay_where_it_goes_on(tmp_path):
    """Without the callback in the run, the first checkpoint fits the edges, and later calls take them up."""
    files = run(tmp_path, None)
    options = [*NAMES, "--callback", f"{HERE}.in_bins"]
    assert replay(files, *options, "--output", tmp_path / "at once") == 0
    for epoch in range(3):
        assert replay(files / f"epoch={epoch}.ckpt", *options, "--output", tmp_path / "one by one") == 0
    assert exact(values(tmp_path / "one by one")) == exact(values(tmp_path / "at once"))


# -- a run of LightningCLI ---------------------------------------------------------------------------------------------


def test_the_config_of_a_lightning_cli(trained, checkpoints, tmp_path):
    pytest.importorskip("jsonargparse")
    _, history, _ = trained
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model:\n  class_path: {HERE}.Net\n  init_args:\n    width: 12\n"
        f"data:\n  class_path: {HERE}.Digits\n  init_args:\n    seed: 3\n    scale: 0.5\n"
        "trainer:\n  callbacks:\n    - class_path: lightning_ib.InformationPlaneCallback\n"
        "      init_args:\n        layers: [hidden]\n        prefix: mine\n"
    )
    assert replay(checkpoints, "--config", config) == 0
    found = History.read_csv(checkpoints / "replay" / "information_plane_mine.csv")
    hidden = History(record for record in after_training_began(history).records() if record.layer == "hidden")
    same = {"I_XT", "H_T", "I_TY"}
    assert {one[:6] for one in found.records() if one.quantity in same} == {
        one[:6] for one in hidden.records() if one.quantity in same
    }


def test_a_config_without_classes_takes_them_from_the_names(trained, checkpoints, tmp_path):
    pytest.importorskip("jsonargparse")
    _, history, _ = trained
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  width: 12\ndata:\n  seed: 3\n  scale: 0.5\n")
    assert replay(checkpoints, "--config", config, *NAMES) == 0
    assert exact(values(checkpoints / "replay")) == exact(after_training_began(history))


def test_data_of_the_model_itself(tmp_path):
    class_ = type("Whole", (TinyModule,), {"val_dataloader": lambda _: val_loader(), "train_dataloader": train_loader})
    module = sys.modules[HERE]
    module.Whole = class_
    try:
        torch.save(TinyModule().state_dict(), tmp_path / "epoch=4.pth")
        assert replay(tmp_path, "--model", f"{HERE}.Whole") == 0
    finally:
        del module.Whole
    assert {(point.epoch, point.n_samples) for point in values(tmp_path / "replay")} == {(4, 80)}
