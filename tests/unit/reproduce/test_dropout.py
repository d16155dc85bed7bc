"""The experiment ``dropout``: its layers, their modes, and a small run."""

import csv
import math

import pytest
import torch

from lightning_ib.reproduce import dropout
from lightning_ib.reproduce.dropout_training import (
    GaussianDropout,
    InformationDropout,
    Plan,
    measured,
    network,
    noise_on,
    noisy_layer,
    train,
)
from lightning_ib.reproduce.errors import ExperimentError
from lightning_ib.reproduce.experiment import Settings, Silent, seeded
from lightning_ib.reproduce.finished import FinishedRuns
from lightning_ib.reproduce.registry import experiment_of
from lightning_ib.reproduce.report import write_finding
from tests.helpers.samples import generator, normal

PLAN = Plan(("gaussian", "information"), 1, 1, (0, 1), n_train=64, n_components=40, draws=2, batch=32)
X, Y = torch.rand(64, 1, 28, 28, generator=generator()), torch.arange(64) % 10
DATA = (X, Y, X[:40], Y[:40])


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


def test_gaussian_dropout_is_the_channel_that_it_gives():
    layer, z = GaussianDropout(0.25), normal(1, 3).abs() + 0.5
    assert torch.equal(layer.eval()(z), z)
    mean, std = layer.channel(z)
    with seeded(0):
        t = layer.train()(z.expand(20_000, 3))
    torch.testing.assert_close(t.mean(0), mean[0], rtol=0.02, atol=0)
    torch.testing.assert_close(t.std(0), std[0], rtol=0.03, atol=0)
    assert torch.equal(std, 0.25 * z)


@torch.no_grad()
def test_information_dropout_is_the_channel_that_it_gives():
    with seeded(0):
        layer, x = InformationDropout(5, 3), torch.randn(1, 5)
        t = layer(x.expand(20_000, 5))
    mean, std = layer.channel(x)
    torch.testing.assert_close(t.log().mean(0).double(), mean[0], rtol=0.02, atol=0.01)
    torch.testing.assert_close(t.log().std(0).double(), std[0], rtol=0.03, atol=0)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), prior).sum()
    assert float(layer.rate) == pytest.approx(float(kl), rel=1e-5)
    torch.testing.assert_close(layer.eval()(x).double().log(), mean)


@pytest.mark.parametrize("method", PLAN.methods)
def test_measuring_leaves_every_mode_and_state(method):
    with seeded(0):
        model = network(method, 0.25)
    model.get_submodule("act1").eval()
    noisy_layer(model).eval()
    before, weights, state = modes(model), [p.clone() for p in model.parameters()], torch.get_rng_state()
    with seeded(1):
        measured(model, X[:40], Y[:40], PLAN)
    assert modes(model) == before
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_put_back_after_an_error():
    model = network("gaussian", 0.25).eval()
    with noise_on(model):
        assert [name for name, on in modes(model).items() if on] == ["noise"]
    with pytest.raises(RuntimeError), noise_on(model):
        model(torch.zeros(1, 1, 2, 2))
    assert not any(modes(model).values())


def test_a_run_depends_on_its_seed_alone():
    state = torch.get_rng_state()
    plan = PLAN._replace(measured=(1,))
    rows = train(DATA, plan, "gaussian", 0, lambda n: None)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert train(DATA, plan, "gaussian", 0, lambda n: None) == rows
    for row in rows:
        assert row["i_xt_lower"] - 3 * row["i_xt_lower_error"] <= row["i_xt_upper"] + 3 * row["i_xt_upper_error"]
        assert row["i_xt_lower"] <= row["i_xt_most"] == pytest.approx(math.log2(40))
        assert 0 <= row["cells_i_xt"] <= math.log2(40)


