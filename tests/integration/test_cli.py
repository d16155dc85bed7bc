"""LightningCLI: the callback, its quantizers, bins and pools from YAML."""

import importlib
import re
import sys

import pytest
import torch

from lightning_ib import CellQuantizer, FixedBins, InformationPlaneCallback, QuantileBins, UniformBins
from lightning_ib.records import History
from tests.helpers import ROOT
from tests.helpers.tiny import TinyModule, pl, train_loader, val_loader

pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse")

pytestmark = pytest.mark.usefixtures("few_pictures")

LightningCLI = importlib.import_module(f"{pl.__name__}.cli").LightningCLI


class Digits(pl.LightningDataModule):
    def train_dataloader(self):
        return train_loader()

    def val_dataloader(self):
        return val_loader()


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    # Lightning's own use of it is its own affair.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


def first_of_pair(batch):
    return batch[0], batch[1]


def cli(tmp_path, init_args, *more):
    config = tmp_path / "config.yaml"
    config.write_text(
        "trainer:\n  callbacks:\n    - class_path: lightning_ib.InformationPlaneCallback\n      init_args:\n"
        + "".join(f"        {line}\n" for line in init_args.splitlines())
    )
    options = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "enable_checkpointing": False, "default_root_dir": tmp_path}
    arguments = ["fit", f"--config={config}", *(f"--trainer.{k}={v}" for k, v in options.items()), *more]
    run = LightningCLI(TinyModule, Digits, save_config_callback=None, seed_everything_default=0, args=arguments)
    return next(c for c in run.trainer.callbacks if isinstance(c, InformationPlaneCallback))


@pytest.mark.slow
def test_layers_as_a_list_and_plain_options_from_yaml(tmp_path):
    callback = cli(
        tmp_path,
        "layers: [hidden, 'o*']\nunit: nats\nepochs: [1, 2]\nbeta: 2.0\n"
        "unpack: tests.integration.test_cli.first_of_pair",
        "--trainer.max_epochs=2",
    )
    assert [(point.epoch, point.layer, point.unit) for point in callback.history] == [
        (epoch, layer, "nats") for epoch in (0, 1, 2) for layer in ("hidden", "out")
    ]
    assert callback.unpack is first_of_pair


@pytest.mark.slow
def test_quantizers_bins_and_pools_from_yaml(tmp_path):
    callback = cli(
        tmp_path,
        """layers:
  hidden:
    class_path: lightning_ib.Quantizer
    init_args:
      pool: {class_path: torch.nn.AvgPool1d, init_args: {kernel_size: 2}}
      bins: {class_path: lightning_ib.UniformBins, init_args: {n_bins: 3, quantiles: [0.01, 0.99], per: layer}}
  act:
    class_path: lightning_ib.CellQuantizer
    init_args:
      max_cells: 3
      pool: {class_path: torch.nn.AvgPool1d, init_args: {kernel_size: 4}}
  drop:
  out:
    class_path: lightning_ib.Quantizer
    init_args:
      pool: {class_path: torch.nn.Softmax, init_args: {dim: 1}}
      bins: {class_path: lightning_ib.FixedBins, init_args: {edges: [0.1, 0.5]}}
input:
  class_path: lightning_ib.Quantizer
  init_args:
    bins: {class_path: lightning_ib.QuantileBins, init_args: {n_bins: 2, refit: true}}
data: train""",
    )
    asked = callback.plane.quantizers
    assert list(asked) == ["hidden", "act", "drop", "out"]
    assert isinstance(asked["hidden"].pool, torch.nn.AvgPool1d)
    assert isinstance(asked["hidden"].bins, UniformBins)
    assert (asked["hidden"].bins.quantiles, asked["hidden"].bins.per) == ((0.01, 0.99), "layer")
    assert isinstance(asked["act"], CellQuantizer)
    assert isinstance(asked["act"].pool, torch.nn.AvgPool1d)
    assert repr(asked["drop"]) == "CellQuantizer(256)"
    assert asked["act"].max_cells == 3
    assert isinstance(asked["out"].bins, FixedBins)
    assert callback.data == "train"
    own = callback.session.options["input"].bins
    assert isinstance(own, QuantileBins)
    assert own.refit
    assert all(point.h_t > 0 for point in callback.history)


@pytest.mark.parametrize(("asked", "head"), [("false", False), ("out", "out"), ("null", None)])
def test_what_the_default_measures_can_be_set_from_yaml(tmp_path, asked, head):
    estimator = "{class_path: lightning_ib.estimators.Soft, init_args: {n_anchors: 9}}"
    callback = cli(tmp_path, f"head: {asked}\nmax_samples: 60\nestimators: [knn, {estimator}]")
    assert callback.session.options["head"] is head or callback.session.options["head"] == head == "out"
    assert {point.n_samples for point in callback.history} == {60}
    assert [one.name for one in callback.plane.estimation.estimators] == ["knn", "soft"]
    assert callback.plane.estimation.estimators[1].n_anchors == 9
    assert (callback.plane.head is None) == (head is False)


def test_no_estimators_from_yaml(tmp_path):
    assert cli(tmp_path, "estimators: []").history.estimates() == []


def test_a_wrong_value_in_yaml_is_told_with_its_key(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli(tmp_path, "unit: bytes")
    assert re.search(r"unit", capsys.readouterr().err)


@pytest.mark.slow
def test_the_examples_config_trains_and_draws(programs, tmp_path):
    pytest.importorskip("pytorch_lightning", reason="the examples are written for pytorch_lightning")
    script, config = ROOT / "examples" / "mnist_cli.py", ROOT / "examples" / "mnist_cli.yaml"
    options = ["--data.which=digits", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"]
    options.append(f"--trainer.default_root_dir={tmp_path}")
    ran = programs.script(script, "fit", f"--config={config}", *options, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (history,) = tmp_path.rglob("information_plane.csv")
    assert len(History.read_csv(history)) == 3 * 3
    assert list(tmp_path.rglob("information_plane.png"))


def test_a_class_path_of_before_says_where_the_class_is(capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("trainer:\n  callbacks:\n  - class_path: lightning_ib.callback.InformationPlaneCallback\n")
    with pytest.raises(SystemExit):
        LightningCLI(TinyModule, Digits, run=False, args=["--config", str(config)])
    said = " ".join(capsys.readouterr().err.split())
    assert "lightning_ib.callback is in lightning_ib.callbacks now: take public names from lightning_ib itself" in said