def test_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(dropout, "_CHANNEL_ROWS", 50)
    settings = Settings(True, FinishedRuns(tmp_path / "runs", {}))
    finding = dropout.experiment(DATA, PLAN, settings, Silent())
    assert len(finding.claims) == 4
    written = write_finding(experiment_of("dropout"), finding, tmp_path, "0")
    with written.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == 2 * ["gaussian"] + 2 * ["information"] + 4 * [dropout.CHANNEL]
    text = written.text.read_text(encoding="utf-8")
    assert "s² z²" in text
    assert "self.train()" in text
    assert written.picture.stat().st_size > 10_000
    assert all(settings.finished.has(f"{method} seed 0") for method in PLAN.methods)


def test_the_formula_of_the_original_reads_more_than_can_be(monkeypatch):
    """|z| in place of z²: a mixture tells apart no more than its components."""
    monkeypatch.setattr(dropout, "_CHANNEL_ROWS", 300)
    first, *_, last = dropout.known_channel()
    for row in (first, last):
        assert row["i_xt_lower"] - 3 * row["i_xt_lower_error"] < row["truth"]
        assert row["truth"] < row["i_xt_upper"] + 3 * row["i_xt_upper_error"]
    assert last["i_xt_lower"] <= last["i_xt_most"] < last["as_published"] - 3


ROW = {"method": "gaussian", "seed": 0, "i_xt_most": 10.0}


@pytest.mark.parametrize(
    ("values", "verdicts"),
    [
        ([(1, 1.1), (8, 8.5), (3, 3.2)], ["holds", "holds"]),
        ([(1, 1.1), (9.9, 150), (9.9, 160)], ["cannot be said", "cannot be said"]),
        ([(1, 1.1), (2, 9.5), (1, 1.5)], ["cannot be said", "holds"]),  # below the limit, and no reading
        ([(9.9, 140), (9.9, 150), (9.9, math.inf)], ["cannot be said", "cannot be said"]),
        ([(1, 1.1), (3, 3.2), (8, 8.5)], ["holds", "does not hold"]),
    ],
)
def test_verdicts(values, verdicts):
    rows = [ROW | {"epoch": k, "i_xt_lower": a, "i_xt_upper": b} for k, (a, b) in enumerate(values)]
    finite, *others = dropout.judged(rows, 2)
    assert finite.holds is None  # by construction
    assert [claim.verdict for claim in others] == verdicts


def test_runs_that_diverged_are_named_and_left_out():
    rows = [ROW | {"epoch": k, "i_xt_lower": 1.0 + k, "i_xt_upper": 1.5 + k} for k in range(3)]
    short = [row | {"seed": 1} for row in rows[:2]]
    for claim, alone in zip(dropout.judged(rows + short, 2), dropout.judged(rows, 2)):
        assert claim.found == f"{alone.found} Left out, since they diverged: Gaussian dropout, seed 1."
        assert claim.holds is alone.holds
    assert {claim.verdict for claim in dropout.judged(short, 2)} == {"cannot be said"}


def test_the_run_of_a_diverged_network_ends():
    done = []
    rows = train(DATA, PLAN._replace(rate=1e30, n_epochs=3), "gaussian", 0, done.append)
    assert [row["epoch"] for row in rows] == [0]
    assert sum(done) == 3


@pytest.mark.parametrize(
    ("lower", "upper", "holds"), [(2.9, 3.2, True), (2.9, 33.0, None), (3.5, 33.0, False), (1.0, 2.5, False)]
)
def test_a_known_channel_is_read_only_where_the_two_values_are_near(lower, upper, holds):
    row = {"dimensions": 1, "truth": 3.0, "as_published": 3.1, "i_xt_lower": lower, "i_xt_upper": upper}
    claim = dropout._about_the_channel([row | dict.fromkeys(("i_xt_lower_error", "i_xt_upper_error"), 0.1) | ROW])
    assert claim.holds is holds
    assert f"of 3 bits in 1 coordinates they are {lower:.3g} and {upper:.3g}" in claim.found


def test_without_mnist(tmp_path):
    with pytest.raises(ExperimentError, match="MNIST is needed: give --data-dir"):
        dropout.run(Settings(True, FinishedRuns(None, {})), Silent())
    with pytest.raises(ExperimentError, match="lacks train-images-idx3-ubyte"):
        dropout.run(Settings(True, FinishedRuns(None, {}), data_dir=tmp_path), Silent())
